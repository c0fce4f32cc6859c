"""The whole recipe at toy size: it exports a stock pipeline and survives being killed."""

import json
import shutil
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionInstructPix2PixPipeline

import wys
from wys.diffusion.conditioning import Conditioning
from wys.diffusion.editor import LARGE
from wys.errors import WysError, WysWarning
from wys.store import read_tensors, write_json
from wys.training.autoencoder import AutoencoderSettings
from wys.training.denoiser import NetworkSettings, build_scheduler, noised
from wys.training.denoising import DenoiserSettings, Phase
from wys.training.folder import Folder
from wys.training.latents import LatentSet
from wys.training.learner import Learner
from wys.training.locator import LocatorSettings, answer, load_locator, locator_state
from wys.training.presets import CPU, GPU, VIEWS, Recipe
from wys.training.progress import read_log
from wys.training.recipe import teachers, train
from wys.training.run import (
    Run,
    notice_another_length,
    notice_another_locator_length,
    notice_cuts,
)
from wys.training.schedule import Schedule
from wys.training.triplets import DataSettings

TOY = Recipe(
    data=DataSettings(triplets=16, large_triplets=8, validation=8, size=32, large_size=48, shard=8),
    autoencoder=AutoencoderSettings(
        channels=(24, 32, 40), latent_channels=4, images=24, batch=8, crop=32
    ),
    denoiser=DenoiserSettings(
        network=NetworkSettings(text_width=32, text_layers=1, channels=(16, 16, 32), groups=8),
        phases=(Phase(32, 16, 8), Phase(48, 8, 4)),
        warmup=8,
        validation=8,
    ),
    locator=LocatorSettings(channels=(16, 16, 32), images=16, batch=8, warmup=8, validation=8),
    vocabulary=1000,
    precision="no",
)
OPTIONS = {"processes": 1, "workers": 0, "compile": False}
ASKED = wys.RelevanceSettings(source="locator")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("trained")
    train(Run(TOY, out, **OPTIONS))
    return out


def test_the_stock_pipeline_loads_and_runs_the_export(trained):
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(trained / "editor")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.unet.config.out_channels == 4
    assert pipeline.text_encoder.dtype == torch.float32
    image = torch.rand(1, 3, 48, 48)
    edited = pipeline("make it red", image=image, num_inference_steps=2, output_type="np").images
    assert edited.shape == (1, 48, 48, 3)
    assert np.isfinite(edited).all()


