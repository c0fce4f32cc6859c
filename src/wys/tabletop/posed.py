"""One table-top scene and its exact edit, seen from any number of cameras.

The scene of (seed, split, index) offers every kind of POSED_KINDS, so that one fitted field serves
all of them. Its cameras stand on a ring around the table, as far away and as high as those of the
range it is drawn from, and look at the middle of its objects. Words that need a viewpoint
("leftmost", "in front of") are never used.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.camera import Camera, intrinsics_from_fov, look_at
from wys.errors import WysError
from wys.image import to_uint8
from wys.seeds import generator
from wys.tabletop.choices import Stage, choose_edit
from wys.tabletop.edits import Edit, Kind, apply, target_slot
from wys.tabletop.instructions import Description, Thing, instruction, things
from wys.tabletop.pairs import ATTEMPTS, LEAST_SHARE, changed
from wys.tabletop.raytracer import object_ids, render
from wys.tabletop.sampling import FOOTPRINT, cameras_of, scenes_of
from wys.tabletop.world import (
    BACKGROUNDS,
    FLOOR_PATTERNS,
    FLOORS,
    GAP,
    LIGHT_KINDS,
    MAX_OBJECTS,
    PLAIN,
    RADII,
    SceneRange,
    Split,
    TableScene,
)
from wys.views import Capture, ViewSet, moved

POSED_KINDS: tuple[Kind, ...] = (
    "recolour",
    "material",
    "shape",
    "size",
    "remove",
    "floor",
    "background",
    "light",
)
"""The kinds whose meaning does not depend on a camera, as "add beside" does."""

_PROBES, _PROBE = 12, 32  # Cameras, and their rows, that decide what is seen well enough.
_SEEN_FROM = 0.75  # Share of those cameras that must see a target well.
_MIDDLE_HEIGHT = 0.45  # Above the table: where cameras look, and the middle of the scene frame.
_LEAST_RADIUS = 2.4  # Of the unit ball of the scene frame, in world units: keeps the table large.


@dataclass(frozen=True)
class PosedTruth:
    """What n cameras see before and after an edit, exactly."""

    before: Float[Tensor, "n 3 h w"]
    """Images in [0, 1]."""
    after: Float[Tensor, "n 3 h w"]
    """The exact edited images."""
    mask: Bool[Tensor, "n h w"]
    """Where a channel of the 8-bit images changes by more than `pairs.CHANGED`."""
    object_ids: Int[Tensor, "n h w"]
    """Object slot + 1 before the edit; 0 is floor or background."""
    target_visible: Bool[Tensor, " n"]
    """Whether a pixel shows the target before the edit; true for edits of the whole image."""

    def select(self, indices: Sequence[int]) -> PosedTruth:
        """The truth of some of the views."""
        rows = torch.tensor(list(indices), dtype=torch.long)
        return PosedTruth(
            self.before[rows],
            self.after[rows],
            self.mask[rows],
            self.object_ids[rows],
            self.target_visible[rows],
        )


@dataclass(frozen=True)
class PosedEdit:
    """A scene, one edit of it in data and in words, and the cameras that look at both."""

    kind: Kind
    instruction: str
    edit: Edit
    description: Description | None
    """The words that name the target; None for edits of the whole image."""
    before: TableScene
    """The scene, a batch of one."""
    after: TableScene
    """The edited scene, a batch of one."""
    seed: int
    key: str
    """With `seed` the identity of the scene and its cameras."""
    scene_range: SceneRange

    @property
    def target(self) -> int | None:
        """The slot of the object that is edited; None for edits of the whole image."""
        return target_slot(self.edit)

    @property
    def scene_from_world(self) -> Float[Tensor, "4 4"]:
        """The similarity that brings the objects into the unit ball; the same for every kind."""
        middle, radius = _middle(self.before)
        similarity = torch.eye(4) / radius
        similarity[:3, 3] = -middle / radius
        similarity[3, 3] = 1
        return similarity.double()

    def cameras(self, count: int, size: int | tuple[int, int]) -> Camera:
        """A ring of `count` cameras in world coordinates, by azimuth, low and high in turn.

        Args:
            size: side, or (height, width), of the images in pixels; the poses do not depend on it.
        """
        height, width = (size, size) if isinstance(size, int) else size
        return _ring(self.seed, self.key, self.before, self.scene_range, count, height, width)

    def past_target(self, camera: Camera) -> Camera:
        """Cameras in world coordinates, turned about the vertical until they miss the target.

        Only as far as needed, whatever its shape and size; cameras stay where they are. Edits of
        the whole image cannot be missed: their cameras are returned as they are.
        """
        if self.target is None:
            return camera
        place = torch.cat(
            [self.before.position[0, self.target], torch.tensor([_MIDDLE_HEIGHT])]
        ).double()
        radius = FOOTPRINT * max(RADII)
        poses = camera.world_from_camera.double().clone()
        for pose, intrinsics in zip(poses, camera.intrinsics.double(), strict=True):
            slope = camera.width / 2 / intrinsics[0]
            side = 1.0 if float((place - pose[:3, 3]) @ pose[:3, 0]) > 0 else -1.0
            for _ in range(180):
                across, _, depth = (place - pose[:3, 3]) @ pose[:3, :3]
                if side * across >= slope * depth + radius * (1 + slope**2).sqrt():
                    break
                pose[:3, :3] = _about_z(side * math.pi / 180) @ pose[:3, :3]
        return replace(camera, world_from_camera=poses.to(camera.world_from_camera.dtype))

    def truth(self, camera: Camera, *, samples: int = 4) -> PosedTruth:
        """What n cameras in world coordinates see.

        Args:
            camera: a batch of n; for cameras of the scene frame, first
                `views.moved(cameras, scene_from_world.inverse())`.
            samples: rays per antialiased pixel.
        """
        rows = [0] * len(camera.intrinsics)
        before = render(self.before[rows], camera, samples=samples)
        after = render(self.after[rows], camera, samples=samples).rgb
        visible = torch.ones(len(rows), dtype=torch.bool)
        if self.target is not None:
            visible = (before.object_ids == self.target + 1).flatten(1).any(dim=1)
        mask = changed(before.rgb, after)
        return PosedTruth(before.rgb, after, mask, before.object_ids, visible)


@dataclass(frozen=True)
class PosedSet:
    """A posed edit with its views rendered, training and held-out ones interleaved."""

    case: PosedEdit
    names: tuple[str, ...]
    cameras: Camera
    """In world coordinates."""
    truth: PosedTruth
    held_out: tuple[bool, ...]
    """Which of the views are never trained on."""

    @property
    def train_rows(self) -> list[int]:
        """The views that a field is fitted to."""
        return [i for i, held in enumerate(self.held_out) if not held]

    @property
    def held_out_rows(self) -> list[int]:
        """The views that figures are made on, in the order of `capture().held_out`."""
        return [i for i, held in enumerate(self.held_out) if held]

    def capture(self) -> Capture:
        """The photographs before the edit, as a reader of files would give them."""
        similarity = self.case.scene_from_world
        views = ViewSet(self.names, to_uint8(self.truth.before), moved(self.cameras, similarity))
        return Capture(
            views.select(self.train_rows),
            views.select(self.held_out_rows),
            similarity,
            unbounded=True,
            background="scene",
            source=f"tabletop {self.case.key}, seed {self.case.seed}",
        )


def posed_edit(
    seed: int, index: int, kind: Kind, split: Split = "test", scene_range: SceneRange = PLAIN
) -> PosedEdit:
    """The edit of a kind of scene `index`; the scene is the same for every kind.

    The target covers enough of the image from most cameras of the ring, and its words fit no other
    object.

    Raises:
        WysError: the kind depends on a camera, or no scene of the range offers all kinds.
    """
    if kind not in POSED_KINDS:
        raise WysError(
            f"{kind} cannot be asked for without a viewpoint; take one of {', '.join(POSED_KINDS)}."
        )
    for attempt in range(ATTEMPTS):
        key = f"posed/{split}/{index}/{attempt}"
        scene = scenes_of(seed, [key], scene_range, split)
        if int(scene.present.sum()) < min(2, scene_range.objects[1]):
            continue  # Words need something to single the target out from.
        stage = _stage(seed, key, scene, scene_range)
        chosen = {}
        for each in POSED_KINDS:
            draw = random.Random(f"posed edit/{seed}/{key}/{each}")
            choice = choose_edit(each, stage, scene_range, split, draw)
            if choice is None:
                break
            chosen[each] = (*choice, instruction(*choice, split, draw))
        else:
            edit, description, words = chosen[kind]
            # No edit of these kinds looks at the camera that `apply` takes.
            after = apply(scene, [edit], cameras_of(seed, [key], scene_range, 1, 1))
            return PosedEdit(kind, words, edit, description, scene, after, seed, key, scene_range)
    raise WysError(
        f"no scene of the range offers all of {', '.join(POSED_KINDS)} (scene {index}); "
        "widen the range."
    )


def posed_views(
    case: PosedEdit,
    *,
    views: int = 20,
    held_out: int = 5,
    size: int | tuple[int, int] = 128,
    astray: int = 1,
) -> PosedSet:
    """Renders a posed edit from a ring of cameras, every so many of which are held out.

    The training cameras are the same for every kind.

    Args:
        views: training cameras.
        held_out: cameras for figures, evenly spread between the others.
        size: side, or (height, width), in pixels.
        astray: so many of the held-out cameras look past the target (see `past_target`).
    """
    count = views + held_out
    held = [int((k + 0.5) * count / held_out) for k in range(held_out)]
    cameras = case.cameras(count, size)
    rows = held[len(held) - min(astray, len(held)) :]
    poses = cameras.world_from_camera.clone()
    poses[rows] = case.past_target(cameras[rows]).world_from_camera
    cameras = replace(cameras, world_from_camera=poses)
    return PosedSet(
        case,
        tuple(f"view{i:03d}" for i in range(count)),
        cameras,
        case.truth(cameras),
        tuple(i in held for i in range(count)),
    )


def posed_capture(
    case: PosedEdit, views: int = 20, held_out: int = 5, size: int | tuple[int, int] = 128
) -> Capture:
    """The photographs before the edit from known cameras, in the scene frame."""
    return posed_views(case, views=views, held_out=held_out, size=size).capture()


def _about_z(angle: float) -> Float[Tensor, "3 3"]:
    """The rotation by so many radians about z."""
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def _middle(scene: TableScene) -> tuple[Float[Tensor, " 3"], float]:
    """The middle of a scene's objects, and the radius about it that holds them at any size."""
    places = scene.position[0, scene.present[0]]
    across = (places.amin(dim=0) + places.amax(dim=0)) / 2
    reach = float((places - across).norm(dim=1).max()) + FOOTPRINT * max(RADII)
    return torch.cat([across, torch.tensor([_MIDDLE_HEIGHT])]), max(reach, _LEAST_RADIUS)


