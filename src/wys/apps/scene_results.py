"""What the scene commands show: sheets of views, films, and the scene as coloured points."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from wys.errors import WysError
from wys.image import heat_map, labelled_sheet, resize, to_uint8, write_image
from wys.store import write_atomically

VERDICTS = {
    "nothing to edit": "Nothing to edit: no view shows what the instruction is about.",
    "local": "A local edit.",
    "whole image": "The instruction concerns the whole scene.",
}
SHEET_ROWS = 6
"""Most views in a sheet."""
ROW_HEIGHT = 192
FILM_SIDE = 384
"""Shorter side, in pixels, to which films of small views are enlarged to be watched."""


_RATES = (0.01, 1000.0)  # Pictures a second; the encoder is told two decimals.
_NO_FILMS = "films need imageio with ffmpeg; install it with pip install 'wys[scenes]'"


def spread_indices(count: int, most: int = SHEET_ROWS) -> list[int]:
    """At most so many of `count` indices, evenly spread, the first and the last among them."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def write_sheet(
    path: Path,
    rows: Sequence[Sequence[tuple[str, Float[Tensor, "3 h w"]]]],
    height: int = 0,
    title: str = "",
) -> None:
    """Rows of labelled images as one picture."""
    write_image(path, labelled_sheet(rows, height=height or ROW_HEIGHT, title=title))


def depth_image(
    depth: Float[Tensor, "1 h w"], opacity: Float[Tensor, "1 h w"], near: float, far: float
) -> Float[Tensor, "3 h w"]:
    """Near is bright, far is dark, on the scale of inverse depth; black where nothing stands.

    Args:
        depth: as rendered: weighted by what stands along the ray.
    """
    depth = depth / opacity.clamp(min=1e-6)
    scale = (1 / near - 1 / far) or 1.0
    values = ((1 / depth.clamp(min=near) - 1 / far) / scale).clamp(0, 1)
    return heat_map(values) * opacity.clamp(0, 1)


def depth_range(
    depths: Iterable[Float[Tensor, "1 h w"]], opacities: Iterable[Float[Tensor, "1 h w"]]
) -> tuple[float, float]:
    """The depths between which nearly all of what stands in the views lies, in scene units."""
    seen = torch.cat(
        [(d / o)[o > 0.5].flatten() for d, o in zip(depths, opacities, strict=True)]
        or [torch.ones(1)]
    )
    if not len(seen):
        return 0.1, 1.0
    ordered = seen.double().sort().values
    near, far = (float(ordered[round(q * (len(ordered) - 1))]) for q in (0.01, 0.99))
    near = max(near, 1e-3)
    return near, max(far, near * 1.01)


def check_film(count: int) -> None:
    """Says before the work whether a film of so many pictures can be made of it; 0: none.

    Raises:
        WysError: it cannot.
    """
    if count < 0 or count == 1:
        raise WysError(f"--film is at least 2 pictures, or 0 for none, not {count}.")
    if count and find_spec("imageio_ffmpeg") is None:
        raise WysError(f"{_NO_FILMS}, or leave the film out with --film 0.")


def check_rate(frames_per_second: float) -> None:
    """Says before the work whether a film can be played at such a rate.

    Raises:
        WysError: it cannot.
    """
    slowest, fastest = _RATES
    if not slowest <= frames_per_second <= fastest:
        raise WysError(
            f"a film has {slowest:g} to {fastest:g} pictures a second, not {frames_per_second:g}; "
            "change --seconds, or the seconds of the recorded path."
        )


@contextmanager
def film(
    path: Path, frames_per_second: float
) -> Iterator[Callable[[Float[Tensor, "3 h w"]], None]]:
    """Yields what takes the frames, all of one size, of a film: H.264 in an mp4 file that plays
    everywhere, written atomically. No frame is kept.

    Raises:
        WysError: there is no encoder on this machine, the file cannot be written, or no frame came.
    """
    try:
        import imageio_ffmpeg
    except ImportError as error:
        raise WysError(f"{_NO_FILMS}.") from error

    with write_atomically(path) as temporary:
        writer: Generator[None, bytes | None, None] | None = None

        def add(frame: Float[Tensor, "3 h w"]) -> None:
            nonlocal writer
            pixels = _film_pixels(frame)
            if writer is None:
                writer = imageio_ffmpeg.write_frames(
                    str(temporary),
                    (pixels.shape[1], pixels.shape[0]),
                    fps=frames_per_second,
                    quality=8,
                    macro_block_size=2,
                    ffmpeg_log_level="error",
                )
                writer.send(None)
            writer.send(pixels.tobytes())

        try:
            yield add
        except (RuntimeError, OSError) as error:
            # The encoder's whole command and log may follow.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
            raise WysError(
                f"cannot make the film {path}: {reason}; make room, or 'pip install "
                "imageio-ffmpeg' for an encoder."
            ) from error
        finally:
            if writer is not None:
                writer.close()
        if writer is None:
            raise WysError(f"a film needs at least 1 frame, and {path} has none.")
        # Where the frames are few, the encoder may give up unnoticed.
        if temporary.stat().st_size == 0:
            raise WysError(f"cannot make the film {path}: the encoder wrote nothing; make room.")


def _film_pixels(frame: Float[Tensor, "3 h w"]) -> UInt8[np.ndarray, "H W 3"]:
    """A frame as bytes, enlarged where it is small, of even size as the encoder needs it."""
    height, width = frame.shape[-2:]
    scale = max(1.0, FILM_SIDE / min(height, width))
    even = (2 * max(1, round(height * scale / 2)), 2 * max(1, round(width * scale / 2)))
    pixels = to_uint8(resize(frame.cpu(), even)).permute(1, 2, 0)
    return np.ascontiguousarray(pixels.numpy())


def write_points(
    path: Path,
    points: Float[Tensor, "n 3"],
    rgb: Float[Tensor, "n 3"],
    relevance: Float[Tensor, " n"] | None,
) -> None:
    """Writes coloured points as binary PLY, atomically: x y z red green blue [relevance].

    Args:
        points: places, in the frame that the file's reader expects, and in their own precision.
        rgb: colours in [0, 1].
        relevance: an additional property of each point, in [0, 1].
    """
    names = ["x", "y", "z", "red", "green", "blue"]
    kinds = ["<f8" if points.dtype == torch.float64 else "<f4"] * 3 + ["u1"] * 3
    if relevance is not None:
        names.append("relevance")
        kinds.append("<f4")
    rows = np.empty(len(points), dtype=list(zip(names, kinds, strict=True)))
    bytes_of = to_uint8(rgb.cpu()).numpy()
    for axis in range(3):
        rows[names[axis]] = points[:, axis].cpu().numpy()
        rows[names[3 + axis]] = bytes_of[:, axis]
    if relevance is not None:
        rows["relevance"] = relevance.cpu().numpy()
    words = {"<f4": "float", "<f8": "double", "u1": "uchar"}
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(points)}",
        *(f"property {words[kind]} {name}" for name, kind in zip(names, kinds, strict=True)),
        "end_header",
    ]
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        file.write(("\n".join(header) + "\n").encode("ascii"))
        file.write(rows.tobytes())
