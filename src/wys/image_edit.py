"""Editing an image by an instruction: the whole story in two functions.

`relevance_map` asks the editor where the instruction makes a difference; `edit_image` denoises with
guidance inside that region, holds the rest at the input's noise, and composites on the input's own
pixels, which outside the mask stay what they are, bit for bit.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from wys.diffusion.conditioning import Conditioning, Sight
from wys.diffusion.editor import Editor
from wys.diffusion.noise import NoisePrediction
from wys.diffusion.sampler import Begun, DenoisingStep, EditSettings, denoise
from wys.diffusion.schedule import levels
from wys.diffusion.window import windows
from wys.errors import WysError, WysWarning
from wys.image import resize
from wys.masked_edit import Masked, edit_masked
from wys.masks import Box, Mask, zoom_box
from wys.relevance import (
    PROBABILITIES,
    RelevanceMap,
    RelevanceSettings,
    Source,
    relevance_values,
)
from wys.seeds import normal
from wys.thresholds import Threshold

Items = Sequence[int | str]
SIGHTS: dict[Source, tuple[Sight, ...]] = {
    "difference": ("full", "image"),
    "head": ("full", "change"),
    "both": ("full", "image", "change"),
    "locator": ("full", "change"),
}
"""What has to be predicted for a source of relevance; what a locator makes of it comes on top."""


@dataclass(frozen=True)
class ImageEdit:
    """b edited images and everything that decided them."""

    image: Float[Tensor, "b 3 h w"]
    """The result, of the input's size; outside `mask` it is the input bit for bit."""
    original: Float[Tensor, "b 3 h w"]
    instructions: tuple[str, ...]
    relevance: RelevanceMap | None
    """None where the caller gave a mask and no map."""
    mask: Mask
    """Where the image may have changed; empty for an image with nothing to edit."""
    edited: tuple[bool, ...]
    """False for an image that was returned as it came: nothing to edit, or an empty mask."""
    regions: tuple[Box, ...]
    """The part of each image that the editor worked on: all of it, or the crop of a zoom."""
    settings: EditSettings
    seed: int

    @property
    def changed_share(self) -> Float[Tensor, " b"]:
        """The share of each image's pixels that changed at all."""
        return (self.image != self.original).any(dim=1).flatten(1).float().mean(dim=1)

    @property
    def largest_change_outside(self) -> Float[Tensor, " b"]:
        """The largest change of a channel outside the mask: 0."""
        outside = ~self.mask.at(self.mask.image_size).to(self.image.device)
        return ((self.image - self.original).abs() * outside).flatten(1).amax(dim=1)

    def select(self, indices: list[int]) -> "ImageEdit":
        """The edits of some of the images."""
        return replace(
            self,
            image=self.image[indices],
            original=self.original[indices],
            instructions=tuple(self.instructions[i] for i in indices),
            relevance=None if self.relevance is None else self.relevance.select(indices),
            mask=self.mask.select(indices),
            edited=tuple(self.edited[i] for i in indices),
            regions=tuple(self.regions[i] for i in indices),
        )


@dataclass(frozen=True)
class EditStep:
    """One step of an edit on its way."""

    index: int
    """Steps done, of `count`; 0 of 0 where there was nothing to do."""
    count: int
    items: tuple[int, ...]
    """Which images of the batch are in `latents`."""
    latents: Float[Tensor, "b c h w"] | None
    result: ImageEdit | None = None
    """The finished edit, on the last step only."""