def _ring(
    seed: int,
    key: str,
    scene: TableScene,
    scene_range: SceneRange,
    count: int,
    height: int,
    width: int,
) -> Camera:
    start, view = torch.rand(2, generator=generator(seed, key, "ring")).tolist()
    draws = torch.rand(count, 3, generator=generator(seed, key, f"ring of {count}"))
    turn = start + (torch.arange(count) + 0.5 * draws[:, 0]) / count
    azimuth = 2 * math.pi * turn
    low, high = (degrees * math.pi / 180 for degrees in scene_range.camera_elevation)
    # Two levels, each jittered over two fifths of the range.
    level = 0.6 * (torch.arange(count) % 2) + 0.4 * draws[:, 1]
    elevation = low + (high - low) * level
    near, far = scene_range.camera_distance
    distance = near + (far - near) * draws[:, 2]
    unit = torch.stack(
        [elevation.cos() * azimuth.cos(), elevation.cos() * azimuth.sin(), elevation.sin()], dim=-1
    )
    target = _middle(scene)[0].expand_as(unit)
    pose = look_at(target + distance[:, None] * unit, target, torch.tensor([0.0, 0.0, 1.0]))
    # One lens for the whole ring, as a photographer has.
    least, most = scene_range.view_height
    span = least + (most - least) * view
    fov = torch.full((count,), 360 / math.pi * math.atan(span / (near + far)))
    return Camera(intrinsics_from_fov(fov, height, width, scene_range.aspect), pose, width, height)


