"""What an editor is told: image and instruction, encoded once, and how hard to follow them."""

import math
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from wys.errors import WysError

Branch = Literal["full", "image", "none"]
"""Which conditions a prediction sees: image and instruction, the image alone, or nothing."""


@dataclass(frozen=True)
class Guidance:
    """How far the prediction is pushed towards the instruction and the image.

    (Brooks et al., "InstructPix2Pix", arXiv 2211.09800, equation 3.)
    """

    text: float = 7.5
    """s_T: higher follows the instruction more; 1 leaves the prediction as it is."""
    image: float = 1.5
    """s_I: higher keeps more of the input image; 1 leaves the prediction as it is."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.text) and math.isfinite(self.image)):
            raise WysError("guidance scales are finite numbers.")

    @property
    def coefficients(self) -> dict[Branch, float]:
        """The weight of each branch in the guided prediction; they sum to 1."""
        return {"full": self.text, "image": self.image - self.text, "none": 1 - self.image}

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The branches that count: those whose weight is not zero."""
        return tuple(branch for branch, weight in self.coefficients.items() if weight != 0)


@dataclass(frozen=True)
class Conditioning:
    """b images and instructions as an editor sees them.

    Encoded once, used for every threshold, guidance and seed.
    """

    z0: Float[Tensor, "b c h w"]
    """The image's latent times the autoencoder's scaling factor: what is noised and edited."""
    image_latents: Float[Tensor, "b c h w"]
    """The image's latent as conditioning: the posterior's mode, NOT scaled."""
    text: Float[Tensor, "b n d"]
    """The instruction's token embeddings."""
    null_text: Float[Tensor, "b n d"]
    """The token embeddings of no instruction: of the empty or the negative prompt."""

    def __len__(self) -> int:
        return len(self.z0)

    def select(self, indices: list[int]) -> "Conditioning":
        """Some of the items, in this order, repeats allowed."""
        return Conditioning(
            self.z0[indices],
            self.image_latents[indices],
            self.text[indices],
            self.null_text[indices],
        )