def relevance_map(
    editor: Editor,
    images: Float[Tensor, "b 3 h w"] | Float[Tensor, "3 h w"],
    instructions: str | Sequence[str],
    settings: RelevanceSettings | None = None,
    *,
    seed: int = 0,
    items: Items | None = None,
    edit: EditSettings | None = None,
) -> RelevanceMap:
    """Where each instruction makes a difference to its image.

    Args:
        images: RGB in [0, 1], of any size; one image may come without the batch axis.
        instructions: one for all images or one for each.
        settings: how the map is made; None takes the editor's own.
        items: identities of the images, for their noise; None numbers them 0..b-1.
        edit: the edit off whose first steps the map is read, where the settings say so; None takes
            the editor's own.

    Raises:
        WysError: an empty instruction, ill-fitting numbers, or an editor that predicts NaN.
    """
    images, texts, names = _checked(images, instructions, items)
    size = (images.shape[-2], images.shape[-1])
    shown = resize(images, editor.fit(size))
    conditioning = editor.condition(shown, texts)
    settings = settings or editor.settings.relevance
    if settings.first_steps:
        noise = normal(conditioning.z0.shape[1:], seed, names, "edit")
        *_, last = _first_steps(editor, conditioning, noise, edit or editor.settings.edit, settings)
        return _as_map(last[1], None, shown, texts, size, settings)
    return _relevance(editor, conditioning, shown, texts, size, settings, seed, names)


def _relevance(
    editor: Editor,
    conditioning: Conditioning,
    shown: Float[Tensor, "b 3 h2 w2"],
    instructions: Sequence[str],
    image_size: tuple[int, int],
    settings: RelevanceSettings,
    seed: int,
    items: Items,
) -> RelevanceMap:
    """D = sum |eps(z_t, I, T) - eps(z_t, I, 0)|, draws and timesteps in one batch (section 4.1)."""
    z0, count = conditioning.z0, len(conditioning)
    times = levels(editor.schedule, settings.timesteps)
    combinations = [(t, draw) for draw in range(settings.draws) for t in times]
    noise = torch.cat(
        [
            normal(z0.shape[1:], seed, items, f"relevance {int(t)} {draw}")
            for t, draw in combinations
        ]
    ).to(z0)
    many = conditioning.select(list(range(count)) * len(combinations))
    t = torch.stack([t for t, _ in combinations]).repeat_interleave(count)
    z = editor.schedule.add_noise(many.z0, noise, t)
    sight = SIGHTS[settings.source]
    branches = tuple(branch for branch in sight if branch != "change")
    prediction = editor.predict(z, t, many, branches, change="change" in sight)
    raw = _raw(editor, z, t, many, prediction, settings)
    # [draws, timesteps, b, 1, h, w]
    raw = raw.reshape(settings.draws, len(times), count, *raw.shape[1:])
    spread = raw.mean(dim=1).std(dim=0) if settings.draws > 1 else None
    return _as_map(raw.mean(dim=(0, 1)), spread, shown, instructions, image_size, settings)


def _first_steps(
    editor: Editor,
    conditioning: Conditioning,
    noise: Float[Tensor, "b c h w"],
    edit: EditSettings,
    settings: RelevanceSettings,
) -> Iterator[tuple[DenoisingStep, Float[Tensor, "b 1 h w"]]]:
    """The first steps of an edit without a mask, each with the mean of D over the steps so far."""
    count = settings.first_steps
    steps = len(editor.schedule.timesteps(edit.steps, edit.start))
    if count >= steps:
        raise WysError(
            f"an edit of {steps} steps is over before a map is read off its first {count}; give it "
            "more steps, or read the map off fewer."
        )
    everywhere = torch.ones_like(conditioning.z0[:, :1], dtype=torch.bool)
    sight, total = SIGHTS[settings.source], torch.zeros_like(conditioning.z0[:, :1])
    for step in denoise(editor, conditioning, everywhere, noise, edit, look=sight):
        raw = _raw(editor, step.noised, step.left, conditioning, step.prediction, settings)
        total = total + raw
        yield step, total / step.index
        if step.index == count:
            return


def raw_relevance(
    editor: Editor,
    source: Source,
    z: Float[Tensor, "b c h w"],
    t: int | Int[Tensor, " b"],
    conditioning: Conditioning,
    prediction: NoisePrediction,
) -> Float[Tensor, "b 1 h w"]:
    """What a source says of one prediction at z_t, of which it needs what `SIGHTS` names."""
    if source == "locator":
        return editor.locate(z, t, conditioning, prediction)
    return prediction.relevance(source)


