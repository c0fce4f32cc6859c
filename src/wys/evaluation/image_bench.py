"""An editor against the exact truth of the tabletop world, beside the methods it has to beat.

Methods:
    noop        the input as it is
    ip2p        InstructPix2Pix without a mask: the same guidance, steps and seeds as `wys`
    ip2p-best   the same at the guidance that serves it best, found on the validation split
    paper       the paper's settings
    wys         the editor's own settings
    true-mask   the edit of `wys` under the exact mask: what a perfect relevance map would give
    vae-oracle  the true edit through the autoencoder: what a perfect denoiser would give

"Inside" and "outside" are the pixels that the true edit changes, and the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.diffusion.conditioning import Guidance
from wys.diffusion.editor import Editor
from wys.diffusion.settings import PAPER, EditorSettings
from wys.errors import WysError
from wys.evaluation import metrics
from wys.image import resize
from wys.image_edit import ImageEdit, edit_image
from wys.masks import Mask
from wys.tabletop.pairs import KINDS, Pairs, make_pairs
from wys.tabletop.world import CLEVR, FULL, PLAIN, SceneRange, Split

Method = Literal["noop", "ip2p", "ip2p-best", "paper", "wys", "true-mask", "vae-oracle"]
World = Literal["plain", "full", "clevr"]
METHODS: tuple[Method, ...] = get_args(Method)
RANGES: dict[World, SceneRange] = {"plain": PLAIN, "full": FULL, "clevr": CLEVR}
BEST_GUIDANCE = tuple(Guidance(t, i) for t in (1.0, 1.5, 2.0, 3.0, 5.0, 7.5) for i in (1.0, 1.5))
"""The grid on which `ip2p-best` is found."""


@dataclass(frozen=True)
class Cases:
    """Which cases a bench measures."""

    cases: int = 100
    """Number of cases; the kinds of edit take turns."""
    seed: int = 0
    """Seed of the cases and of the edits' noise."""
    split: Split = "test"
    """test has phrasings and colours of shapes that training never shows."""
    world: World = "plain"
    """plain: what the CPU preset trains on; full: everything; clevr: that look."""
    size: int | None = None
    """Side of the square images in pixels; the editor's own if not given."""
    batch: int = 8
    """Cases edited at once."""

    def __post_init__(self) -> None:
        if self.cases < 1 or self.batch < 1:
            raise WysError("a bench needs at least 1 case, and a batch of at least 1.")

    def batches(self, editor: Editor) -> Iterator[tuple[tuple[str, ...], Pairs]]:
        """The cases in batches, each with the identities of its cases."""
        size = self.size or editor.native_size
        for first in range(0, self.cases, self.batch):
            count = min(self.batch, self.cases - first)
            pairs = make_pairs(
                self.seed, self.split, first, count, size=size, scene_range=RANGES[self.world]
            )
            yield tuple(f"{self.split} {first + i}" for i in range(count)), pairs


@dataclass(frozen=True)
class Scores:
    """What one method did on b cases; one value a case, NaN where it is undefined."""

    kinds: tuple[str, ...]
    iou: Float[Tensor, " b"]
    ap: Float[Tensor, " b"]
    grounding: Float[Tensor, " b"]
    chance: Float[Tensor, " b"]
    inside: metrics.SquaredError
    outside: metrics.SquaredError
    max_outside: Float[Tensor, " b"]
    """Largest 8-bit difference to the input outside the method's own mask (0 for a method that
    composites), or, for a method that has none, outside the exact one."""
    seconds: Float[Tensor, " b"]

    def row(self, method: str, kind: str) -> dict[str, Any]:
        """The row of a bench: means over the cases of a kind; PSNR pools their squared error."""
        chosen = torch.tensor([kind in ("all", own) for own in self.kinds])
        return {
            "method": method,
            "kind": kind,
            "cases": int(chosen.sum()),
            "iou": metrics.mean(self.iou[chosen]),
            "ap": metrics.mean(self.ap[chosen]),
            "grounding": metrics.mean(self.grounding[chosen]),
            "chance": metrics.mean(self.chance[chosen]),
            "psnr_inside": self.inside.psnr(chosen),
            "psnr_outside": self.outside.psnr(chosen),
            "max_outside": int(self.max_outside[chosen].max()) if bool(chosen.any()) else None,
            "seconds": metrics.mean(self.seconds[chosen]),
        }


