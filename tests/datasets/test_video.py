"""Videos: frames are taken evenly and in order."""

import sys
from pathlib import Path

import pytest
import torch

from wys.datasets.reading import read_capture
from wys.datasets.video import extract_frames, spread
from wys.errors import WysError
from wys.image import read_picture

imageio = pytest.importorskip("imageio.v2")


def write_video(path: Path, count: int) -> None:
    """Frames whose grey value says which one it is."""
    with imageio.get_writer(path, "ffmpeg", fps=10, macro_block_size=16) as writer:
        for i in range(count):
            writer.append_data(torch.full((32, 48, 3), 20 + 10 * i, dtype=torch.uint8).numpy())


def test_frames_are_spread_over_the_video(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", 20)
    photos = extract_frames(tmp_path / "clip.mp4", tmp_path, 5)
    greys = [read_picture(photo).rgb.float().mean().item() for photo in photos]
    assert [round((grey - 20) / 10) for grey in greys] == [0, 5, 10, 14, 19]
    assert read_picture(photos[0]).size == (32, 48)
    assert [photo.name for photo in photos] == sorted(photo.name for photo in photos)


def test_spread_holds_both_ends() -> None:
    assert list(spread(10, 4)) == [0, 3, 6, 9]
    assert list(spread(3, 5)) == [0, 1, 2]
    for total in range(2, 40):
        for count in range(2, total):
            chosen = list(spread(total, count))
            assert len(set(chosen)) == count and chosen[0] == 0 and chosen[-1] == total - 1


def test_a_missing_library_is_named_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio.v2", None)
    with pytest.raises(WysError, match=r"videos need imageio .* 'wys\[scenes\]'"):
        extract_frames(tmp_path / "clip.mp4", tmp_path, 3)


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_text("nothing of the kind")
    with pytest.raises(WysError, match=r"clip\.mp4 is not a video that can be read"):
        read_capture(tmp_path / "clip.mp4")