def _raw(
    editor: Editor,
    z: Float[Tensor, "b c h w"],
    t: int | Int[Tensor, " b"],
    conditioning: Conditioning,
    prediction: NoisePrediction,
    settings: RelevanceSettings,
) -> Float[Tensor, "b 1 h w"]:
    """D of one prediction at z_t, in the space of the settings."""
    raw = raw_relevance(editor, settings.source, z, t, conditioning, prediction)
    if settings.space == "eps" or settings.source in PROBABILITIES:
        return raw
    level = editor.schedule.level(t, raw)
    clean = (1 - level).sqrt() / level.sqrt()
    # "both" is a geometric mean, in which the difference counts by its root.
    return raw * (clean if settings.source == "difference" else clean.sqrt())


def _as_map(
    raw: Float[Tensor, "b 1 h w"],
    spread: Float[Tensor, "b 1 h w"] | None,
    shown: Float[Tensor, "b 3 h2 w2"],
    instructions: Sequence[str],
    image_size: tuple[int, int],
    settings: RelevanceSettings,
) -> RelevanceMap:
    """D to the map R of the images as they are `shown` to the editor, on the CPU.

    There a map that was just made and one that was read from a file are the same thing.
    """
    raw, spread = raw.cpu(), None if spread is None else spread.cpu()
    values = relevance_values(raw, settings, shown.cpu())
    return RelevanceMap(values, raw, spread, tuple(instructions), image_size, settings)


def edit_image(
    editor: Editor,
    images: Float[Tensor, "b 3 h w"] | Float[Tensor, "3 h w"],
    instructions: str | Sequence[str],
    settings: EditSettings | None = None,
    *,
    relevance: RelevanceMap | None = None,
    relevance_settings: RelevanceSettings | None = None,
    mask: Mask | None = None,
    negative: str = "",
    zoom: bool = False,
    force: bool = False,
    correct: Callable[[Mask], Mask] | None = None,
    seed: int = 0,
    items: Items | None = None,
) -> ImageEdit:
    """Edits each image by its instruction, and only where the instruction makes a difference.

    Args:
        images: RGB in [0, 1], of any size; one image may come without the batch axis.
        instructions: one for all images or one for each.
        settings: guidance, steps and start; None takes the editor's own.
        relevance: a map made before, which is then not made again.
        relevance_settings: how the map is made; None takes the editor's own.
        mask: the region to edit, instead of the map's own at its threshold.
        negative: what to steer away from.
        zoom: where the mask is small, edit a crop around it at the editor's full size.
        force: edit also where the verdict is "nothing to edit".
        correct: what to do to the map's mask before it is used, such as to grow it. What it
            includes is edited also where the verdict is "nothing to edit".
        seed: with `items`, decides all noise.
        items: identities of the images, for their noise; None numbers them 0..b-1.

    Raises:
        WysError: an empty instruction, ill-fitting sizes, or an editor that predicts NaN.
    """
    steps = edit_steps(
        editor,
        images,
        instructions,
        settings,
        relevance=relevance,
        relevance_settings=relevance_settings,
        mask=mask,
        negative=negative,
        zoom=zoom,
        force=force,
        correct=correct,
        seed=seed,
        items=items,
    )
    for step in steps:
        if step.result is not None:
            return step.result
    raise AssertionError("an edit ends with its result")


