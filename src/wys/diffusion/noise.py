"""The predicted noise under three conditions: the hinge between guidance and relevance."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from wys.diffusion.conditioning import Branch, Guidance
from wys.relevance import Source


@dataclass(frozen=True)
class NoisePrediction:
    """eps(z, I, T), eps(z, I, 0) and eps(z, 0, 0); a branch that was not run is None."""

    full: Float[Tensor, "b c h w"] | None = None
    image: Float[Tensor, "b c h w"] | None = None
    none: Float[Tensor, "b c h w"] | None = None
    change: Float[Tensor, "b 1 h w"] | None = None
    """The relevance head's probability that a latent pixel changes, read off the branch `full`."""

    def branch(self, branch: Branch) -> Float[Tensor, "b c h w"]:
        """One branch's prediction; ValueError where it was not run."""
        prediction = {"full": self.full, "image": self.image, "none": self.none}[branch]
        if prediction is None:
            raise ValueError(f"the branch {branch!r} was not predicted")
        return prediction

    def guided(
        self, guidance: Guidance, relevance: Float[Tensor, "b 1 h w"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """s_T full + (s_I - s_T) image + (1 - s_I) none (InstructPix2Pix, equation 3).

        Args:
            relevance: R in [0, 1], which makes both scales vary from pixel to pixel where the
                guidance is soft; everything else guides everywhere alike.
        """
        if guidance.soft is not None and relevance is not None:
            weight = relevance.to(self.branch("full"))
            text = guidance.soft + weight * (guidance.text - guidance.soft)
            guided = text * self.branch("full")
            if self.image is not None:
                image = 1 + weight * (guidance.image - 1)
                guided = guided + (image - text) * self.image
                if self.none is not None:
                    guided = guided + (1 - image) * self.none
            return guided
        coefficients = guidance.coefficients
        first, *others = guidance.branches
        guided = coefficients[first] * self.branch(first)
        for branch in others:
            guided = guided + coefficients[branch] * self.branch(branch)
        return guided

    def difference(self) -> Float[Tensor, "b 1 h w"]:
        """D = sum over channels of |full - image|, what the instruction changes."""
        return (self.branch("full") - self.branch("image")).abs().sum(dim=1, keepdim=True)

    def relevance(self, source: Source) -> Float[Tensor, "b 1 h w"]:
        """The raw map D of a source; ValueError where what it needs was not predicted.

        What a locator says is no prediction of noise (see `Editor.locate`).
        """
        if source == "locator":
            raise ValueError("a locator's map is not read off predictions alone")
        if source == "difference":
            return self.difference()
        if self.change is None:
            raise ValueError("the relevance head was not read")
        return (self.change * self.difference()).sqrt() if source == "both" else self.change
