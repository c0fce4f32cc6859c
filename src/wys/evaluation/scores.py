"""What methods did on cases: case by case, as lines of a journal and as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.evaluation import metrics
from wys.evaluation.cases import Truth, captions_of
from wys.evaluation.curves import (
    BINS,
    DISTANCES,
    Leakage,
    RelevanceCounts,
    calibration_error,
    leakage,
    pooled_leakage,
    precision_recall,
    relevance_counts,
    reliability,
)
from wys.evaluation.intervals import Figure, interval, of_several, weighted_mean, weights
from wys.evaluation.journal import Record
from wys.evaluation.judges import NAMES as JUDGED
from wys.evaluation.judges import NO_JUDGES, Judges
from wys.tabletop.edits import KINDS

MEANS = ("iou", "ap", "grounding", "chance", "seconds", "ssim", *JUDGED)
"""Measures of which a row has the mean over its cases."""
POOLED = ("inside", "outside")
"""Regions whose squared error a row pools."""
WITH_INTERVALS = ("iou", "ap", "grounding", "ssim", *JUDGED)


@dataclass(frozen=True)
class Scores:
    """What one method did on b cases; one value a case, NaN where it is undefined."""

    kinds: tuple[str, ...]
    means: Mapping[str, Float[Tensor, " b"]]
    """The measures of MEANS."""
    inside: metrics.SquaredError
    outside: metrics.SquaredError
    max_outside: Float[Tensor, " b"]
    """Largest 8-bit difference to the input outside the method's own mask (0 for a method that
    composites), or, for a method that has none, outside the exact one."""
    leakage: Leakage
    relevance: RelevanceCounts

    def records(
        self, seed: int, cases: Sequence[str], method: str, instructions: Sequence[str]
    ) -> list[Record]:
        """A JSON object for each case, from which `from_records` makes these scores again."""
        return [
            {
                "seed": seed,
                "case": case,
                "kind": self.kinds[i],
                "method": method,
                "instruction": instructions[i],
                **{name: _number(self.means[name][i]) for name in MEANS},
                **{name: _sums(getattr(self, name), i) for name in POOLED},
                "max_outside": _number(self.max_outside[i]),
                "leakage": [x[i].tolist() for x in (self.leakage.total, self.leakage.count)],
                "relevance": [
                    x[i].tolist()
                    for x in (self.relevance.pixels, self.relevance.hits, self.relevance.relevance)
                ],
            }
            for i, case in enumerate(cases)
        ]

    @staticmethod
    def from_records(records: Sequence[Record]) -> Scores:
        """The scores of any records of one method."""

        def numbers(name: str) -> Float[Tensor, " b"]:
            values = [record[name] for record in records]
            known = [math.nan if value is None else value for value in values]
            return torch.tensor(known, dtype=torch.float64)

        def lists(name: str) -> Float[Tensor, "parts b *bins"]:
            return torch.tensor([record[name] for record in records], dtype=torch.float64).movedim(
                1, 0
            )

        return Scores(
            kinds=tuple(record["kind"] for record in records),
            means={name: numbers(name) for name in MEANS},
            inside=metrics.SquaredError(*lists("inside")),
            outside=metrics.SquaredError(*lists("outside")),
            max_outside=numbers("max_outside"),
            leakage=Leakage(*lists("leakage")),
            relevance=RelevanceCounts(*lists("relevance")),
        )

    def select(self, chosen: Bool[Tensor, " b"]) -> Scores:
        """Some of the cases."""
        return Scores(
            kinds=tuple(
                kind for kind, keep in zip(self.kinds, chosen.tolist(), strict=True) if keep
            ),
            means={name: values[chosen] for name, values in self.means.items()},
            inside=metrics.SquaredError(self.inside.total[chosen], self.inside.count[chosen]),
            outside=metrics.SquaredError(self.outside.total[chosen], self.outside.count[chosen]),
            max_outside=self.max_outside[chosen],
            leakage=Leakage(self.leakage.total[chosen], self.leakage.count[chosen]),
            relevance=RelevanceCounts(
                self.relevance.pixels[chosen],
                self.relevance.hits[chosen],
                self.relevance.relevance[chosen],
            ),
        )

    def row(self, method: str, kind: str, units: Sequence[str] | None = None) -> dict[str, Any]:
        """The row of a bench: means over the cases of a kind; PSNR pools their squared error.

        Args:
            units: what the intervals draw anew (see `intervals.weights`); None: every case.
        """
        chosen = torch.tensor([kind in ("all", own) for own in self.kinds], dtype=torch.bool)
        units = [str(i) for i in range(len(self.kinds))] if units is None else units
        kept = [unit for unit, keep in zip(units, chosen.tolist(), strict=True) if keep]
        own = self.select(chosen)
        largest = own.max_outside[~own.max_outside.isnan()]
        row: dict[str, Any] = {
            "method": method,
            "kind": kind,
            "cases": len(own.kinds),
            **{name: metrics.mean(own.means[name]) for name in MEANS[:4]},
            "psnr_inside": own.inside.psnr(),
            "psnr_outside": own.outside.psnr(),
            "median_inside": own.inside.median_psnr(),
            "median_outside": own.outside.median_psnr(),
            "max_outside": int(largest.max()) if len(largest) else None,
            **{name: metrics.mean(own.means[name]) for name in MEANS[4:]},
            "ece": calibration_error(own.relevance),
        }
        weight = weights(kept)
        for name in WITH_INTERVALS:
            values = own.means[name]
            row |= ends(name, weighted_mean(values), of_several(weight, kept, ~values.isnan()))
        for name in POOLED:
            error: metrics.SquaredError = getattr(own, name)
            row |= ends(
                f"psnr_{name}", error.weighted_psnr, of_several(weight, kept, error.count > 0)
            )
        if kind == "all":
            row |= {
                "precision_recall": precision_recall(own.relevance),
                "reliability": reliability(own.relevance),
                "leakage": own.leakage.points(),
            }
        return row


def _number(value: Tensor) -> float | None:
    return None if bool(value.isnan()) else float(value)


def _sums(error: metrics.SquaredError, i: int) -> list[float]:
    return [float(error.total[i]), float(error.count[i])]


def ends(name: str, figure: Figure, weight: Float[Tensor, "draws b"]) -> dict[str, Any]:
    """The low and the high end of a figure's interval, as two entries of a row."""
    low, high = interval(figure, weight) or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def rows_of(
    records: Sequence[Record], unit: Callable[[int, str], str] | None = None
) -> list[dict[str, Any]]:
    """Rows of all cases and of each kind, method by method as they come up."""
    rows = []
    for method in dict.fromkeys(record["method"] for record in records):
        own = [record for record in records if record["method"] == method]
        scores = Scores.from_records(own)
        units = None if unit is None else [unit(r["seed"], r["case"]) for r in own]
        seeds = len({record["seed"] for record in own})
        found = dict.fromkeys(scores.kinds)
        for kind in ("all", *sorted(found, key=lambda kind: (*KINDS, kind).index(kind))):
            rows.append({**scores.row(method, kind, units), "seeds": seeds})
    return rows