def test_the_export_is_small_safe_and_described(trained):
    editor = trained / "editor"
    files = [path for path in editor.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl", ".npy")]
    half = read_tensors(editor / "unet" / "diffusion_pytorch_model.safetensors")
    assert {value.dtype for value in half.values()} == {torch.float16}
    head = read_tensors(editor / "relevance_head.safetensors")
    assert head["weight"].shape == (1, 16, 3, 3) and head["bias"].shape == (1,)
    assert {"vocab.json", "merges.txt", "tokenizer.json"} <= {path.name for path in files}
    card = (editor / "README.md").read_text()
    assert str(trained) not in card
    assert "40 triplets" in card.replace("\n", " ")
    assert "PSNR" in card and "cores" in card
    assert "- locator: 16 images" in card and "IoU of the locator's mask" in card
    assert json.loads((editor / "wys.json").read_text())["size"] == 48


def test_the_export_scales_latents_as_training_did(trained):
    scale = json.loads((trained / "latents" / "scale.json").read_text())["scaling_factor"]
    config = json.loads((trained / "editor" / "vae" / "config.json").read_text())
    assert config["scaling_factor"] == scale != 0.18215


def test_pictures_and_log_are_written(trained):
    for name in ("autoencoder", "denoiser", "locator"):
        for picture in (name, f"{name}_curves"):
            assert (trained / "sheets" / f"{picture}.png").stat().st_size > 1000
    entries = [json.loads(line) for line in (trained / "log.jsonl").read_text().splitlines()]
    assert {entry["stage"] for entry in entries} == {"autoencoder", "denoiser", "locator"}
    assert 0 <= read_log(trained / "log.jsonl", "denoiser")[-1]["grounding_head"] <= 1
    assert 0 <= entries[-1]["locator_iou"] <= 1


@pytest.mark.parametrize("stage", ["autoencoder", "denoiser", "locator"])
def test_a_killed_run_goes_on_exactly(trained, tmp_path, monkeypatch, stage):
    for name in ("data", "tokenizer", "latents", "state"):
        (tmp_path / name).symlink_to(trained / name)
    (tmp_path / "state").unlink()
    (tmp_path / "state").mkdir()
    for earlier in ("autoencoder", "denoiser"):
        if earlier == stage:
            break
        name = f"{earlier}.safetensors"
        (tmp_path / "state" / name).symlink_to(trained / "state" / name)
    step = Learner.step

    def killed(self, loss, schedule, images):
        if self.position.step == (1 if stage == "locator" else 2):
            raise KeyboardInterrupt
        return step(self, loss, schedule, images)

    monkeypatch.setattr(Learner, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        train(Run(TOY, tmp_path, stages=(stage,), save_minutes=0.0, **OPTIONS))
    monkeypatch.undo()
    train(Run(TOY, tmp_path, stages=(stage,), **OPTIONS))
    whole = read_tensors(trained / "state" / f"{stage}.safetensors")
    resumed = read_tensors(tmp_path / "state" / f"{stage}.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_figures_that_a_kill_came_before_are_made_up_for(trained, tmp_path):
    for name in ("data", "tokenizer", "latents", "state"):
        (tmp_path / name).symlink_to(trained / name)
    for _ in range(2):
        train(Run(TOY, tmp_path, stages=("denoiser",), **OPTIONS))
        (entry,) = read_log(tmp_path / "log.jsonl", "denoiser")
        assert entry["images"] == 24
    last = read_log(trained / "log.jsonl", "denoiser")[-1]
    assert entry["grounding_head"] == last["grounding_head"]


def test_a_run_stays_with_the_editor_that_it_began_with(trained, tmp_path):
    editor, out = trained / "editor", tmp_path / "more"
    train(Run(TOY, out, stages=("data", "tokenizer"), start=editor, **OPTIONS))
    train(Run(TOY, out, stages=(), start=Path(shutil.copytree(editor, tmp_path / "x")), **OPTIONS))
    with pytest.raises(WysError, match="was begun with an editor that is not this one"):
        train(Run(TOY, out, stages=(), **OPTIONS))
    with pytest.raises(WysError, match="was begun from nothing"):
        train(Run(TOY, trained, stages=(), start=editor, **OPTIONS))


@pytest.mark.parametrize("name", ["relevance_head.safetensors", "unet", "vae", "text_encoder"])
def test_an_editor_that_is_not_whole_is_refused_before_the_work(trained, tmp_path, name):
    editor = Path(shutil.copytree(trained / "editor", tmp_path / "editor"))
    if name.endswith(".safetensors"):
        (editor / name).unlink()
    else:
        (file,) = (editor / name).glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(WysError, match=name):
        train(Run(TOY, tmp_path / "run", start=editor, **OPTIONS))
    assert not (tmp_path / "run").exists()


def test_instructions_that_are_cut_are_told(trained, tmp_path, write_folder):
    lines = write_folder(tmp_path / "own", count=3)
    lines[1]["instruction"] = " ".join(["red cube"] * 40)
    text = "\n".join(json.dumps(line) for line in lines)
    (tmp_path / "own" / "metadata.jsonl").write_text(text)
    with pytest.warns(WysWarning, match="1 of 3 instructions have more than the 30 tokens"):
        notice_cuts(Folder(tmp_path / "own"), trained)


def test_another_network_does_not_take_the_state(trained):
    other = Recipe(
        data=TOY.data,
        autoencoder=AutoencoderSettings(
            channels=(24, 32, 48), latent_channels=4, images=24, batch=8, crop=32
        ),
        precision="no",
    )
    with pytest.raises(WysError, match="other settings"):
        train(Run(other, trained, stages=("autoencoder",), **OPTIONS))


@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16"), (False, "no")])
def test_bfloat16_is_used_where_the_machine_is_faster_in_it(tmp_path, monkeypatch, fast, precision):
    monkeypatch.setattr("wys.training.recipe.multiplies_bfloat16", lambda device: fast)
    train(Run(replace(TOY, precision="auto"), tmp_path, stages=(), **OPTIONS))
    [run] = json.loads((tmp_path / "record.json").read_text())
    assert run["recipe"]["precision"] == precision


def test_a_stage_without_its_data_says_so(tmp_path):
    with pytest.raises(WysError, match="data stage"):
        train(Run(TOY, tmp_path, stages=("autoencoder",), **OPTIONS))


def test_a_stage_without_its_tokenizer_says_so(trained, tmp_path):
    """And asks no hub for one."""
    for stage in ("latents", "denoiser", "export"):
        copy = tmp_path / stage
        shutil.copytree(trained, copy)
        shutil.rmtree(copy / "tokenizer")
        for path in (copy / "latents").rglob("*.safetensors"):
            path.unlink()
        with pytest.raises(WysError, match="tokenizer; run the tokenizer stage"):
            train(Run(TOY, copy, stages=(stage,), **OPTIONS))


def test_ones_own_triplets_are_learnt(tmp_path, write_folder):
    write_folder(tmp_path / "own", size=(48, 60))
    train(Run(TOY, tmp_path / "run", data=tmp_path / "own", **OPTIONS))
    entries = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert entries[-1]["images"] == 16 and entries[-1]["change"] > 0
    card = (tmp_path / "run/editor/README.md").read_text()
    assert "24 triplets" in card and "of the folder own" in card and "from nothing" in card
    assert StableDiffusionInstructPix2PixPipeline.from_pretrained(tmp_path / "run/editor")
    with pytest.raises(WysError, match="another source"):
        train(Run(TOY, tmp_path / "run", **OPTIONS))


def test_what_is_missing_is_said_before_the_work(trained, tmp_path):
    for options, words in (
        ({"device": "cuda"}, "cuda is not available"),
        ({"processes": 3}, "3 processes cannot share batches of 4 images; take from 1 to 2"),
        ({"processes": 0}, "0 processes cannot share"),
        ({"workers": -1}, "0 workers or more, not by -1"),
        ({"save_minutes": float("nan")}, "0 or more, not nan"),
        ({"save_minutes": -1.0}, "0 or more, not -1"),
        ({"start": trained / "nowhere"}, "no folder unet"),
    ):
        if options.get("device") == "cuda" and torch.cuda.is_available():
            continue
        with pytest.raises(WysError, match=words):
            train(Run(TOY, tmp_path / "run", **{**OPTIONS, **options}))
    assert not (tmp_path / "run").exists()


def test_an_editor_is_trained_further(trained, tmp_path):
    """Its tokenizer and autoencoder stay, its weights are where training begins."""
    editor = trained / "editor"
    still = replace(TOY, denoiser=replace(TOY.denoiser, peak_rate=1e-12, final_rate=1.0))
    train(Run(still, tmp_path / "more", start=editor, **OPTIONS))
    for part in ("unet", "vae"):
        name = f"{part}/diffusion_pytorch_model.safetensors"
        old, new = read_tensors(editor / name), read_tensors(tmp_path / "more/editor" / name)
        for key, value in old.items():
            torch.testing.assert_close(new[key], value, atol=2e-3, rtol=2e-3)
    assert (tmp_path / "more/tokenizer/vocab.json").read_bytes() == (
        editor / "tokenizer/vocab.json"
    ).read_bytes()
    assert not (tmp_path / "more/state/autoencoder.safetensors").exists()
    for text in [*(tmp_path / "more/editor").rglob("*.json"), tmp_path / "more/editor/README.md"]:
        assert str(editor) not in text.read_text(), f"{text} names a folder of this machine"
    assert "further from the editor editor" in (tmp_path / "more/editor/README.md").read_text()
    with pytest.raises(WysError, match="cannot be trained further"):
        wide = NetworkSettings(text_width=32, text_layers=1, channels=(16, 32, 32), groups=8)
        other = replace(TOY, denoiser=replace(TOY.denoiser, network=wide))
        train(Run(other, tmp_path / "other", start=editor, **OPTIONS))
    # Told before any triplet is made.
    assert not (tmp_path / "other").exists()


def test_an_editor_gets_a_locator_and_is_else_as_it_was(trained, tmp_path):
    """From its own triplets and another run's as well; the stock pipeline passes over it."""
    editor = tmp_path / "editor"
    shutil.copytree(trained / "editor", editor, ignore=shutil.ignore_patterns("locator"))
    with pytest.raises(WysError, match="has no locator"):
        wys.relevance_map(wys.Editor.load(str(editor)), torch.rand(3, 48, 48), "red", ASKED)
    first, other = tmp_path / "first", tmp_path / "other"
    made = ("data", "tokenizer", "latents")
    train(Run(replace(TOY, data=replace(TOY.data, seed=5)), other, made, start=editor, **OPTIONS))
    stages = (*made, "locator", "export")
    train(Run(TOY, first, stages, start=editor, also=(other,), **OPTIONS))
    for name in ("unet/diffusion_pytorch_model", "text_encoder/model", "relevance_head"):
        old, new = (read_tensors(e / f"{name}.safetensors") for e in (editor, first / "editor"))
        assert all(torch.equal(new[key], value) for key, value in old.items()) and old
    assert (
        json.loads((first / "editor" / "wys.json").read_text())["relevance"]["source"] == "locator"
    )
    card = (first / "editor" / "README.md").read_text()
    assert "those of other as well" in card and str(tmp_path) not in card
    found = wys.Editor.load(str(first / "editor"))
    pipeline = StableDiffusionInstructPix2PixPipeline.from_pretrained(first / "editor")
    assert not hasattr(pipeline, "locator")

    # What the export says is what the trained network says, but for the weights' 16 bits.
    text = found.pipeline.text_encoder
    held_out = LatentSet(first / "latents", "validation", 48).first(8)
    scale = json.loads((first / "latents" / "scale.json").read_text())["scaling_factor"]
    network = load_locator(TOY.locator, TOY.denoiser.network, first, 4, 12)
    denoiser, teacher = teachers(TOY, first, editor)
    noise, t = torch.randn(held_out.before.shape), torch.full((8,), 800)
    everywhere = torch.ones(8, dtype=torch.bool)
    alphas = build_scheduler().alphas_cumprod
    given = noised(
        held_out,
        scale,
        t,
        noise,
        alphas,
        null_tokens=held_out.tokens[0],
        has_text=everywhere,
        has_image=everywhere,
        from_input=everywhere,
    )
    with torch.no_grad():
        expected = answer(network, denoiser, teacher, given, scale)[0][:, :1].sigmoid()
        words = text(held_out.tokens).last_hidden_state
    told = Conditioning(scale * held_out.before, held_out.before, words, words)
    z = found.schedule.add_noise(told.z0, noise, t)
    prediction = found.predict(z, t, told, ("full",), change=True)
    large = (prediction.change > 0.5).float().mean((1, 2, 3), keepdim=True) > LARGE
    expected = torch.where(large, prediction.change, prediction.change.minimum(expected))
    assert (found.locate(z, t, told, prediction) - expected).abs().max() < 5e-3

    # Where nothing is trained, it stays; and it is trained further as it is.
    train(Run(TOY, tmp_path / "kept", (*made, "export"), start=first / "editor", **OPTIONS))
    name = "editor/locator/diffusion_pytorch_model.safetensors"
    old, new = read_tensors(first / name), read_tensors(tmp_path / "kept" / name)
    assert all(torch.equal(new[key], value) for key, value in old.items()) and old
    still = replace(TOY, locator=replace(TOY.locator, peak_rate=1e-12, final_rate=1.0))
    train(Run(still, tmp_path / "on", stages, start=first / "editor", **OPTIONS))
    new = read_tensors(tmp_path / "on" / name)
    for key, value in old.items():
        torch.testing.assert_close(new[key], value, atol=2e-3, rtol=2e-3)


def test_a_locator_learns_only_from_runs_that_were_begun_alike(trained, tmp_path):
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    locator_state(copy).unlink()
    for name, values, words in (
        ("latents/scale.json", {"scaling_factor": 3.0}, r"its latents/scale.json is another"),
        ("data/index.json", {"labelled": False}, "they are of another source"),
        ("beginning.json", {"vae/x": "0"}, r"its beginning.json is another"),
    ):
        other = Path(shutil.copytree(trained, tmp_path / Path(name).stem))
        write_json(other / name, values)
        with pytest.raises(WysError, match=words):
            train(Run(TOY, copy, ("locator",), also=(other,), **OPTIONS))
    # Told before any work.
    with pytest.raises(WysError, match=r"no run to learn from too: it has no latents/scale.json"):
        train(Run(TOY, tmp_path / "new", also=(tmp_path,), **OPTIONS))
    assert not (tmp_path / "new").exists()
    (copy / "latents" / "scale.json").unlink()
    with pytest.raises(WysError, match="run the tokenizer and latents stages"):
        train(Run(TOY, copy, ("locator",), also=(trained,), **OPTIONS))


def test_a_locator_stays_with_the_networks_that_it_was_taught_with(trained, tmp_path):
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    with pytest.raises(WysError, match=r"delete .*locator.safetensors first"):
        train(Run(TOY.of_length(96), copy, ("denoiser",), **OPTIONS))
    train(Run(TOY, copy, **OPTIONS))
    write_json(locator_state(copy).with_suffix(".json"), {"taught_with": "others"})
    for stage in ("locator", "export"):
        with pytest.raises(WysError, match="was taught with another denoiser or text"):
            train(Run(TOY, copy, (stage,), **OPTIONS))


def test_settings_that_do_not_ask_a_new_locator_are_told(trained, tmp_path):
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    write_json(copy / "editor" / "wys.json", {"version": 1})
    with pytest.warns(WysWarning, match="does not ask the locator"):
        train(Run(TOY, copy, ("export",), **OPTIONS))


def test_a_locator_is_trained_in_two_processes(trained, tmp_path):
    for name in ("data", "tokenizer", "latents"):
        (tmp_path / name).symlink_to(trained / name)
    shutil.copytree(trained / "state", tmp_path / "state")
    locator_state(tmp_path).unlink()
    train(Run(TOY, tmp_path, ("locator",), processes=2, workers=0))
    assert read_log(tmp_path / "log.jsonl", "locator")[-1]["images"] == 16


def test_a_locator_of_other_widths_is_not_trained_further(trained, tmp_path):
    wide = replace(TOY, locator=replace(TOY.locator, channels=(16, 32, 32)))
    with pytest.raises(WysError, match="its locator has the block_out_channels"):
        train(Run(wide, tmp_path / "other", start=trained / "editor", **OPTIONS))
    assert not (tmp_path / "other").exists()


def test_a_locator_needs_networks_that_read(trained, tmp_path):
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    (copy / "state" / "denoiser.safetensors").unlink()
    for stage in ("locator", "export"):
        with pytest.raises(WysError, match="run the denoiser stage"):
            train(Run(TOY, copy, (stage,), **OPTIONS))


def test_a_length_is_shared_by_the_phases_and_the_rate_ends_with_it():
    assert CPU.of_length(CPU.denoiser.images) == CPU
    for recipe, images in ((CPU, 96), (CPU, 12_000), (CPU, 1_000_000), (GPU, 768), (GPU, 500_000)):
        short = recipe.of_length(images)
        shares = [phase.images / phase.batch for phase in short.denoiser.phases]
        assert all(share >= 1 and share == int(share) for share in shares)
        batches = sum(phase.batch for phase in recipe.denoiser.phases)
        assert abs(short.denoiser.images - images) <= batches / 2
        for old, new in zip(recipe.denoiser.phases, short.denoiser.phases, strict=True):
            exact = images * old.images / recipe.denoiser.images
            assert abs(new.images - exact) <= old.batch and new.size == old.size
        now = short.denoiser
        assert now.warmup <= max(images // 10, 1) and short == recipe.of_length(images)
        rate = Schedule(now.images, now.peak_rate, now.warmup, now.final_rate).rate
        assert rate(now.images) == pytest.approx(now.peak_rate * now.final_rate)
        ratio = short.locator.images / recipe.locator.images
        one = recipe.locator.batch / recipe.locator.images
        assert abs(ratio - short.denoiser.images / recipe.denoiser.images) <= 2 * one
    assert CPU.of_length(12_000).autoencoder == CPU.autoencoder
    assert CPU.of_length(960).autoencoder.images == 960
    # Of a shorter training there are fewer triplets, in whole files.
    data = CPU.of_length(35_200).data
    assert data.triplets == 8 * 1024 and data.large_triplets == 3 * 1024
    assert CPU.of_length(1_000_000).data == CPU.data
    with pytest.raises(WysError, match=r"at least 96 images.*not on 95; give --images 96"):
        CPU.of_length(95)


def test_few_triplets_are_not_shown_as_often_as_many():
    assert CPU.for_triplets(11) == CPU.of_length(11 * VIEWS)
    assert CPU.for_triplets(20_000) == CPU
    assert GPU.for_triplets(1).denoiser.images >= sum(p.batch for p in GPU.denoiser.phases)


def test_the_plan_is_told_before_the_work(tmp_path, capsys):
    with pytest.raises(WysError, match="data stage"):
        train(Run(TOY, tmp_path, stages=("autoencoder", "denoiser", "locator"), **OPTIONS))
    told = capsys.readouterr().out
    assert told.startswith(
        "Plan: 24 images for the autoencoder, 24 for the editor (16 of 32 pixels, 8 of 48 pixels), "
        "16 for the locator; "
    )
    assert "--images" in told and "?" not in told


def test_a_run_that_goes_on_with_another_length_says_so(tmp_path):
    write_json(tmp_path / "record.json", [{"recipe": asdict(TOY)}])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notice_another_length(TOY.of_length(96), tmp_path)
        (tmp_path / "state").mkdir()
        (tmp_path / "state" / "denoiser.safetensors").touch()
        notice_another_length(TOY, tmp_path)
    with pytest.warns(WysWarning, match=r"towards 24 images .* towards 96, .* --images 24 keeps"):
        notice_another_length(TOY.of_length(96), tmp_path)
    longer = replace(TOY, locator=replace(TOY.locator, images=80))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        notice_another_locator_length(longer, tmp_path)
        (tmp_path / "state" / "locator.safetensors").touch()
        notice_another_locator_length(TOY, tmp_path)
    with pytest.warns(WysWarning, match=r"towards 16 .* 80, .* --recipe.locator.images 16 keeps"):
        notice_another_locator_length(longer, tmp_path)
    # What another stage was run with does not count.
    runs = [{"recipe": asdict(TOY)}, {"recipe": asdict(longer), "stages": ["export"]}]
    write_json(tmp_path / "record.json", runs)
    with pytest.warns(WysWarning, match=r"towards 16 images .* towards 80"):
        notice_another_locator_length(longer, tmp_path)
