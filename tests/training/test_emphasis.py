"""What is drawn how often, and what is taught inside the UNet."""

import json
from dataclasses import replace

import pytest
import torch

from wys.errors import WysError
from wys.store import read_tensors, write_tensors
from wys.tabletop.edits import KINDS, Recolour, Remove
from wys.tabletop.instructions import Description
from wys.tabletop.pairs import make_pairs
from wys.tabletop.raytracer import object_ids
from wys.tabletop.world import COLOURS, PLAIN
from wys.training.denoiser import (
    LABELS,
    DeepSupervision,
    Heads,
    LossSettings,
    NetworkSettings,
    Noised,
    build_unet,
    label_losses,
    losses,
)
from wys.training.denoising import DenoiserSettings
from wys.training.latents import Batch, LatentSet
from wys.training.triplets import (
    CLASSES,
    NAMINGS,
    NO_OBJECT,
    DataSettings,
    ShardFile,
    Tabletop,
    generate,
    naming,
    shard_tensors,
)

CHANNELS = 4


@pytest.mark.parametrize(
    ("description", "alone", "expected"),
    [
        (None, False, "nothing"),
        (Description(shape="cube"), True, "nothing"),
        (Description(shape="cube"), False, "words"),
        (Description(size="small", material="metal"), False, "words"),
        (Description(shape="cube", colour="red"), False, "colour"),
        (Description(colour="red", position="leftmost"), False, "position"),
    ],
)
def test_objects_are_told_by_the_plainest_of_their_words(description, alone, expected):
    assert naming(description, alone) == expected


def test_a_shard_knows_what_its_objects_are_named_by():
    pairs = make_pairs(3, "train", 0, 16, size=16, scene_range=PLAIN, edits_per_scene=4)
    tensors = shard_tensors(pairs, 4)
    several = (tensors["shapes"] >= 0).sum(1)[tensors["scene"]] > 1
    for i, description in enumerate(pairs.descriptions):
        name = NAMINGS[int(tensors["naming"][i])]
        if description is None or not several[i]:
            assert name == "nothing"
        else:
            assert (name == "colour") == (description.colour is not None) or name == "position"


def latents(folder, naming_of_rows, kinds=("remove",)):
    """A set of 3 shards of scenes with 4 triplets, all alike but for number, naming and kind."""
    rows = torch.tensor(naming_of_rows, dtype=torch.uint8)
    for shard in range(3):
        n = len(rows)
        scenes = n // 4
        tensors = {
            "before": torch.zeros(scenes, CHANNELS, 4, 4).half(),
            "after": torch.arange(n).half().view(-1, 1, 1, 1).expand(-1, CHANNELS, 4, 4).clone(),
            "changed": torch.zeros(n, 4, 4, dtype=torch.uint8),
            "coverage": torch.zeros(scenes, 2, 4, 4, dtype=torch.uint8),
            "after_coverage": torch.zeros(n, 2, 4, 4, dtype=torch.uint8),
            **{k: torch.zeros(scenes, 2, dtype=torch.int8) for k in CLASSES},
            **{f"after_{k}": torch.zeros(n, 2, dtype=torch.int8) for k in CLASSES},
            "target": torch.ones(n, dtype=torch.uint8),
            "tokens": torch.zeros(n, 8, dtype=torch.int16),
            "scene": torch.arange(n, dtype=torch.int32) // 4,
            "naming": rows,
        }
        texts = {
            "kinds": json.dumps([kinds[i % len(kinds)] for i in range(n)]),
            "instructions": json.dumps(["x"] * n),
        }
        write_tensors(folder / "16" / f"train-{shard:08d}.safetensors", tensors, texts)


def test_triplets_are_drawn_as_often_as_asked(tmp_path):
    latents(tmp_path, [0, 1, 2, 3] * 8)
    emphasis = (1.0, 0.0, 2.0, 5.0)
    drawn = LatentSet(tmp_path, "train", 16, emphasis).draw(
        4000, 1, torch.Generator().manual_seed(0)
    )
    shares = torch.bincount(drawn.naming, minlength=4) / 4000
    torch.testing.assert_close(shares, torch.tensor(emphasis) / 8, atol=0.03, rtol=0)


def test_kinds_are_drawn_as_often_as_asked(tmp_path):
    latents(tmp_path, [0] * 32, kinds=("add", "remove", "floor", "size"))
    drawn = LatentSet(tmp_path, "train", 16, kinds={"add": 3.0, "size": 1.5}).draw(
        4000, 1, torch.Generator().manual_seed(0)
    )
    shares = torch.tensor([drawn.kinds.count(k) / 4000 for k in ("add", "remove", "floor", "size")])
    torch.testing.assert_close(shares, torch.tensor([3, 1, 1, 1.5]) / 6.5, atol=0.03, rtol=0)


