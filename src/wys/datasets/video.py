"""Frames of a video as photographs. Needs imageio with its ffmpeg."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from wys.errors import WysError
from wys.image import Picture, write_picture

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v")


def extract_frames(video: Path, folder: Path, count: int) -> list[Path]:
    """Writes `count` frames, evenly spread over the video, as PNG files into a folder.

    A shorter video gives all its frames.

    Raises:
        WysError: imageio is missing, or the video cannot be read.
    """
    try:
        import imageio.v2 as imageio
    except ImportError as error:
        raise WysError(
            "videos need imageio with ffmpeg; install it with pip install 'wys[scenes]'."
        ) from error
    try:
        # The library does not say that this reader counts and is iterable.
        opened: Any = imageio.get_reader(video, "ffmpeg")
        with opened as reader:
            wanted = spread(reader.count_frames(), count)
            return [
                _write(folder / f"frame{index:06d}.png", frame)
                for index, frame in enumerate(reader)
                if index in wanted
            ]
    except (OSError, ValueError, RuntimeError, IndexError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise WysError(
            f"{video} is not a video that can be read ({reason}); convert it to mp4."
        ) from error


def spread(total: int, count: int) -> Sequence[int]:
    """`count` of the numbers below `total`, evenly spread with the first and the last; or all."""
    if count >= total:
        return range(total)
    if count < 2:
        return range(min(count, total))
    return [round(k * (total - 1) / (count - 1)) for k in range(count)]


def _write(path: Path, frame: Any) -> Path:
    rgb = torch.from_numpy(frame.copy())[..., :3].permute(2, 0, 1).contiguous()
    write_picture(path, Picture(rgb))
    return path
