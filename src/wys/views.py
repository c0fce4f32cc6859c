"""Photographs of one scene from known cameras, and the edited photographs that stand beside them.

Two frames: "world" is a capture's own coordinates; "scene" is the world after one similarity that
centres what the cameras look at and brings it within about the unit ball. Views are in the scene
frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wys.camera import Camera
from wys.errors import WysError
from wys.image import from_uint8, to_uint8

Background = Literal["scene", "white", "black"]
"""What lies behind everything: "scene" where the photographs show it, else the colour that stands
where a photograph is transparent."""


@dataclass(frozen=True)
class ViewSet:
    """n photographs of one scene from known cameras, in CPU memory.

    The photographs never change: an edited one stands beside its original.

    Raises:
        WysError: counts or sizes do not agree, a name comes twice, or a camera is not finite.
    """

    names: tuple[str, ...]
    """Unique file stems."""
    originals: UInt8[Tensor, "n 3 h w"]
    cameras: Camera
    """n cameras in the scene frame, of the photographs' size."""
    edits: tuple[UInt8[Tensor, "3 h w"] | None, ...] = ()
    """The edited photographs, None where a view is as it was; none are given: all None."""
    relevance: tuple[Float[Tensor, "1 hl wl"] | None, ...] = ()
    """Relevance maps of the originals, in [0, 1] at latent size; none are given: all None."""

    def __post_init__(self) -> None:
        count = len(self.names)
        # A frozen dataclass fills in what was left out in this way only.
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "edits", tuple(self.edits) or (None,) * count)
        object.__setattr__(self, "relevance", tuple(self.relevance) or (None,) * count)
        shape = tuple(self.originals.shape)
        if len(shape) != 4 or shape[1] != 3 or self.originals.dtype != torch.uint8:
            raise WysError(
                f"photographs are [n, 3, h, w] of 8 bits, not {list(shape)} of "
                f"{str(self.originals.dtype).removeprefix('torch.')}."
            )
        _check_count("photographs", shape[0], count)
        _check_count("edits", len(self.edits), count)
        _check_count("relevance maps", len(self.relevance), count)
        if self.cameras.intrinsics.ndim != 2 or self.cameras.world_from_camera.ndim != 3:
            raise WysError("the cameras of a set of views have one batch axis.")
        _check_count("intrinsics", self.cameras.intrinsics.shape[0], count)
        _check_count("camera poses", self.cameras.world_from_camera.shape[0], count)
        if (self.cameras.height, self.cameras.width) != shape[2:]:
            raise WysError(
                f"the cameras are for {self.cameras.width} x {self.cameras.height} pixels, and the "
                f"photographs have {shape[3]} x {shape[2]}; resize one of the two."
            )
        for name, edit in zip(self.names, self.edits, strict=True):
            if edit is not None and (edit.shape != shape[1:] or edit.dtype != torch.uint8):
                raise WysError(
                    f"the edit of view {name} is {list(edit.shape)} of {edit.dtype}, and its "
                    f"photograph {list(shape[1:])} of 8 bits."
                )
        if len(set(self.names)) < count:
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise WysError(f"two views are called {twice}; give each its own name.")
        finite = torch.isfinite(self.cameras.intrinsics).all(dim=1)
        finite &= torch.isfinite(self.cameras.world_from_camera).all(dim=(1, 2))
        if not bool(finite.all()):
            name = self.names[int((~finite).nonzero()[0])]
            raise WysError(f"the camera of view {name} holds values that are not finite numbers.")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.originals.shape[-2], self.originals.shape[-1]

    @property
    def images(self) -> UInt8[Tensor, "n 3 h w"]:
        """The current images: the edit where there is one. Not to be written into."""
        if all(edit is None for edit in self.edits):
            return self.originals
        images = self.originals.clone()
        for i, edit in enumerate(self.edits):
            if edit is not None:
                images[i] = edit
        return images

    def original(self, i: int) -> Float[Tensor, "3 h w"]:
        """The photograph of view i, in [0, 1]."""
        return from_uint8(self.originals[i])

    def image(self, i: int) -> Float[Tensor, "3 h w"]:
        """The current image of view i, in [0, 1]: its edit where there is one."""
        edit = self.edits[i]
        return from_uint8(self.originals[i] if edit is None else edit)

    def select(self, indices: Sequence[int]) -> ViewSet:
        """The views at `indices`, in that order."""
        rows = torch.tensor(list(indices), dtype=torch.long)
        chosen = rows.tolist()
        return ViewSet(
            tuple(self.names[i] for i in chosen),
            self.originals[rows],
            self.cameras[rows],
            tuple(self.edits[i] for i in chosen),
            tuple(self.relevance[i] for i in chosen),
        )

    def with_edit(self, i: int, image: Tensor) -> ViewSet:
        """The views with `image` beside the photograph of view i.

        Args:
            image: [3, h, w], 8-bit values or numbers in [0, 1].
        """
        values = image if image.dtype == torch.uint8 else to_uint8(image)
        edits = list(self.edits)
        edits[i] = values.detach().cpu()
        return replace(self, edits=tuple(edits))

    def with_relevance(self, i: int, values: Float[Tensor, "1 hl wl"]) -> ViewSet:
        """The views with a relevance map for the photograph of view i."""
        if values.ndim != 3 or values.shape[0] != 1:
            raise WysError(f"a relevance map is [1, h, w], not {list(values.shape)}.")
        relevance = list(self.relevance)
        relevance[i] = values.detach().cpu()
        return replace(self, relevance=tuple(relevance))

    def without_edits(self) -> ViewSet:
        """The same photographs and relevance maps, every edit forgotten."""
        return replace(self, edits=(None,) * len(self))


@dataclass(frozen=True)
class Applied:
    """What nerfstudio's conversion did to a capture's coordinates before it saved them.

    A camera path of a training on such a capture counts from the coordinates before that.
    """

    transform: Float[Tensor, "4 4"]
    """applied_transform: affine and invertible, float64."""
    scale: float = 1.0
    """applied_scale, above 0."""


@dataclass(frozen=True)
class Capture:
    """A scene as it was photographed: what a field is fitted to, and what it is measured on."""

    train: ViewSet
    held_out: ViewSet
    """Never fitted; may be empty."""
    scene_from_world: Float[Tensor, "4 4"]
    """The similarity from the capture's own coordinates to those of the cameras here, float64:
    a world may lie far from its origin."""
    unbounded: bool
    """Whether the photographs show more than what lies within the unit ball."""
    background: Background
    source: str
    """What was read, for the record."""
    applied: Applied | None = None
    """What had been done to the capture's own coordinates, where its files say so."""


def moved(cameras: Camera, similarity: Float[Tensor, "4 4"]) -> Camera:
    """The cameras after a similarity (scale, rotation and shift) of all space.

    Poses stay rigid: the scale moves the cameras, and not their axes. Computed in double precision.
    """
    linear = similarity[:3, :3].double()
    rotation = linear / torch.linalg.det(linear).abs() ** (1 / 3)
    pose = cameras.world_from_camera.double().clone()
    centre = pose[..., :3, 3] @ linear.T + similarity[:3, 3].double()
    pose[..., :3, :3] = rotation @ pose[..., :3, :3]
    pose[..., :3, 3] = centre
    return replace(cameras, world_from_camera=pose.to(cameras.world_from_camera.dtype))


def _check_count(what: str, count: int, names: int) -> None:
    if count != names:
        raise WysError(f"there are {count} {what} for {names} views; give one each.")
