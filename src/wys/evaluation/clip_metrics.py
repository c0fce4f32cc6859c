"""The measures of the papers, by a CLIP of the user's choice.

Symbols: E(.) is the unit vector of an image, T(.) that of a text, I the input, I' what a method
made of it, I* the true edit.

None of them alone says that an edit is good: the input itself has E(I) . E(I') = 1 and is often
near E(I*) too. That is why no table goes without the row of doing nothing, and why an image that
did not change has no direction at all, rather than one that counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from wys.diffusion.clip import Clip

LEAST_CHANGE = 1e-4
"""Two unit vectors nearer than this are one, but for rounding: there is no direction from one to
the other."""

NAMES = ("clip_image", "clip_truth", "clip_direction")


def cosine(a: Float[Tensor, "b d"], b: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """Cosine of the angle between vectors; NaN where one is shorter than LEAST_CHANGE."""
    lengths = a.norm(dim=-1), b.norm(dim=-1)
    defined = (lengths[0] >= LEAST_CHANGE) & (lengths[1] >= LEAST_CHANGE)
    product = (a * b).sum(-1) / (lengths[0] * lengths[1]).clamp(min=LEAST_CHANGE**2)
    return torch.where(defined, product.clamp(-1, 1), torch.nan)


def clip_measures(
    clip: Clip,
    image: Float[Tensor, "b 3 h w"],
    before: Float[Tensor, "b 3 h w"],
    after: Float[Tensor, "b 3 h w"] | None,
    captions: Sequence[tuple[str, str] | None],
) -> dict[str, Float[Tensor, " b"]]:
    """All measures of edited images, NaN where what they need is not known.

    clip_image: E(I') . E(I), the similarity to the input (InstructPix2Pix, section 4.3).
    clip_truth: E(I') . E(I*), the similarity to the true edit (MagicBrush's CLIP-I).
    clip_direction: the cosine of E(I') - E(I) and T(after) - T(before) (StyleGAN-NADA, equation 3).
    """
    undefined = torch.full((len(image),), torch.nan, dtype=torch.float64)
    made, given = clip.embed_images(image), clip.embed_images(before)
    direction = undefined.clone()
    rows = [i for i, words in enumerate(captions) if words is not None]
    if rows:
        pairs = [words for words in captions if words is not None]
        said = clip.embed_texts([words[1] for words in pairs])
        said = said - clip.embed_texts([words[0] for words in pairs])
        direction[rows] = cosine((made - given)[rows], said)
    truth = undefined if after is None else (made * clip.embed_images(after)).sum(-1)
    return {
        "clip_image": (made * given).sum(-1),
        "clip_truth": truth,
        "clip_direction": direction,
    }


def direction_consistency(
    clip: Clip, images: Float[Tensor, "n 3 h w"], before: Float[Tensor, "n 3 h w"]
) -> Float[Tensor, " n"]:
    """Whether an edit points the same way in neighbouring frames of a path.

    Entry i is the cosine of E(I'_i) - E(I_i) and E(I'_i+1) - E(I_i+1) (Instruct-NeRF2NeRF, section
    4.2); NaN for the last frame, and where a frame did not change.

    Args:
        before: the same frames of the scene before the edit.
    """
    change = clip.embed_images(images) - clip.embed_images(before)
    found = torch.full((len(images),), torch.nan, dtype=torch.float64)
    if len(images) > 1:
        found[:-1] = cosine(change[:-1], change[1:])
    return found
