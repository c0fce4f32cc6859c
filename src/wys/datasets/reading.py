"""Reading a capture of any kind: find the poses, read the photographs, make one scene of them."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from wys.camera import Camera
from wys.datasets.colmap import model_folder, read_colmap, recover_poses
from wys.datasets.frames import Frame, Frames, natural, read_photo
from wys.datasets.lens import Lens, undistorted
from wys.datasets.normalise import Poses, scene_similarity
from wys.datasets.transforms import PHOTO_SUFFIXES, read_blender, read_transforms
from wys.datasets.video import VIDEO_SUFFIXES, extract_frames, spread
from wys.errors import WysError
from wys.image import Picture, resize, to_uint8
from wys.views import Capture, ViewSet, moved

Format = Literal["auto", "transforms", "blender", "colmap", "photos", "video"]

LEAST_VIEWS = 3
"""Fewer views fix no scene."""
VIDEO_FRAMES = 60
"""Frames taken from a video unless `max_views` says otherwise."""

_LARGEST = 4_000_000_000  # Bytes of all photographs together.
_SMALLEST = 6  # Pixels along the shorter side; what SSIM needs, and every fit ends with it.
_OBJECT_MARGIN = 1.2  # Room about what the median camera shows, where nothing else exists.


@dataclass(frozen=True)
class ReadSettings:
    """How a capture is read."""

    downscale: float = 1.0
    """Make photos so many times smaller along each side."""
    holdout: int = 8
    """Hold out every so many-th photo, sorted by file name and beginning with the first; 0 holds
    out none. NeRF-synthetic folders hold out their test photos instead, and a transforms.json that
    lists the file names of its splits those of val and test."""
    max_views: int | None = None
    """Read at most so many photos, evenly spread; of a video 60 unless this says otherwise."""
    format: Format = "auto"
    """transforms: a transforms.json; blender: a NeRF-synthetic folder; colmap: a folder with
    sparse/ and images/; photos: a folder of photos without poses; video; auto finds out."""
    threads: int = 1
    """Threads that look for the poses of plain photos. More than one are faster, and what they find
    differs a little each time."""

    def __post_init__(self) -> None:
        if not 1 <= self.downscale < float("inf"):
            raise WysError(f"--downscale is a number from 1 on, not {self.downscale:g}.")
        if self.holdout < 0 or self.holdout == 1:
            raise WysError(
                f"--holdout is 0 for none, or from 2 on for every so many-th, not {self.holdout}."
            )
        if self.max_views is not None and self.max_views < LEAST_VIEWS:
            raise WysError(f"--max-views is at least {LEAST_VIEWS}, not {self.max_views}.")
        if self.threads < 1:
            raise WysError(f"--threads is at least 1, not {self.threads}.")


def read_capture(path: Path, settings: ReadSettings | None = None) -> Capture:
    """Photographs with poses as training and held-out views in the scene frame, undistorted.

    Args:
        path: a transforms.json or its folder, a NeRF-synthetic folder, a COLMAP model with photos,
            a folder of photos, or a video.
        settings: sizes and splits.

    Raises:
        WysError: nothing of the kind is there, a file of it is malformed, photographs differ in
            size, or fewer than three are usable. The sentence names the file.
    """
    settings = settings or ReadSettings()
    path = Path(path)
    kind = settings.format if settings.format != "auto" else detect_format(path)
    with ExitStack() as stack:
        found = _find(path, kind, settings, stack)
        frames = _thinned(found, settings)
        if len(frames.frames) < LEAST_VIEWS:
            raise WysError(
                f"{path} has {len(frames.frames)} usable photos with poses, and {LEAST_VIEWS} are "
                "the least; add photos."
            )
        images, lenses, transparent = _load(path, frames, settings.downscale)
    held = frames.held_out or tuple(
        settings.holdout > 0 and i % settings.holdout == 0 for i in range(len(images))
    )
    train_rows = [i for i, out in enumerate(held) if not out]
    if len(train_rows) < LEAST_VIEWS:
        raise WysError(
            f"{path} leaves {len(train_rows)} photos to fit, and {LEAST_VIEWS} are the least; hold "
            "out fewer or add photos."
        )
    poses = torch.stack([frame.world_from_camera for frame in frames.frames])
    half_view = torch.tensor(
        [max(lens.width / lens.fx, lens.height / lens.fy) / 2 for lens in lenses],
        dtype=torch.float64,
    )
    try:
        similarity = scene_similarity(
            Poses(poses, half_view), _OBJECT_MARGIN if transparent else 1.0
        )
    except WysError as error:
        raise WysError(f"{path}: {error}") from error
    intrinsics = torch.tensor([lens.intrinsics for lens in lenses], dtype=torch.float64)
    height, width = images.shape[-2:]
    exact = moved(Camera(intrinsics, poses, width, height), similarity)
    cameras = replace(
        exact,
        intrinsics=exact.intrinsics.float(),
        world_from_camera=exact.world_from_camera.float(),
    )
    views = ViewSet(_names([frame.photo for frame in frames.frames]), images, cameras)
    return Capture(
        views.select(train_rows),
        views.select([i for i, out in enumerate(held) if out]),
        similarity,
        unbounded=not transparent,
        background="white" if transparent else "scene",
        source=f"{kind} {path}",
        applied=found.applied,
    )


def detect_format(path: Path) -> Format:
    """What kind of capture a path holds.

    Raises:
        WysError: nothing is there, or nothing that is known.
    """
    if path.is_file():
        if path.suffix.lower() == ".json":
            return "blender" if path.name == "transforms_train.json" else "transforms"
        if path.suffix.lower() in VIDEO_SUFFIXES:
            return "video"
        raise WysError(f"{path} is neither a transforms.json nor a video; give a folder of photos.")
    if not path.is_dir():
        raise WysError(f"{path} does not exist.")
    if (path / "transforms.json").is_file():
        return "transforms"
    if (path / "transforms_train.json").is_file():
        return "blender"
    if model_folder(path) is not None:
        return "colmap"
    if _photos_in(path):
        return "photos"
    raise WysError(
        f"{path} holds no transforms.json, no COLMAP model in sparse/0 and no photos; give the "
        "folder that does."
    )


def _find(path: Path, kind: Format, settings: ReadSettings, stack: ExitStack) -> Frames:
    match kind:
        case "transforms":
            return read_transforms(path if path.is_file() else path / "transforms.json")
        case "blender":
            return read_blender(path.parent if path.is_file() else path)
        case "colmap":
            return read_colmap(path)
        case "video":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wys-video-")))
            photos = extract_frames(path, folder, settings.max_views or VIDEO_FRAMES)
        case _:
            photos = _photos_in(path)
            photos = [photos[i] for i in spread(len(photos), settings.max_views or len(photos))]
    if len(photos) < LEAST_VIEWS:
        raise WysError(
            f"{path} has {len(photos)} photos, and {LEAST_VIEWS} are the least; add photos."
        )
    return recover_poses(photos, path, settings.threads)


def _photos_in(folder: Path) -> list[Path]:
    """The photographs of a folder, or else of its images/, in natural order."""
    for place in (folder, folder / "images"):
        if place.is_dir():
            photos = [
                p
                for p in place.iterdir()
                if p.suffix.lower() in PHOTO_SUFFIXES and not p.name.startswith(".")
            ]
            if photos:
                return sorted(photos, key=lambda p: natural(p.name))
    return []


def _thinned(found: Frames, settings: ReadSettings) -> Frames:
    """At most `max_views` of the frames, evenly spread.

    A given split keeps its proportions as far as enough are left to fit.
    """
    most, total = settings.max_views, len(found.frames)
    if most is None or total <= most:
        return found
    if found.held_out is None:
        return replace(found, frames=tuple(found.frames[i] for i in spread(total, most)))
    held_out = round(most * sum(found.held_out) / total)
    held_out = max(0, min(held_out, most - LEAST_VIEWS))
    rows: list[int] = []
    for side, share in ((False, most - held_out), (True, held_out)):
        members = [i for i, held in enumerate(found.held_out) if held is side]
        rows += [members[i] for i in spread(len(members), share)]
    return replace(
        found,
        frames=tuple(found.frames[i] for i in rows),
        held_out=tuple(found.held_out[i] for i in rows),
    )


def _load(
    path: Path, found: Frames, downscale: float
) -> tuple[UInt8[Tensor, "n 3 h w"], list[Lens], bool]:
    """The photographs without distortion, their lenses, and whether most are partly transparent."""
    frames = found.frames
    images: list[Tensor] = []
    lenses: list[Lens] = []
    straighten = _Straightener(downscale)
    transparent = 0
    size: tuple[int, int] | None = None
    for frame in frames:
        picture = read_photo(frame.photo, frames[0].photo, size, found.upright)
        if size is None:
            size = picture.size
            _check_size(path, size, downscale, len(frames))
        transparent += picture.alpha is not None and bool((picture.alpha < 255).any())
        try:
            image, lens = straighten(picture, frame)
        except WysError as error:
            raise WysError(f"{frame.photo} {error}") from error
        images.append(image)
        lenses.append(lens)
    return torch.stack(images), lenses, transparent > len(frames) / 2


class _Straightener:
    """Makes photographs smaller and as a pinhole takes them.

    What a lens needs is kept until another lens comes: it takes more memory than a photograph, and
    there may be as many lenses.
    """

    def __init__(self, downscale: float) -> None:
        self._downscale = downscale
        self._prepared: dict[Lens, tuple[Lens, Tensor | None]] = {}

    def __call__(self, picture: Picture, frame: Frame) -> tuple[UInt8[Tensor, "3 h w"], Lens]:
        """The photograph and its lens; untouched bytes where there is nothing to do."""
        height, width = picture.size
        small = (round(height / self._downscale), round(width / self._downscale))
        bent = frame.optics.lens(height, width).resized(*small)
        if bent not in self._prepared:
            pinhole = bent.pinhole()
            grid = None if pinhole == bent else bent.sampling_grid(pinhole)
            self._prepared = {bent: (pinhole, grid)}
        pinhole, grid = self._prepared[bent]
        if small == picture.size and grid is None and picture.alpha is None:
            return picture.rgb, pinhole
        image = resize(picture.over_white(), small)
        return to_uint8(image if grid is None else undistorted(image, grid)), pinhole


def _check_size(path: Path, size: tuple[int, int], downscale: float, count: int) -> None:
    height, width = (round(side / downscale) for side in size)
    if min(height, width) < _SMALLEST:
        what = f"{path}: photos of {size[1]} x {size[0]} pixels are too small"
        if min(size) < _SMALLEST:
            raise WysError(f"{what}; {_SMALLEST} along each side are the least, use larger ones.")
        raise WysError(f"{what} for --downscale {downscale:g}; give a smaller number.")
    total = 3 * height * width * count
    if total > _LARGEST:
        cure = math.ceil(downscale * (total / _LARGEST) ** 0.5)
        raise WysError(
            f"{path}: {count} photos of {width} x {height} pixels take {total / 1e9:.1f} GB; give "
            f"--downscale {cure} or --max-views."
        )


def _names(photos: Sequence[Path]) -> tuple[str, ...]:
    """File stems; where two are the same, all get their folders' names in front."""
    stems = [photo.stem for photo in photos]
    depth = 1
    longest = max(len(photo.parts) - bool(photo.anchor) for photo in photos)
    while len(set(stems)) < len(stems) and depth < longest:
        depth += 1
        stems = ["_".join([*photo.parts[-depth:-1], photo.stem]) for photo in photos]
    if len(set(stems)) < len(stems):
        # What is left differs in the suffix only, or is one photograph with two poses.
        stems = [f"{stem}_{i}" for i, stem in enumerate(stems)]
    return tuple(stems)
