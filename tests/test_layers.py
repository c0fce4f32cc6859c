"""Imports point down only, and importing wys is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import wys

ROOT = Path(wys.__file__).parent
VALUES = {
    "errors",
    "devices",
    "image",
    "relevance",
    "relevance_file",
    "masks",
    "names",
    "thresholds",
    "edges",
    "edit_score",
    "camera",
    "seeds",
    "store",
    "views",
}
SIBLINGS = {"diffusion", "nerf", "datasets", "tabletop"}
JOBS = [
    "masked_edit",
    "image_edit",
    "auto_edit",
    "scene_settings",
    "scene_plan",
    "scene_state",
    "scene_watchdog",
    "scene_edit",
    "scene_layer",
    "scene_record",
    "scene_folder",
]
UPPER = {"training", "evaluation"}


def allowed(layer: str) -> set[str]:
    """The parts of wys that a part may import."""
    if layer in VALUES:
        return VALUES
    if layer in SIBLINGS:
        return VALUES | {layer}
    if layer in JOBS:
        # A job may build on those before it.
        return VALUES | SIBLINGS | set(JOBS[: JOBS.index(layer) + 1])
    if layer in UPPER:
        return VALUES | SIBLINGS | set(JOBS) | {layer}
    if layer in {"apps", "__main__"}:
        return VALUES | SIBLINGS | set(JOBS) | UPPER | {"apps"}
    raise AssertionError(f"{layer} has no place in the layers")


def imports(path: Path) -> set[str]:
    """The full names of all modules that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            base = node.module or ""
            names |= {f"{base}.{alias.name}" for alias in node.names} if base == "wys" else {base}
    return names


FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    layer = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "wys" and len(parts) > 1 and parts[1] != "__version__":
            assert parts[1] in allowed(layer), f"{path} imports {name}"
        if parts[0] in {"diffusers", "transformers"}:
            assert layer in {"diffusion", "training"}, f"{path} imports {name}"


def test_importing_wys_loads_no_heavy_library() -> None:
    heavy = "{'torch', 'diffusers', 'transformers', 'gradio', 'viser', 'tyro', 'PIL'}"
    code = f"import sys, wys; print({heavy} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_every_public_name_is_there() -> None:
    for name in wys.__all__:
        assert getattr(wys, name) is not None
        assert name in dir(wys)
    assert set(wys.__all__) == set(wys._HOME)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = wys.absent