def edit_steps(
    editor: Editor,
    images: Float[Tensor, "b 3 h w"] | Float[Tensor, "3 h w"],
    instructions: str | Sequence[str],
    settings: EditSettings | None = None,
    *,
    relevance: RelevanceMap | None = None,
    relevance_settings: RelevanceSettings | None = None,
    mask: Mask | None = None,
    negative: str = "",
    zoom: bool = False,
    force: bool = False,
    correct: Callable[[Mask], Mask] | None = None,
    seed: int = 0,
    items: Items | None = None,
) -> Iterator[EditStep]:
    """`edit_image`, one step at a time; the last step carries the result."""
    images, texts, names = _checked(images, instructions, items)
    if not isinstance(mask, Mask | None):
        raise WysError(
            f"the mask is a wys.Mask, not {_kind(mask)}; Mask.from_image makes one of a tensor of "
            "true and false."
        )
    size = (images.shape[-2], images.shape[-1])
    settings = settings or editor.settings.edit
    _check_counts(negative, settings)
    shown = resize(images, editor.fit(size))
    told = editor.condition(shown, texts, negative)
    noise = normal(told.z0.shape[1:], seed, names, "edit")
    count = len(editor.schedule.timesteps(settings.steps, settings.start))

    # Where does the instruction make a difference?
    begun: DenoisingStep | None = None
    if relevance is None and mask is None:
        how = relevance_settings or editor.settings.relevance
        # The map compares with no instruction at all: not with a negative prompt, as the edit does.
        plain = told
        if negative:
            plain = replace(told, null_text=editor.encode_text([""] * len(images)))
        if how.first_steps:
            for step, mean in _first_steps(editor, plain, noise, settings, how):
                relevance = _as_map(mean, None, shown, texts, size, how)
                if not negative:  # Otherwise the edit's own first steps are others.
                    begun = step
                    yield EditStep(step.index, count, tuple(range(len(images))), step.latents)
        else:
            relevance = _relevance(editor, plain, shown, texts, size, how, seed, names)
    level = None if relevance_settings is None else relevance_settings.threshold
    mask, wanted = _decided(images, relevance, mask, level, correct, force)

    # There, and only there, the images are edited.
    whole = Box(0, 0, size[1], size[0])
    parts = _parts(editor, mask, wanted, told, settings, whole, zoom)
    done = 0 if begun is None else begun.index
    # What shows the whole image goes on from the first steps, where there were some.
    resumed = [done if part.box == whole else 0 for part in parts]
    total = done + sum(count - first for first in resumed)
    result, boxes = images.clone(), [whole] * len(images)
    for part, first in zip(parts, resumed, strict=True):
        chosen = list(part.items)
        rows, columns = slice(part.box.top, part.box.bottom), slice(part.box.left, part.box.right)
        view = Masked(images[chosen][..., rows, columns], mask.select(chosen), told.select(chosen))
        own_noise = noise[chosen]
        if part.box != whole:
            crop = resize(view.images, editor.fit(part.box.size))
            closer = editor.condition(crop, [texts[i] for i in chosen], negative)
            view = Masked(view.images, view.mask.crop(part.box), closer)
            own_noise = normal(closer.z0.shape[1:], seed, [names[i] for i in chosen], "edit")
            boxes[chosen[0]] = part.box
        soft = None
        if relevance is not None:
            soft = relevance.select(chosen).at(view.told.latent_size, part.box).to(view.told.z0)
        resume = None
        if begun is not None and first:
            resume = Begun(first, begun.latents[chosen], begun.clean[chosen])
        for latents, edited in edit_masked(
            editor, view, own_noise, settings, relevance=soft, resume=resume
        ):
            if edited is None:
                done += 1
                yield EditStep(done, total, part.items, latents)
            else:
                result[chosen, :, rows, columns] = edited
    edit = ImageEdit(
        result, images, tuple(texts), relevance, mask, tuple(wanted), tuple(boxes), settings, seed
    )
    active = tuple(i for i, want in enumerate(wanted) if want)
    yield EditStep(done, total, active, None, edit)


def _check_counts(negative: str, settings: EditSettings) -> None:
    """Warns of a negative prompt that no branch of the edit would see."""
    if negative and settings.guidance.branches == ("full",):
        warnings.warn(
            "nothing is steered away from where both guidance scales are 1; raise that of the text "
            "(--guidance-text) for the negative prompt to count.",
            WysWarning,
            stacklevel=4,
        )


