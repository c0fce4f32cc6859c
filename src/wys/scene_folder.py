"""A scene's folder: photographs, the fitted field, and edits as layers that can be undone.

    SCENE/
      scene.json            what was read, the cameras, how the field was fitted, the list of layers
      photos/NAME.png       the photographs as the field saw them, held-out ones too
      radiance.safetensors  the fitted field
      fit.png               held-out photographs beside renders
      fit.safetensors       the state of a fit that is under way
      layers/01-NAME/       one edit, as in `scene_layer`; starts from the one before

`scene.json` decides what counts: a layer that it does not name does not exist yet, or no more. Its
replacement is the one moment in which a layer comes or goes, so a kill at any time leaves the scene
before or the scene after. Nothing else in a folder is written twice. One process at a time may
change a folder; any number may read it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wys.camera import Camera
from wys.errors import WysError
from wys.image import Picture, read_picture, write_picture
from wys.names import resolved
from wys.nerf.field import FieldSettings
from wys.nerf.fitting import FitSettings
from wys.nerf.layering import Look
from wys.nerf.region import Region
from wys.nerf.scene import Scene
from wys.scene_layer import Layer, layer_name
from wys.scene_record import FORMAT, read_record
from wys.store import (
    PathLike,
    read_tensors,
    remove_folder,
    whole_folder,
    with_tuples,
    write_json,
    write_tensors,
)
from wys.views import Applied, Capture, ViewSet

RECORD = "scene.json"
ORIGINAL = "original"
"""What the scene without any layer is called."""

FIT_SHEET = "fit.png"
"""Held-out photographs beside renders of the fitted field."""

_RADIANCE = "radiance.safetensors"
_FIT = "fit.safetensors"
_PHOTOS = "photos"
_LAYERS = "layers"


@dataclass(frozen=True)
class SceneFolder:
    """The folder as it was when it was opened; what changes it returns it anew."""

    path: Path
    record: Mapping[str, Any]
    """What `scene.json` holds."""

    @staticmethod
    def create(
        path: Path,
        capture: Capture,
        fit: Mapping[str, Any],
        instructions: Mapping[str, str] | None = None,
    ) -> SceneFolder:
        """A new folder with the photographs and no field yet; it appears whole or not at all.

        Args:
            fit: how the field is to be fitted: "field" and "settings" as JSON, "seed".
            instructions: edits of this scene whose truth is known, by kind.

        Raises:
            WysError: the folder exists and is not empty, or cannot be written.
        """
        names = [*capture.train.names, *capture.held_out.names]
        if len(set(names)) < len(names):
            raise WysError(
                "a held-out photograph has the name of a training photograph; rename it."
            )
        record = {
            "format": FORMAT,
            "source": capture.source,
            "size": list(capture.train.size),
            "background": capture.background,
            "unbounded": capture.unbounded,
            "scene_from_world": capture.scene_from_world.tolist(),
            "applied": None if capture.applied is None else _applied_as_json(capture.applied),
            "train": _views_as_json(capture.train),
            "held_out": _views_as_json(capture.held_out),
            "instructions": None if instructions is None else dict(instructions),
            "fit": {**fit, "result": None},
            "layers": [],
        }
        with whole_folder(path) as folder:
            for views in (capture.train, capture.held_out):
                for name, photo in zip(views.names, views.originals, strict=True):
                    write_picture(folder / _PHOTOS / f"{name}.png", Picture(photo))
            write_json(folder / RECORD, record)
        return SceneFolder.open(path)

    @staticmethod
    def open(path: PathLike) -> SceneFolder:
        """Reads the record of a folder.

        Raises:
            WysError: there is no such folder, it holds no scene, or its record is damaged.
        """
        path = Path(path)
        if not path.exists():
            raise WysError(f"{path} does not exist; 'wys scene fit DATA --out {path}' makes it.")
        if not (path / RECORD).is_file():
            raise WysError(f"{path} is no scene: it has no {RECORD}; 'wys scene fit' makes one.")
        return SceneFolder(path, read_record(path / RECORD))

    # ---------------------------------------------------------------- what was photographed

    def capture(self) -> Capture:
        """The photographs and their cameras.

        Raises:
            WysError: a photograph is missing, damaged or of another size, or a camera is none.
        """
        applied = self.record["applied"]
        return Capture(
            train=self._photos("train"),
            held_out=self._photos("held_out"),
            scene_from_world=torch.tensor(self.record["scene_from_world"], dtype=torch.float64),
            unbounded=self.record["unbounded"],
            background=self.record["background"],
            source=self.record["source"],
            applied=None if applied is None else _applied_from_json(applied),
        )

    def _photos(self, split: str) -> ViewSet:
        entries = self.record[split]
        height, width = self.record["size"]
        try:
            names = tuple(str(entry["name"]) for entry in entries)
            intrinsics = [entry["intrinsics"] for entry in entries]
            poses = [entry["scene_from_camera"] for entry in entries]
            cameras = Camera(
                torch.tensor(intrinsics, dtype=torch.float32).reshape(-1, 4),
                torch.tensor(poses, dtype=torch.float32).reshape(-1, 4, 4),
                width,
                height,
            )
        except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise WysError(
                f"the cameras in {self.path / RECORD} are damaged; fit the scene again."
            ) from error
        return ViewSet(names, self._images(self.path / _PHOTOS, names), cameras)

    def _images(self, folder: Path, names: Sequence[str]) -> Tensor:
        """The pictures of some views, 8 bits."""
        height, width = self.record["size"]
        images = torch.empty((len(names), 3, height, width), dtype=torch.uint8)
        for i, name in enumerate(names):
            picture = read_picture(folder / f"{name}.png")
            if picture.size != (height, width):
                raise WysError(
                    f"{folder / name}.png has {picture.size[1]} x {picture.size[0]} pixels, and "
                    f"the scene {width} x {height}; put the picture of the fit back."
                )
            images[i] = picture.rgb
        return images

    # ---------------------------------------------------------------- the fit

    @property
    def fitted(self) -> bool:
        return self.record["fit"]["result"] is not None

    def fit_settings(self) -> tuple[FieldSettings, FitSettings, int]:
        """How the field is fitted: its size, the settings of the steps, and the seed."""
        fit = self.record["fit"]
        try:
            field = FieldSettings(**with_tuples(fit["field"]))
            return field, FitSettings(**with_tuples(fit["settings"])), int(fit["seed"])
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise WysError(
                f"the settings of the fit in {self.path / RECORD} do not fit this program; fit the "
                "scene again into another folder."
            ) from error

    def fit_state(self) -> dict[str, Tensor] | None:
        """What `save_fit_state` wrote last; None where it never did."""
        path = self.path / _FIT
        return read_tensors(path) if path.exists() else None

    def save_fit_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Replaces the state of a fit that is under way."""
        write_tensors(self.path / _FIT, tensors)

    def with_fit(self, scene: Scene, result: Mapping[str, Any]) -> SceneFolder:
        """The folder with its fitted field, and the figures of the fit in its record."""
        scene.save(self.path / _RADIANCE)
        fit = {**self.record["fit"], "result": dict(result)}
        folder = self._recorded({**self.record, "fit": fit})
        (self.path / _FIT).unlink(missing_ok=True)
        return folder

    # ---------------------------------------------------------------- layers

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The finished edits, the first one first."""
        return tuple(self._layer(name) for name in self.record["layers"])

    def find_layer(self, name: str) -> Layer | None:
        """A layer by its name, with or without its number; None for `ORIGINAL`.

        Raises:
            WysError: there is no such layer.
        """
        if name == ORIGINAL:
            return None
        for layer in reversed(self.layers):
            if layer.name == name or layer.name.split("-", 1)[-1] in (name, layer_name(name)):
                return layer
        known = ", ".join([ORIGINAL, *self.record["layers"]])
        raise WysError(f"{self.path} has no layer '{name}'; it has {known}.")

    @property
    def top(self) -> Layer | None:
        """The last finished edit."""
        return self.layers[-1] if self.layers else None

    @property
    def begun(self) -> str | None:
        """The name of the edit that was begun on top of the finished ones and is not done."""
        number = len(self.record["layers"]) + 1
        for folder in sorted((self.path / _LAYERS).glob(f"{number:02d}-*")):
            if folder.name not in self.record["layers"] and Layer.is_begun(folder):
                return folder.name
        return None

    @property
    def unfinished(self) -> Layer | None:
        """The edit that was begun on top of the finished ones and is not done.

        Raises:
            WysError: its record is damaged.
        """
        return None if self.begun is None else self._layer(self.begun)

    def look(self, layer: Layer | None) -> Look:
        """What the scene shows after a layer; None: as it was fitted; raises as `scene`."""
        look = Look(((self.scene(None), None),))
        names = self.record["layers"]
        for name in names[: names.index(layer.name) + 1] if layer else ():
            each = self._layer(name)
            region = each.region()
            look = look.with_layer(self.scene(each), None if region is None else region.room)
        return look

    def scene(self, layer: Layer | None) -> Scene:
        """The field after a layer; None: as it was fitted.

        Raises:
            WysError: the fit is not finished, or the file is damaged.
        """
        if not self.fitted:
            raise WysError(
                f"the fit of {self.path} is not finished; "
                f"'wys scene fit DATA --out {self.path} --resume' goes on with it."
            )
        return Scene.load(self.path / _RADIANCE) if layer is None else layer.scene()

    def train_views(self, layer: Layer | None) -> ViewSet:
        """The training views after a layer: its edits beside the images that it started from."""
        views = self.views_to_edit(self._below(layer)) if layer else self.capture().train
        if layer is None:
            return views
        edits, maps = self._images(layer.pictures, views.names), layer.maps()
        relevance = tuple(maps.get(name) for name in views.names)
        return replace(views, edits=tuple(edits), relevance=relevance)

    def views_to_edit(self, layer: Layer | None) -> ViewSet:
        """The training views that the next layer starts from: what stands after this one."""
        views = self.train_views(layer)
        return ViewSet(views.names, views.images, views.cameras)

    def begin_layer(self, name: str, record: Mapping[str, Any]) -> Layer:
        """Opens a layer on top: its folder with its record, without a result.

        Args:
            name: what the user calls it; its number is put before it.

        Raises:
            WysError: the name is that of the scene without edits.
        """
        if name == ORIGINAL:
            raise WysError(f"'{ORIGINAL}' is the scene without edits; give the layer another name.")
        self._tidy()
        folder = self.path / _LAYERS / f"{len(self.record['layers']) + 1:02d}-{name}"
        return Layer.begin(folder, record)

    def with_layer(
        self,
        layer: Layer,
        scene: Scene,
        views: ViewSet,
        region: Region | None,
        result: Mapping[str, Any],
    ) -> SceneFolder:
        """The folder with a begun layer finished.

        Args:
            scene: the field after the edit.
            views: the training views with their edits and relevance maps.
            region: the part of space that the edit may change; None where it was not decided.
            result: the figures of the edit, for its record.
        """
        layer.finish(scene, views, region, result)
        folder = self._recorded({**self.record, "layers": [*self.record["layers"], layer.name]})
        layer.drop_state()
        return folder

    def without_top(self) -> tuple[SceneFolder, str]:
        """The folder without its last edit, and that edit's name.

        No file of the scene below is touched. A damaged edit can be taken away as well.

        Raises:
            WysError: there is no edit.
        """
        if not self.record["layers"]:
            raise WysError(f"{self.path} has no edit to undo.")
        *below, top = self.record["layers"]
        # With its state it would pass for one that can be resumed, if a kill came before its end.
        Layer(self.path / _LAYERS / top, {}).drop_state()
        folder = self._recorded({**self.record, "layers": below})
        folder._tidy()
        return folder, top

    def undone(self) -> tuple[SceneFolder, str]:
        """The folder without the edit that was begun, or without its last one, and a sentence.

        A damaged edit can be taken away as well.

        Raises:
            WysError: there is neither.
        """
        begun = self.begun
        if begun is not None:
            self.drop_unfinished()
            return self, f"The unfinished edit {begun} is gone."
        folder, name = self.without_top()
        left = len(folder.record["layers"])
        rest = (
            f"{left} edit{'s' if left > 1 else ''} left"
            if left
            else "the scene is as it was fitted"
        )
        return folder, f"The edit {name} is undone; {rest}."

    def drop_unfinished(self) -> None:
        """Removes an edit that was begun and not finished."""
        self._tidy()

    # ---------------------------------------------------------------- inside

    def _below(self, layer: Layer) -> Layer | None:
        index = self.record["layers"].index(layer.name)
        return self._layer(self.record["layers"][index - 1]) if index else None

    def _layer(self, name: str) -> Layer:
        try:
            return Layer.open(self.path / _LAYERS / name)
        except WysError as error:
            cure = f"'wys scene undo {self.path}' takes the edit away"
            raise WysError(f"{str(error).removesuffix('.')}; {cure}.") from error

    def _recorded(self, record: Mapping[str, Any]) -> SceneFolder:
        write_json(self.path / RECORD, record)
        return replace(self, record=record)

    def _tidy(self) -> None:
        """Removes the folders of layers that the record does not name."""
        layers = self.path / _LAYERS
        for folder in list(layers.iterdir()) if layers.is_dir() else ():
            if not folder.is_dir() or folder.name in self.record["layers"]:
                continue
            if folder.name.startswith("."):  # What is left of one that was removed.
                shutil.rmtree(folder, ignore_errors=True)
            else:
                remove_folder(folder)
        if layers.is_dir() and not any(layers.iterdir()):
            layers.rmdir()


def _applied_as_json(applied: Applied) -> dict[str, Any]:
    return {"transform": applied.transform.tolist(), "scale": applied.scale}


def _applied_from_json(value: Mapping[str, Any]) -> Applied:
    return Applied(torch.tensor(value["transform"], dtype=torch.float64), float(value["scale"]))


def copy_scene(source: SceneFolder, target: Path) -> SceneFolder:
    """A copy of a scene with its finished layers; it appears whole or not at all.

    Raises:
        WysError: the target exists and is not empty, lies within the scene, or cannot be written.
    """
    if resolved(target).is_relative_to(resolved(source.path)):
        raise WysError(
            f"{target} lies within the scene that it is a copy of; choose another --out."
        )
    with whole_folder(target) as folder:
        for name in (RECORD, _RADIANCE, FIT_SHEET):
            if name != FIT_SHEET or (source.path / name).exists():
                _copy(source.path / name, folder / name)
        _copy(source.path / _PHOTOS, folder / _PHOTOS)
        for layer in source.layers:
            _copy(layer.folder, folder / _LAYERS / layer.name)
    return SceneFolder.open(target)


def _copy(source: Path, target: Path) -> None:
    """Copies a file or a folder without its modes: a scene that is read-only gets a copy that
    can be changed."""
    if source.is_dir():
        target.mkdir(parents=True)
        for each in source.iterdir():
            _copy(each, target / each.name)
    else:
        shutil.copyfile(source, target)


def _views_as_json(views: ViewSet) -> list[dict[str, Any]]:
    return [
        {"name": name, "intrinsics": k.tolist(), "scene_from_camera": pose.tolist()}
        for name, k, pose in zip(
            views.names, views.cameras.intrinsics, views.cameras.world_from_camera, strict=True
        )
    ]
