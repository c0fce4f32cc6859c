"""The mean of two editors by hand, and what is refused."""

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

import wys
from wys.errors import WysError
from wys.store import read_metadata, read_tensors, write_tensors
from wys.training.average import average, main


def changed(editor: Path, copy: Path, by: float) -> Path:
    """A copy of an editor whose text encoder and head have other weights."""
    shutil.copytree(editor, copy)
    for path in (copy / "text_encoder" / "model.safetensors", copy / "relevance_head.safetensors"):
        tensors = {name: value + by for name, value in read_tensors(path).items()}
        write_tensors(path, tensors, read_metadata(path))
    return copy


def changed_with_head(editor: Path, copy: Path, head: dict[str, torch.Tensor]) -> Path:
    """A copy of an editor that has a relevance head."""
    shutil.copytree(editor, copy)
    write_tensors(copy / "relevance_head.safetensors", head)
    return copy


def test_the_mean_lies_between_and_loads(editor_directory: Path, tmp_path: Path) -> None:
    head = {"weight": torch.ones(1, 16, 3, 3), "bias": torch.zeros(1)}
    first = changed_with_head(editor_directory, tmp_path / "first", head)
    other = changed(first, tmp_path / "other", 0.5)
    average([first, other], tmp_path / "mean")
    for name in ("text_encoder/model.safetensors", "relevance_head.safetensors"):
        tensors, before = read_tensors(tmp_path / "mean" / name), read_tensors(first / name)
        for key, value in tensors.items():
            assert torch.allclose(value, before[key] + 0.25, atol=1e-6)
    same = "unet/diffusion_pytorch_model.safetensors"
    for key, value in read_tensors(tmp_path / "mean" / same).items():
        assert torch.equal(value, read_tensors(first / same)[key])
    assert wys.Editor.load(str(tmp_path / "mean")).native_size > 0


def test_one_editor_and_unlike_ones_are_refused(editor_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(WysError, match="two editors"):
        average([editor_directory], tmp_path / "mean")
    head = {"weight": torch.ones(1, 16, 3, 3), "bias": torch.zeros(1)}
    first = changed_with_head(editor_directory, tmp_path / "first", head)
    other = changed_with_head(editor_directory, tmp_path / "other", {"bias": torch.zeros(1)})
    with pytest.raises(WysError, match="relevance_head"):
        average([first, other], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_editors_with_other_latents_are_refused(editor_directory: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(editor_directory, tmp_path / "other"))
    file = other / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = {name: 2 * value for name, value in read_tensors(file).items()}
    write_tensors(file, tensors, read_metadata(file))
    with pytest.raises(WysError, match="differ in vae/diffusion_pytorch_model"):
        average([editor_directory, other], tmp_path / "mean")
    (tmp_path / "none").mkdir()
    with pytest.raises(WysError, match="no pipeline directory"):
        average([editor_directory, tmp_path / "none"], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


def test_editors_without_a_head_are_averaged_too(editor_directory: Path, tmp_path: Path) -> None:
    average([editor_directory, editor_directory], tmp_path / "mean")
    assert not (tmp_path / "mean" / "relevance_head.safetensors").exists()
    name = "text_encoder/model.safetensors"
    for key, value in read_tensors(tmp_path / "mean" / name).items():
        assert torch.equal(value, read_tensors(editor_directory / name)[key])


def test_the_command_refuses_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.argv", ["average", "--editors", "one", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("wys: a mean is of two editors")


def test_locators_are_averaged_too_and_one_without_is_refused(
    editor_directory: Path, tiny_locator: UNet2DConditionModel, tmp_path: Path
) -> None:
    head = {"weight": torch.ones(1, 16, 3, 3), "bias": torch.zeros(1)}
    plain = changed_with_head(editor_directory, tmp_path / "plain", head)
    first = Path(shutil.copytree(plain, tmp_path / "first"))
    tiny_locator.save_pretrained(first / "locator")
    with pytest.raises(WysError, match="has no locator"):
        average([first, plain], tmp_path / "mean")
    other = Path(shutil.copytree(first, tmp_path / "other"))
    name = Path("locator") / "diffusion_pytorch_model.safetensors"
    tensors = {key: value + 0.5 for key, value in read_tensors(first / name).items()}
    write_tensors(other / name, tensors, read_metadata(first / name))
    average([first, other], tmp_path / "mean")
    for key, value in read_tensors(tmp_path / "mean" / name).items():
        assert torch.allclose(value, tensors[key] - 0.25, atol=1e-6)
    assert wys.Editor.load(str(tmp_path / "mean")).locator is not None