def test_a_larger_set_of_other_kinds_adds_to_what_a_folder_holds(tmp_path):
    settings = DataSettings(
        triplets=16, large_triplets=8, validation=8, size=32, large_size=48, shard=8
    )
    generate(Tabletop(settings), settings, tmp_path, workers=0)
    held = [path.read_bytes() for path in sorted((tmp_path / "32").glob("train-*"))]
    more = replace(settings, triplets=32, kinds=("add", "add", "size"))
    generate(Tabletop(more), more, tmp_path, workers=0)
    paths = sorted((tmp_path / "32").glob("train-*"))
    assert [path.read_bytes() for path in paths[:2]] == held
    assert {kind for path in paths[2:] for kind in ShardFile(path).kinds} == {"add", "size"}


def test_objects_are_alike_only_in_training():
    usual = Tabletop(DataSettings(size=32))
    alike = Tabletop(replace(usual.settings, alike=1.0))
    assert usual.identity != alike.identity
    for split, same in (("train", False), ("validation", True)):
        shapes = [source.pairs(split, 0, 8, 32).shapes for source in (usual, alike)]
        assert torch.equal(*shapes) == same


def test_objects_are_named_by_their_place_only_in_training():
    usual = Tabletop(DataSettings(size=32, kinds=("remove",)))
    placed = Tabletop(replace(usual.settings, by_place=1.0))
    assert usual.identity != placed.identity
    shares = {}
    for split in ("train", "validation"):
        for name, source in (("usual", usual), ("placed", placed)):
            named = source.pairs(split, 0, 48, 32).descriptions
            shares[split, name] = sum(each.position is not None for each in named) / len(named)
    assert shares["train", "placed"] > 0.5 > shares["train", "usual"]
    assert shares["validation", "placed"] == shares["validation", "usual"]


def test_what_an_earlier_version_made_is_refused(tmp_path):
    latents(tmp_path, [0, 1, 2, 3])
    path = tmp_path / "16" / "train-00000000.safetensors"
    old = {k: v.clone() for k, v in read_tensors(path).items() if k != "after_shapes"}
    write_tensors(path, old, {"kinds": "[]", "instructions": "[]"})
    with pytest.raises(WysError, match="earlier version"):
        LatentSet(tmp_path, "train", 16).draw(4, 1, torch.Generator())
    with pytest.raises(WysError, match="above 0"):
        DenoiserSettings(emphasis=(1.0, 0.0, 1.0, 1.0))
    with pytest.raises(WysError, match="above 0"):
        DenoiserSettings(kind_emphasis={"add": 0.0})


