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
from jaxtyping import Bool, Float
from torch import Tensor

from wys.camera import Camera
from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings, denoise
from wys.errors import WysError
from wys.image import resize
from wys.image_edit import composite, relevance_map
from wys.nerf.fitting import FitSettings, Fitter, RelevanceFitSettings, fit_relevance
from wys.nerf.region import Region, RegionSettings, region_mask, vote_region
from wys.nerf.rendering import Rendering, Scene, render
from wys.relevance import (
    Mask,
    RelevanceMap,
    RelevanceSettings,
    Threshold,
    Verdict,
    normalise,
    relevance_mask,
    smooth,
)
from wys.seeds import generator, normal
from wys.views import ViewSet

Phase = Literal["relevance", "field", "edit", "fit", "done"]


@dataclass(frozen=True)
class SceneEditSettings:
    """How a scene is edited. The defaults are the preset `paper`."""

    relevance: RelevanceSettings | None = None
    """How the maps of the photographs are made; None takes the editor's own."""
    across: bool = True
    """Normalise all maps together, on the raw difference: a view that does not show what is meant
    gets no mask. Otherwise each map reaches 1."""
    maps: Literal["before", "visited", "render"] = "visited"
    """When maps are made: of all photographs before the first edit; of each when its turn comes;
    or, as in the published program, of its render at each turn."""
    learn: int = 40
    """Steps of the relevance field after each map, where maps are not made before."""
    region: Literal["field", "votes", "everywhere"] = "field"
    """What may change: what the relevance field shows in a view; the space that all maps vote for,
    decided before the first edit and then held; or everything."""
    stretched: bool = False
    """Scale each rendered relevance to [0, 1], as in the published program, so that a view without
    the target gets a mask too."""
    threshold: Threshold = 0.5
    """Where the rendered relevance is at least this, the view may change."""
    voting: RegionSettings = field(default_factory=RegionSettings)
    """How maps vote on the region."""
    edit: EditSettings | None = None
    """Guidance and steps of the photographs' edits; None takes the editor's own."""
    noise: tuple[float, float] = (0.02, 0.98)
    """Lowest and highest noise that a photograph's edit begins with, as fractions of the
    diffusion's length."""
    begin: Literal["render", "photograph"] = "render"
    """What that noise is added to: what the field shows, or the photograph."""
    together: bool = False
    """Edit all photographs once before the field takes its first step, from the photographs and
    with the noise that a full edit begins with; then take turns."""
    passes: float = 2.0
    """Edits of each photograph, on average."""
    every: int = 10
    """Steps of the field for each edit of a photograph."""
    rest: int = 0
    """Steps of the field after the last edit."""
    inside: float = 0.0
    """Share of the field's rays that are drawn from the masks; the others from everywhere."""
    rate: float = 1.0
    """Learning rate of the field in the beginning, relative to the highest of its fit; half a
    cosine leads to a tenth of it."""
    watch: int = 6
    """Edits after which the field must have begun to take them up; 0 does not check."""

    def __post_init__(self) -> None:
        low, high = self.noise
        if not 0 < low <= high <= 1:
            raise WysError(
                f"the noise of a scene's edit is a range within (0, 1], not {low} to {high}."
            )
        if self.passes <= 0 or min(self.every, self.learn) < 1 or min(self.rest, self.watch) < 0:
            raise WysError("passes, every and learn must be above 0, rest and watch at least 0.")
        if not 0 <= self.inside <= 1 or self.rate <= 0:
            raise WysError("inside is a share between 0 and 1, rate is above 0.")


_PAPER_MAPS = RelevanceSettings(clamp=2.0)

PAPER = SceneEditSettings(relevance=_PAPER_MAPS, across=False)
"""The paper's: maps are made as views come up, the field shows the masks."""

PUBLISHED = replace(PAPER, maps="render", stretched=True, edit=EditSettings(blend="published"))
"""The authors' program: maps of the renders, each rendered relevance scaled to reach 1."""

IN2N = SceneEditSettings(region="everywhere")
"""Instruct-NeRF2NeRF: no relevance; L1 without LPIPS."""

PER_FRAME = replace(IN2N, begin="photograph", noise=(1.0, 1.0), together=True)
"""Every photograph edited for itself."""

OWN = SceneEditSettings(
    maps="before",
    region="votes",
    together=True,
    noise=(0.6, 0.95),
    inside=0.5,
)
"""What works best with the built-in editor; see docs/architecture.md."""