def join(parts: Sequence[Scores]) -> Scores:
    """The scores of several batches as one."""

    def cat(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    def pooled(name: str) -> metrics.SquaredError:
        errors = [getattr(part, name) for part in parts]
        totals, counts = [e.total for e in errors], [e.count for e in errors]
        return metrics.SquaredError(torch.cat(totals), torch.cat(counts))

    return Scores(
        kinds=tuple(kind for part in parts for kind in part.kinds),
        iou=cat("iou"),
        ap=cat("ap"),
        grounding=cat("grounding"),
        chance=cat("chance"),
        inside=pooled("inside"),
        outside=pooled("outside"),
        max_outside=cat("max_outside"),
        seconds=cat("seconds"),
    )


def named_objects(pairs: Pairs) -> Int[Tensor, " b"]:
    """The id of the object that each instruction changes; 0 where it changes none.

    An instruction that adds an object names another one beside it, which should not change: the
    exact mask itself would not point at that one, so additions have no grounding.
    """
    adds = torch.tensor([kind == "add" for kind in pairs.kinds])
    return torch.where(adds, 0, pairs.target)


def score(
    pairs: Pairs,
    image: Float[Tensor, "b 3 h w"],
    seconds: float,
    values: Float[Tensor, "b 1 h w"] | None = None,
    mask: Bool[Tensor, "b h w"] | None = None,
) -> Scores:
    """Scores of edited images, and of the relevance values and mask where a method has them.

    Args:
        image: what the method made of `pairs.before`.
        values: its relevance, at any size.
        mask: where it allowed itself to change the image.
    """
    undefined = torch.full((len(image),), torch.nan, dtype=torch.float64)
    size = (image.shape[-2], image.shape[-1])
    ap, found = undefined, metrics.Grounding(undefined, undefined)
    if values is not None:
        fine = F.interpolate(values.cpu(), size=size, mode="bilinear", align_corners=False)[:, 0]
        ap = metrics.average_precision(fine, pairs.mask)
        found = metrics.grounding(fine, pairs.object_ids, named_objects(pairs))
    allowed = pairs.mask if mask is None else mask
    return Scores(
        kinds=tuple(pairs.kinds),
        iou=undefined if mask is None else metrics.iou(mask, pairs.mask),
        ap=ap,
        grounding=found.hit,
        chance=found.chance,
        inside=metrics.squared_error(image, pairs.after, pairs.mask),
        outside=metrics.squared_error(image, pairs.after, ~pairs.mask),
        max_outside=metrics.largest_difference(image, pairs.before, ~allowed).double(),
        seconds=torch.full_like(undefined, seconds / len(image)),
    )


@dataclass(frozen=True)
class Run:
    """One method on one batch."""

    editor: Editor
    pairs: Pairs
    items: tuple[str, ...]
    seed: int
    settings: EditorSettings
    """The editor's own."""
    best: Guidance = field(default_factory=Guidance)
    """The guidance of `ip2p-best`."""

    def scores(self, method: Method) -> Scores:
        """Runs a method and scores what it made."""
        started = time.perf_counter()
        if method in ("noop", "vae-oracle"):
            image = self.pairs.before if method == "noop" else self.reconstruction()
            return score(self.pairs, image, time.perf_counter() - started)
        if method in ("paper", "wys"):
            edit = self.edit(self.settings if method == "wys" else PAPER)
            seconds = time.perf_counter() - started
            assert edit.relevance is not None
            # Empty where the verdict was that there is nothing to edit: here always a miss.
            mask = edit.mask.at(edit.mask.image_size)[:, 0].cpu()
            return score(self.pairs, edit.image, seconds, edit.relevance.values, mask)
        region = self.pairs.mask if method == "true-mask" else torch.ones_like(self.pairs.mask)
        settings = self.settings
        if method == "ip2p-best":
            settings = replace(settings, edit=replace(settings.edit, guidance=self.best))
        edit = self.edit(settings, region)
        return score(self.pairs, edit.image, time.perf_counter() - started)

    def edit(
        self, settings: EditorSettings, region: Bool[Tensor, "b h w"] | None = None
    ) -> ImageEdit:
        """The edit by the map's mask, or inside a given region."""
        size = (self.pairs.before.shape[-2], self.pairs.before.shape[-1])
        return edit_image(
            self.editor,
            self.pairs.before,
            self.pairs.instructions,
            settings.edit,
            relevance_settings=settings.relevance,
            mask=None if region is None else Mask.from_image(region[:, None], size),
            seed=self.seed,
            items=self.items,
        )

    def reconstruction(self) -> Float[Tensor, "b 3 h w"]:
        """The true edit, encoded and decoded."""
        after = self.pairs.after
        size = (after.shape[-2], after.shape[-1])
        conditioning = self.editor.condition(
            resize(after, self.editor.fit(size)), self.pairs.instructions
        )
        return resize(self.editor.decode(conditioning.z0).cpu(), size)


def best_guidance(
    editor: Editor,
    cases: Cases,
    grid: Iterable[Guidance] = BEST_GUIDANCE,
) -> Iterator[tuple[Guidance, float]]:
    """PSNR over the whole image of plain InstructPix2Pix, for each guidance of a grid.

    Run it on the validation split; the highest is what `ip2p-best` uses.
    """
    batches = list(cases.batches(editor))
    for guidance in grid:
        errors = []
        for items, pairs in batches:
            run = Run(editor, pairs, items, cases.seed, editor.settings, guidance)
            scores = run.scores("ip2p-best")
            errors += [scores.inside, scores.outside]
        total = torch.cat([e.total for e in errors])
        psnr = metrics.SquaredError(total, torch.cat([e.count for e in errors])).psnr()
        assert psnr is not None
        yield guidance, psnr


@dataclass(frozen=True)
class BenchStep:
    """One method on one batch is done."""

    done: int
    count: int
    rows: list[dict[str, Any]] | None = None
    """The rows of the bench, on the last step only."""


def image_bench(
    editor: Editor, cases: Cases, methods: Sequence[Method] = METHODS, best: Guidance | None = None
) -> Iterator[BenchStep]:
    """Measures the methods on the cases, one step for each method and batch.

    Args:
        best: the guidance of `ip2p-best`; the editor's own if not given.
    """
    settings = editor.settings
    parts: dict[Method, list[Scores]] = {method: [] for method in methods}
    count = len(methods) * -(-cases.cases // cases.batch)
    done = 0
    for items, pairs in cases.batches(editor):
        run = Run(editor, pairs, items, cases.seed, settings, best or settings.edit.guidance)
        for method in methods:
            parts[method].append(run.scores(method))
            done += 1
            yield BenchStep(done, count)
    rows = [
        scores.row(method, kind)
        for method, scores in ((method, join(batch)) for method, batch in parts.items())
        for kind in ("all", *KINDS)
        if kind == "all" or kind in scores.kinds
    ]
    yield BenchStep(done, count, rows)
