"""A bench's results as one page that needs nothing else: tables, plots, and cases as pictures."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from wys.evaluation.cases_shown import ShownCase, shown_cases
from wys.evaluation.curves import DISTANCES
from wys.evaluation.journal import Journal
from wys.evaluation.report import (
    WORDS,
    Row,
    cell,
    columns_of,
    interval_cell,
    markdown_table,
    tables_of,
)
from wys.evaluation.svg_plots import Axis, Series, plot
from wys.store import write_atomically, write_json

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; color: #1d2329; background: #fff; margin: 0 auto;
  max-width: 1120px; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .4rem; }
p { max-width: 46rem; margin: .4rem 0 .8rem; }
.facts { color: #56606a; }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .86rem; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid #e3e7eb;
  vertical-align: top; }
th { color: #56606a; font-weight: 600; vertical-align: bottom; }
th.w, td.w { text-align: left; }
th:first-child, td:first-child { position: sticky; left: 0; background: #fff; }
td small { display: block; color: #707a84; white-space: nowrap; font-size: .76rem; }
tr.noop td { background: #f1f2f4; }
tr.wys td { background: #eaf3fa; font-weight: 600; }
tr.wys small { font-weight: 400; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr));
  gap: 1.2rem 2rem; }
.plots h2 { margin-top: 1rem; }
svg { width: 100%; max-width: 640px; height: auto; font: 14px system-ui, sans-serif;
  fill: #1d2329; }
svg .grid { stroke: #e3e7eb; } svg .tick { stroke: #8b949c; } svg .label { fill: #56606a; }
svg .ideal { stroke: #8b949c; stroke-dasharray: 2 4; }
@media (max-width: 560px) { svg { font-size: 17px; } svg .label { font-size: 15px; } }
.case { border-top: 1px solid #e3e7eb; padding: .8rem 0; }
.case h3 { font-size: 1rem; margin: 0; font-weight: 600; }
.case p { margin: 0 0 .5rem; color: #56606a; font-size: .9rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(105px, 1fr));
  gap: .5rem; }
figure { margin: 0; } figcaption { font-size: .8rem; color: #56606a; }
img { width: 100%; display: block; border-radius: 3px; }
details summary { cursor: pointer; color: #0067a5; margin: .6rem 0; }
"""


def write_results(
    folder: Path,
    title: str,
    facts: Sequence[str],
    rows: Sequence[Row],
    journal: Journal | None = None,
) -> None:
    """Writes rows.json, tables.md and report.html, each whole or not at all.

    Args:
        facts: sentences on what was measured.
        journal: where the pictures of cases come from.

    Raises:
        WysError: the folder cannot be written.
    """
    write_json(folder / "rows.json", list(rows))
    whole = _whole(rows)
    parts = [f"# {title}", " ".join(facts)]
    for study, own in tables_of(whole).items():
        parts += [f"## {study}"] if study else []
        parts.append(markdown_table(own, intervals=True))
    if len(whole) < len(rows):
        parts += ["By kind of edit:", markdown_table(rows)]
    with write_atomically(folder / "tables.md") as temporary:
        temporary.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    with write_atomically(folder / "report.html") as temporary:
        temporary.write_text(page(title, facts, rows, journal), encoding="utf-8")


def page(
    title: str, facts: Sequence[str], rows: Sequence[Row], journal: Journal | None = None
) -> str:
    """The page as HTML; see `write_results`."""
    whole = _whole(rows)
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="facts">{escape(" ".join(facts))}</p>',
        _explanation(whole),
    ]
    for study, own in tables_of(whole).items():
        body += [f"<h2>{escape(study)}</h2>"] if study else []
        body.append(_table(own))
    if len(whole) < len(rows):
        body.append(f"<details><summary>By kind of edit</summary>{_table(rows)}</details>")
    plots = _plots(whole)
    if plots:
        body.append(f'<div class="plots">{"".join(plots)}</div>')
    if journal is not None:
        body += _cases(shown_cases(journal))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(body)}</body></html>\n"
    )


