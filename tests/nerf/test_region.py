"""Regions: what the votes of views carve out, and what a camera sees of it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wys.camera import Camera, intrinsics_from_fov, look_at
from wys.nerf.field import FieldSettings
from wys.nerf.region import (
    Region,
    RegionSettings,
    connected_parts,
    region_mask,
    strongest_parts,
    vote_region,
    votes,
)
from wys.nerf.scene import Scene
from wys.views import Background


def ring(count: int, size: int = 48) -> Camera:
    angle = torch.arange(count) * (2 * torch.pi / count)
    eye = torch.stack([3 * angle.cos(), 3 * angle.sin(), torch.full((count,), 1.5)], dim=-1)
    pose = look_at(eye, torch.zeros(count, 3), torch.tensor([0.0, 0.0, 1.0]))
    intrinsics = intrinsics_from_fov(torch.full((count,), 45.0), size, size)
    return Camera(intrinsics, pose, size, size)


def ball_hit(camera: Camera, centre: torch.Tensor, radius: float) -> torch.Tensor:
    """Distance to a ball along each ray, infinite where it is missed (closed form)."""
    rays = camera.rays()
    offset = centre - rays.origins
    along = (offset * rays.directions).sum(-1)
    gap = radius**2 - (offset.square().sum(-1) - along.square())
    return torch.where(gap > 0, along - gap.clamp(min=0).sqrt(), torch.inf)


def silhouettes(cameras: Camera, centre: torch.Tensor, radius: float) -> torch.Tensor:
    return (ball_hit(cameras, centre, radius) < torch.inf).float()[:, None]


def ball_region(radius: float, centre: torch.Tensor, resolution: int = 64) -> Region:
    axis = ((torch.arange(resolution) + 0.5) / resolution * 2 - 1) * 1.25
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    return Region((points - centre).norm(dim=-1) < radius, 1.25)


def test_votes_are_the_mean_over_the_views_that_see_a_voxel() -> None:
    cameras, how = ring(3), RegionSettings(resolution=5)
    maps = torch.rand(3, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    found = votes(maps, cameras, how)
    for voxel in [(0, 0, 0), (2, 2, 2), (4, 1, 3), (1, 4, 0)]:
        point = ((torch.tensor(voxel) + 0.5) / 5 * 2 - 1) * how.extent
        values = []
        for i in range(3):
            (pixel,), (depth,) = cameras[i].project(point[None])
            if depth <= 0 or not bool(((pixel >= 0) & (pixel <= 48)).all()):
                continue
            # Bilinear by hand on the 12 x 12 map, zero outside it.
            x, y = (pixel / 48 * 12 - 0.5).tolist()
            value = 0.0
            for row in range(12):
                for column in range(12):
                    weight = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row))
                    value += weight * float(maps[i, 0, row, column])
            values.append(value)
        expected = sum(values) / 3 if len(values) == 3 else 0.0
        assert abs(float(found[voxel]) - expected) < 1e-4


def test_what_a_few_views_alone_have_in_frame_is_no_part_of_the_region() -> None:
    # Close cameras: the corners of the box lie in the frames of a few of them.
    cameras, centre = ring(8), torch.tensor([0.2, 0.1, 0.0])
    poses = cameras.world_from_camera.clone()
    poses[:, :3, 3] *= 0.6
    cameras = Camera(cameras.intrinsics, poses, cameras.width, cameras.height)
    how = RegionSettings(resolution=48, agreement=0.9)
    region = vote_region(silhouettes(cameras, centre, 0.4), cameras, how)
    points = region.inside.nonzero() + 0.5
    points = points / 48 * 2 - 1
    assert len(points) > 100
    framed = torch.zeros(len(points))
    for i in range(8):
        pixels, depth = cameras[i].project(points * how.extent)
        framed += (depth > 0) & ((pixels >= 0) & (pixels <= 48)).all(dim=-1)
    assert float(framed.min()) >= 3


def test_silhouettes_of_a_ball_carve_out_the_ball() -> None:
    centre, radius = torch.tensor([0.3, -0.2, 0.1]), 0.4
    cameras = ring(16)
    region = vote_region(
        silhouettes(cameras, centre, radius),
        cameras,
        RegionSettings(resolution=64, agreement=0.95),
    )
    truth = ball_region(radius, centre).inside
    overlap = (region.inside & truth).sum() / (region.inside | truth).sum()
    # Views from one height cannot carve the space above and below the ball.
    assert overlap > 0.6
    assert (region.inside & truth).sum() / truth.sum() > 0.8


def test_views_that_point_elsewhere_are_outvoted() -> None:
    cameras = ring(15)
    right, wrong = torch.tensor([0.5, 0.0, 0.0]), torch.tensor([-0.6, 0.1, 0.0])
    maps = silhouettes(cameras, right, 0.3)
    maps[::3] = silhouettes(cameras, wrong, 0.3)[::3]
    region = vote_region(maps, cameras)
    assert bool(region.contains(right[None]).all())
    assert not bool(region.contains(wrong[None]).any())


def test_of_two_things_that_all_masks_show_the_more_relevant_one_stays() -> None:
    cameras = ring(12)
    meant, other = torch.tensor([0.5, 0.0, 0.0]), torch.tensor([-0.6, 0.1, 0.0])
    first, second = (silhouettes(cameras, centre, 0.25) for centre in (meant, other))
    masks, maps = torch.maximum(first, second), torch.maximum(0.95 * first, 0.8 * second)
    region = vote_region(masks, cameras, RegionSettings(rival=0.9), maps)
    assert bool(region.contains(meant[None]).all())
    assert not bool(region.contains(other[None]).any())
    both = vote_region(masks, cameras, RegionSettings(rival=0.8), maps)
    assert bool(both.contains(torch.stack([meant, other])).all())


@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_parts_are_those_of_a_flood_fill(seed: int) -> None:
    inside = torch.rand(5, 5, 5, generator=torch.Generator().manual_seed(seed)) > 0.8
    labels = connected_parts(inside)
    left, parts = {tuple(v) for v in inside.nonzero().tolist()}, []
    while left:
        part, edge = set(), [left.pop()]
        while edge:
            voxel = edge.pop()
            part.add(voxel)
            near = {w for w in left if all(abs(a - b) <= 1 for a, b in zip(voxel, w, strict=True))}
            left -= near
            edge += near
        parts.append(part)
    names = [{int(labels[voxel]) for voxel in part} for part in parts]
    assert all(len(name) == 1 for name in names)
    assert len(set().union(*names)) == len(parts) == len(labels.unique()) - 1 + bool(inside.all())


def test_specks_neither_count_nor_stay() -> None:
    inside = torch.zeros(12, 12, 12, dtype=torch.bool)
    inside[1:4, 1:4, 1:4] = True
    inside[8, 8, 8] = True
    evidence = torch.full(inside.shape, 0.5)
    evidence[8, 8, 8] = 1.0
    kept = strongest_parts(inside, evidence, 0.9)
    assert bool(kept[2, 2, 2]) and not bool(kept[8, 8, 8])


def test_a_small_part_does_not_outdo_a_large_one() -> None:
    inside = torch.zeros(16, 16, 16, dtype=torch.bool)
    inside[1:9, 1:9, 1:9] = True
    inside[12:15, 12:15, 12:15] = True
    evidence = torch.full(inside.shape, 0.8)
    evidence[12:15, 12:15, 12:15] = 0.9
    assert bool(strongest_parts(inside, evidence, 1.0)[2, 2, 2])
    evidence[12:15, 12:15, 12:15] = 0.7
    assert not bool(strongest_parts(inside, evidence, 0.9)[13, 13, 13])


def test_no_votes_no_region() -> None:
    region = vote_region(torch.zeros(4, 1, 8, 8), ring(4))
    assert region.is_empty
    assert not bool(region.seen_by(ring(1)[0]).any())


def test_first_hit_agrees_with_the_closed_form() -> None:
    centre, camera = torch.tensor([0.2, 0.1, -0.1]), ring(1)[0]
    region = ball_region(0.5, centre, resolution=100)
    hit, exact = region.first_hit(camera.rays()), ball_hit(camera, centre, 0.5)
    both = (hit < torch.inf) & (exact < torch.inf)
    assert both.sum() > 0.95 * (exact < torch.inf).sum()
    assert (hit - exact)[both].abs().median() < 0.03


@pytest.mark.parametrize(("background", "unbounded"), [("white", False), ("scene", True)])
def test_a_region_is_seen_where_nothing_stands(
    small_field: FieldSettings, background: Background, unbounded: bool
) -> None:
    """An empty scene hides no region, be its sky far away or white; chunks do not matter."""
    thin = replace(small_field, initial=-20.0)
    scene = Scene.create(thin, 0, unbounded=unbounded, background=background)
    camera = ring(1)[0]
    region = ball_region(0.4, torch.zeros(3))
    mask = region_mask(scene, region, camera)
    assert torch.equal(mask, region.seen_by(camera)) and bool(mask.any())
    assert torch.equal(mask, region_mask(scene, region, camera, chunk=7))


def test_what_stands_in_front_hides_the_region() -> None:
    camera = ring(1)[0]
    region = ball_region(0.4, torch.zeros(3))
    free = region.seen_by(camera)
    far = torch.full((1, 48, 48), 10.0)
    near = torch.full((1, 48, 48), 1.0)
    assert torch.equal(region.seen_by(camera, far), free)
    assert bool(free.any()) and not bool(region.seen_by(camera, near).any())
