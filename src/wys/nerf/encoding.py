"""What positions and directions become before a network sees them.

`HashGrid` is the multi-resolution hash encoding of Müller et al., "Instant Neural Graphics
Primitives" (arXiv 2201.05989), section 3, made for plain PyTorch on a CPU in two ways:

- A cell is interpolated on the tetrahedron that holds the point (4 corners, the Kuhn or Freudenthal
  division of the cube) instead of on all 8 corners: half the memory traffic, still continuous.
- The hash is linear, (i . s_l) mod T, so that neighbours along x share cache lines and the corners
  of a cell are fixed offsets from its first.

`ScalarGrid` is a sum of dense grids of one number each, for fields without a network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

_PRIMES = (1, 2654435761, 805459861)  # Müller et al., equation 4.


class HashGrid(nn.Module):
    """Features of points in the unit cube, from hashed grids of growing resolution.

    Args:
        levels: number of grids.
        log2_size: rows of one level's table, as a power of 2.
        features: numbers in a row; even.
        coarsest: cells along an edge of the first grid.
        finest: cells along an edge of the last grid; those between grow geometrically (equation 3).
        draw: makes the initial values, uniform in +-1e-4.
    """

    resolutions: Tensor
    strides: Tensor
    starts: Tensor

    def __init__(
        self,
        levels: int,
        log2_size: int,
        features: int,
        coarsest: int,
        finest: int,
        draw: torch.Generator,
    ) -> None:
        super().__init__()
        self.levels, self.features, self.size = levels, features, 2**log2_size
        growth = (finest / coarsest) ** (1 / max(levels - 1, 1))
        cells = [math.floor(coarsest * growth**level + 1e-6) for level in range(levels)]
        strides = []
        for n in cells:
            # Where every corner has a row of its own the index is exact, not hashed.
            dense = (n + 2) ** 3 <= self.size
            factors = (1, n + 2, (n + 2) ** 2) if dense else _PRIMES
            strides.append([factor % self.size for factor in factors])
        self.register_buffer("resolutions", torch.tensor(cells).float(), persistent=False)
        self.register_buffer("strides", torch.tensor(strides, dtype=torch.int32), persistent=False)
        starts = torch.arange(levels, dtype=torch.int32) * self.size
        self.register_buffer("starts", starts, persistent=False)
        table = torch.rand(levels * self.size, features, generator=draw)
        self.table = nn.Parameter((2 * table - 1) * 1e-4)

    @property
    def width(self) -> int:
        """Features of a point."""
        return self.levels * self.features

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """The levels' interpolated features side by side; no gradient flows to the points."""
        rows, weights = self.corners(points.detach())
        out: Tensor = _Gather.apply(self.table, rows, weights)
        return out.permute(1, 0, 2).reshape(len(points), self.width)

    def corners(
        self, points: Float[Tensor, "n 3"]
    ) -> tuple[Int[Tensor, "levels n 4"], Float[Tensor, "levels n 4"]]:
        """Table rows of the tetrahedron around each point, and barycentric weights (sum 1).

        Sorted by the fraction within the cell, f1 >= f2 >= f3, the corners are 0, e1, e1 + e2 and
        e1 + e2 + e3, with weights 1 - f1, f1 - f2, f2 - f3 and f3. All arrays go level by level:
        the table of one level fits into a processor's cache.
        """
        position = points.T.clamp(0, 1)[:, None] * self.resolutions[:, None]  # 3 levels n
        cell = position.floor()
        x, y, z = position - cell
        sx, sy, sz = self.strides.T[:, :, None]
        # 32-bit products may wrap around, which a table of 2^k rows does not notice.
        first = (cell.int() * self.strides.T[:, :, None]).sum(0, dtype=torch.int32)
        high, low = torch.maximum(torch.maximum(x, y), z), torch.minimum(torch.minimum(x, y), z)
        middle = x + y + z - high - low
        step_high = torch.where(x == high, sx, torch.where(y == high, sy, sz))
        step_low = torch.where(z == low, sz, torch.where(y == low, sy, sx))
        last = first + (sx + sy + sz)
        rows = torch.stack([first, first + step_high, last - step_low, last], dim=-1)
        rows = rows.bitwise_and_(self.size - 1).add_(self.starts[:, None, None])
        weights = torch.stack([1 - high, high - middle, middle - low, low], dim=-1)
        return rows, weights


class _Gather(torch.autograd.Function):
    """Weighted sums of table rows: out[l, i] = sum_j weights[l, i, j] table[rows[l, i, j]].

    The backward pass of `embedding_bag` sorts all rows, which takes ten times as long on a CPU as
    adding pairs of floats (as complex numbers) one after the other.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weights)
        ctx.shape = table.shape
        out = F.embedding_bag(
            rows.flatten(0, 1), table, mode="sum", per_sample_weights=weights.flatten(0, 1)
        )
        return out.reshape(*rows.shape[:2], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        rows, weights = ctx.saved_tensors
        out = gradients[0].new_zeros(ctx.shape)
        pairs = torch.view_as_complex(out.view(len(out), -1, 2))
        given = gradients[0].contiguous()
        given = torch.view_as_complex(given.view(*given.shape[:2], -1, 2))
        for k in range(pairs.shape[1]):
            values = given[..., k, None] * weights
            pairs[:, k].index_add_(0, rows.reshape(-1), values.reshape(-1))
        return out, None, None


class ScalarGrid(nn.Module):
    """One number for each point of the unit cube: a sum of trilinear dense grids.

    The coarse grids spread what is learnt, the fine ones place it.

    Args:
        resolutions: corners along an edge of each grid.
        initial: the value everywhere at first.
    """

    def __init__(self, resolutions: Sequence[int], initial: float) -> None:
        super().__init__()
        self.initial = initial
        self.grids = nn.ParameterList(
            [nn.Parameter(torch.zeros(1, 1, n, n, n)) for n in resolutions]
        )

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """The sum at each point, edge values beyond the cube; no gradient flows to the points."""
        where = (2 * points.detach() - 1).reshape(1, 1, 1, -1, 3)
        parts = [
            F.grid_sample(grid, where, align_corners=True, padding_mode="border").reshape(-1)
            for grid in self.grids
        ]
        return torch.stack(parts).sum(0) + self.initial


def spherical_harmonics(directions: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 16"]:
    """Real spherical harmonics of degrees 0 to 3 of unit vectors.

    The orthonormal basis over the sphere, ordered by degree, then order -l..l.
    """
    x, y, z = directions.unbind(-1)
    xx, yy, zz = x * x, y * y, z * z
    one = torch.ones_like(x)
    return torch.stack(
        [
            0.28209479177387814 * one,
            0.4886025119029199 * y,
            0.4886025119029199 * z,
            0.4886025119029199 * x,
            1.0925484305920792 * x * y,
            1.0925484305920792 * y * z,
            0.31539156525252005 * (3 * zz - 1),
            1.0925484305920792 * x * z,
            0.5462742152960396 * (xx - yy),
            0.5900435899266435 * y * (3 * xx - yy),
            2.890611442640554 * x * y * z,
            0.4570457994644658 * y * (5 * zz - 1),
            0.3731763325901154 * z * (5 * zz - 3),
            0.4570457994644658 * x * (5 * zz - 1),
            1.445305721320277 * z * (xx - yy),
            0.5900435899266435 * x * (xx - 3 * yy),
        ],
        dim=-1,
    )
