"""wys: local editing of images and scenes by text instructions, guided by relevance maps.

The names below are loaded when they are first used: importing wys imports no model library.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wys.diffusion.conditioning import Conditioning, Guidance
    from wys.diffusion.editor import Editor
    from wys.diffusion.loading import EditorOptions
    from wys.diffusion.noise import NoisePrediction
    from wys.diffusion.sampler import EditSettings, Solver
    from wys.diffusion.settings import PAPER, EditorSettings, read_settings
    from wys.errors import WysError, WysWarning
    from wys.image import Picture, read_image, read_mask, read_picture, write_image, write_picture
    from wys.image_edit import EditStep, ImageEdit, edit_image, edit_steps, relevance_map
    from wys.masks import Box, Mask
    from wys.relevance import RelevanceMap, RelevanceSettings, VerdictSettings
    from wys.relevance_file import read_relevance, write_relevance
    from wys.scene_edit import SceneEditStep, edit_scene, locate
    from wys.scene_folder import SceneFolder
    from wys.scene_settings import SceneEditSettings

_PLACES = {
    "wys.diffusion.conditioning": ("Conditioning", "Guidance"),
    "wys.diffusion.editor": ("Editor",),
    "wys.diffusion.loading": ("EditorOptions",),
    "wys.diffusion.noise": ("NoisePrediction",),
    "wys.diffusion.sampler": ("EditSettings", "Solver"),
    "wys.diffusion.settings": ("PAPER", "EditorSettings", "read_settings"),
    "wys.errors": ("WysError", "WysWarning"),
    "wys.image": (
        "Picture",
        "read_image",
        "read_mask",
        "read_picture",
        "write_image",
        "write_picture",
    ),
    "wys.image_edit": ("EditStep", "ImageEdit", "edit_image", "edit_steps", "relevance_map"),
    "wys.masks": ("Box", "Mask"),
    "wys.relevance": ("RelevanceMap", "RelevanceSettings", "VerdictSettings"),
    "wys.relevance_file": ("read_relevance", "write_relevance"),
    "wys.scene_edit": ("SceneEditStep", "edit_scene", "locate"),
    "wys.scene_folder": ("SceneFolder",),
    "wys.scene_settings": ("SceneEditSettings",),
}
_HOME = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "PAPER",
    "Box",
    "Conditioning",
    "EditSettings",
    "EditStep",
    "Editor",
    "EditorOptions",
    "EditorSettings",
    "Guidance",
    "ImageEdit",
    "Mask",
    "NoisePrediction",
    "Picture",
    "RelevanceMap",
    "RelevanceSettings",
    "SceneEditSettings",
    "SceneEditStep",
    "SceneFolder",
    "Solver",
    "VerdictSettings",
    "WysError",
    "WysWarning",
    "edit_image",
    "edit_scene",
    "edit_steps",
    "locate",
    "read_image",
    "read_mask",
    "read_picture",
    "read_relevance",
    "read_settings",
    "relevance_map",
    "write_image",
    "write_picture",
    "write_relevance",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("wys")
    if name not in _HOME:
        raise AttributeError(f"module 'wys' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
