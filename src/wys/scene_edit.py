"""Editing a scene by an instruction: the whole story in one file.

Photographs of a scene stay what they are; beside each stands an edited one. `edit_scene` asks where
the instruction matters in every photograph, decides the part of space that may change, and then
takes turns: an edit of one photograph, started from what the field shows there now and held to the
photograph outside the mask, and some steps of the field towards the photographs as they stand.
(Iterative dataset update: Haque et al., Instruct-NeRF2NeRF, arXiv 2303.12789, section 3.2; with
relevance: Mirzaei et al., arXiv 2308.08947, section 4.3.)

It is a generator of steps: the command line prints them, a viewer draws them, tests assert on them,
and each carries the state from which the edit can go on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from wys.diffusion.editor import Editor
from wys.image import resize
from wys.image_edit import edit_image, relevance_map
from wys.masked_edit import Masked, edit_masked
from wys.masks import Mask
from wys.nerf.fitting import FitSettings, Fitter, RelevanceFitSettings, fit_relevance
from wys.nerf.layering import Look
from wys.nerf.region import Region, RegionSettings, vote_region
from wys.nerf.rendering import Rendering, render
from wys.relevance import (
    RelevanceMap,
    RelevanceSettings,
    Verdict,
    field_mask,
    led_along,
    normalise,
    relevance_mask,
    smooth,
)
from wys.scene_plan import Turn, plan
from wys.scene_settings import OWN, SceneEditSettings
from wys.scene_state import SceneEditState
from wys.scene_watchdog import Watchdog
from wys.seeds import generator, normal
from wys.views import ViewSet

Phase = Literal["relevance", "field", "edit", "fit", "done"]


def verdict_of(maps: Sequence[RelevanceMap]) -> Verdict:
    """Nothing to edit where every view says so; else what most of the others say."""
    speaking = [verdict for each in maps for verdict in each.verdicts]
    speaking = [verdict for verdict in speaking if verdict != "nothing to edit"]
    if not speaking:
        return "nothing to edit"
    return "whole image" if 2 * speaking.count("whole image") > len(speaking) else "local"


def normalise_across(maps: Sequence[RelevanceMap]) -> list[Float[Tensor, "1 h w"]]:
    """R of n views by one scale for all: quartiles, extremes and clamp are those of all maps."""
    settings = maps[0].settings
    raw = torch.cat([smooth(each.raw, settings.smoothing) for each in maps])
    n, _, h, w = raw.shape
    return list(normalise(raw.reshape(1, 1, n * h, w), settings).reshape(n, 1, h, w))


def scaled_maps(
    maps: Sequence[RelevanceMap],
    photographs: Sequence[Float[Tensor, "3 H W"]],
    settings: SceneEditSettings,
) -> list[Float[Tensor, "1 h w"]]:
    """R of n photographs, by one scale for all or, as in the paper, each by its own."""
    if not settings.across:
        return [each.values[0] for each in maps]
    found = []
    for each, values, photograph in zip(maps, normalise_across(maps), photographs, strict=True):
        size = (each.values.shape[-2], each.values.shape[-1])
        found.append(led_along(values[None], each.settings, resize(photograph[None], size))[0])
    return found


def agreed_region(
    values: Sequence[Float[Tensor, "1 h w"]],
    views: ViewSet,
    how: RelevanceSettings,
    voting: RegionSettings,
) -> Region:
    """The space that the masks of all views vote for.

    Views vote with masks, not with maps: soft edges would round the region off. The maps decide
    between parts that stand apart.

    Args:
        values: the maps of the views, by one scale.
        how: how the maps were made; its threshold makes the masks.
    """
    maps = torch.stack(list(values))
    masks = relevance_mask(maps, views.size, how.threshold).at(views.size)
    return vote_region(masks.float(), views.cameras, voting, maps)


@dataclass(frozen=True)
class SceneEditStep:
    """One step on the way."""

    phase: Phase
    index: int
    """Steps of this phase done, of `count`."""
    count: int
    state: SceneEditState
    view: int | None = None
    """The view whose map or edit was just made."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """Of the field's last step."""
    message: str | None = None
    """A sentence for the user."""


