"""`wys tabletop`: sample images with their exact edits, to look at and to try an editor on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from wys.apps.options import Flag, optional
from wys.errors import WysError

if TYPE_CHECKING:
    from torch import Tensor

PART_PIXELS = 64 * 128**2
"""Of the images that are rendered together; a few hundred bytes of memory each."""
SHEET_ROWS = 24
"""The first so many images are on the sheet."""


def tabletop(
    out: Path = Path("tabletop"),
    count: int = 9,
    first: int = 0,
    seed: int = 0,
    split: Literal["train", "validation", "test"] = "validation",
    world: Literal["plain", "full", "clevr"] = "plain",
    size: int = 128,
    kinds: Annotated[tuple[str, ...] | None, optional("KIND...")] = None,
    plain: Flag = False,
) -> None:
    """Render sample images of the tabletop world with their exact edits and masks.

    Writes a folder that training and benches take as --data, and a sheet of 24.

    Args:
        out: Folder for the images.
        count: Number of images.
        first: Number of the first image in the endless split.
        seed: Seed of the world.
        split: test has phrasings and colours of shapes that training never shows.
        world: What the scenes are drawn from.
        size: Side of the images in pixels.
        kinds: Only these kinds of edit, such as recolour; all if not given.
        plain: Ask for each edit in the simplest words, not in the split's own.
    """
    if count < 1 or first < 0 or not 16 <= size <= 4096:
        raise WysError("--count is at least 1, --first at least 0, --size from 16 to 4096.")
    from wys.apps.progress import progress
    from wys.apps.results import result_folder
    from wys.datasets.edit_cases import METADATA
    from wys.evaluation.captions import captions
    from wys.evaluation.cases import RANGES
    from wys.image import draw_outline, labelled_sheet, write_image
    from wys.store import write_json_lines
    from wys.tabletop.edits import KINDS
    from wys.tabletop.pairs import make_pairs

    unknown = sorted(set(kinds or ()) - set(KINDS))
    if unknown:
        raise WysError(f"there is no kind {unknown[0]}; there are {', '.join(KINDS)}.")
    chosen = tuple(kind for kind in KINDS if kind in kinds) if kinds else None
    part = max(1, PART_PIXELS // size**2)
    with result_folder(out) as folder, progress("rendering") as advance:
        rows: list[list[tuple[str, Tensor]]] = []
        entries: list[dict[str, str]] = []
        for begin in range(first, first + count, part):
            n = min(part, first + count - begin)
            pairs = make_pairs(
                seed, split, begin, n, size=size, scene_range=RANGES[world], kinds=chosen
            )
            said = zip(captions(pairs.scenes), captions(pairs.edited), strict=True)
            asked = pairs.plain_instructions if plain else pairs.instructions
            for i, (before, after, mask, words) in enumerate(
                zip(pairs.before, pairs.after, pairs.mask[:, None], said, strict=True)
            ):
                name = f"{begin + i:04d}.png"
                write_image(folder / "before" / name, before)
                write_image(folder / "after" / name, after)
                write_image(folder / "mask" / name, mask.float())
                entries.append(
                    {
                        "before": f"before/{name}",
                        "after": f"after/{name}",
                        "mask": f"mask/{name}",
                        "instruction": asked[i],
                        "caption_before": words[0],
                        "caption_after": words[1],
                        "kind": pairs.kinds[i],
                    }
                )
                if len(rows) < SHEET_ROWS:
                    outlined = draw_outline(before, mask)
                    rows.append([(asked[i], before), ("after", after), ("mask", outlined)])
            advance(begin + n - first, count)
        write_json_lines(folder / METADATA, entries)
        write_image(folder / "sheet.png", labelled_sheet(rows, height=192))
    print(f"{count} images and their edits in {out}/")
