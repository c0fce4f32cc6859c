"""What an editor is told: image and instruction, encoded once, and how hard to follow them."""

import math
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from wys.errors import WysError

Branch = Literal["full", "image", "none"]
"""Which conditions a prediction sees: image and instruction, the image alone, or nothing."""
Sight = Branch | Literal["change"]
"""What a map is read off: branches, and the relevance head's answer on `full`."""


@dataclass(frozen=True)
class Guidance:
    """How far the prediction is pushed towards the instruction and the image.

    (Brooks et al., "InstructPix2Pix", arXiv 2211.09800, equation 3.)
    """

    text: float = 7.5
    """s_T: higher follows the instruction more; 1 leaves the prediction as it is."""
    image: float = 1.5
    """s_I: higher keeps more of the input image; 1 leaves the prediction as it is."""
    soft: float | None = None
    """Soft guidance: the scale of the instruction where the relevance R is 0 (0: none, 1: as the
    network predicts). In between it is soft + R (s_T - soft), and s_I is 1 + R (s_I - 1). None: the
    same scales everywhere."""

    def __post_init__(self) -> None:
        if not all(math.isfinite(scale) for scale in (self.text, self.image, self.soft or 0)):
            raise WysError("guidance scales are finite numbers.")

    @property
    def coefficients(self) -> dict[Branch, float]:
        """The weight of each branch in the guided prediction; they sum to 1."""
        return {"full": self.text, "image": self.image - self.text, "none": 1 - self.image}

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The branches that count: those whose weight is not zero."""
        counts = {branch: weight != 0 for branch, weight in self.coefficients.items()}
        if self.soft is not None:
            counts |= {"full": True, "image": not self.soft == self.text == self.image == 1}
        return tuple(branch for branch, some in counts.items() if some)


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

    @property
    def latent_size(self) -> tuple[int, int]:
        """(height, width) of the latents."""
        return self.z0.shape[-2], self.z0.shape[-1]

    def select(self, indices: list[int]) -> "Conditioning":
        """Some of the items, in this order, repeats allowed."""
        return Conditioning(
            self.z0[indices],
            self.image_latents[indices],
            self.text[indices],
            self.null_text[indices],
        )