PRESETS: Mapping[str, SceneEditSettings] = {
    "wys": OWN,
    "paper": PAPER,
    "published": PUBLISHED,
    "in2n": IN2N,
    "per-frame": PER_FRAME,
}


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


def agreed_region(
    values: Sequence[Float[Tensor, "1 h w"]],
    views: ViewSet,
    how: RelevanceSettings,
    voting: RegionSettings,
) -> Region:
    """The space that the masks of all views vote for.

    Views vote with masks, not with maps: soft edges would round the region off.

    Args:
        values: the maps of the views, by one scale.
        how: how the maps were made; its threshold makes the masks.
    """
    masks = relevance_mask(torch.stack(list(values)), views.size, how.threshold).at(views.size)
    return vote_region(masks.float(), views.cameras, voting)


@dataclass(frozen=True)
class SceneEditState:
    """Everything from which an edit goes on exactly.

    The field and its optimiser go on changing with the next step: what is to be kept is written, or
    copied, before that.
    """

    views: ViewSet
    """Photographs with the maps and the edits made so far."""
    scene: Scene
    """The field as it stands."""
    maps: tuple[RelevanceMap | None, ...]
    """The map of each photograph, each normalised for itself."""
    region: Region | None = None
    position: int = 0
    """Actions of the plan that are done."""
    fitter: Mapping[str, Tensor] = field(default_factory=dict)
    """The field's optimiser."""

    @property
    def room(self) -> Region | None:
        """Where the edited field takes the place of the one before; None: everywhere."""
        return None if self.region is None else self.region.room

    def tensors(self) -> dict[str, Tensor]:
        """The state as named tensors, for `from_tensors`."""
        found = {f"scene.{key}": value for key, value in self.scene.state_dict().items()}
        found |= {f"fitter.{key}": value for key, value in self.fitter.items()}
        columns = {
            "edit": self.views.edits,
            "relevance": self.views.relevance,
            "raw": [None if m is None else m.raw for m in self.maps],
            "spread": [None if m is None else m.spread for m in self.maps],
            "values": [None if m is None else m.values for m in self.maps],
        }
        for name, values in columns.items():
            found |= {f"{name}.{i}": v for i, v in enumerate(values) if v is not None}
        if self.region is not None:
            found |= {
                "region": self.region.inside,
                "extent": torch.tensor(self.region.extent, dtype=torch.float64),
            }
        found["position"] = torch.tensor(self.position)
        return found

    @staticmethod
    def from_tensors(
        tensors: Mapping[str, Tensor],
        scene: Scene,
        views: ViewSet,
        instruction: str,
        settings: RelevanceSettings,
    ) -> SceneEditState:
        """What `tensors` gave; `scene` and `views` are those that the edit began with.

        Args:
            settings: how the maps were made.

        Raises:
            WysError: the tensors belong to another scene.
        """

        def part(prefix: str) -> dict[str, Tensor]:
            start = f"{prefix}."
            return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}

        indices = range(len(views))
        edits, relevance, raw, spread, values = (
            [part(name).get(str(i)) for i in indices]
            for name in ("edit", "relevance", "raw", "spread", "values")
        )
        known = part("scene")
        field_of = _without_relevance(scene)
        if any(key.startswith("relevance.") for key in known):
            field_of = field_of.with_relevance(0)
        try:
            field_of.load_state_dict(known)
            changed = replace(views, edits=tuple(edits), relevance=tuple(relevance))
            position = int(tensors["position"])
        except (RuntimeError, KeyError) as error:
            raise WysError("the saved state belongs to another scene; begin anew.") from error
        maps: list[RelevanceMap | None] = [None] * len(views)
        for i, (own, mean) in enumerate(zip(values, raw, strict=True)):
            if own is not None and mean is not None:
                maps[i] = RelevanceMap(own, mean, spread[i], (instruction,), views.size, settings)
        region = None
        if "region" in tensors:
            region = Region(tensors["region"].bool(), float(tensors["extent"]))
        return SceneEditState(changed, field_of, tuple(maps), region, position, part("fitter"))


def _without_relevance(scene: Scene) -> Scene:
    """A copy of the radiance field alone: an earlier edit's relevance is not this one's."""
    return Scene(scene.clone().radiance, None, background=scene.background)


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