def scene_relevance(
    editor: Editor,
    views: ViewSet,
    instruction: str,
    settings: RelevanceSettings | None = None,
    *,
    seed: int = 0,
    known: Sequence[RelevanceMap | None] | None = None,
    at_once: int = 1,
) -> Iterator[tuple[int, RelevanceMap]]:
    """The maps of all photographs, one after the other: (view, map).

    Args:
        known: maps that are there already and are not given again.
        at_once: photographs in a batch.
    """
    for first in range(0, len(views), at_once):
        batch = range(first, min(first + at_once, len(views)))
        missing = [i for i in batch if known is None or known[i] is None]
        if missing:
            # All of the batch: sums round by its size, and who goes on shall get the same maps.
            photographs = torch.stack([views.original(i) for i in batch])
            names = [views.names[i] for i in batch]
            made = relevance_map(editor, photographs, instruction, settings, seed=seed, items=names)
            yield from ((i, made.select([i - first])) for i in missing)


def locate(
    editor: Editor,
    state: SceneEditState,
    instruction: str,
    settings: SceneEditSettings = OWN,
    *,
    fitting: RelevanceFitSettings | None = None,
    seed: int = 0,
    force: bool = False,
) -> Iterator[SceneEditStep]:
    """Where an instruction matters in a scene; the last step's state holds what was found.

    Args:
        state: with the maps that are known already; those are not made again.
        fitting: how the relevance field learns; None takes its defaults.
        force: seek a place also where all views say that there is nothing to edit, or do not agree
            on a place. Otherwise the region is then empty.
    """
    count = len(state.views)
    for i, found in scene_relevance(
        editor,
        state.views,
        instruction,
        settings.relevance,
        seed=seed,
        known=state.maps,
        at_once=settings.at_once,
    ):
        state = state.with_map(i, found)
        yield SceneEditStep("relevance", i + 1, count, state, view=i)
    maps = [found for found in state.maps if found is not None]
    photographs = [state.views.original(i) for i in range(count)]
    verdict, values = verdict_of(maps), scaled_maps(maps, photographs, settings)
    for i, value in enumerate(values):
        state = replace(state, views=state.views.with_relevance(i, value))
    if verdict == "nothing to edit" and not force:
        state = replace(state, region=Region.empty(settings.voting))
    elif verdict == "local" and settings.region == "votes":
        how = settings.relevance or editor.settings.relevance
        voting = settings.voting
        if voting.rival is None:
            voting = replace(voting, rival=editor.settings.rival)
        region = agreed_region(values, state.views, how, voting)
        # Forced, an edit goes by the relevance field where views do not agree on a place.
        state = replace(state, region=None if force and region.is_empty else region)
    taught = state.scene.with_relevance(seed)
    for step in fit_relevance(taught, state.views, fitting or RelevanceFitSettings(), seed=seed):
        if step.iteration == step.count:
            state = replace(state, scene=taught)
        yield SceneEditStep("field", step.iteration, step.count, state, losses=step.losses)


@dataclass(frozen=True)
class _Order:
    """What is asked for, and who is to do it."""

    editor: Editor
    instruction: str
    settings: SceneEditSettings
    seed: int


