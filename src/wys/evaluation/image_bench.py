"""An editor against the truth of given cases, beside the methods it has to beat.

Methods:
    noop        the input as it is: in every table, whatever else is measured
    ip2p        InstructPix2Pix without a mask: the same guidance, steps and seeds as `wys`
    ip2p-best   the same at the guidance that serves it best, found on the validation split
    paper       the paper's settings
    wys         the editor's own settings
    true-mask   the edit of `wys` under the exact mask: what a perfect relevance map would give
    vae-oracle  the true edit through the autoencoder: what a perfect denoiser would give

"Inside" and "outside" are the pixels that the true edit changes, and the others. A case that lacks
what a method needs (a mask, a true edit) has no line of that method.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from wys.diffusion.conditioning import Guidance
from wys.diffusion.editor import Editor
from wys.diffusion.settings import PAPER, EditorSettings
from wys.evaluation import metrics
from wys.evaluation.cases import Cases, Source, Truth
from wys.evaluation.journal import Journal
from wys.evaluation.judges import NO_JUDGES, Judges
from wys.evaluation.scores import Scores, rows_of, score
from wys.image import draw_outline, overlay_heat, resize
from wys.image_edit import ImageEdit, edit_image
from wys.masks import Mask

Method = Literal["noop", "ip2p", "ip2p-best", "paper", "wys", "true-mask", "vae-oracle"]
METHODS: tuple[Method, ...] = get_args(Method)
BEST_GUIDANCE = tuple(Guidance(t, i) for t in (1.0, 1.5, 2.0, 3.0, 5.0, 7.5) for i in (1.0, 1.5))
"""The grid on which `ip2p-best` is found."""


@dataclass(frozen=True)
class Made:
    """What a method made of b cases."""

    image: Float[Tensor, "b 3 h w"]
    seconds: float
    values: Float[Tensor, "b 1 hm wm"] | None = None
    """Its relevance, where it has one, at any size."""
    mask: Bool[Tensor, "b h w"] | None = None
    """Where it allowed itself to change the image, where it decided that."""


@dataclass(frozen=True)
class Run:
    """One editor on one batch."""

    editor: Editor
    pairs: Truth
    items: tuple[str, ...]
    seed: int
    settings: EditorSettings
    """The editor's own."""
    best: Guidance = field(default_factory=Guidance)
    """The guidance of `ip2p-best`."""

    def possible(self, method: Method) -> bool:
        """Whether the truth tells what a method needs."""
        if method == "true-mask":
            return self.pairs.mask is not None
        return method != "vae-oracle" or self.pairs.after is not None

    def scores(self, method: Method, judges: Judges = NO_JUDGES) -> Scores:
        """Runs a method and scores what it made."""
        made = self.make(method)
        return score(self.pairs, made.image, made.seconds, made.values, made.mask, judges)

    def make(self, method: Method) -> Made:
        """Runs a method."""
        started = time.perf_counter()
        before = self.pairs.before
        if method in ("noop", "vae-oracle"):
            image = before if method == "noop" else self.reconstruction()
            return Made(image, time.perf_counter() - started)
        if method in ("paper", "wys"):
            edit = self.edit(self.settings if method == "wys" else PAPER)
            seconds = time.perf_counter() - started
            assert edit.relevance is not None
            # Empty where the verdict was that there is nothing to edit: here always a miss.
            mask = edit.mask.at(edit.mask.image_size)[:, 0].cpu()
            return Made(edit.image, seconds, edit.relevance.values, mask)
        region = torch.ones_like(before[:, 0], dtype=torch.bool)
        if method == "true-mask":
            assert self.pairs.mask is not None
            region = self.pairs.mask
        settings = self.settings
        if method == "ip2p-best":
            settings = replace(settings, edit=replace(settings.edit, guidance=self.best))
        return Made(self.edit(settings, region).image, time.perf_counter() - started)

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
        assert after is not None
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
    """One method on one batch is done, or was before."""

    done: int
    count: int
    rows: list[dict[str, Any]] | None = None
    """The rows of the bench, on the last step only."""


def image_bench(
    editor: Editor,
    cases: Source,
    methods: Sequence[Method] = METHODS,
    best: Guidance | None = None,
    *,
    seeds: Sequence[int] = (0,),
    judges: Judges = NO_JUDGES,
    journal: Journal | None = None,
) -> Iterator[BenchStep]:
    """Measures the methods on the cases, one step for each seed, batch and method.

    Args:
        methods: `noop` is always among them: no figure means anything without it.
        best: the guidance of `ip2p-best`; the editor's own if not given.
        seeds: of the noise and, where the source draws them, of the cases.
        judges: networks that judge the edited images, too.
        journal: what is in it is not measured again.
    """
    journal = journal or Journal()
    chosen = [method for method in METHODS if method in ("noop", *methods)]
    count = len(seeds) * len(chosen) * -(-cases.count // cases.batch)
    done = 0
    for seed in seeds:
        for items, truth in cases.batches(editor, seed):
            run = Run(
                editor, truth, items, seed, editor.settings, best or editor.settings.edit.guidance
            )
            if seed == seeds[0]:
                _keep_truth(journal, items, truth)
            for method in chosen:
                if run.possible(method) and not journal.has(seed, items, method):
                    made = run.make(method)
                    if seed == seeds[0]:
                        _keep_made(journal, items, truth, method, made)
                    scores = score(truth, made.image, made.seconds, made.values, made.mask, judges)
                    journal.add(scores.records(seed, items, method, truth.instructions))
                done += 1
                yield BenchStep(done, count)
    yield BenchStep(done, count, rows_of(journal.comparable(chosen, seeds), cases.unit))


def _keep_truth(journal: Journal, items: Sequence[str], truth: Truth) -> None:
    for i, item in enumerate(items):
        before = truth.before[i]
        if truth.mask is not None:
            before = draw_outline(before, truth.mask[i][None])
        journal.keep_picture(item, "input", before)
        if truth.after is not None:
            journal.keep_picture(item, "truth", truth.after[i])


def _keep_made(
    journal: Journal, items: Sequence[str], truth: Truth, method: Method, made: Made
) -> None:
    for i, item in enumerate(items):
        journal.keep_picture(item, method, made.image[i])
        if method == "wys" and made.values is not None:
            heat = overlay_heat(truth.before[i], made.values[i].cpu())
            journal.keep_picture(item, "relevance", heat)
