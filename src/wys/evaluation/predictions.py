"""What an editor predicts for the cases of a bench, once, for every map that can be made of it.

A prediction gives the raw maps of all sources that the editor has; an edit that runs without
a mask gives them on its way, and its result under any mask is a composite.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from wys.diffusion.conditioning import Conditioning, Sight
from wys.diffusion.editor import Editor
from wys.diffusion.noise import NoisePrediction
from wys.diffusion.sampler import EditSettings, denoise
from wys.diffusion.settings import EditorSettings
from wys.evaluation.cases import Batch, Truth
from wys.image import resize
from wys.image_edit import edit_image, raw_relevance, relevance_map
from wys.relevance import RelevanceMap, Source
from wys.seeds import normal


@dataclass(frozen=True)
class RawMaps:
    """One prediction for b cases: D by each source."""

    raw: dict[Source, Float[Tensor, "b 1 h w"]]
    seconds: float
    """What predicting both branches took, all cases together; not the locator's pass."""


@dataclass(frozen=True)
class PlainEdit:
    """Edits of b cases without a mask."""

    image: Float[Tensor, "b 3 h w"]
    raw_maps: tuple[RawMaps, ...]
    """Of the first steps, as many as were asked for."""


def sources(editor: Editor) -> tuple[Source, ...]:
    """The sources of relevance that an editor has."""
    found: tuple[Source, ...] = ("difference",)
    if editor.head is not None:
        found = (*found, "head", "both")
    if editor.locator is not None:
        found = (*found, "locator")
    return found


def raw_maps(
    editor: Editor, pairs: Truth, items: Sequence[str], seed: int, level: float, draw: int
) -> RawMaps:
    """The prediction that `relevance_map` makes at a noise level for one of its draws."""
    told = editor.condition(resize(pairs.before, editor.fit(_size(pairs))), pairs.instructions)
    t = editor.schedule.timestep(level)
    noise = normal(told.z0.shape[1:], seed, items, f"relevance {t} {draw}").to(told.z0)
    started = time.perf_counter()
    head = editor.head is not None
    z = editor.schedule.add_noise(told.z0, noise, t)
    prediction = editor.predict(z, t, told, ("full", "image"), change=head)
    seconds = time.perf_counter() - started
    return _read(editor, z, t, told, prediction, seconds)


def plain_edit(
    editor: Editor,
    pairs: Truth,
    items: Sequence[str],
    seed: int,
    settings: EditSettings,
    first: int = 0,
    relevance: Float[Tensor, "b 1 h w"] | None = None,
) -> PlainEdit:
    """The edit of `edit_image` with the mask everywhere.

    Args:
        first: so many first steps are looked at.
        relevance: R at latent size, for soft guidance.
    """
    told = editor.condition(resize(pairs.before, editor.fit(_size(pairs))), pairs.instructions)
    noise = normal(told.z0.shape[1:], seed, items, "edit")
    everywhere = torch.ones_like(told.z0[:, :1], dtype=torch.bool)
    sight: tuple[Sight, ...] = ("full", "image")
    sight = (*sight, "change") if editor.head is not None else sight
    maps: list[RawMaps] = []
    started = time.perf_counter()
    for step in denoise(
        editor,
        told,
        everywhere,
        noise,
        settings,
        relevance=relevance,
        look=sight if first else (),
    ):
        if step.index <= first:
            seconds = time.perf_counter() - started
            maps.append(_read(editor, step.noised, step.left, told, step.prediction, seconds))
            started = time.perf_counter()
    return PlainEdit(resize(editor.decode(step.latents).cpu(), _size(pairs)), tuple(maps))


def mean_raw(maps: Sequence[RawMaps], source: Source) -> Float[Tensor, "b 1 h w"]:
    """D as a map averages it over predictions."""
    return torch.stack([each.raw[source] for each in maps]).mean(dim=0)


def raw_of(
    editor: Editor, batch: Batch, seed: int, settings: EditorSettings
) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"] | None]:
    """The raw map of more cases, made as the settings say, and its spread between the draws."""
    (items, pairs), how = batch, settings.relevance
    if how.first_steps:
        edit = edit_image(
            editor,
            pairs.before,
            pairs.instructions,
            settings.edit,
            relevance_settings=how,
            seed=seed,
            items=items,
        )
        made = edit.relevance
        assert made is not None
    else:
        made = relevance_map(editor, pairs.before, pairs.instructions, how, seed=seed, items=items)
    return made.raw.cpu(), None if made.spread is None else made.spread.cpu()


def judged_maps(
    editor: Editor,
    batches: Sequence[Batch],
    seed: int,
    settings: EditorSettings,
) -> tuple[RelevanceMap, list[str]]:
    """Maps whose verdicts are judged, of several batches of one size, and the kinds of their edits.

    Verdicts go by D and its spread alone: the maps have D in the place of R.
    """
    found = [raw_of(editor, batch, seed, settings) for batch in batches]
    raw = torch.cat([own for own, _ in found])
    spreads = [own for _, own in found if own is not None]
    spread = torch.cat(spreads) if spreads else None
    kinds: list[str] = [kind for _, pairs in batches for kind in pairs.kinds]
    size = _size(batches[0][1])
    return RelevanceMap(raw, raw, spread, ("",) * len(raw), size, settings.relevance), kinds


def enlarged(values: Float[Tensor, "b 1 h w"], size: tuple[int, int]) -> Float[Tensor, "b H W"]:
    """A map at image size, as masks enlarge it."""
    return F.interpolate(values, size=size, mode="bilinear", align_corners=False)[:, 0]


def under(
    mask: Bool[Tensor, "b h w"] | Float[Tensor, "b h w"],
    image: Float[Tensor, "b 3 h w"],
    pairs: Truth,
) -> Float[Tensor, "b 3 h w"]:
    """An edit inside a mask, the input outside; mixed by the weights of a soft one."""
    return torch.lerp(pairs.before, image, mask[:, None].to(image))


def _read(
    editor: Editor,
    z: Float[Tensor, "b c h w"],
    t: int,
    told: Conditioning,
    prediction: NoisePrediction,
    seconds: float,
) -> RawMaps:
    raw: dict[Source, Tensor] = {
        source: raw_relevance(editor, source, z, t, told, prediction).cpu()
        for source in sources(editor)
    }
    return RawMaps(raw, seconds)


def _size(pairs: Truth) -> tuple[int, int]:
    return pairs.before.shape[-2], pairs.before.shape[-1]