def edit_scene(
    editor: Editor,
    look: Look,
    views: ViewSet,
    instruction: str,
    settings: SceneEditSettings = OWN,
    *,
    fitting: FitSettings | None = None,
    relevance_fitting: RelevanceFitSettings | None = None,
    seed: int = 0,
    force: bool = False,
    resume: SceneEditState | None = None,
) -> Iterator[SceneEditStep]:
    """Edits a fitted scene; the last step's state holds the edited field and photographs.

    Args:
        look: the scene with the edits that it has. A copy of its last field is edited; none of its
            fields is changed.
        views: the photographs as that shows them, without edits of this one.
        fitting: how the field learns; None takes its defaults. The loss is L1 (section 4.3).
        seed: decides all noise, the order of views and the rays.
        force: edit also where all views say that there is nothing to edit, or do not agree on a
            place; the relevance field then decides.
        resume: the state of an earlier step of the same edit.

    Raises:
        WysError: an empty instruction, an editor that predicts NaN, or a field that does not take
            the edits up.
    """
    order = _Order(editor, instruction, settings, seed)
    fitting = replace(fitting or FitSettings(), loss="l1")
    state = resume or SceneEditState.begin(look.scene, views)

    # Where does the instruction matter?
    located = settings.region == "everywhere" or state.scene.relevance is not None
    if not located and settings.maps == "before":
        for found in locate(
            editor, state, instruction, settings, fitting=relevance_fitting, seed=seed, force=force
        ):
            state = found.state
            if state.region is not None and state.region.is_empty:
                break
            yield found
    elif not located:
        state = replace(state, scene=state.scene.with_relevance(seed))
    if state.region is not None and state.region.is_empty:
        verdict = verdict_of([each for each in state.maps if each is not None])
        yield SceneEditStep("done", 0, 0, state, message=no_place(verdict, state.region))
        return

    # The photographs and the field take turns.
    turns = plan(len(views), settings, seed)
    fitter = Fitter(state.scene, fitting, seed, rate=fitting.rate)
    if state.fitter:
        fitter.restore(dict(state.fitter))
    eyes = _Eyes(look, state, settings)
    firsts: dict[int, Tensor] = {}
    watchdog = Watchdog(settings.watch)
    if state.position > 0:
        watchdog.restore(state.watch)
    images = state.views.images
    steps = sum(turn.view is None for turn in turns)
    for position in range(state.position, len(turns)):
        turn = turns[position]
        if turn.view is not None:
            i = turn.view
            shown = None
            if not turn.whole or eyes.held is None:
                shown = render(state.scene, views.cameras[i])
            if shown is not None and settings.maps != "before" and settings.region == "field":
                state = _learn_map(order, state, i, shown, relevance_fitting)
            mask = eyes.masks([i], shown)
            if not turn.whole:
                assert shown is not None
                name = f"{views.names[i]} {position}"
                edited = _edit_view(order, views.original(i), shown, mask, name)
            else:
                if position not in firsts:
                    firsts = _first_edits(order, views, turns, position, eyes, shown)
                edited = firsts.pop(position)
            watchdog.edited(views.original(i), edited, mask, views.cameras[i], state.scene)
            changed = state.views.with_edit(i, edited)
            images = changed.images
            state = replace(state, views=changed, position=position + 1, watch=watchdog.state())
            index = sum(t.view is not None for t in turns[: position + 1])
            yield SceneEditStep("edit", index, len(turns) - steps, state, view=i)
            continue
        among = eyes.edited_pixels(state) if settings.inside > 0 else None
        fall = (1 + math.cos(math.pi * position / len(turns))) / 2
        fitter.rate = fitting.rate * settings.rate * (0.1 + 0.9 * fall)
        for _ in range(settings.every):
            losses = fitter.step(images, views.cameras, among=among, share=settings.inside)
        watchdog.stepped(state.scene)
        state = replace(state, fitter=fitter.state(), position=position + 1, watch=watchdog.state())
        index = sum(t.view is None for t in turns[: position + 1])
        yield SceneEditStep("fit", index, steps, state, losses=losses)
    yield SceneEditStep("done", len(turns), len(turns), state)


def no_place(verdict: Verdict, region: Region | None) -> str | None:
    """Why there is no place to edit; None where there is one."""
    if verdict == "nothing to edit":
        return "Nothing to edit: no view shows what the instruction is about."
    if region is not None and region.is_empty:
        return "No place to edit: some views mark something, but too few agree on where it stands."
    return None


def _edit_view(
    order: _Order,
    photograph: Float[Tensor, "3 h w"],
    shown: Rendering,
    mask: Mask,
    name: str,
) -> Float[Tensor, "3 h w"]:
    """The edit of one photograph: conditioned on it, begun with what the field shows.

    Args:
        shown: the field's render of the view.
        name: identifies the edit, for its noise.
    """
    editor, settings = order.editor, order.settings
    size = (photograph.shape[-2], photograph.shape[-1])
    if not bool(mask.at(size).any()):
        return photograph
    fitted, texts = editor.fit(size), [order.instruction]
    told = editor.condition(resize(photograph[None], fitted), texts)
    own = settings.edit or editor.settings.edit
    low, high = settings.noise
    start: Tensor | None = None
    if settings.begin == "photograph":
        how = replace(own, start=high)
    else:
        luck = float(torch.rand((), generator=generator(order.seed, name, "noise level")))
        how = replace(own, start=low + luck * (high - low))
        start = editor.condition(resize(shown.rgb[None], fitted).clamp(0, 1), texts).z0
    noise = normal(told.z0.shape[1:], order.seed, [name], "scene edit")
    view = Masked(photograph[None], mask, told)
    for _, edited in edit_masked(editor, view, noise, how, start=start):
        if edited is not None:
            return edited[0]
    raise AssertionError("an edit ends with its image")


