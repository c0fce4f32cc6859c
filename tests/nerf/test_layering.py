"""Edits of a scene rendered as one: what no edit may change stays, bit for bit."""

from collections.abc import Callable

import pytest
import torch

from wys.camera import Camera, Rays, intrinsics_from_fov, look_at
from wys.nerf.field import FieldSettings
from wys.nerf.layering import Look
from wys.nerf.region import Region
from wys.nerf.rendering import Rendering, Shading, composite, render, sample, shade
from wys.nerf.scene import Scene

Made = Callable[[int], Scene]


@pytest.fixture
def made(small_field: FieldSettings) -> Made:
    """Makes a field that is dense here and there, by its seed, with a relevance field."""

    def scene_of(seed: int) -> Scene:
        scene = Scene.create(small_field, seed, unbounded=True, background="scene")
        scene, draw = scene.with_relevance(0), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in scene.parameters():
                parameter += 0.4 * torch.randn(parameter.shape, generator=draw)
        return scene

    return scene_of


def region(low: int, high: int) -> Region:
    inside = torch.zeros(16, 16, 16, dtype=torch.bool)
    inside[low:high, 5:11, 5:11] = True
    return Region(inside, 1.25)


@pytest.fixture
def camera() -> Camera:
    pose = look_at(torch.tensor([0.0, -3, 0.4]), torch.zeros(3), torch.tensor([0.0, 0, 1]))
    return Camera(intrinsics_from_fov(torch.tensor(50.0), 20, 24), pose, 24, 20)


def same(one: Rendering, other: Rendering) -> bool:
    return torch.equal(one.rgb, other.rgb) and torch.equal(one.depth, other.depth)


def test_without_edits_it_is_the_field(made: Made, camera: Camera) -> None:
    scene = made(0)
    shown, look = render(scene, camera), Look(((scene, None),))
    assert same(look(camera), shown) and look.has_relevance
    assert shown.relevance is not None
    assert torch.equal(look(camera).relevance, shown.relevance)


def test_pixels_that_do_not_see_the_region_stay_bit_for_bit(made: Made, camera: Camera) -> None:
    base, edited, where = made(0), made(1), region(6, 10)
    before = render(base, camera)
    after = Look(((base, None),)).with_layer(edited, where)(camera)
    seen = where.seen_by(camera, before.depth)[0]
    assert 0.05 < seen.float().mean() < 0.6
    equal = (before.rgb == after.rgb).all(dim=0)
    assert equal[~seen].all()
    assert equal[seen].float().mean() < 0.1
    assert torch.equal(before.depth[0, ~seen], after.depth[0, ~seen])


def test_a_view_that_shows_nothing_of_the_region_stays(made: Made, camera: Camera) -> None:
    base, edited = made(0), made(1)
    eye, away, up = torch.tensor([[0.0, -3, 0.4], [0, -9, 0], [0, 0, 1]])
    turned = Camera(camera.intrinsics, look_at(eye, away, up), 24, 20)
    look = Look(((base, None),)).with_layer(edited, region(6, 10))
    assert same(look(turned), render(base, turned))


def test_inside_the_region_the_edited_field_holds(made: Made, camera: Camera) -> None:
    base, edited = made(0), made(1)
    everything = Region(torch.ones(8, 8, 8, dtype=torch.bool), 5.0)
    after = Look(((base, None),)).with_layer(edited, everything)(camera)
    # The oracle: the edited field up to the cube's faces, with the intervals of both fields.
    rays = camera.rays()
    flat = Rays(rays.origins.reshape(-1, 3), rays.directions.reshape(-1, 3))
    with torch.no_grad():
        own, other = sample(edited, flat), sample(base, flat)
        edges = torch.cat([own.edges, other.edges], dim=1).sort(dim=1).values
        distances = torch.cat([own.distances, other.distances], dim=1).sort(dim=1).values
        merged = type(own)(flat, edges, distances, own.proposed_edges, own.proposed_weights, True)
        near = (merged.points.abs() < 5).all(dim=-1)
        inside, outside = shade(edited, merged), shade(base, merged)
        density = torch.where(near, inside.density, outside.density)
        rgb = torch.where(near[..., None], inside.rgb, outside.rgb)
        shown, _ = composite(merged, Shading(density, rgb, None), "scene")
    oracle = shown.rgb.T.reshape(3, 20, 24)
    torch.testing.assert_close(after.rgb, oracle, atol=1e-5, rtol=1e-5)


def test_the_last_edit_wins_where_regions_meet(made: Made, camera: Camera) -> None:
    base, one, two, where = made(0), made(1), made(2), region(6, 10)
    direct = Look(((base, None),)).with_layer(two, where)
    stacked = Look(((base, None),)).with_layer(one, where).with_layer(two, where)
    seen = where.seen_by(camera, render(base, camera).depth)[0]
    mine, theirs = stacked(camera).rgb[:, seen], direct(camera).rgb[:, seen]
    # The same fields; only the first edit's intervals are cut in as well.
    assert (mine - theirs).abs().mean() < 0.25 * (
        mine - render(base, camera).rgb[:, seen]
    ).abs().mean()


def test_an_edit_of_everything_hides_what_came_before(made: Made, camera: Camera) -> None:
    base, one, two = made(0), made(1), made(2)
    look = Look(((base, None),)).with_layer(one, region(6, 10)).with_layer(two, None)
    assert same(look(camera), render(two, camera))


def test_two_edits_apart_do_not_touch_each_other(made: Made, camera: Camera) -> None:
    base, one, two = made(0), made(1), made(2)
    left, right = region(1, 5), region(11, 15)
    first = Look(((base, None),)).with_layer(one, left)
    both = first.with_layer(two, right)
    before, after = first(camera), both(camera)
    seen = right.seen_by(camera, before.depth)[0]
    assert seen.any()
    assert torch.equal(before.rgb[:, ~seen], after.rgb[:, ~seen])


def test_what_stands_in_front_hides_a_region_from_the_whole_stack(
    made: Made, camera: Camera
) -> None:
    where = region(6, 10)
    for look in (
        Look(((made(0), None),)),
        Look(((made(0), None),)).with_layer(made(1), region(11, 15)),
        Look(((made(0), None),)).with_layer(made(1), None),
    ):
        assert torch.equal(look.sees(where, camera), where.seen_by(camera, look(camera).depth))


def test_chunks_do_not_matter(made: Made, camera: Camera) -> None:
    look = Look(((made(0), None),)).with_layer(made(1), region(6, 10))
    one, other = look(camera), look(camera, chunk=97)
    torch.testing.assert_close(one.rgb, other.rgb, atol=1e-5, rtol=1e-4)
    assert one.relevance is not None and other.relevance is not None
    torch.testing.assert_close(one.relevance, other.relevance, atol=1e-5, rtol=1e-4)
