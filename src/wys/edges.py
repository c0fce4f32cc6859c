"""Moving a map's edges to those of the image: the guided filter (He, Sun and Tang 2013).

A relevance map has one value for each latent pixel, which is 4 or 8 pixels wide; enlarged, its
edges run beside those of the objects. In every window the map is written as a linear function of
the image's colour, q = a . I + c, and what overlapping windows say of a pixel is averaged: where
the colour tells the two sides of an edge apart, so does the map.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EPSILON = 1e-4
"""Variance of colours in [0, 1] below which a window counts as being of one colour."""


def follow_edges(
    values: Float[Tensor, "b 1 h w"], image: Float[Tensor, "b 3 H W"], radius: float
) -> Float[Tensor, "b 1 H W"]:
    """A map in [0, 1], enlarged to the image's size with its edges where those of the image are.

    Args:
        image: RGB in [0, 1].
        radius: of the windows, in pixels of the map; rounded to at least one pixel of the image.
    """
    values, image = values.float(), image.float()
    height, width = image.shape[-2:]
    enlarged = F.interpolate(values, size=(height, width), mode="bilinear", align_corners=False)
    reach = max(1, round(radius * max(height / values.shape[-2], width / values.shape[-1])))
    colour, level = _mean(image, reach), _mean(enlarged, reach)
    together = _mean(image * enlarged, reach) - colour * level
    red, green, blue = image.split(1, dim=1)
    products = torch.cat(
        [red * red, red * green, red * blue, green * green, green * blue, blue * blue], dim=1
    )
    r, g, b = colour.split(1, dim=1)
    means = torch.cat([r * r, r * g, r * b, g * g, g * b, b * b], dim=1)
    slope = _solve(_mean(products, reach) - means, together)
    offset = level - (slope * colour).sum(dim=1, keepdim=True)
    followed = (_mean(slope, reach) * image).sum(dim=1, keepdim=True) + _mean(offset, reach)
    return followed.clamp(0, 1)


def _solve(
    variance: Float[Tensor, "b 6 h w"], together: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, "b 3 h w"]:
    """The slopes a of (variance + EPSILON) a = together, by square-root-free Cholesky.

    Written out: millions of systems of three unknowns are slow one by one.

    Args:
        variance: rr, rg, rb, gg, gb, bb of the colours' covariance.
        together: the covariance of each colour with the map.
    """
    rr, rg, rb, gg, gb, bb = variance.unbind(dim=1)
    x, y, z = together.unbind(dim=1)
    rr, gg, bb = rr + EPSILON, gg + EPSILON, bb + EPSILON
    below, lowest = rg / rr, rb / rr
    gg, gb = gg - below * rg, gb - below * rb
    last = gb / gg
    bb = bb - lowest * rb - last * gb
    y = y - below * x
    z = (z - lowest * x - last * y) / bb
    y = y / gg - last * z
    x = x / rr - below * y - lowest * z
    return torch.stack([x, y, z], dim=1)


def _mean(values: Float[Tensor, "b c h w"], reach: int) -> Float[Tensor, "b c h w"]:
    """The mean over the part of each square window that lies in the image."""
    side = 2 * reach + 1
    rows = F.avg_pool2d(values, (side, 1), 1, (reach, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, side), 1, (0, reach), count_include_pad=False)
