"""Volume rendering: from densities along rays to weights, and from weights to what is seen.

Symbols: sigma_i density and delta_i length of interval i, T_i the light that reaches it, w_i its
share of what the camera sees. (Mildenhall et al., "NeRF", arXiv 2003.08934, equation 3;
Max 1995.)
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def transmittance(
    density: Float[Tensor, "n k"], lengths: Float[Tensor, "n k"]
) -> Float[Tensor, "n k1"]:
    """T at the edges of the intervals: T_i = exp(-sum over j < i of sigma_j delta_j); T_0 = 1."""
    depth = (density * lengths).cumsum(1)
    return torch.exp(-torch.cat([torch.zeros_like(depth[:, :1]), depth], dim=1))


def rendering_weights(
    density: Float[Tensor, "n k"], lengths: Float[Tensor, "n k"], *, closed: bool
) -> Float[Tensor, "n k"]:
    """w_i = T_i (1 - exp(-sigma_i delta_i)) = T_i - T_(i+1).

    Args:
        closed: the last interval takes all the light that reaches it, so that the weights sum to 1.
    """
    light = transmittance(density, lengths)
    if closed:
        light = torch.cat([light[:, :-1], torch.zeros_like(light[:, :1])], dim=1)
    return light[:, :-1] - light[:, 1:]


def accumulate(
    weights: Float[Tensor, "n k"], values: Float[Tensor, "n k c"]
) -> Float[Tensor, "n c"]:
    """sum over i of w_i v_i."""
    return torch.einsum("nk,nkc->nc", weights, values)
