"""The encodings: interpolation laws, gradients, and the harmonics' orthonormality."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wys.nerf.encoding import HashGrid, ScalarGrid, spherical_harmonics


def _draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _grid(log2_size: int = 12, seed: int = 0) -> HashGrid:
    """A level whose corners all have rows of their own, and one that is hashed."""
    grid = HashGrid(2, log2_size, 4, 5, 40, _draw(seed))
    with torch.no_grad():
        grid.table.normal_(generator=_draw(seed + 1))
    return grid


def _slow_row(grid: HashGrid, level: int, corner: list[int]) -> int:
    index = sum(c * int(s) for c, s in zip(corner, grid.strides[level], strict=True))
    return index % grid.size + level * grid.size


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_interpolates_on_the_tetrahedron_around_a_point(point: list[float]) -> None:
    """Against the definition: walk from the cell's corner along the axes by falling fraction."""
    grid = _grid()
    expected = []
    for level in range(2):
        position = [p * float(grid.resolutions[level]) for p in torch.tensor(point).tolist()]
        corner = [math.floor(p) for p in position]
        fractions = [p - c for p, c in zip(position, corner, strict=True)]
        order = sorted(range(3), key=lambda axis: -fractions[axis])
        levels = [1.0, *(fractions[axis] for axis in order), 0.0]
        value = torch.zeros(4)
        for step in range(4):
            weight = levels[step] - levels[step + 1]
            value += weight * grid.table.detach()[_slow_row(grid, level, corner)]
            if step < 3:
                corner[order[step]] += 1
        expected.append(value)
    found = grid(torch.tensor([point]))[0]
    assert torch.allclose(found, torch.cat(expected), atol=1e-4)


def test_coarse_levels_are_not_hashed_and_fine_ones_are_continuous() -> None:
    grid = _grid()
    corners = torch.cartesian_prod(*[torch.arange(6)] * 3)
    rows = (corners * grid.strides[0]).sum(1) % grid.size
    assert len(rows.unique()) == 6**3
    # Across the faces of cells and tetrahedra alike.
    points = torch.rand(500, 3, generator=_draw())
    points = torch.cat([points, points.sort(dim=1).values, (points * 40).round() / 40])
    moved = points + 1e-6 * torch.randn(points.shape, generator=_draw(3))
    assert bool(((grid(points) - grid(moved)).abs() < 2e-3).all())


def test_reproduces_linear_functions_inside_a_level_without_hash() -> None:
    grid = HashGrid(1, 12, 2, 8, 8, _draw())
    corners = torch.cartesian_prod(*[torch.arange(9)] * 3)
    rows = (corners * grid.strides[0]).sum(1) % grid.size
    with torch.no_grad():
        grid.table[rows, 0] = corners.float() @ torch.tensor([0.3, -0.2, 0.1])
    points = torch.rand(200, 3, generator=_draw())
    assert torch.allclose(
        grid(points)[:, 0], 8 * points @ torch.tensor([0.3, -0.2, 0.1]), atol=1e-5
    )


def test_the_gradient_is_that_of_the_slow_gather() -> None:
    grid = _grid()
    points = torch.rand(300, 3, generator=_draw())
    wish = torch.randn(300, grid.width, generator=_draw(5))
    (grid(points) * wish).sum().backward()
    rows, weights = grid.corners(points)
    table = grid.table.detach().clone().requires_grad_()
    slow = (table[rows.long()] * weights[..., None]).sum(2).permute(1, 0, 2).reshape(300, -1)
    (slow * wish).sum().backward()
    assert torch.allclose(slow, grid(points), atol=1e-5)
    assert table.grad is not None and grid.table.grad is not None
    assert torch.allclose(grid.table.grad, table.grad, atol=1e-4)


def test_the_same_draw_gives_the_same_table() -> None:
    first, second, other = (HashGrid(2, 8, 2, 4, 8, _draw(s)).table for s in (1, 1, 2))
    assert torch.equal(first, second) and not torch.equal(first, other)


def test_a_scalar_grid_is_trilinear_with_its_value_beyond_the_edge() -> None:
    grid = ScalarGrid((3,), 0.5)
    with torch.no_grad():
        x, y, z = torch.meshgrid(*[torch.linspace(0, 1, 3)] * 3, indexing="ij")
        # grid_sample's last axis is x.
        grid.grids[0][0, 0] = (x + 2 * y * z).permute(2, 1, 0)
    points = torch.rand(50, 3, generator=_draw()) / 2
    expected = 0.5 + points[:, 0]
    found = grid(torch.stack([points[:, 0], torch.zeros(50), torch.zeros(50)], dim=1))
    assert torch.allclose(found, expected, atol=1e-6)
    corner = grid(torch.tensor([[1.0, 1, 1], [2, 3, 4]]))
    assert corner.tolist() == pytest.approx([3.5, 3.5])


def test_harmonics_are_orthonormal_over_the_sphere() -> None:
    # Gauss-Legendre in z and even angles around it integrate degree 6 exactly.
    count = 8
    jacobi = torch.diag(
        torch.tensor([k / math.sqrt(4 * k * k - 1) for k in range(1, count)], dtype=torch.double), 1
    )
    z, vectors = torch.linalg.eigh(jacobi + jacobi.T)
    weights = 2 * vectors[0] ** 2
    angle = torch.arange(16, dtype=torch.double) * (2 * math.pi / 16)
    radius = (1 - z**2).sqrt()[:, None]
    directions = torch.stack(
        [radius * angle.cos(), radius * angle.sin(), z[:, None].expand(-1, 16)], dim=-1
    )
    basis = spherical_harmonics(directions)
    gram = torch.einsum("zai,zaj,z->ij", basis, basis, weights * (2 * math.pi / 16))
    assert torch.allclose(gram, torch.eye(16, dtype=torch.double), atol=1e-6)