def _first_edits(
    order: _Order,
    views: ViewSet,
    turns: Sequence[Turn],
    position: int,
    eyes: _Eyes,
    shown: Rendering | None,
) -> dict[int, Float[Tensor, "3 h w"]]:
    """The edits of whole photographs that are made at once with that of a turn, by their turns."""
    editor, at_once = order.editor, order.settings.at_once
    first = position - position % at_once
    batch = [p for p in range(first, first + at_once) if p < len(turns) and turns[p].whole]
    if eyes.held is None:  # Only what is shown now tells a mask.
        batch = [position]
    chosen = [turns[p].view for p in batch]
    indices = [i for i in chosen if i is not None]
    made = edit_image(
        editor,
        torch.stack([views.original(i) for i in indices]),
        order.instruction,
        order.settings.edit or editor.settings.edit,
        mask=eyes.masks(indices, shown),
        seed=order.seed,
        items=[f"{views.names[i]} {p}" for i, p in zip(indices, batch, strict=True)],
    )
    return dict(zip(batch, made.image, strict=True))


class _Eyes:
    """The mask of each view: what the region, or the field, shows there."""

    def __init__(self, look: Look, state: SceneEditState, settings: SceneEditSettings) -> None:
        self.settings = settings
        self.views = state.views
        self.held: Bool[Tensor, "n 1 h w"] | None = None
        self._pixels: list[Int[Tensor, " k"]] = []
        cameras = state.views.cameras
        if settings.region == "everywhere":
            self.held = torch.ones((len(state.views), 1, *state.views.size), dtype=torch.bool)
        elif state.region is not None:
            # What stands in front of the region now will stand there after the edit.
            seen = [look.sees(state.region, cameras[i]) for i in range(len(state.views))]
            self.held = torch.stack(seen)
            # Once, and not at every step: there may be hundreds of millions of pixels.
            size = self.held[0].numel()
            self._pixels = [
                i * size + own.flatten().nonzero()[:, 0] for i, own in enumerate(self.held)
            ]

    def masks(self, indices: list[int], shown: Rendering | None) -> Mask:
        """The masks of some views; of the one that is shown, where no region is held."""
        if self.held is not None:
            return Mask.from_image(self.held[indices], self.views.size)
        assert shown is not None and shown.relevance is not None
        how, values = self.settings, shown.relevance[None]
        return field_mask(values, self.views.size, how.threshold, how.stretched)

    def edited_pixels(self, state: SceneEditState) -> Int[Tensor, " k"] | None:
        """The masked pixels of the photographs that have an edit, counted through all photographs;
        None where no region is held, or there is none of them."""
        own = zip(self._pixels, state.views.edits, strict=False)
        found = [pixels for pixels, edit in own if edit is not None]
        return torch.cat(found) if found else None


def _learn_map(
    order: _Order,
    state: SceneEditState,
    i: int,
    shown: Rendering,
    fitting: RelevanceFitSettings | None,
) -> SceneEditState:
    """Makes the map of view i where it is missing, and lets the field learn all known ones."""
    name, settings = state.views.names[i], order.settings
    if settings.maps == "render" or state.maps[i] is None:
        image = shown.rgb.clamp(0, 1) if settings.maps == "render" else state.views.original(i)
        found = relevance_map(
            order.editor,
            image,
            order.instruction,
            settings.relevance,
            seed=order.seed,
            items=[name],
        )
        state = state.with_map(i, found)
    known = [j for j, each in enumerate(state.maps) if each is not None]
    views = state.views
    maps = [each for each in state.maps if each is not None]
    scaled = scaled_maps(maps, [views.original(j) for j in known], settings)
    for j, value in zip(known, scaled, strict=True):
        views = views.with_relevance(j, value)
    brief = replace(fitting or RelevanceFitSettings(), iterations=settings.learn)
    # Every turn learns on rays of its own; the map of a view is the same whenever it is made.
    for _ in fit_relevance(state.scene, views.select(known), brief, order.seed + state.position):
        pass
    return replace(state, views=views)
