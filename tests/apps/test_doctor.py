"""`wys doctor`, on this machine and on ones that lack something."""

import json
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from wys.apps import cli, doctor, editors_at_hand
from wys.errors import WysError

FOUND = {"torch": "2.6.0", "gradio": "6.2.0", "imageio": "2.40"}
ASKED = {
    "wys": [
        "torch>=2.6",
        "tyro>=1.0",
        "gradio>=7.0; extra == 'page'",
        "imageio[ffmpeg]>=2.36; extra == 'scenes'",
        "pytest>=8; extra == 'dev'",
    ],
    "imageio": ["numpy", "imageio-ffmpeg; extra == 'ffmpeg'"],
}


@pytest.fixture
def other_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without tyro and imageio-ffmpeg, and with an old gradio."""

    def version(name: str) -> str:
        if name not in FOUND:
            raise metadata.PackageNotFoundError(name)
        return FOUND[name]

    class Metadata:
        def get_all(self, key: str) -> list[str]:
            assert key == "Provides-Extra"
            return ["page", "scenes", "dev"]

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(metadata, "requires", lambda name: ASKED.get(name))
    monkeypatch.setattr(metadata, "metadata", lambda name: Metadata())


def test_every_requirement_of_this_machine_is_met() -> None:
    core, extras = doctor.packages("wys")
    assert {"torch", "diffusers", "transformers", "tyro"} <= {each.name for each in core}
    assert all(each.fits for each in core)
    assert {"scenes", "train"} <= set(extras) and "dev" not in extras
    assert "pycolmap" in {each.name for each in extras["scenes"]}
    # What an extra of an extra asks for counts too.
    assert "imageio-ffmpeg" in {each.name for each in extras["scenes"]}


def test_what_is_missing_or_old_comes_with_its_cure(other_machine: None) -> None:
    core, extras = doctor.packages("wys")
    assert [each.name for each in core] == ["torch", "tyro"]
    assert set(extras) == {"page", "scenes"}
    assert list(doctor.lacking(core, extras)) == [
        doctor.Missing("tyro", "pip install 'tyro>=1.0'"),
        doctor.Missing(
            "gradio 6.2.0 is installed, >=7.0 is needed (extra page)", "pip install 'wys[page]'"
        ),
        doctor.Missing("imageio-ffmpeg (extra scenes)", "pip install 'wys[scenes]'"),
    ]


def test_a_requirement_for_another_system_is_not_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = ["torch>=2.6", "pywin32; sys_platform == 'nowhere'"]
    monkeypatch.setattr(metadata, "requires", lambda name: asked)
    assert [each.name for each in doctor.requirements("wys")] == ["torch"]
    assert isinstance(next(doctor.requirements("wys")), Requirement)


def test_a_library_that_does_not_import_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> Any:
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    health = doctor.examine(trial=True)
    (missing,) = [each for each in health.missing if "import" in each.what]
    assert "torchvision::nms does not exist)" in missing.what and missing.cure
    assert health.editors == () and health.devices == () and health.trial is None
    assert "torchvision::nms" in doctor.in_words(health)


def test_an_unused_gpu_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "devices", lambda: iter([doctor.Device("cpu", "2 cores")]))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    (missing,) = [each for each in doctor.examine().missing if "NVIDIA" in each.what]
    assert "CUDA" in missing.cure


def test_editors_of_all_kinds(
    editor_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = tmp_path / "cut"
    shutil.copytree(editor_directory, cut)
    (cut / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    builtin, whole, broken = editors_at_hand.own_editors([editor_directory, cut])
    assert builtin.name == "builtin" and builtin.usable and "steps" in builtin.what
    assert whole.usable and "preset 'paper'" in whole.what
    assert not broken.usable and "unet" in broken.what

    def absent() -> Path:
        raise WysError("the weights are not here.")

    monkeypatch.setattr("wys.diffusion.loading.builtin_directory", absent)
    health = doctor.examine()
    assert [each.usable for each in health.editors] == [False]
    assert doctor.Missing("the editor builtin", "the weights are not here.") in health.missing


def test_the_hubs_cache_is_searched_for_editors(editor_directory: Path, tmp_path: Path) -> None:
    def snapshot(name: str, commit: str = "c0ffee") -> Path:
        folder = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / commit
        shutil.copytree(editor_directory, folder)
        return folder

    snapshot("someone/whole--and--well")
    half = snapshot("someone/only-half")
    for part in ("unet", "vae", "text_encoder"):
        for file in (half / part).glob("*.safetensors"):
            file.rename(file.with_suffix(".fp16.safetensors"))
    (snapshot("someone/in-pieces") / "vae" / "config.json").unlink()
    other = snapshot("someone/another-kind") / "model_index.json"
    other.write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    (tmp_path / "models--someone--a-text-model" / "snapshots" / "1").mkdir(parents=True)

    found = {each.name: each for each in editors_at_hand.hub_editors(tmp_path)}
    assert set(found) == {"someone/whole--and--well", "someone/only-half", "someone/in-pieces"}
    assert found["someone/whole--and--well"].usable
    assert found["someone/only-half"].usable
    assert not found["someone/in-pieces"].usable and "vae" in found["someone/in-pieces"].what
    assert list(editors_at_hand.hub_editors(tmp_path / "nowhere")) == []


def test_the_report_fits_a_terminal_and_names_everything(
    editor_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["doctor", str(editor_directory), "--try"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"wys {metadata.version('wys')}, Python ")
    for word in ("torch", "scenes", "cpu", "builtin", str(editor_directory), "loading", "map"):
        assert word in told
    # Only what is to be copied, such as a path, may be longer.
    assert all(len(line) <= 80 or " " not in line.strip() for line in told.splitlines())


def test_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["wys"] == metadata.version("wys")
    assert {each["name"] for each in facts["packages"]} >= {"torch", "diffusers"}
    assert facts["devices"][0]["name"] == "cpu" and facts["trial"] is None
    assert 0 < facts["free_memory_gb"] <= facts["memory_gb"]
    assert all(gb > 0 for gb in facts["free_disk_gb"].values())


def test_the_trial_edits_and_keeps_the_rest() -> None:
    trial = doctor.attempt()
    assert trial.largest_change_outside == 0
    assert min(trial.load, trial.relevance, trial.edit) > 0


def test_long_names_have_a_line_of_their_own() -> None:
    rows = {"cpu": "word " * 30, "a/path/that/is/long/and/must/stay/whole": "fine"}
    lines = doctor._block("Title", rows).splitlines()
    assert lines[0] == "Title" and lines[1].startswith("  cpu  word")
    assert lines[2].startswith("       word")
    assert lines[-2:] == ["  a/path/that/is/long/and/must/stay/whole", "      fine"]
