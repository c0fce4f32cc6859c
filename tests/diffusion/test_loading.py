"""Loading editors from directories and files; what is no editor is refused in one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderTiny,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from safetensors.torch import save_file

import wys
from wys.diffusion import loading
from wys.diffusion.editor import Editor
from wys.errors import WysError
from wys.store import read_metadata, read_tensors, write_json, write_tensors


@pytest.fixture
def broken(editor_directory: Path, tmp_path: Path) -> Path:
    """A copy of a good editor, to be broken."""
    return Path(shutil.copytree(editor_directory, tmp_path / "broken"))


def refused(name: object, **options: object) -> str:
    with pytest.raises(WysError) as caught:
        Editor.load(str(name), **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_directory_loads_as_it_was_saved(
    editor_directory: Path, editor: Editor, images: torch.Tensor
) -> None:
    loaded = Editor.load(str(editor_directory))
    assert loaded.settings == wys.PAPER
    assert loaded.native_size == 32
    assert loaded.latent_factor == 4
    one = wys.relevance_map(editor, images, "make the ball red")
    two = wys.relevance_map(loaded, images, "make the ball red")
    assert torch.allclose(one.raw, two.raw, atol=1e-6)


def test_settings_and_head_are_read_from_the_directory(broken: Path) -> None:
    write_json(broken / "wys.json", {"version": 1, "size": 48, "edit": {"steps": 3}})
    head = {"weight": torch.randn(1, 16, 3, 3), "bias": torch.zeros(1)}
    write_tensors(broken / "relevance_head.safetensors", head)
    loaded = Editor.load(str(broken))
    assert loaded.native_size == 48
    assert loaded.settings.edit.steps == 3
    assert loaded.head is not None
    write_tensors(broken / "relevance_head.safetensors", {"weight": torch.zeros(1, 2, 3, 3)})
    assert "relevance head" in refused(broken)


def test_a_locator_is_read_from_the_directory(
    broken: Path, tiny_locator: UNet2DConditionModel, images: torch.Tensor
) -> None:
    folder = broken / "locator"
    tiny_locator.save_pretrained(folder)
    head = {"weight": torch.randn(1, 16, 3, 3), "bias": torch.zeros(1)}
    assert "no relevance head" in refused(broken)
    write_tensors(broken / "relevance_head.safetensors", head)
    loaded, how = Editor.load(str(broken)), wys.RelevanceSettings(source="locator")
    assert loaded.locator is not None and not loaded.locator.training
    own = Editor(loaded.pipeline, torch.device("cpu"), head=head, locator=tiny_locator)
    first, second = (wys.relevance_map(e, images, "make the ball red", how) for e in (loaded, own))
    assert torch.equal(first.raw, second.raw)
    assert loaded.fingerprint == own.fingerprint
    assert loaded.fingerprint != Editor.from_pipeline(loaded.pipeline).fingerprint
    weights = folder / "diffusion_pytorch_model.safetensors"
    tensors = read_tensors(weights)
    tensors.pop("conv_in.weight")
    write_tensors(weights, tensors, read_metadata(weights))
    assert "conv_in.weight" in refused(broken)
    weights.write_bytes(weights.read_bytes()[:5000])
    assert str(weights) in refused(broken)
    weights.unlink()
    assert "locator/*.safetensors" in refused(broken)
    (folder / "config.json").unlink()
    assert "locator/config.json" in refused(broken)


def test_a_locator_of_other_channels_is_refused(broken: Path, editor: Editor) -> None:
    editor.unet.save_pretrained(broken / "locator")
    head = {"weight": torch.randn(1, 16, 3, 3), "bias": torch.zeros(1)}
    write_tensors(broken / "relevance_head.safetensors", head)
    assert "locator" in refused(broken) and "(8, 4, 16), not (9, 1, 16)" in refused(broken)


@pytest.mark.parametrize(
    "has", [("wys.json", "relevance_head.safetensors", "locator/config.json"), ()]
)
def test_settings_and_head_come_from_a_hub_repository_too(
    broken: Path,
    tiny_locator: UNet2DConditionModel,
    monkeypatch: pytest.MonkeyPatch,
    has: tuple[str, ...],
) -> None:
    tiny_locator.save_pretrained(broken / "locator")
    write_json(broken / "wys.json", {"version": 1, "size": 48, "edit": {"steps": 3}})
    head = {"weight": torch.randn(1, 16, 3, 3), "bias": torch.zeros(1)}
    write_tensors(broken / "relevance_head.safetensors", head)

    def download(name: str, file: str) -> str:
        assert name == "someone/editor"
        if file not in (*has, "model_index.json"):
            raise EntryNotFoundError("404")
        return str(broken / file)

    kind = StableDiffusionInstructPix2PixPipeline
    load = kind.from_pretrained
    monkeypatch.setattr(loading, "hf_hub_download", download)
    monkeypatch.setattr(kind, "from_pretrained", lambda name, **how: load(str(broken), **how))
    network = UNet2DConditionModel.from_pretrained

    def from_the_hub(name: str, **how: object) -> UNet2DConditionModel:
        return network(str(broken) if name == "someone/editor" else name, **how)

    monkeypatch.setattr(UNet2DConditionModel, "from_pretrained", from_the_hub)
    loaded = Editor.load("someone/editor")
    assert loaded.settings.edit.steps == (3 if has else wys.PAPER.edit.steps)
    assert (loaded.head is not None) == (loaded.locator is not None) == bool(has)


class Unknown(RepositoryNotFoundError):
    """What the client raises, without the answer that it had from a server."""

    def __init__(self) -> None:
        OSError.__init__(self, "401")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (LocalEntryNotFoundError("no network"), "the hub cannot be reached"),
        (EntryNotFoundError("404"), "no diffusers pipeline"),
        (Unknown(), "the hub has no someone/editor"),
    ],
)
def test_what_the_hub_has_not_is_one_sentence(
    error: Exception, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(name: str, file: str) -> str:
        raise error

    monkeypatch.setattr(loading, "hf_hub_download", download)
    assert words in refused("someone/editor")


def test_numbers_and_memory_options(editor_directory: Path, images: torch.Tensor) -> None:
    options = {"vae_tiling": True, "vae_slicing": True, "attention_slicing": True, "max_batch": 1}
    loaded = Editor.load(str(editor_directory), dtype="bf16", **options)
    assert loaded.unet.dtype == torch.bfloat16
    edit = wys.edit_image(loaded, images, "make it red", wys.EditSettings(steps=1), force=True)
    assert edit.image.dtype == torch.float32
    assert Editor.load(str(editor_directory)).unet.dtype == torch.float32


def test_another_size_to_edit_at(editor_directory: Path, images: torch.Tensor) -> None:
    loaded = Editor.load(str(editor_directory), edit_size=64)
    assert loaded.native_size == 64
    edit = wys.edit_image(loaded, images, "make it red", wys.EditSettings(steps=1), force=True)
    assert edit.image.shape == images.shape
    assert edit.relevance is not None
    assert tuple(edit.relevance.raw.shape[-2:]) == tuple(
        side // loaded.latent_factor for side in loaded.fit((images.shape[-2], images.shape[-1]))
    )


@pytest.mark.usefixtures("unchecked")
def test_refusals_of_options(editor_directory: Path) -> None:
    assert "offloading" in refused(editor_directory, offload="model")
    assert "device warp" in refused(editor_directory, device="warp")
    assert "dtype int8" in refused(editor_directory, dtype="int8")
    assert "has no option speed" in refused(editor_directory, speed=3)
    assert "max_batch" in refused(editor_directory, max_batch=0)
    assert "16 to 16384 pixels, not at 8" in refused(editor_directory, edit_size=8)
    assert "leave --config out" in refused(editor_directory, config="x/y")
    assert "leave --variant out" in refused("absent.safetensors", variant="fp16")
    if not torch.cuda.is_available():
        assert "no device cuda" in refused(editor_directory, device="cuda")


def test_missing_editors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no editor nowhere" in refused("nowhere")
    assert "no model_index.json" in refused(tmp_path)
    assert "does not exist" in refused(tmp_path / "absent.safetensors")
    monkeypatch.setattr(loading.importlib.resources, "files", lambda _: tmp_path)
    assert "built-in editor's weights are not part" in refused("builtin")


@pytest.mark.parametrize(
    "part",
    [
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json",
    ],
)
def test_a_missing_file_is_named(broken: Path, part: str) -> None:
    (broken / part).unlink()
    message = refused(broken)
    assert part.split("/")[0] in message
    assert Path(part).suffix in message


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_file_cut_short_is_named(broken: Path, part: str) -> None:
    (file,) = (broken / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    assert f"{file} is cut short" in refused(broken)


def test_damaged_configuration(broken: Path) -> None:
    (broken / "unet" / "config.json").write_text("{")
    assert "cannot load the editor" in refused(broken)


def test_variants(broken: Path) -> None:
    def rename(part: str, variant: str) -> None:
        (file,) = (broken / part).glob("*.safetensors")
        file.rename(file.with_name(f"{file.name.split('.')[0]}{variant}.safetensors"))

    rename("unet", ".fp16")
    assert "variant fp16 only; name it with --variant" in refused(broken)
    # What does not come in the variant is taken without one.
    assert Editor.load(str(broken), variant="fp16").unet.config.in_channels == 8
    rename("unet", ".other")
    assert "unet/*.fp16*.safetensors" in refused(broken, variant="fp16")


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_weights_that_do_not_fit(broken: Path, part: str) -> None:
    (file,) = (broken / part).glob("*.safetensors")
    write_tensors(file, {"other": torch.zeros(1)})
    assert str(broken) in refused(broken)


def test_other_pipelines_are_refused(broken: Path) -> None:
    index = json.loads((broken / "model_index.json").read_text())
    for kind in ("StableDiffusionXLInstructPix2PixPipeline", "FluxKontextPipeline"):
        write_json(broken / "model_index.json", {**index, "_class_name": kind})
        assert f"is {kind}, which is not supported" in refused(broken)


def test_a_network_without_image_channels_is_refused(
    tiny_pipeline: Callable[..., Any], tmp_path: Path
) -> None:
    tiny_pipeline(in_channels=4).save_pretrained(tmp_path, safe_serialization=True)
    assert "takes 4 input channels" in refused(tmp_path)


def test_an_empty_tokenizer_is_refused(
    tiny_pipeline: Callable[..., Any], tiny_tokenizer: Callable[..., Any], broken: Path
) -> None:
    shutil.rmtree(broken / "tokenizer")
    (broken / "tokenizer").mkdir()
    (broken / "tokenizer" / "vocab.json").write_text('{"<|startoftext|>": 0, "<|endoftext|>": 1}')
    (broken / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    assert str(broken) in refused(broken)
    pipeline = tiny_pipeline()
    pipeline.tokenizer = type(tiny_tokenizer())()
    with pytest.raises(WysError, match="empty tokenizer"):
        Editor.from_pipeline(pipeline)


def test_single_files(tmp_path: Path) -> None:
    first = "model.diffusion_model.input_blocks.0.0.weight"
    for name in ("model.ckpt", "model.bin"):
        (tmp_path / name).write_bytes(b"pickle")
        assert "not a .safetensors file" in refused(tmp_path / name)
    path = tmp_path / "model.safetensors"
    save_file({"conditioner.embedders.0.x": torch.zeros(1)}, path)
    assert "Stable Diffusion XL" in refused(path)
    save_file({"x": torch.zeros(1)}, path)
    assert "no Stable Diffusion checkpoint" in refused(path)
    save_file({first: torch.zeros(320, 4, 3, 3)}, path)
    assert "takes 4 input channels" in refused(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert "cut short" in refused(path)


@pytest.mark.usefixtures("unchecked")
def test_live_pipelines(
    tiny_pipeline: Callable[..., Any], pipeline: StableDiffusionInstructPix2PixPipeline
) -> None:
    with pytest.raises(WysError, match="str is not supported"):
        Editor.from_pipeline("pipeline")  # type: ignore[arg-type]
    other = tiny_pipeline(in_channels=4)
    with pytest.raises(WysError, match="4 input channels"):
        Editor.from_pipeline(other)
    assert Editor.from_pipeline(pipeline).name == "the pipeline"
    tiny = tiny_pipeline()
    tiny.vae = AutoencoderTiny()
    with pytest.raises(WysError, match="AutoencoderTiny, which is not supported"):
        Editor.from_pipeline(tiny)


@pytest.mark.parametrize(
    ("file", "name", "value", "said"),
    [
        ("scheduler/scheduler_config.json", "timestep_spacing", "x", "x is not supported"),
        ("scheduler/scheduler_config.json", "num_train_timesteps", 0, "cannot load the editor"),
        ("scheduler/scheduler_config.json", "beta_end", 5, "betas beyond 0 and 1"),
        ("vae/config.json", "scaling_factor", None, "scaling_factor None"),
        ("vae/config.json", "scaling_factor", "a", "scaling_factor 'a'"),
        ("tokenizer/tokenizer_config.json", "model_max_length", 77, "takes up to 16"),
        ("tokenizer/tokenizer_config.json", "model_max_length", 2, "texts of 2 tokens"),
        ("tokenizer/tokenizer_config.json", "model_max_length", "x", "model_max_length 'x'"),
        ("tokenizer/tokenizer_config.json", "model_max_length", 10**30, "set model_max_length to"),
        ("unet/config.json", "sample_size", None, "give --edit-size"),
        ("tokenizer/tokenizer_config.json", "pad_token", None, "no pad_token"),
    ],
)
def test_configurations_that_cannot_work(
    broken: Path, file: str, name: str, value: object, said: str
) -> None:
    write_json(broken / file, {**json.loads((broken / file).read_text()), name: value})
    assert said in refused(broken)


def test_a_clipping_without_a_range(broken: Path) -> None:
    file = broken / "scheduler" / "scheduler_config.json"
    clipping = {"clip_sample": True, "clip_sample_range": None}
    write_json(file, {**json.loads(file.read_text()), **clipping})
    assert "clip_sample_range None" in refused(broken)


def test_a_home_that_nobody_has() -> None:
    assert "cannot load the editor ~nobody-at-all/x" in refused("~nobody-at-all/x")
