"""A watched edit is stopped where it changes nothing, and where the field does not follow it."""

import pytest
import torch

from wys.camera import Camera, look_at
from wys.errors import WysError
from wys.masks import Mask
from wys.nerf.field import FieldSettings
from wys.nerf.rendering import render
from wys.nerf.scene import Scene
from wys.scene_watchdog import _PIXELS, Watchdog, _some

SIZE = 40
FIELD = FieldSettings(
    levels=2, log2_size=8, width=8, proposal_grids=(8,), proposal_samples=8, samples=4
)


def a_scene(seed: int = 0) -> Scene:
    return Scene.create(FIELD, seed, unbounded=True, background="scene")


def a_camera() -> Camera:
    pose = look_at(
        torch.tensor([[2.0, 0.0, 0.5]]), torch.zeros(1, 3), torch.tensor([0.0, 0.0, 1.0])
    )
    return Camera(torch.tensor([[50.0, 50.0, SIZE / 2, SIZE / 2]]), pose, SIZE, SIZE)[0]


def everywhere() -> Mask:
    return Mask.from_image(torch.ones(1, 1, SIZE, SIZE, dtype=torch.bool), (SIZE, SIZE))


def test_all_of_a_small_region_is_watched_and_an_even_part_of_a_large_one() -> None:
    small = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    small[3, 5:9] = True
    assert _some(small).tolist() == [3 * SIZE + x for x in range(5, 9)]
    many = _some(torch.ones(SIZE, SIZE, dtype=torch.bool))
    assert _PIXELS / 2 < len(many) <= _PIXELS
    assert many.diff().unique().tolist() == [2]


def test_edits_that_change_nothing_are_told() -> None:
    watchdog, photograph = Watchdog(2), torch.full((3, SIZE, SIZE), 0.5)
    watchdog.edited(photograph, photograph, everywhere(), a_camera(), a_scene())
    with pytest.raises(WysError, match="change nothing"):
        watchdog.edited(photograph, photograph, everywhere(), a_camera(), a_scene())


def test_a_field_that_does_not_move_is_told_and_one_that_does_is_not() -> None:
    scene, follower, camera = a_scene(), a_scene(1), a_camera()
    wanted = render(follower, camera).rgb
    wanted = wanted + 0.3 * (0.5 - wanted).sign()
    photograph = 1 - wanted
    watchdogs = Watchdog(1), Watchdog(1)
    for watchdog in watchdogs:
        watchdog.edited(photograph, wanted, everywhere(), camera, scene)
        watchdog.stepped(scene)
    with pytest.raises(WysError, match="does not take the edits up"):
        watchdogs[0].stepped(scene)
    rays, _, edit = watchdogs[1].watched[0]
    watchdogs[1].watched[0] = rays, 1 - edit, edit  # it showed something else before
    watchdogs[1].stepped(scene)
    assert watchdogs[1].settled and not watchdogs[1].watching


def test_none_are_watched_where_none_are_to_be() -> None:
    watchdog = Watchdog(0)
    watchdog.edited(
        torch.zeros(3, SIZE, SIZE), torch.zeros(3, SIZE, SIZE), everywhere(), a_camera(), a_scene()
    )
    watchdog.stepped(a_scene())
    assert not watchdog.watched