def _whole(rows: Sequence[Row]) -> list[Row]:
    """The rows over all cases."""
    return [row for row in rows if row.get("kind", "all") == "all"]


def _explanation(rows: Sequence[Row]) -> str:
    if not any("method" in row for row in rows):
        return ""
    words = (
        "<b>noop</b> returns its input. A method is worth something where it beats that row: "
        "nearer to the truth inside the region that should change, without leaving it outside. "
        "“–” is what cannot be known of these cases."
    )
    if any(row.get("psnr_outside_low") is not None for row in rows):
        words += " In brackets are 95 % intervals, from drawing the cases anew."
    return f"<p>{words}</p>"


def _table(rows: Sequence[Row]) -> str:
    columns = columns_of(rows)
    head = "".join(f"<th{_class(key)}>{escape(name)}</th>" for key, name in columns.items())
    lines = []
    for row in rows:
        cells = []
        for key in columns:
            ends = interval_cell(key, row)
            small = f"<small>{ends}</small>" if ends else ""
            cells.append(f"<td{_class(key)}>{escape(cell(key, row.get(key)))}{small}</td>")
        mark = row.get("method") if row.get("method") in ("noop", "wys") else ""
        lines.append(f'<tr class="{mark}">{"".join(cells)}</tr>')
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _class(key: str) -> str:
    return ' class="w"' if key in WORDS else ""


def _plots(rows: Sequence[Row]) -> list[str]:
    """Every plot that these rows can fill, each under its heading; studies are tables."""
    if any("study" in row for row in rows):
        return []
    if any("iterations" in row for row in rows):
        points = [(float(row["seconds"]), float(row["psnr"])) for row in rows]
        return [
            _section(
                "Quality over time",
                "Held-out photographs against renders of the field.",
                plot([Series("fit", points)], Axis("seconds of fitting"), Axis("PSNR (dB)")),
            )
        ]
    sections = []
    windows = [row for row in rows if _window_percent(row) is not None]
    if windows:
        sections.append(
            _section(
                "What does a part of the image cost?",
                "An edit in a window of the latents, by the share of the image that is edited, "
                "beside diffusers' edit of the whole image and the floor of the machine.",
                plot(_costs(windows), Axis("edited share of the image (%)"), Axis("seconds", 0.0)),
            )
        )
    if any(row.get("psnr_outside") and row.get("psnr_inside") for row in rows):
        sections.append(
            _section(
                "Edit against preservation",
                "Up: nearer to the true edit inside its region. Right: nearer to the truth "
                "outside. The lower right is where nothing was done.",
                plot(
                    _trade(rows, "psnr_outside", "psnr_inside"),
                    Axis("preservation: PSNR outside (dB)"),
                    Axis("edit: PSNR inside (dB)"),
                ),
            )
        )
    if any(row.get("clip_direction") is not None for row in rows):
        sections.append(
            _section(
                "Edit against preservation, as CLIP sees it",
                "Up: the image changes as its caption does. Right: it stays near the input. Doing "
                "nothing has no direction.",
                plot(
                    _trade(rows, "clip_image", "clip_direction"),
                    Axis("preservation: CLIP similarity to the input"),
                    Axis("edit: CLIP text-image direction similarity"),
                ),
            )
        )
    mapped = [row for row in rows if row.get("precision_recall") and "sweep" not in row]
    if mapped:
        found = [
            Series(row["method"], [(p["recall"], p["precision"]) for p in row["precision_recall"]])
            for row in mapped
        ]
        calibrated = [
            Series(row["method"], [(p["relevance"], p["changed"]) for p in row["reliability"]])
            for row in mapped
        ]
        sections += [
            _section(
                "Does relevance find the pixels?",
                "Precision and recall of “relevance at least so much” for the pixels that the "
                "true edit changes, at every threshold.",
                plot(found, Axis("recall", 0, 1), Axis("precision", 0, 1)),
            ),
            _section(
                "Does relevance mean what it says?",
                "Of the pixels with a relevance, the share that really changes. A calibrated map "
                "is on the dotted line.",
                plot(
                    calibrated,
                    Axis("relevance", 0, 1),
                    Axis("share that changes", 0, 1),
                    diagonal=True,
                ),
            ),
        ]
    leaking = [row for row in rows if _leak(row) and "sweep" not in row]
    if leaking:
        ends = [f"1/{round(1 / end)}" for end in DISTANCES] + ["beyond"]
        sections.append(
            _section(
                "How far does an edit leak?",
                "Mean difference to the truth outside the true region, by the distance to it, in "
                "steps of 8-bit values. An edit that keeps to its place is near 0 everywhere.",
                plot(
                    [Series(row["method"], _leak(row)) for row in leaking],
                    Axis("distance up to this part of the image's longer side", names=ends),
                    Axis("mean change (of 255)", low=0.0),
                ),
            )
        )
    return sections