def _decided(
    images: Float[Tensor, "b 3 h w"],
    relevance: RelevanceMap | None,
    mask: Mask | None,
    threshold: Threshold | None,
    correct: Callable[[Mask], Mask] | None,
    force: bool,
) -> tuple[Mask, list[bool]]:
    """The region to edit, and which images have one; it is empty in those that have none."""
    if relevance is not None:
        _check_fits("relevance map", len(relevance.values), relevance.image_size, images)
    if mask is None:
        assert relevance is not None
        nothing = [not force and verdict == "nothing to edit" for verdict in relevance.verdicts]
        mask = relevance.mask(threshold).emptied(nothing)
        # What is included by hand is edited, whatever the map says.
        mask = mask if correct is None else correct(mask)
    _check_fits("mask", len(mask.scores), mask.image_size, images)
    return mask, mask.at(mask.image_size).flatten(1).any(dim=1).tolist()


@dataclass(frozen=True)
class _Part:
    """Images of a batch that are denoised together, in latents of one size."""

    items: tuple[int, ...]
    box: Box
    """The part of each image that the editor works on."""


def _parts(
    editor: Editor,
    mask: Mask,
    wanted: Sequence[bool],
    told: Conditioning,
    settings: EditSettings,
    whole: Box,
    zoom: bool,
) -> list[_Part]:
    """What is denoised together: windows of one size, and each crop of a zoom by itself."""
    region = mask.at(mask.image_size)
    cells = mask.at(told.latent_size)
    together: dict[tuple[int, ...], list[int]] = {}
    boxes = [whole] * len(wanted)
    for i, window in enumerate(windows(cells, editor.latent_unit, settings.window)):
        if not wanted[i]:
            continue
        if zoom:
            boxes[i] = zoom_box(region[i, 0], editor.native_size)
        together.setdefault(window.size if boxes[i] == whole else (i,), []).append(i)
    return [_Part(tuple(items), boxes[items[0]]) for items in together.values()]


def _checked(
    images: Tensor, instructions: str | Sequence[str], items: Items | None
) -> tuple[Float[Tensor, "b 3 h w"], list[str], list[int | str]]:
    if not isinstance(images, Tensor):
        raise WysError(
            f"images are a torch tensor in [0, 1], not {_kind(images)}; wys.image.read_image reads "
            "a file as one."
        )
    images = images.detach()  # What an edit makes of them knows no gradient.
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise WysError(f"images are [b, 3, h, w] or [3, h, w], not {list(images.shape)}.")
    # Values may miss the ends by rounding. What is not a number fails as well.
    fits = images.is_floating_point() and images.min() >= -1e-3 and images.max() <= 1 + 1e-3
    if not fits:
        raise WysError("images are floating-point RGB in [0, 1]; divide 8-bit ones by 255.")
    texts = [instructions] * len(images) if isinstance(instructions, str) else list(instructions)
    names: list[int | str] = list(range(len(images))) if items is None else list(items)
    if len(texts) != len(images) or len(names) != len(images):
        raise WysError(
            f"{len(images)} images need as many instructions and items, not {len(texts)} and "
            f"{len(names)}."
        )
    return images, texts, names


def _kind(value: object) -> str:
    """The type of a value as its users write it: `numpy.ndarray`, `torch.Tensor`."""
    kind = type(value)
    return f"{kind.__module__.split('.')[0]}.{kind.__qualname__}"


def _check_fits(what: str, count: int, size: tuple[int, int], images: Tensor) -> None:
    if count != len(images) or tuple(size) != tuple(images.shape[-2:]):
        raise WysError(
            f"the {what} is for {count} images of {size[1]} x {size[0]} pixels, and there are "
            f"{len(images)} of {images.shape[-1]} x {images.shape[-2]}."
        )
