"""Which cases a report shows: the best, the median and the worst, so that none is picked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wys.evaluation.journal import Journal, Record

EACH = 2
"""Most cases shown of the best, of the median and of the worst."""
UNRANKED = {"noop", "true-mask", "true-views", "vae-oracle", "field", "single-view"}
"""Methods that no ranking is of: they do nothing, know the truth, or are masks alone."""


@dataclass(frozen=True)
class ShownCase:
    """One case with all its pictures."""

    place: str
    """"Best", "Median" or "Worst"."""
    instruction: str
    words: str
    """Its name, kind and figure."""
    ranking: str
    """What the order is by, as a sentence."""
    pictures: tuple[tuple[str, Path], ...]


def shown_cases(journal: Journal) -> list[ShownCase]:
    """The cases to show of a journal with pictures; none where it has no pictures.

    The order is by what `wys` (or else the last method) gains over doing nothing: PSNR inside the
    true region; where no truth is known, CLIP's direction.
    """
    methods = list(dict.fromkeys(record["method"] for record in journal.records))
    ranked = [method for method in methods if method not in UNRANKED]
    if not ranked:
        return []
    focus = "wys" if "wys" in ranked else ranked[-1]
    seed = journal.records[0]["seed"]
    own = {r["case"]: r for r in journal.records if r["seed"] == seed and r["method"] == focus}
    idle = {r["case"]: r for r in journal.records if r["seed"] == seed and r["method"] == "noop"}
    gains = {case: gain(record, idle.get(case)) for case, record in own.items()}
    known = {case: value for case, value in gains.items() if value is not None}
    what, unit = f"PSNR inside the region of {focus} over doing nothing", "dB"
    if not known:
        found = {case: _mean(record.get("clip_direction")) for case, record in own.items()}
        known = {case: value for case, value in found.items() if value is not None}
        what, unit = f"the CLIP direction of {focus}", ""
    order = sorted(known, key=lambda case: (-known[case], case))
    shown = []
    for place, case in places(order):
        record = own[case]
        names = ["input", *(["relevance"] if focus == "wys" else []), *methods, "truth"]
        paths = [(name, journal.picture_path(case, name)) for name in names]
        pictures = tuple((n, p) for n, p in paths if n != "noop" and p is not None and p.is_file())
        if pictures:
            words = f"{case}, {record['kind']}: {known[case]:+.2f} {unit}".strip()
            ranking = f"In the order of {what}."
            said = record.get("instruction", "")
            shown.append(ShownCase(place, said, words, ranking, pictures))
    return shown


def gain(record: Record, idle: Record | None) -> float | None:
    """By how many dB PSNR inside the region is above that of doing nothing; None if unknown."""
    if idle is None:
        return None
    error, still = (sum(_flat(r["inside"][0])) for r in (record, idle))
    count = sum(_flat(record["inside"][1]))
    if not count or not still:
        return None
    return 10 * math.log10(still / max(error, 1e-9))


def places(order: list[str]) -> list[tuple[str, str]]:
    """The cases at both ends and in the middle of an order, none twice."""
    each = min(EACH, max(1, len(order) // 3))
    middle = (len(order) - each) // 2
    wanted = [
        *(("Best", case) for case in order[:each]),
        *(("Worst", case) for case in order[-each:]),
        *(("Median", case) for case in order[middle : middle + each]),
    ]
    first: dict[str, str] = {}
    for place, case in wanted:
        first.setdefault(case, place)
    return [(first[case], case) for case in order if case in first]


def _flat(value: Any) -> list[float]:
    return [float(each) for each in value] if isinstance(value, list) else [float(value)]


def _mean(value: Any) -> float | None:
    values = value if isinstance(value, list) else [value]
    known = [float(each) for each in values if each is not None]
    return sum(known) / len(known) if known else None