def _window_percent(row: Row) -> float | None:
    """The share of the image that a row of the speed bench edits in a window."""
    found = re.fullmatch(r"window (\d+) %", str(row.get("name")))
    return float(found[1]) if found else None


def _costs(windows: Sequence[Row]) -> list[Series]:
    """Seconds over the edited share, and what they are compared with."""
    measured = {
        "window": [float(row["seconds"]) for row in windows],
        "floor": [float(row["floor"]) for row in windows],
    }
    if all(row["ratio_to_diffusers"] for row in windows):
        measured["diffusers"] = [row["seconds"] / row["ratio_to_diffusers"] for row in windows]
    shares = [_window_percent(row) or 0.0 for row in windows]
    return [
        Series(name, list(zip(shares, seconds, strict=True)), dashed=name == "floor")
        for name, seconds in measured.items()
    ]


def _section(heading: str, words: str, figure: str) -> str:
    return f"<section><h2>{escape(heading)}</h2><p>{escape(words)}</p>{figure}</section>"


def _trade(rows: Sequence[Row], x: str, y: str) -> list[Series]:
    """A point for each method, or a line for each curve of a sweep."""
    known = [row for row in rows if row.get(x) is not None and row.get(y) is not None]
    groups: dict[str, list[Row]] = {}
    for row in known:
        varied = row.get("sweep", "none")
        name = row["method"] if varied == "none" else f"{row['method']} {varied}"
        groups.setdefault(name, []).append(row)
    return [
        Series(
            name,
            [(row[x], row[y]) for row in own],
            [_whiskers(row, x, y) for row in own] if "sweep" not in own[0] else (),
            line=len(own) > 1,
            dashed="threshold" in name,
        )
        for name, own in groups.items()
    ]


def _whiskers(row: Row, x: str, y: str) -> tuple[float, float, float, float]:
    def end(key: str, side: str) -> float:
        value = row.get(f"{key}_{side}")
        return float(row[key] if value is None else value)

    return end(x, "low"), end(x, "high"), end(y, "low"), end(y, "high")


def _leak(row: Row) -> list[tuple[float, float]]:
    points: Sequence[Any] = row.get("leakage") or ()
    return [(i, 255 * p["change"]) for i, p in enumerate(points) if p["change"] is not None]


def _cases(cases: Sequence[ShownCase]) -> list[str]:
    if not cases:
        return []
    parts = [
        "<h2>Best, median and worst cases</h2>",
        f"<p>{escape(cases[0].ranking)} The outline on the input is the true region.</p>",
    ]
    for case in cases:
        pictures = "".join(
            f'<figure><img alt="{escape(name)}" src="data:image/png;base64,{_base64(path)}">'
            f"<figcaption>{escape(name)}</figcaption></figure>"
            for name, path in case.pictures
        )
        parts.append(
            f'<div class="case"><h3>{escape(case.place)}: “{escape(case.instruction)}”</h3>'
            f"<p>{escape(case.words)}</p>"
            f'<div class="pictures">{pictures}</div></div>'
        )
    return parts


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")
