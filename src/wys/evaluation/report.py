"""The rows of a bench as a table for the terminal, and as Markdown for a document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

Row = Mapping[str, Any]
"""One measurement: names such as "method" and "kind", numbers, None where undefined."""

JUDGED_COLUMNS = {
    "clip_image": "CLIP to input",
    "clip_truth": "CLIP to truth",
    "clip_direction": "CLIP direction",
    "clip_consistency": "CLIP consistency",
    "lpips": "LPIPS",
}
"""Shown only where such a network measured."""
SWEPT = ("method", "cases", "iou", "psnr_inside", "psnr_outside", "seconds", "ssim")
IMAGE_COLUMNS = {
    "method": "method",
    "kind": "edit",
    "cases": "cases",
    "iou": "mask IoU",
    "ap": "AP",
    "grounding": "grounding",
    "chance": "chance",
    "psnr_inside": "PSNR inside (dB)",
    "psnr_outside": "PSNR outside (dB)",
    "median_outside": "median outside",
    "max_outside": "largest change outside",
    "seconds": "s / edit",
    "ssim": "SSIM",
    "ece": "calibration error",
    **JUDGED_COLUMNS,
}
SWEEP_COLUMNS = {
    "sweep": "varied",
    "value": "to",
    **{k: v for k, v in IMAGE_COLUMNS.items() if k in SWEPT},
}
SPEED_COLUMNS = {
    "name": "task",
    "seconds": "seconds",
    "ratio_to_diffusers": "times diffusers",
    "ratio_to_published": "times published",
    "peak_mb": "peak MB",
    "floor": "floor (s)",
    "share_of_floor": "share of floor",
}
SCENE_COLUMNS = {
    "method": "method",
    "kind": "edit",
    "scene": "scene",
    "iou": "mask IoU",
    "ap": "AP",
    "ece": "calibration error",
    "psnr_inside": "PSNR inside (dB)",
    "psnr_outside": "PSNR outside (dB)",
    "ssim": "SSIM",
    "consistency": "consistency (dB)",
    **JUDGED_COLUMNS,
    "seconds": "s / edit",
    "peak_mb": "peak MB",
}
FIT_COLUMNS = {
    "seconds": "seconds",
    "iterations": "steps",
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "peak_mb": "peak MB",
}
_DIGITS = {
    "psnr_inside": 1,
    "psnr_outside": 1,
    "median_inside": 1,
    "median_outside": 1,
    "consistency": 1,
    "ssim": 3,
    "clip_image": 3,
    "clip_truth": 3,
    "clip_direction": 3,
    "clip_consistency": 3,
    "lpips": 3,
    "peak_mb": 0,
}
WORDS = ("method", "kind", "by kind", "name", "sweep", "variant", "normalisation")
"""Columns that hold no numbers."""


def tables_of(rows: Sequence[Row]) -> dict[str | None, list[Row]]:
    """Title -> the rows that make a table: one for each study, or all rows without a title."""
    tables: dict[str | None, list[Row]] = {}
    for row in rows:
        tables.setdefault(row.get("study"), []).append(row)
    return tables


def rows_by_kind(rows: Sequence[Row], figure: str, intervals: bool = False) -> list[Row]:
    """One figure turned about: a row for each kind of edit, with what each method has, as text.

    Args:
        figure: its key, such as "psnr_inside".
        intervals: the 95 % interval behind each figure that has one.
    """
    turned: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.get("scene", "all") == "all":
            words = [cell(figure, row[figure]), interval_cell(figure, row) if intervals else ""]
            own = turned.setdefault(row["kind"], {"by kind": row["kind"]})
            name = row["method"]
            if "sweep" in row:  # A method has a row for every value that was swept.
                name = f"{name}, {row['sweep']} {row['value']:g}"
            own[name] = " ".join(words).strip()
    return list(turned.values())


def columns_of(rows: Sequence[Row]) -> dict[str, str]:
    """Key -> heading of the columns that the rows have, in the order of the tables."""
    keys = {key for row in rows for key in row}
    known = SPEED_COLUMNS
    if "by kind" in keys:
        known = {key: "edit" if key == "by kind" else key for row in rows for key in row}
    elif "study" in keys:
        ends = ("study", "_low", "_high")
        named = dict.fromkeys(key for row in rows for key in row if not key.endswith(ends))
        known = {key: key.replace("_", " ") for key in named}
    elif "iterations" in keys:
        known = FIT_COLUMNS
    elif "method" in keys:
        known = SCENE_COLUMNS if "scene" in keys else IMAGE_COLUMNS
        known = SWEEP_COLUMNS if "sweep" in keys else known
    measured = {key for row in rows for key in row if row[key] is not None}
    return {
        key: title
        for key, title in known.items()
        if key in (measured if key in JUDGED_COLUMNS else keys)
    }


def cell(key: str, value: Any) -> str:
    """A value as text; undefined values are a dash."""
    if value is None:
        return "–"
    return f"{value:.{_DIGITS.get(key, 2)}f}" if isinstance(value, float) else str(value)


def interval_cell(key: str, row: Row) -> str:
    """The ends of a value's 95 % interval as text; empty where it has none."""
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    return "" if low is None or high is None else f"[{cell(key, low)}, {cell(key, high)}]"


def rich_table(rows: Sequence[Row], title: str | None = None) -> Table:
    """The rows as a table for a terminal."""
    table = Table(title=title)
    for key, heading in columns_of(rows).items():
        table.add_column(heading, justify="left" if key in WORDS else "right")
    for row in rows:
        table.add_row(*(cell(key, row.get(key)) for key in columns_of(rows)))
    return table


def markdown_table(rows: Sequence[Row], intervals: bool = False, keys: Sequence[str] = ()) -> str:
    """The rows as a Markdown table; numbers are aligned to the right.

    Args:
        intervals: write the 95 % interval behind each value that has one.
        keys: the columns, of those that there are; all if none is given.
    """
    known = columns_of(rows)
    columns = {key: known[key] for key in keys or known}
    rule = ["---" if key in WORDS else "---:" for key in columns]
    lines = [list(columns.values()), rule]
    for row in rows:
        cells = [cell(key, row.get(key)) for key in columns]
        if intervals:
            ends = [interval_cell(key, row) for key in columns]
            cells = [f"{own} {end}".strip() for own, end in zip(cells, ends, strict=True)]
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
