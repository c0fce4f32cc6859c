"""Line plots as SVG text: nothing to install, and nothing to load when they are looked at."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

_Place = Callable[[float, float], tuple[float, float]]

WIDTH, HEIGHT = 520.0, 360.0
LEFT, RIGHT, TOP, BOTTOM = 58.0, 24.0, 14.0, 50.0
COLOURS = {
    "noop": "#6b6b6b",
    "ip2p": "#e69f00",
    "ip2p-best": "#a65e00",
    "paper": "#cc79a7",
    "published": "#cc79a7",
    "wys": "#0067a5",
    "true-mask": "#009e73",
    "true-views": "#009e73",
    "vae-oracle": "#56b4e9",
    "per-frame": "#e69f00",
    "in2n": "#d55e00",
}
"""A method has one colour in every plot; they differ for the colour-blind too (Okabe & Ito)."""
SPARE = ("#882255", "#44aa99", "#117733", "#332288")


@dataclass(frozen=True)
class Series:
    """Points that belong together."""

    name: str
    points: Sequence[tuple[float, float]]
    whiskers: Sequence[tuple[float, float, float, float]] = ()
    """For each point the ends of its intervals: x low, x high, y low, y high."""
    line: bool = True
    """Join the points."""
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """A range of values and how they are written."""

    label: str
    low: float | None = None
    """The lowest value shown; found from the data if not given."""
    high: float | None = None
    """The highest."""
    names: Sequence[str] = field(default_factory=tuple)
    """Words for the values 0, 1, 2, ... in place of numbers."""


def colour_of(name: str) -> str:
    """The colour of a series; those of unknown methods follow from their names."""
    method = name.split()[0]
    return COLOURS.get(method, SPARE[sum(map(ord, name)) % len(SPARE)])


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from low to high: at most so many, 1, 2 or 5 times a power of ten apart."""
    span = max(high - low, 1e-12)
    step = 10 ** math.floor(math.log10(span / most))
    step *= next((factor for factor in (1, 2, 5) if span / (step * factor) <= most), 10)
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 12) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


def plot(series: Sequence[Series], x: Axis, y: Axis, diagonal: bool = False) -> str:
    """A plot with its legend as an <svg> element that fits the width it is given.

    Args:
        diagonal: draw the line y = x.
    """
    series = [each for each in series if each.points]
    if not series:
        return "<p>Nothing of this is known.</p>"
    across = _range(x, [v for s in series for v in _values(s, 0)])
    up = _range(y, [v for s in series for v in _values(s, 1)])
    rows = _legend(series)
    height = HEIGHT + 20 * len(rows)

    def at(px: float, py: float) -> tuple[float, float]:
        sx, sy = (px - across[0]) / (across[1] - across[0]), (py - up[0]) / (up[1] - up[0])
        return (
            LEFT + min(max(sx, 0), 1) * (WIDTH - LEFT - RIGHT),
            HEIGHT - BOTTOM - min(max(sy, 0), 1) * (HEIGHT - TOP - BOTTOM),
        )

    parts = [
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" '
        f'aria-label="{escape(y.label)} over {escape(x.label)}">'
    ]
    for value in ticks(*up):
        left, level = at(across[0], value)
        parts.append(
            f'<path class="grid" d="M{left:.1f} {level:.1f}H{WIDTH - RIGHT:.1f}"/>'
            f'<text x="{left - 7:.1f}" y="{level + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    marks = list(range(len(x.names))) if x.names else ticks(*across)
    for value in marks:
        place, floor = at(value, up[0])
        words = escape(x.names[int(value)]) if x.names else f"{value:g}"
        parts.append(
            f'<path class="tick" d="M{place:.1f} {floor:.1f}v5"/>'
            f'<text x="{place:.1f}" y="{floor + 20:.1f}" text-anchor="middle">{words}</text>'
        )
    if diagonal:
        (x0, y0), (x1, y1) = at(across[0], across[0]), at(across[1], across[1])
        parts.append(f'<path class="ideal" d="M{x0:.1f} {y0:.1f}L{x1:.1f} {y1:.1f}"/>')
    for each in series:
        parts += _drawn(each, at)
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text class="label" x="{middle:.1f}" y="{HEIGHT - 8:.1f}" text-anchor="middle">'
        f"{escape(x.label)}</text>"
        f'<text class="label" transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2:.1f}) '
        f'rotate(-90)" text-anchor="middle">{escape(y.label)}</text>'
    )
    for row, names in enumerate(rows):
        for left, name in names:
            level = HEIGHT + 20 * row + 10
            parts.append(
                f'<rect x="{left:.1f}" y="{level - 9:.1f}" width="11" height="11" rx="2" '
                f'fill="{colour_of(name)}"/>'
                f'<text x="{left + 16:.1f}" y="{level + 1:.1f}">{escape(name)}</text>'
            )
    return "".join(parts) + "</svg>"


def _drawn(series: Series, at: _Place) -> list[str]:
    colour, parts = colour_of(series.name), []
    places = [at(*point) for point in series.points]
    if series.line and len(places) > 1:
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        dash = ' stroke-dasharray="6 4"' if series.dashed else ""
        width = 3 if series.name.split()[0] == "wys" else 2
        parts.append(
            f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dash}/>'
        )
    for (px, py), (x0, x1, y0, y1) in zip(series.points, series.whiskers, strict=False):
        (left, level), (right, _) = at(x0, py), at(x1, py)
        (middle, bottom), (_, top) = at(px, y0), at(px, y1)
        parts.append(
            f'<path d="M{left:.1f} {level:.1f}H{right:.1f}M{middle:.1f} {bottom:.1f}V{top:.1f}" '
            f'stroke="{colour}" stroke-width="1.5" opacity="0.7"/>'
        )
    for (a, b), (px, py) in zip(places, series.points, strict=True):
        parts.append(
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="{3 if series.line else 5}" fill="{colour}">'
            f"<title>{escape(series.name)}: {px:.3g}, {py:.3g}</title></circle>"
        )
    return parts


def _values(series: Series, axis: int) -> list[float]:
    ends = [v for w in series.whiskers for v in w[2 * axis : 2 * axis + 2]]
    return [point[axis] for point in series.points] + ends


def _range(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    if axis.names:
        return -0.3, len(axis.names) - 0.7
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.5
    low = low - margin if axis.low is None else axis.low
    high = high + margin if axis.high is None else axis.high
    return (low, high) if high > low else (low, low + 1)


def _legend(series: Sequence[Series]) -> list[list[tuple[float, str]]]:
    """Names with their places, in as many rows as they need."""
    rows: list[list[tuple[float, str]]] = [[]]
    left = LEFT
    for name in dict.fromkeys(each.name for each in series):
        width = 16 + 9 * len(name) + 14
        if rows[-1] and left + width > WIDTH:
            rows.append([])
            left = LEFT
        rows[-1].append((left, name))
        left += width
    return rows
