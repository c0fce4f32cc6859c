"""The scene commands on a tiny scene of the built-in world, with a tiny editor."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import diffusers
import pytest
import transformers

# Whatever is imported first while a name is patched would keep the patch for good.
import wys.evaluation.scene_bench
import wys.evaluation.scene_fit_bench
import wys.scene_folder
from wys.apps import cli
from wys.diffusion.editor import Editor
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import RelevanceFitSettings
from wys.nerf.region import RegionSettings
from wys.nerf.relevance_field import RelevanceFieldSettings
from wys.scene_settings import PRESETS

Contents = Callable[[Path], dict[str, bytes]]
Refused = Callable[..., None]


def smaller(field: FieldSettings) -> Callable[..., FieldSettings]:
    """The settings' constructor with these as its defaults."""
    return partial(FieldSettings, **asdict(field))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, editor: Editor, small_field: FieldSettings) -> None:
    """Fields of a size that a test can afford, and the tiny editor, loaded once."""
    monkeypatch.setattr("wys.apps.options.EditorOptions.load", lambda self: editor)
    voting = RegionSettings(resolution=24)
    presets = {name: replace(preset, voting=voting) for name, preset in PRESETS.items()}
    monkeypatch.setattr("wys.scene_settings.PRESETS", presets)
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    monkeypatch.setattr("wys.nerf.field.FieldSettings", smaller(small_field))
    fitting = partial(RelevanceFitSettings, iterations=6, rays=64)
    monkeypatch.setattr("wys.nerf.fitting.RelevanceFitSettings", fitting)
    monkeypatch.setattr("wys.scene_edit.RelevanceFitSettings", fitting)
    grids = partial(RelevanceFieldSettings, grids=(8,))
    monkeypatch.setattr("wys.nerf.scene.RelevanceFieldSettings", grids)


class Wys:
    """Runs `wys scene COMMAND ...`; its options make a command as quick as it can be."""

    data = ("tabletop:0", "--downscale", "6", "--max-views", "6", "--holdout", "3")
    fit = ("--iterations", "12", "--rays", "64", "--device", "cpu")
    edit = ("--passes", "1", "--every", "2", "--steps", "2", "--film", "0", "--force")

    def __call__(self, command: str, *arguments: str | Path) -> int:
        return cli.main(["scene", command, *(str(argument) for argument in arguments)])


@pytest.fixture(scope="session")
def wys() -> Wys:
    return Wys()


@pytest.fixture(scope="session")
def fitted(wys: Wys, small_field: FieldSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fitted scene that tests copy."""
    out = tmp_path_factory.mktemp("fitted") / "scene"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wys.nerf.field.FieldSettings", smaller(small_field))
        assert wys("fit", *wys.data, "--out", out, *wys.fit) == 0
    return out


@pytest.fixture
def scene(fitted: Path, tmp_path: Path) -> Path:
    shutil.copytree(fitted, tmp_path / "scene")
    return tmp_path / "scene"


@pytest.fixture(scope="session")
def contents() -> Contents:
    """Every file of a folder, the lock aside."""

    def read(path: Path) -> dict[str, bytes]:
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.name != ".lock")
        return {str(file.relative_to(path)): file.read_bytes() for file in files}

    return read


@pytest.fixture(scope="session")
def refused() -> Refused:
    """Exit code 2 and one sentence on standard error that has these words."""

    def check(code: int, capsys: pytest.CaptureFixture[str], *words: str) -> None:
        captured = capsys.readouterr()
        lines = [line for line in captured.err.splitlines() if line.strip()]
        assert code == 2 and len(lines) == 1, captured.err
        assert lines[0].startswith("wys: ") and lines[0].endswith(".")
        assert all(word in lines[0] for word in words), lines[0]

    return check
