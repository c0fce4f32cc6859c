"""Images and their masks to edited images: the part that photographs and views of a scene share."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from wys.diffusion.conditioning import Conditioning
from wys.diffusion.editor import Editor
from wys.diffusion.sampler import Begun, EditSettings, denoise
from wys.diffusion.window import Windows, windows
from wys.errors import WysError
from wys.image import resize
from wys.masks import Mask, composite


@dataclass(frozen=True)
class Masked:
    """Images, or crops of them, with their masks and what the editor is told of them."""

    images: Float[Tensor, "b 3 h w"]
    mask: Mask
    told: Conditioning


def edit_masked(
    editor: Editor,
    view: Masked,
    noise: Float[Tensor, "b c h w"],
    settings: EditSettings,
    *,
    relevance: Float[Tensor, "b 1 h w"] | None = None,
    resume: Begun | None = None,
    start: Float[Tensor, "b c h w"] | None = None,
) -> Iterator[tuple[Float[Tensor, "b c h w"], Float[Tensor, "b 3 H W"] | None]]:
    """The latents after each step; last, once more, with the images composited.

    Args:
        relevance: R at latent size, for soft guidance.
        resume: steps that are done already.
        start: the clean latents that are noised in the beginning; None: those of the images.

    Raises:
        WysError: the editor decodes to values that are not numbers.
    """
    told, size = view.told, (view.images.shape[-2], view.images.shape[-1])
    cells = view.mask.at(told.latent_size).to(told.z0.device)
    cut = Windows(tuple(windows(cells, editor.latent_unit, settings.window)))
    for step in denoise(
        editor,
        cut.crop_told(told),
        cut.crop(cells),
        cut.crop(noise),
        settings,
        relevance=None if relevance is None else cut.crop(relevance),
        resume=resume and Begun(resume.steps, cut.crop(resume.latents), cut.crop(resume.clean)),
        start=None if start is None else cut.crop(start),
    ):
        latents = cut.paste(told.z0, step.latents)
        yield latents, None
    fitted = resize(view.images, editor.fit(size))
    decoded = cut.paste(fitted, editor.decode(step.latents))
    # Beside the images: not every device can resize as `resize` does.
    decoded = resize(decoded.to(view.images), size)
    if not bool(torch.isfinite(decoded).all()):
        raise WysError("the editor made an image of values that are not numbers; try --dtype fp32.")
    yield latents, composite(view.images, decoded, view.mask)
