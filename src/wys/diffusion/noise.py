"""The predicted noise under three conditions: the hinge between guidance and relevance."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from wys.diffusion.conditioning import Branch, Guidance


@dataclass(frozen=True)
class NoisePrediction:
    """eps(z, I, T), eps(z, I, 0) and eps(z, 0, 0); a branch that was not run is None."""

    full: Float[Tensor, "b c h w"] | None = None
    image: Float[Tensor, "b c h w"] | None = None
    none: Float[Tensor, "b c h w"] | None = None

    def branch(self, branch: Branch) -> Float[Tensor, "b c h w"]:
        """One branch's prediction; ValueError where it was not run."""
        prediction = {"full": self.full, "image": self.image, "none": self.none}[branch]
        if prediction is None:
            raise ValueError(f"the branch {branch!r} was not predicted")
        return prediction

    def guided(self, guidance: Guidance) -> Float[Tensor, "b c h w"]:
        """s_T full + (s_I - s_T) image + (1 - s_I) none (InstructPix2Pix, equation 3)."""
        coefficients = guidance.coefficients
        first, *others = guidance.branches
        guided = coefficients[first] * self.branch(first)
        for branch in others:
            guided = guided + coefficients[branch] * self.branch(branch)
        return guided

    def difference(self) -> Float[Tensor, "b 1 h w"]:
        """D = sum over channels of |full - image|, what the instruction changes."""
        return (self.branch("full") - self.branch("image")).abs().sum(dim=1, keepdim=True)
