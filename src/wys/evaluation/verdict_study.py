"""How often a map's verdict is wrong, and the limits at which it is wrong least often.

"Nothing to edit" is right for an instruction that names an absent object and wrong for every other;
"whole image" is right for floors, backgrounds and light and wrong for single objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from wys.relevance import RelevanceMap, VerdictSettings
from wys.tabletop.edits import LOCAL_KINDS

QUANTILES = (0.98, 0.99, 1.0)
"""Where a map's peak may be read. Lower ones miss objects that cover little of the image."""
SILENCE = 5.0
"""A false "nothing to edit" counts so many times: an edit that does nothing is worse than one that
was not needed."""
WHOLE_LEVELS = (0.5, 0.8, 0.9)


@dataclass(frozen=True)
class VerdictErrors:
    """Shares of wrong verdicts, from 0 to 1; NaN where there is no case."""

    false_edit: float
    """Absent objects for which there was something to edit."""
    false_nothing: float
    """Edits for which there was nothing to edit."""
    false_whole: float
    """Edits of one object that were taken for the whole image."""
    false_local: float
    """Edits of the whole image that were taken for local ones."""

    @property
    def nothing(self) -> float:
        """The balanced error of "nothing to edit"."""
        return (self.false_edit + self.false_nothing) / 2

    @property
    def weighted(self) -> float:
        """The same with `SILENCE`."""
        return (self.false_edit + SILENCE * self.false_nothing) / 2

    @property
    def whole(self) -> float:
        """The balanced error of "whole image" against "local"."""
        return (self.false_whole + self.false_local) / 2


def verdict_errors(maps: RelevanceMap, kinds: Sequence[str]) -> VerdictErrors:
    """The errors of the verdicts of b maps, given the kinds of their edits."""
    told = list(zip(maps.verdicts, kinds, strict=True))

    def share(wrong: str, among: Sequence[str]) -> float:
        own = [verdict == wrong for verdict, kind in told if kind in among]
        return sum(own) / len(own) if own else float("nan")

    present = [kind for kind in kinds if kind != "absent"]
    whole = [kind for kind in present if kind not in LOCAL_KINDS]
    nothing = share("nothing to edit", ["absent"])
    return VerdictErrors(
        1 - nothing,
        share("nothing to edit", present),
        share("whole image", LOCAL_KINDS),
        share("local", whole),
    )


def fit_verdict(maps: RelevanceMap, kinds: Sequence[str]) -> VerdictSettings:
    """The limits with the least balanced errors; a false "nothing" counts `SILENCE` times.

    Where kinds are missing, the limits there are stay.

    Levels lie halfway between values of the maps. The rule about noise stays if it helps.
    """
    own, raw = maps.settings.verdict, maps.raw.flatten(1).double()
    absent = torch.tensor([kind == "absent" for kind in kinds])
    local = torch.tensor([kind in LOCAL_KINDS for kind in kinds])
    best = own
    if bool(absent.any()) and not bool(absent.all()):
        found = []
        for quantile in QUANTILES:
            peak = raw.quantile(quantile, dim=1)
            error, level = best_split(peak[absent], peak[~absent], SILENCE)
            found.append((error, quantile, level))
        _, quantile, level = min(found)
        best = replace(own, quantile=quantile, nothing_below=level)
        rivals = [best, replace(best, noise_ratio=0.0)]
        best = min(rivals, key=lambda rule: _with(maps, rule, kinds).weighted)
    globally = ~local & ~absent
    if bool(local.any()) and bool(globally.any()):
        found = []
        for level in WHOLE_LEVELS:
            peak = raw.quantile(best.quantile, dim=1, keepdim=True)
            share = (raw >= peak * level).double().mean(dim=1)
            error, limit = best_split(share[local], share[globally])
            found.append((error, level, limit))
        _, level, limit = min(found)
        best = replace(best, whole_level=level, whole_share=min(limit, 1.0))
    return best


def best_split(
    low: Float[Tensor, " n"], high: Float[Tensor, " m"], worse: float = 1.0
) -> tuple[float, float]:
    """The least balanced error of a level that has `low` below it and `high` not, and the level.

    Levels lie halfway between neighbouring values; of equally good ones the middle one counts.

    Args:
        worse: how many times a wrong `high` counts.
    """
    values = torch.cat([low, high]).double().unique()
    levels = torch.cat([values[:1], (values[:-1] + values[1:]) / 2])
    wrong_low = (low[:, None] >= levels).double().mean(dim=0)
    wrong_high = (high[:, None] < levels).double().mean(dim=0)
    error = (wrong_low + worse * wrong_high) / 2
    ties = levels[error <= error.min() + 1e-9]
    return float(error.min()), float(ties[len(ties) // 2])


def _with(maps: RelevanceMap, rule: VerdictSettings, kinds: Sequence[str]) -> VerdictErrors:
    settings = replace(maps.settings, verdict=rule)
    return verdict_errors(replace(maps, settings=settings), kinds)
