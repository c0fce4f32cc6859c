"""Pictures, films and points of scenes, and the time that is left."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from wys.apps import progress
from wys.apps.progress import Saving, TimeLeft, bar_of_kinds
from wys.apps.scene_data import surface_points, to_world
from wys.apps.scene_results import (
    check_rate,
    depth_image,
    depth_range,
    film,
    spread_indices,
    write_points,
)
from wys.camera import Camera, intrinsics_from_fov, look_at
from wys.errors import WysError
from wys.nerf.rendering import Rendering


@given(st.integers(0, 500), st.integers(2, 12))
def test_a_sheet_takes_views_from_first_to_last(count: int, most: int) -> None:
    chosen = spread_indices(count, most)
    assert len(chosen) == min(count, most) and chosen == sorted(set(chosen))
    assert not count or (chosen[0] == 0 and chosen[-1] == count - 1)


def test_near_is_bright_and_emptiness_black() -> None:
    depth = torch.tensor([[[1.0, 2.0, 4.0, 1.0]]])
    opacity = torch.tensor([[[1.0, 1.0, 1.0, 0.0]]])
    near, far = depth_range([depth], [opacity])
    assert (near, far) == (1.0, 4.0)
    brightness = depth_image(depth, opacity, near, far).sum(dim=0)[0].tolist()
    assert brightness[0] > brightness[1] > brightness[2] and brightness[3] == 0
    # Half of what stands 2 away weighs half of that: it is no nearer for it, only darker.
    thin = torch.full_like(opacity, 0.5)
    torch.testing.assert_close(
        depth_image(depth * thin, thin, 1.0, 4.0), depth_image(depth, thin / thin, 1.0, 4.0) * 0.5
    )
    assert depth_range([depth * 0.6], [torch.full_like(opacity, 0.6)]) == pytest.approx((1, 4))
    # Where nothing stands there still is a range to divide by.
    near, far = depth_range([depth], [torch.zeros_like(opacity)])
    assert 0 < near < far


def test_a_film_holds_its_frames(tmp_path: Path) -> None:
    import imageio_ffmpeg

    path = tmp_path / "film.mp4"
    with film(path, 8.0) as add:
        for i in range(5):
            add(torch.full((3, 11, 15), i / 4))
    frames = imageio_ffmpeg.read_frames(path)
    facts = next(frames)
    assert facts["fps"] == 8 and all(side % 2 == 0 for side in facts["size"])
    means = [np.frombuffer(frame, dtype=np.uint8).mean() for frame in frames]
    assert np.allclose(means, [0, 64, 128, 191, 255], atol=4)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("side", [16, 1024])
def test_what_the_encoder_says_is_cut_to_a_line(tmp_path: Path, side: int) -> None:
    """At no rate that it takes: with small frames the pipe swallows them all."""
    with (
        pytest.raises(WysError, match="cannot make the film") as caught,
        film(tmp_path / "film.mp4", -5) as add,
    ):
        for _ in range(4):
            add(torch.zeros(3, side, side))
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rate", [0.0, -5.0, 0.009, 1001.0, float("inf"), float("nan")])
def test_rates_that_no_film_has_are_refused(rate: float) -> None:
    with pytest.raises(WysError, match=r"0\.01 to 1000 pictures a second, not"):
        check_rate(rate)
    check_rate(0.01)
    check_rate(1000)


def test_a_film_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WysError, match="at least 1 frame"), film(tmp_path / "film.mp4", 8.0):
        pass
    assert list(tmp_path.iterdir()) == []


def test_points_without_relevance_have_no_such_property(tmp_path: Path) -> None:
    points = torch.tensor([[1.0, 2, 3], [-4, 5, 0.5]])
    write_points(tmp_path / "p.ply", points, torch.tensor([[0.0, 0.5, 1], [1, 0, 0]]), None)
    head, body = (tmp_path / "p.ply").read_bytes().split(b"end_header\n", 1)
    assert b"element vertex 2\n" in head and b"relevance" not in head
    assert np.frombuffer(body[:12], "<f4").tolist() == [1, 2, 3]
    assert list(body[12:15]) == [0, 128, 255] and len(body) == 2 * 15


def test_surface_points_lie_where_the_camera_unprojects_them() -> None:
    eyes = torch.tensor([[0.0, -3, 1], [2, 2, 1]])
    poses = look_at(eyes, torch.zeros(2, 3), torch.tensor([0.0, 0, 1]))
    cameras = Camera(intrinsics_from_fov(torch.tensor([50.0, 40]), 4, 6), poses, 6, 4)
    draw = torch.Generator().manual_seed(0)
    along_z = 1 + torch.rand(2, 24, generator=draw)
    pixels = cameras.pixel_centres().reshape(-1, 2).expand(2, -1, 2)
    expected = cameras.unproject(pixels, along_z)
    distance = (expected - eyes[:, None]).norm(dim=-1).reshape(2, 1, 4, 6)
    opacity = torch.ones_like(distance)
    opacity[0, 0, 0] = 0.2
    colours = torch.rand(2, 3, 4, 6, generator=draw)
    # What lets a tenth of the light through tells of depth in the same proportion.
    opacity[1] = 0.9
    shown = [Rendering(colours[i], opacity[i] * distance[i], opacity[i], None) for i in range(2)]
    points, rgb = surface_points(shown, cameras)
    assert len(points) == 2 * 24 - 6
    torch.testing.assert_close(points, expected.reshape(-1, 3)[6:], atol=1e-5, rtol=1e-5)
    assert torch.equal(rgb[-1], colours[1, :, 3, 5])

    similarity = torch.tensor([[0.0, -2, 0, 1], [2, 0, 0, 2], [0, 0, 2, 3], [0, 0, 0, 1]])
    world = to_world(points, similarity)
    there = world @ similarity[:3, :3].double().T + similarity[:3, 3].double()
    torch.testing.assert_close(there.float(), points, atol=1e-5, rtol=1e-5)


def test_the_time_left_weighs_slow_and_quick_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("wys.apps.progress.time.monotonic", lambda: now[0])
    left = TimeLeft(("photographs", "field"))
    for i in range(1, 4):
        now[0] += 10
        left.step("photographs", i, 10)
    assert left.seconds == pytest.approx(70) and left.in_words == "at least 1:10"
    now[0] += 2
    left.step("field", 1, 101)
    assert left.seconds == pytest.approx(70 + 200) and left.in_words == "4:30"
    left.step("field", 1, 5_001)
    assert left.in_words.count(":") == 2


def test_the_time_left_counts_what_is_expected_after_the_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr("wys.apps.progress.time.monotonic", lambda: now[0])
    left = TimeLeft(("maps", "photographs", "field", "film"), {"film": (60, 2.0)})
    now[0] += 5
    left.step("photographs", 1, 2)
    # Maps were skipped; how long the field takes is not known yet.
    assert left.seconds == pytest.approx(5 + 120) and left.in_words == "at least 2:05"
    now[0] += 1
    left.step("field", 2, 2)
    left.step("photographs", 2, 2)
    assert left.in_words == "2:00"
    now[0] += 4
    left.step("film", 1, 60)
    # Measured now.
    assert left.seconds == pytest.approx(59 * 4)


def test_every_state_of_an_edits_bar_fits_into_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system=None)
    monkeypatch.setattr(progress, "err", console)
    now = [0.0]
    monkeypatch.setattr("wys.apps.progress.time.monotonic", lambda: now[0])
    kinds = {"maps": 480, "relevance": 2000, "photographs": 480, "field": 4800}
    expected = {"views": (100, 400.0), "film": (240, 300.0)}
    bar, advance = bar_of_kinds("editing", (*kinds, *expected), expected)
    bar.tasks[0].start_time = -11 * 3600.0
    seen = []

    def step(kind: str, done: int, count: int) -> None:
        now[0] += 100
        advance(kind, done, count)
        with console.capture() as shown:
            console.print(bar.get_renderable())
        (line,) = shown.get().splitlines()
        assert len(line) <= 80 and "\N{HORIZONTAL ELLIPSIS}" not in line, line
        assert done == count or f"{kind} {done}/{count}" in line, line
        assert line.rstrip().endswith(" left"), line
        seen.append(" ".join(line.split()))

    with console.capture() as shown:
        console.print(bar.get_renderable())
    assert len(shown.get().splitlines()) == 1
    for kind, count in kinds.items():
        step(kind, 1, count)
        step(kind, count // 2, count)
        if kind in ("maps", "relevance"):
            step(kind, count, count)
    assert "at least" in seen[0] and "photographs 240/480, field 2400/4800" in seen[-1]
    step("photographs", 480, 480)
    step("field", 4800, 4800)
    for kind, (count, _) in expected.items():
        step(kind, 1, count)
        step(kind, count, count)
    assert seen[-1].endswith(" 0:00 left") and "field" not in seen[-1]


def test_states_are_saved_as_often_as_their_cost_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("wys.apps.progress.time.monotonic", lambda: now[0])
    saving = Saving(share=0.1)
    assert saving.due()
    with saving:
        now[0] += 2
    now[0] += 19
    assert not saving.due()
    now[0] += 1
    assert saving.due()