def test_a_group_shares_its_scene_and_repeats_nothing(tmp_path):
    latents(tmp_path, [2, 0, 0, 0, 1, 3, 3, 0])
    drawn = LatentSet(tmp_path, "train", 16).draw(200, 2, torch.Generator().manual_seed(1))
    number = drawn.after[:, 0, 0, 0].long()
    first, second = number[::2], number[1::2]
    assert torch.equal(first // 4, second // 4) and (first != second).all()


@pytest.fixture
def unet():
    torch.manual_seed(0)
    settings = NetworkSettings(text_width=16, channels=(16, 16, 32), groups=8)
    return build_unet(settings, 2 * CHANNELS, sum(Heads(CHANNELS).sizes), 16)


def run(unet):
    """One forward pass of random values."""
    draw = torch.Generator().manual_seed(2)
    sample = torch.randn(2, 2 * CHANNELS, 16, 16, generator=draw)
    text = torch.randn(2, 5, 16, generator=draw)
    return unet(sample, torch.tensor([800, 10]), encoder_hidden_states=text).sample


def test_labels_are_predicted_wherever_text_is_attended_to(unet):
    deep = DeepSupervision(unet)
    plain = run(unet)
    assert [tuple(p.shape) for p in deep.predictions] == [
        (2, sum(LABELS), side, side) for side in (8, 4, 4, 8)
    ]
    first = [p.clone() for p in deep.predictions]
    assert torch.equal(run(unet), plain)
    # Those of the last pass, not of all passes.
    assert len(deep.predictions) == 4
    assert all(torch.equal(a, b) for a, b in zip(first, deep.predictions, strict=True))


def example():
    """A batch of two with a target each, and how it was noised."""
    coverage = torch.zeros(2, 2, 16, 16)
    coverage[:, 0, :8, :8] = 1
    coverage[:, 1, 8:, 8:] = 1
    batch = Batch(
        before=torch.zeros(2, CHANNELS, 16, 16),
        after=torch.zeros(2, CHANNELS, 16, 16),
        changed=coverage[:, :1],
        coverage=coverage,
        shapes=torch.tensor([[0, 1], [2, 0]]),
        colours=torch.tensor([[0, 1], [2, 0]]),
        materials=torch.tensor([[0, 1], [1, 0]]),
        after_coverage=coverage * torch.tensor([0.0, 1.0]).view(1, 2, 1, 1),
        after_shapes=torch.tensor([[-1, 1], [2, 3]]),
        after_colours=torch.tensor([[-1, 1], [2, 0]]),
        after_materials=torch.tensor([[-1, 1], [1, 0]]),
        target=torch.tensor([1, 2]),
        naming=torch.tensor([1, 2]),
        tokens=torch.zeros(2, 5).long(),
        kinds=["remove", "shape"],
    )
    both = torch.ones(2).bool()
    clean = torch.zeros(2, CHANNELS, 16, 16)
    sample, timestep = torch.zeros(2, 8, 16, 16), torch.zeros(2).long()
    return batch, Noised(sample, timestep, clean, batch.tokens, both, both)


def label_parts(labels, batch, given):
    """The losses of one prediction, by name."""
    told = {"has_text": given.has_text, "has_image": given.has_image}
    return label_losses((labels,), batch, LossSettings(), **told)[1]


def test_a_coarser_prediction_costs_what_it_costs_where_regions_keep_their_shape():
    batch, given = example()
    values = torch.randn(2, sum(LABELS), 2, 2, generator=torch.Generator().manual_seed(3))
    fine, coarse = (
        label_parts(values.repeat_interleave(k, -1).repeat_interleave(k, -2), batch, given)
        for k in (8, 4)
    )
    assert (
        fine.keys()
        == coarse.keys()
        == {*["change", "overlap", "target", "shape", "material", "colour"]}
        | {"after_shape", "after_material", "after_colour"}
    )
    for name, value in fine.items():
        # One pixel is added to the overlap's areas, whatever its size.
        assert float(coarse[name]) == pytest.approx(float(value), abs=2e-2), name


def test_what_stands_there_afterwards_is_learnt_where_it_is_something_else():
    batch, given = example()
    values = torch.zeros(2, sum(LABELS), 16, 16)
    after = values.split(LABELS, dim=1)[5:]
    # The first image: an object of shape 0 was removed at the upper left. The second: one of shape
    # 0 became 3 at the lower right, and that of the upper left is gone too.
    after[0][0, 0, :8, :8] = after[0][1, 0, :8, :8] = after[0][1, 1 + 3, 8:, 8:] = 30
    after[1][1, 0, 8:, 8:] = after[2][1, 0, 8:, 8:] = 30
    values.requires_grad_()
    parts = label_parts(values, batch, given)
    names = ("after_shape", "after_material", "after_colour")
    assert all(float(parts[name]) < 1e-4 for name in names)

    forgetful = torch.zeros_like(values, requires_grad=True)
    torch.stack([label_parts(forgetful, batch, given)[name] for name in names]).sum().backward()
    touched = forgetful.grad.abs().amax(1) > 0
    expected = torch.zeros(2, 16, 16, dtype=torch.bool)
    expected[:, :8, :8] = expected[1, 8:, 8:] = True
    assert torch.equal(touched, expected)

    blind = Noised(**vars(given) | {"has_text": torch.zeros(2).bool()})
    without = label_parts(values, batch, blind)
    assert all(float(without[name]) == 0 for name in names)


def test_shards_hold_what_stands_there_afterwards():
    pairs = make_pairs(0, "train", 0, 20, scene_range=PLAIN, kinds=(*KINDS, "absent"), size=32)
    tensors = shard_tensors(pairs, 1)
    assert torch.equal(tensors["after_ids"].long(), object_ids(pairs.edited, pairs.cameras))
    for i, (edit, kind) in enumerate(zip(pairs.edits, pairs.kinds, strict=True)):
        was, now = (
            torch.stack([tensors[prefix + name][i] for name in CLASSES])
            for prefix in ("", "after_")
        )
        differ = (was != now).any(0).nonzero()[:, 0].tolist()
        if kind in ("absent", "floor", "background", "light"):
            assert differ == []
        if isinstance(edit, Recolour):
            assert differ == [edit.slot] and int(now[1, edit.slot]) == COLOURS.index(edit.colour)
        if isinstance(edit, Remove):
            assert now[:, edit.slot].tolist() == [NO_OBJECT] * 3


def test_what_is_taught_inside_reaches_the_layers_below(unet):
    deep = DeepSupervision(unet)
    batch, given = example()
    only_deep = LossSettings(clean=0.0, deep=1.0)
    total, parts = losses(run(unet).detach(), batch, given, only_deep, deep.predictions)
    total.backward()
    lowest = unet.down_blocks[1].attentions[0].transformer_blocks[0].attn2.to_k.weight
    assert lowest.grad is not None and float(lowest.grad.abs().max()) > 0
    assert unet.conv_out.weight.grad is None
    alone, _ = losses(run(unet).detach(), batch, given, only_deep)
    assert total.item() > alone.item() and set(parts) >= {"clean", "target"}
