"""Editing an image by an instruction: the whole story in two functions.

`relevance_map` asks the editor where the instruction makes a difference; `edit_image` denoises with
guidance inside that region, holds the rest at the input's noise, and composites on the input's own
pixels, which outside the mask stay what they are, bit for bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from wys.diffusion.conditioning import Conditioning
from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings, denoise
from wys.diffusion.schedule import levels
from wys.errors import WysError
from wys.image import resize
from wys.relevance import Box, Mask, RelevanceMap, RelevanceSettings, normalise, smooth
from wys.seeds import normal

Items = Sequence[int | str]


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
    images: Float[Tensor, "b 3 h w"],
    instructions: str | Sequence[str],
    settings: RelevanceSettings | None = None,
    *,
    seed: int = 0,
    items: Items | None = None,
) -> RelevanceMap:
    """Where each instruction makes a difference to its image.

    Args:
        images: RGB in [0, 1], of any size; one image may come without the batch axis.
        instructions: one for all images or one for each.
        settings: how the map is made; None takes the editor's own.
        items: identities of the images, for their noise; None numbers them 0..b-1.

    Raises:
        WysError: an empty instruction, ill-fitting numbers, or an editor that predicts NaN.
    """
    images, texts, names = _checked(images, instructions, items)
    size = (images.shape[-2], images.shape[-1])
    conditioning = editor.condition(resize(images, editor.fit(size)), texts)
    settings = settings or editor.settings.relevance
    return _relevance(editor, conditioning, texts, size, settings, seed, names)


def _relevance(
    editor: Editor,
    conditioning: Conditioning,
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
    if settings.source == "head":
        raw = editor.predict_change(z, t, many)
    else:
        raw = editor.predict(z, t, many, ("full", "image")).difference()
        if settings.space == "x0":
            level = editor.schedule.level(t, z)
            raw = raw * (1 - level).sqrt() / level.sqrt()
    # [draws, timesteps, b, 1, h, w]
    raw = raw.reshape(settings.draws, len(times), count, *raw.shape[1:])
    mean = raw.mean(dim=(0, 1))
    values = normalise(smooth(mean, settings.smoothing), settings)
    spread = raw.mean(dim=1).std(dim=0) if settings.draws > 1 else None
    return RelevanceMap(values, mean, spread, tuple(instructions), image_size, settings)


def edit_image(
    editor: Editor,
    images: Float[Tensor, "b 3 h w"],
    instructions: str | Sequence[str],
    settings: EditSettings | None = None,
    *,
    relevance: RelevanceMap | None = None,
    relevance_settings: RelevanceSettings | None = None,
    mask: Mask | None = None,
    negative: str = "",
    zoom: bool = False,
    force: bool = False,
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
        seed=seed,
        items=items,
    )
    for step in steps:
        if step.result is not None:
            return step.result
    raise AssertionError("an edit ends with its result")


def edit_steps(
    editor: Editor,
    images: Float[Tensor, "b 3 h w"],
    instructions: str | Sequence[str],
    settings: EditSettings | None = None,
    *,
    relevance: RelevanceMap | None = None,
    relevance_settings: RelevanceSettings | None = None,
    mask: Mask | None = None,
    negative: str = "",
    zoom: bool = False,
    force: bool = False,
    seed: int = 0,
    items: Items | None = None,
) -> Iterator[EditStep]:
    """`edit_image`, one step at a time; the last step carries the result."""
    images, texts, names = _checked(images, instructions, items)
    size = (images.shape[-2], images.shape[-1])
    settings = settings or editor.settings.edit
    conditioning = editor.condition(resize(images, editor.fit(size)), texts, negative)
    if relevance is None and mask is None:
        # The map compares with no instruction at all, whatever the negative prompt is.
        plain = conditioning
        if negative:
            plain = replace(conditioning, null_text=editor.encode_text([""] * len(images)))
        how = relevance_settings or editor.settings.relevance
        relevance = _relevance(editor, plain, texts, size, how, seed, names)
    if relevance is not None:
        _check_fits("relevance map", len(relevance.values), relevance.image_size, images)
    wanted = [True] * len(images)
    if mask is None:
        assert relevance is not None
        level = None if relevance_settings is None else relevance_settings.threshold
        mask = relevance.mask(level)
        wanted = [force or verdict != "nothing to edit" for verdict in relevance.verdicts]
    _check_fits("mask", len(mask.scores), mask.image_size, images)
    region = mask.at(size)
    wanted = [want and bool(region[i].any()) for i, want in enumerate(wanted)]
    mask = mask.emptied([not want for want in wanted])

    whole = Box(0, 0, size[1], size[0])
    active = [i for i, want in enumerate(wanted) if want]
    boxes = [
        zoom_box(region[i, 0], editor.native_size) if zoom and wanted[i] else whole
        for i in range(len(images))
    ]
    # What shows the whole image is edited in one batch, each crop by itself.
    groups = [[i for i in active if boxes[i] == whole], *([i] for i in active if boxes[i] != whole)]
    groups = [group for group in groups if group]

    result = images.clone()
    done, count = 0, 0
    for group in groups:
        box = boxes[group[0]]
        rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
        part, part_mask = images[group][..., rows, columns], mask.select(group)
        told = conditioning.select(group)
        if box != whole:
            part_mask = part_mask.crop(box)
            fitted = editor.fit((part.shape[-2], part.shape[-1]))
            told = editor.condition(resize(part, fitted), [texts[i] for i in group], negative)
        latent_size = (told.z0.shape[-2], told.z0.shape[-1])
        noise = normal(told.z0.shape[1:], seed, [names[i] for i in group], "edit")
        latents = told.z0
        for step in denoise(
            editor, told, part_mask.at(latent_size).to(told.z0.device), noise, settings
        ):
            latents, done, count = step.latents, done + 1, step.count * len(groups)
            yield EditStep(done, count, tuple(group), latents)
        decoded = resize(editor.decode(latents), (part.shape[-2], part.shape[-1])).to(images)
        if not bool(torch.isfinite(decoded).all()):
            raise WysError(
                "the editor made an image of values that are not numbers; try --dtype fp32."
            )
        result[group, :, rows, columns] = composite(part, decoded, part_mask)
    edit = ImageEdit(
        result, images, tuple(texts), relevance, mask, tuple(wanted), tuple(boxes), settings, seed
    )
    yield EditStep(done, count, tuple(active), None, edit)


def composite(
    original: Float[Tensor, "b 3 h w"], edited: Float[Tensor, "b 3 h w"], mask: Mask
) -> Float[Tensor, "b 3 h w"]:
    """The edited image inside the mask, by its alpha; exactly the original outside."""
    alpha = mask.alpha().to(original)
    return torch.where(alpha > 0, torch.lerp(original, edited, alpha), original)


def zoom_box(region: torch.Tensor, native_size: int, margin: float = 0.5, gain: float = 1.5) -> Box:
    """The crop in which to edit a small region: its bounds with a margin of context.

    The crop is as square as the image allows and at least half of `native_size` wide. Where it
    would bring the region nearer by less than `gain`, it is the whole image.

    Args:
        region: what to edit, bool [h, w].
        margin: context on either side, as a share of the region's longer side.
    """
    height, width = region.shape
    rows, columns = region.any(dim=1).nonzero()[:, 0], region.any(dim=0).nonzero()[:, 0]
    top, bottom = int(rows.min()), int(rows.max()) + 1
    left, right = int(columns.min()), int(columns.max()) + 1
    side = max(bottom - top, right - left)
    side = max(round(side * (1 + 2 * margin)), native_size // 2)
    if side * gain > max(height, width):
        return Box(0, 0, width, height)
    top, bottom = _window((top + bottom) // 2, side, height)
    left, right = _window((left + right) // 2, side, width)
    return Box(left, top, right, bottom)


def _window(centre: int, side: int, limit: int) -> tuple[int, int]:
    first = max(0, min(centre - side // 2, limit - side))
    return first, min(limit, first + side)


def _checked(
    images: Tensor, instructions: str | Sequence[str], items: Items | None
) -> tuple[Float[Tensor, "b 3 h w"], list[str], list[int | str]]:
    images = images[None] if images.ndim == 3 else images
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise WysError(f"images are [b, 3, h, w] or [3, h, w], not {list(images.shape)}.")
    texts = [instructions] * len(images) if isinstance(instructions, str) else list(instructions)
    names: list[int | str] = list(range(len(images))) if items is None else list(items)
    if len(texts) != len(images) or len(names) != len(images):
        raise WysError(
            f"{len(images)} images need as many instructions and items, not {len(texts)} and "
            f"{len(names)}."
        )
    return images, texts, names


def _check_fits(what: str, count: int, size: tuple[int, int], images: Tensor) -> None:
    if count != len(images) or tuple(size) != tuple(images.shape[-2:]):
        raise WysError(
            f"the {what} is for {count} images of {size[1]} x {size[0]} pixels, and there are "
            f"{len(images)} of {images.shape[-1]} x {images.shape[-2]}."
        )