@dataclass(frozen=True)
class Turn:
    """An action of the plan: the edit of one photograph, or some steps of the field."""

    view: int | None
    """Which photograph is edited; None for steps of the field."""
    whole: bool = False
    """Whether the edit begins with the photograph and a full edit's noise."""


def plan(count: int, settings: SceneEditSettings, seed: int) -> list[Turn]:
    """Edits and field steps in their order; every pass takes the views in an order of its own."""
    edits: list[int] = []
    total = max(1, round(settings.passes * count))
    while len(edits) < total:
        draw = generator(seed, len(edits) // count, "view order")
        edits += torch.randperm(count, generator=draw).tolist()
    edits = edits[:total]
    fit, rest = Turn(None), -(-settings.rest // settings.every)
    turns: list[Turn] = []
    if settings.together:
        first, edits = edits[:count], edits[count:]
        turns += [Turn(view, whole=True) for view in first] + [fit] * len(first)
    for view in edits:
        turns += [Turn(view), fit]
    return turns + [fit] * rest


def scene_relevance(
    editor: Editor,
    views: ViewSet,
    instruction: str,
    settings: RelevanceSettings | None = None,
    *,
    seed: int = 0,
    known: Sequence[RelevanceMap | None] | None = None,
) -> Iterator[tuple[int, RelevanceMap]]:
    """The maps of all photographs, one after the other: (view, map).

    Args:
        known: maps that are there already and are not made again.
    """
    for i in range(len(views)):
        if known is None or known[i] is None:
            yield i, _map_of(editor, views.original(i), instruction, settings, seed, views.names[i])


def edit_scene(
    editor: Editor,
    scene: Scene,
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
        scene: the fitted field; it is not changed.
        views: the photographs that it was fitted to, without edits.
        fitting: how the field learns; None takes its defaults. The loss is L1 (section 4.3).
        seed: decides all noise, the order of views and the rays.
        force: edit also where all views say that there is nothing to edit.
        resume: the state of an earlier step of the same edit.

    Raises:
        WysError: an empty instruction, an editor that predicts NaN, or a field that does not take
            the edits up.
    """
    fitting = replace(fitting or FitSettings(), loss="l1")
    how = settings.relevance or editor.settings.relevance
    state = resume or SceneEditState(views, _without_relevance(scene), (None,) * len(views))

    # 1. Where does the instruction matter?
    asked = settings.region == "everywhere" or state.scene.relevance is not None
    if settings.maps == "before" and not asked:
        for i, found in scene_relevance(
            editor, views, instruction, how, seed=seed, known=state.maps
        ):
            maps = list(state.maps)
            maps[i] = found
            state = replace(state, maps=tuple(maps))
            yield SceneEditStep("relevance", i + 1, len(views), state, view=i)
        all_maps = [found for found in state.maps if found is not None]
        verdict = verdict_of(all_maps)
        if verdict == "nothing to edit" and not force:
            yield SceneEditStep("done", 0, 0, state, message=NOTHING)
            return
        values = normalise_across(all_maps) if settings.across else [m.values[0] for m in all_maps]
        for i, value in enumerate(values):
            state = replace(state, views=state.views.with_relevance(i, value))
        # 2. The field learns it, and the views vote on the space that may change.
        taught = state.scene.with_relevance(seed)
        learning = relevance_fitting or RelevanceFitSettings()
        for step in fit_relevance(taught, state.views, learning, seed=seed):
            yield SceneEditStep("field", step.iteration, step.count, state, losses=step.losses)
        if settings.region == "votes" and verdict == "local":
            region = agreed_region(values, views, how, settings.voting)
            if region.is_empty and not force:
                yield SceneEditStep("done", 0, 0, state, message=NOTHING)
                return
            state = replace(state, region=region)
        state = replace(state, scene=taught)
    elif not asked:
        state = replace(state, scene=state.scene.with_relevance(seed))

    # 3. The photographs and the field take turns.
    turns = plan(len(views), settings, seed)
    fitter = Fitter(state.scene, fitting, seed, rate=fitting.rate)
    if state.fitter:
        fitter.restore(dict(state.fitter))
    eyes = _Eyes(scene, state, settings)
    watchdog = Watchdog(settings.watch)
    images = state.views.images
    steps = sum(turn.view is None for turn in turns)
    for position in range(state.position, len(turns)):
        turn = turns[position]
        if turn.view is not None:
            i = turn.view
            shown = None
            if not turn.whole or watchdog.watching or eyes.held is None:
                shown = render(state.scene, views.cameras[i])
            if shown is not None and settings.maps != "before" and settings.region == "field":
                state = _learn_map(
                    editor,
                    state,
                    i,
                    shown,
                    instruction,
                    how,
                    settings,
                    relevance_fitting,
                    seed + position,
                )
            mask = eyes.mask(i, shown)
            name = f"{views.names[i]} {position}"
            edited = edit_view(
                editor, views.original(i), shown, mask, instruction, settings, turn, seed, name
            )
            if shown is not None:
                watchdog.edited(views.original(i), shown.rgb, edited, mask, views.cameras[i])
            changed = state.views.with_edit(i, edited)
            images = changed.images
            state = replace(state, views=changed, position=position + 1)
            index = sum(t.view is not None for t in turns[: position + 1])
            yield SceneEditStep("edit", index, len(turns) - steps, state, view=i)
            continue
        where = eyes.edited(state) if settings.inside > 0 else None
        fall = (1 + math.cos(math.pi * position / len(turns))) / 2
        fitter.rate = fitting.rate * settings.rate * (0.1 + 0.9 * fall)
        for _ in range(settings.every):
            losses = fitter.step(images, views.cameras, where=where, share=settings.inside)
        state = replace(state, fitter=fitter.state(), position=position + 1)
        watchdog.stepped(state.scene)
        index = sum(t.view is None for t in turns[: position + 1])
        yield SceneEditStep("fit", index, steps, state, losses=losses)
    yield SceneEditStep("done", len(turns), len(turns), state)


NOTHING = "nothing to edit: no view shows what the instruction is about."
"""What is said where all views agree that there is nothing to do."""


def edit_view(
    editor: Editor,
    photograph: Float[Tensor, "3 h w"],
    shown: Rendering | None,
    mask: Mask,
    instruction: str,
    settings: SceneEditSettings,
    turn: Turn,
    seed: int,
    name: str,
) -> Float[Tensor, "3 h w"]:
    """The edit of one photograph: conditioned on it, begun with what the field shows.

    Args:
        shown: the field's render of the view; None: the edit begins with the photograph.
        name: identifies the edit, for its noise.
    """
    size = (photograph.shape[-2], photograph.shape[-1])
    if not bool(mask.at(size).any()):
        return photograph
    fitted = editor.fit(size)
    told = editor.condition(resize(photograph[None], fitted), [instruction])
    own = settings.edit or editor.settings.edit
    start: Tensor | None = None
    if shown is None or turn.whole or settings.begin == "photograph":
        how = own if turn.whole else replace(own, start=settings.noise[1])
    else:
        low, high = settings.noise
        luck = float(torch.rand((), generator=generator(seed, name, "noise level")))
        how = replace(own, start=low + luck * (high - low))
        start = editor.condition(resize(shown.rgb[None], fitted).clamp(0, 1), [instruction]).z0
    noise = normal(told.z0.shape[1:], seed, [name], "scene edit")
    latent_size = (told.z0.shape[-2], told.z0.shape[-1])
    latents = told.z0
    for step in denoise(
        editor, told, mask.at(latent_size).to(told.z0.device), noise, how, start=start
    ):
        latents = step.latents
    decoded = resize(editor.decode(latents), size).cpu()
    if not bool(torch.isfinite(decoded).all()):
        raise WysError("the editor made an image of values that are not numbers; try --dtype fp32.")
    return composite(photograph[None], decoded, mask)[0]


class _Eyes:
    """The mask of each view: what the region, or the field, shows there."""

    def __init__(self, scene: Scene, state: SceneEditState, settings: SceneEditSettings) -> None:
        self.settings = settings
        self.views = state.views
        self.held: Bool[Tensor, "n 1 h w"] | None = None
        cameras = state.views.cameras
        if settings.region == "everywhere":
            self.held = torch.ones((len(state.views), 1, *state.views.size), dtype=torch.bool)
        elif state.region is not None:
            # What stands in front of the region now will stand there after the edit.
            region = state.region
            self.held = torch.stack(
                [region_mask(scene, region, cameras[i]) for i in range(len(state.views))]
            )

    def mask(self, i: int, shown: Rendering | None) -> Mask:
        """The mask of view i, a batch of one."""
        if self.held is not None:
            return Mask.from_image(self.held[i][None], self.views.size)
        assert shown is not None and shown.relevance is not None
        values = shown.relevance[None]
        if self.settings.stretched:
            low, high = values.min(), values.max()
            values = (values - low) / (high - low).clamp(min=1e-12)
        return relevance_mask(values, self.views.size, self.settings.threshold)

    def edited(self, state: SceneEditState) -> Bool[Tensor, "n h w"] | None:
        """The masks of the photographs that have an edit; None where there is no held region."""
        if self.held is None or self.settings.region == "everywhere":
            return None
        there = torch.tensor([edit is not None for edit in state.views.edits])
        where = self.held[:, 0] & there[:, None, None]
        return where if bool(where.any()) else None


def _map_of(
    editor: Editor,
    image: Float[Tensor, "3 h w"],
    instruction: str,
    settings: RelevanceSettings | None,
    seed: int,
    name: str,
) -> RelevanceMap:
    return relevance_map(editor, image, instruction, settings, seed=seed, items=[name])


def _learn_map(
    editor: Editor,
    state: SceneEditState,
    i: int,
    shown: Rendering,
    instruction: str,
    how: RelevanceSettings,
    settings: SceneEditSettings,
    fitting: RelevanceFitSettings | None,
    seed: int,
) -> SceneEditState:
    """Makes the map of view i where it is missing, and lets the field learn all known ones."""
    image = shown.rgb.clamp(0, 1) if settings.maps == "render" else state.views.original(i)
    if settings.maps == "render" or state.maps[i] is None:
        found = _map_of(editor, image, instruction, how, seed, state.views.names[i])
        maps = list(state.maps)
        maps[i] = found
        state = replace(state, maps=tuple(maps))
    known = [j for j, each in enumerate(state.maps) if each is not None]
    values = [each for each in state.maps if each is not None]
    scaled = normalise_across(values) if settings.across else [m.values[0] for m in values]
    views = state.views
    for j, value in zip(known, scaled, strict=True):
        views = views.with_relevance(j, value)
    state = replace(state, views=views)
    brief = replace(fitting or RelevanceFitSettings(), iterations=settings.learn)
    for _ in fit_relevance(state.scene, views.select(known), brief, seed=seed):
        pass
    return state


class Watchdog:
    """Stops an edit that goes nowhere: nothing is changed, or the field does not follow.

    Args:
        count: edits that are watched; 0 watches none.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.watched: list[tuple[Tensor, Tensor, Tensor, Camera]] = []
        self.changes: list[float] = []
        self.rounds = 0
        self.settled = count == 0

    @property
    def watching(self) -> bool:
        """Whether there are not enough edits yet."""
        return not self.settled and len(self.watched) < self.count

    def edited(
        self,
        photograph: Float[Tensor, "3 h w"],
        shown: Float[Tensor, "3 h w"],
        edit: Float[Tensor, "3 h w"],
        mask: Mask,
        camera: Camera,
    ) -> None:
        """Notes an edit: the photograph, what the field showed, and what it is to show.

        Raises:
            WysError: none of the first edits changes anything inside the mask.
        """
        region = mask.at(mask.image_size)[0, 0]
        if not self.watching or not bool(region.any()):
            return
        self.watched.append((shown, edit, region, camera))
        self.changes.append(float((edit - photograph).abs()[:, region].mean()))
        if len(self.watched) == self.count and max(self.changes) < 1 / 255:
            raise WysError(
                "the edits change nothing inside the region; raise the text guidance, or say the "
                "instruction in other words."
            )

    def stepped(self, scene: Scene) -> None:
        """Checks, once `count` edits are noted and twice as many rounds of steps are done.

        Raises:
            WysError: the field's renders have not moved towards the edits.
        """
        self.rounds += 1
        if self.settled or len(self.watched) < self.count or self.rounds < 2 * self.count:
            return
        self.settled = True
        wanted, left = 0.0, 0.0
        for shown, edit, region, camera in self.watched:
            now = render(scene, camera).rgb
            wanted += float((edit - shown).abs()[:, region].mean())
            left += float((edit - now).abs()[:, region].mean())
        if left > 0.98 * wanted:
            raise WysError(
                f"the scene does not take the edits up ({self.rounds} rounds of steps brought its "
                "renders no nearer to them); raise --every or --rate."
            )
