"""Choosing guidance, threshold and seed of an edit by a score that needs no truth.

The relevance map is made once. For each guidance and seed, the edits of all thresholds run as one
batch, together with the edit without a mask; every candidate is an ordinary `edit_image`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings
from wys.edit_score import ScoreSettings, edit_score, edit_signs
from wys.errors import WysError
from wys.image_edit import ImageEdit, edit_image, relevance_map
from wys.masks import Mask
from wys.relevance import RelevanceMap


@dataclass(frozen=True)
class AutoSettings:
    """Which candidates there are, around the settings of an edit and of its map."""

    text_factors: tuple[float, ...] = (1.0, 1.5)
    """Guidance scales of the instruction, as multiples of the settings'."""
    threshold_steps: tuple[float, ...] = (-0.2, 0.0, 0.1)
    """Thresholds, as differences to the map's own level."""
    seeds: int = 2
    """Seeds, from the edit's own upwards."""

    def __post_init__(self) -> None:
        if not self.text_factors or not self.threshold_steps or self.seeds < 1:
            raise WysError("automatic edits need a guidance, a threshold and a seed at least.")


@dataclass(frozen=True)
class Candidate:
    """The settings of one candidate."""

    text: float
    """Guidance scale of the instruction."""
    threshold_step: float
    seed: int


@dataclass(frozen=True)
class AutoEdit:
    """The candidates of b images, and the best by their scores."""

    candidates: tuple[Candidate, ...]
    signs: Float[Tensor, "b n 6"]
    """What the scores are made of; see `ScoreSettings`."""
    scores: Float[Tensor, "b n"]
    """In dB, higher is better; comparable between the candidates of one image."""
    edits: tuple[ImageEdit, ...]
    """Each candidate's edits of all b images."""

    @property
    def choice(self) -> tuple[int, ...]:
        """The best candidate of each image, the first of equals."""
        return tuple(int(row.argmax()) for row in self.scores)

    @property
    def best(self) -> tuple[ImageEdit, ...]:
        """The best edit of each image, each a batch of one."""
        return tuple(self.edits[n].select([i]) for i, n in enumerate(self.choice))


@dataclass(frozen=True)
class AutoStep:
    """One batch of candidates is done."""

    done: int
    count: int
    result: AutoEdit | None = None
    """On the last step only."""


def auto_edit(
    editor: Editor,
    images: Float[Tensor, "b 3 h w"] | Float[Tensor, "3 h w"],
    relevance: RelevanceMap,
    settings: EditSettings | None = None,
    auto: AutoSettings | None = None,
    score: ScoreSettings | None = None,
    *,
    negative: str = "",
    force: bool = False,
    correct: Callable[[Mask], Mask] | None = None,
    seed: int = 0,
    items: Sequence[int | str] | None = None,
) -> Iterator[AutoStep]:
    """Edits each image with every candidate and scores the results.

    Args:
        images: RGB in [0, 1], of any size; one image may come without the batch axis.
        relevance: their maps, which carry the instructions and the threshold.
        settings, score: None takes the editor's own.
        auto: which candidates there are.
        negative, force, correct: as for `edit_image`.

    Raises:
        WysError: ill-fitting sizes, or an editor that predicts NaN.
    """
    settings, auto = settings or editor.settings.edit, auto or AutoSettings()
    images = images[None] if images.ndim == 3 else images
    names = list(range(len(images))) if items is None else list(items)
    masks = _masks(relevance, auto, force, correct)
    # The same instruction once more, asked of the results at the same noise levels.
    how = relevance.settings
    times = editor.schedule.timesteps(settings.steps, settings.start)[: how.first_steps]
    fractions = tuple(max(t, 1) / len(editor.schedule.abar) for t in times) or how.timesteps
    again = replace(how, first_steps=0, draws=1, timesteps=fractions)
    candidates, edits, plains, afters = [], [], [], []
    count, done = len(auto.text_factors) * auto.seeds, 0
    for factor in auto.text_factors:
        text = settings.guidance.text * factor
        guided = replace(settings, guidance=replace(settings.guidance, text=text))
        for own_seed in range(seed, seed + auto.seeds):
            several = len(auto.threshold_steps) + 1
            many = list(range(len(images))) * several
            made = edit_image(
                editor,
                images[many],
                relevance.select(many).instructions,
                guided,
                relevance=relevance.select(many),
                mask=masks,
                negative=negative,
                seed=own_seed,
                items=[names[i] for i in many],
            )
            parts = [
                made.select(list(range(first, first + len(images))))
                for first in range(0, len(many), len(images))
            ]
            *own, plain = parts
            for step, part in zip(auto.threshold_steps, own, strict=True):
                looked = relevance_map(
                    editor, part.image, relevance.instructions, again, seed=seed, items=names
                )
                candidates.append(Candidate(text, step, own_seed))
                edits.append(part)
                plains.append(plain.image)
                afters.append(looked.raw)
            done += 1
            if done < count:
                yield AutoStep(done, count)
    signs = _signs(images, relevance, candidates, edits, plains, afters)
    scores = edit_score(signs, score or editor.settings.score)
    result = AutoEdit(tuple(candidates), signs, scores, tuple(edits))
    yield AutoStep(done, count, result)


def _masks(
    relevance: RelevanceMap,
    auto: AutoSettings,
    force: bool,
    correct: Callable[[Mask], Mask] | None,
) -> Mask:
    """The masks of every threshold one after the other, and of the edit without one."""
    mask = relevance.mask()
    # At 0 the mask would be everywhere, whatever the map: that is the edit without one.
    levels = [(mask.threshold + step).clamp(0.01, 1) for step in auto.threshold_steps]
    levels.append(torch.zeros_like(mask.threshold))
    scores = mask.scores.repeat(len(levels), 1, 1, 1)
    several = replace(mask, scores=scores, threshold=torch.cat(levels))
    several = several if correct is None else correct(several)
    nothing = [not force and verdict == "nothing to edit" for verdict in relevance.verdicts]
    return several.emptied(nothing * len(levels))


def _signs(
    images: Float[Tensor, "b 3 h w"],
    relevance: RelevanceMap,
    candidates: Sequence[Candidate],
    edits: Sequence[ImageEdit],
    plains: Sequence[Tensor],
    afters: Sequence[Tensor],
) -> Float[Tensor, "b n 6"]:
    """The signs of every candidate; seeds are compared where all else is equal."""
    rows, typical = [], torch.stack(list(plains)).mean(dim=0)
    for candidate, edit, plain, after in zip(candidates, edits, plains, afters, strict=True):
        peers = [
            other.image
            for its, other in zip(candidates, edits, strict=True)
            if replace(its, seed=candidate.seed) == candidate
        ]
        region = edit.mask.at(edit.mask.image_size).to(images.device)
        average = torch.stack(peers).mean(dim=0)
        signs = edit_signs(
            images,
            edit.image,
            plain,
            average,
            typical,
            region,
            relevance.values,
            relevance.raw,
            after,
        )
        rows.append(signs)
    return torch.stack(rows, dim=1)