def join(parts: Sequence[Scores]) -> Scores:
    """The scores of several batches as one."""

    def pooled(name: str) -> metrics.SquaredError:
        errors = [getattr(part, name) for part in parts]
        totals, counts = [e.total for e in errors], [e.count for e in errors]
        return metrics.SquaredError(torch.cat(totals), torch.cat(counts))

    def counted(name: str) -> Tensor:
        return torch.cat([getattr(part.relevance, name) for part in parts])

    return Scores(
        kinds=tuple(kind for part in parts for kind in part.kinds),
        means={name: torch.cat([part.means[name] for part in parts]) for name in MEANS},
        inside=pooled("inside"),
        outside=pooled("outside"),
        max_outside=torch.cat([part.max_outside for part in parts]),
        leakage=pooled_leakage([part.leakage for part in parts]),
        relevance=RelevanceCounts(counted("pixels"), counted("hits"), counted("relevance")),
    )


def named_objects(truth: Truth) -> Int[Tensor, " b"]:
    """The id of the object that each instruction changes; 0 where it changes none.

    An instruction that adds an object names another one beside it, which should not change: the
    exact mask itself would not point at that one, so additions have no grounding.
    """
    adds = torch.tensor([kind == "add" for kind in truth.kinds])
    return torch.where(adds, 0, truth.target)


def score(
    truth: Truth,
    image: Float[Tensor, "b 3 h w"],
    seconds: float,
    values: Float[Tensor, "b 1 hm wm"] | None = None,
    mask: Bool[Tensor, "b h w"] | None = None,
    judges: Judges = NO_JUDGES,
) -> Scores:
    """Scores of edited images, and of the relevance values and mask where a method has them.

    What the truth does not tell is NaN or has no pixel. Where only the mask is known, the truth
    outside it is the input.

    Args:
        image: what the method made of `truth.before`.
        values: its relevance, at any size.
        mask: where it allowed itself to change the image.
    """
    b, size = len(image), (image.shape[-2], image.shape[-1])
    undefined = torch.full((b,), torch.nan, dtype=torch.float64)
    means = dict.fromkeys(MEANS, undefined)
    means["seconds"] = torch.full_like(undefined, seconds / b)
    exact, after = truth.mask, truth.after
    counts = RelevanceCounts(*torch.zeros(3, b, BINS, dtype=torch.float64))
    if values is not None and exact is not None:
        fine = F.interpolate(values.cpu(), size=size, mode="bilinear", align_corners=False)[:, 0]
        means["ap"] = metrics.average_precision(fine, exact)
        found = metrics.grounding(fine, truth.object_ids, named_objects(truth))
        means["grounding"], means["chance"] = found.hit, found.chance
        counts = relevance_counts(fine, exact)
    if mask is not None and exact is not None:
        means["iou"] = metrics.iou(mask, exact)
    nothing = metrics.SquaredError(*torch.zeros(2, b, dtype=torch.float64))
    inside, outside = nothing, nothing
    leaked = Leakage(*torch.zeros(2, b, len(DISTANCES) + 1, dtype=torch.float64))
    if exact is not None:
        beyond = truth.before if after is None else after
        outside = metrics.squared_error(image, beyond, ~exact)
        leaked = leakage(image, beyond, exact)
        if after is not None:
            inside = metrics.squared_error(image, after, exact)
    if after is not None:
        means["ssim"] = metrics.ssim(image.cpu(), after)
    allowed = exact if mask is None else mask
    largest = undefined
    if allowed is not None:
        largest = metrics.largest_difference(image, truth.before, ~allowed).double()
    means |= judges.measures(image, truth.before, after, captions_of(truth))
    return Scores(tuple(truth.kinds), means, inside, outside, largest, leaked, counts)
