"""A user's own triplets: what is read, and one sentence for what is wrong."""

import json

import pytest
import torch

from wys.errors import WysError
from wys.image import write_image
from wys.training.folder import VALIDATION_EVERY, Folder, square
from wys.training.triplets import DataSettings, find_shards, generate


def test_reads_scales_and_holds_out(tmp_path, write_folder):
    write_folder(tmp_path)
    source = Folder(tmp_path)
    held_out = -(-24 // VALIDATION_EVERY)
    assert source.count("validation", 32) == held_out
    assert source.count("train", 32) == 24 - held_out
    batch = source.pairs("train", 0, 3, 32)
    assert batch.before.shape == (3, 3, 32, 32)
    assert batch.instructions == ["paint 1", "paint 2", "paint 3"]
    # The right half is painted; the crop is centred.
    assert batch.mask[:, :, 17:].all() and not batch.mask[:, :, :15].any()


def test_makes_shards_without_labels(tmp_path, write_folder):
    write_folder(tmp_path / "own")
    settings = DataSettings(size=16, large_size=32, shard=8)
    generate(Folder(tmp_path / "own"), settings, tmp_path / "data", workers=0)
    shards = find_shards(tmp_path / "data", "train", 16)
    assert sum(len(shard.instructions) for shard in shards) == 22
    assert shards[0].tensors["shapes"].shape == (8, 0)
    assert shards[0].images(torch.tensor([0]), "after").shape == (1, 3, 16, 16)


def test_a_given_mask_is_used(tmp_path, write_folder):
    lines = write_folder(tmp_path)
    mask = torch.zeros(1, 40, 56)
    mask[:, :20] = 1
    write_image(tmp_path / "m.png", mask)
    lines[1]["mask"] = "m.png"
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    found = Folder(tmp_path).pairs("train", 0, 1, 40).mask[0]
    assert found[:20].all() and not found[20:].any()


@pytest.mark.parametrize("size", [(30, 50), (50, 30), (7, 7)])
def test_square_keeps_the_centre(size):
    image = torch.rand(3, *size)
    side = min(size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    assert torch.equal(square(image, side), image[:, top : top + side, left : left + side])
    assert square(image, 16).shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "line 2 is not valid JSON"),
        ("[]", "line 2 is not a JSON object"),
        ('{"before": "0a.png", "after": "0b.png"}', 'has no "instruction"'),
        ('{"before": "no.png", "after": "0b.png", "instruction": "x"}', "does not exist"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, words, write_folder):
    lines = write_folder(tmp_path, count=2)
    (tmp_path / "metadata.jsonl").write_text(json.dumps(lines[0]) + "\n" + text)
    with pytest.raises(WysError, match=r"metadata\.jsonl, line 2") as error:
        Folder(tmp_path).count("train", 32)
    assert words in str(error.value)
    assert str(error.value).count("\n") == 0


def test_another_image_in_a_file_is_noticed(tmp_path, write_folder):
    write_folder(tmp_path, count=3)
    before = Folder(tmp_path).identity
    assert Folder(tmp_path).identity == before
    write_image(tmp_path / "1b.png", torch.rand(3, 40, 56))
    assert Folder(tmp_path).identity != before


def test_a_missing_list_or_a_pair_of_two_sizes_is_named(tmp_path, write_folder):
    with pytest.raises(WysError, match=r"metadata\.jsonl"):
        Folder(tmp_path).count("train", 32)
    write_folder(tmp_path, count=3)
    write_image(tmp_path / "1b.png", torch.zeros(3, 8, 8))
    with pytest.raises(WysError, match="differ in size"):
        Folder(tmp_path).pairs("train", 0, 1, 32)
    with pytest.raises(WysError, match="differ in size"):
        Folder(tmp_path).check()