def _stage(seed: int, key: str, scene: TableScene, scene_range: SceneRange) -> Stage:
    """What the choice of an edit needs to know, with nothing in it that depends on a camera."""
    width = round(_PROBE * scene_range.aspect)
    probes = _ring(seed, key, scene, scene_range, _PROBES, _PROBE, width)
    ids = object_ids(scene[[0] * _PROBES], probes).flatten(1)
    # Where all stand at one place in the image and in depth, no position singles one out.
    objects: list[Thing] = [
        thing._replace(across=0.0, depth=0.0) for thing in things(scene, probes[:1])[0]
    ]
    seen = [
        thing.slot
        for thing in objects
        if float(((ids == thing.slot + 1).float().mean(dim=1) >= LEAST_SHARE).float().mean())
        >= _SEEN_FROM
    ]
    return Stage(
        objects=objects,
        seen=seen,
        free=torch.zeros(MAX_OBJECTS, 0, 0, 0, dtype=torch.bool),
        may_grow=_room_to_grow(scene),
        floor_colour=FLOORS[int(scene.floor_colour)],
        floor_pattern=FLOOR_PATTERNS[int(scene.floor_pattern)],
        background_colour=BACKGROUNDS[int(scene.background_colour)],
        light=LIGHT_KINDS[int(scene.light_kind)],
    )


def _room_to_grow(scene: TableScene) -> list[bool]:
    """Which objects have room on the table for the largest size."""
    distance = torch.cdist(scene.position, scene.position)[0]
    free = distance >= FOOTPRINT * (max(RADII) + scene.radius) + GAP
    free |= torch.eye(MAX_OBJECTS, dtype=torch.bool) | ~scene.present
    return (free.all(dim=1) & scene.present[0]).tolist()
