"""Lenses: OpenCV's model by its definition, undistorted photographs against a slow loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wys.datasets.lens import Distortion, Lens, Optics, undistorted
from wys.errors import WysError

PHONE = Distortion(0.0578421, -0.0805099, 0.0, -0.000980296, 0.00015575)
BARREL = Distortion(-0.15, 0.02, 0.0, 0.002, -0.001)


def bent_point(d: Distortion, x: float, y: float) -> tuple[float, float]:
    """OpenCV's formula, written out once more."""
    r2 = x**2 + y**2
    radial = 1 + d.k1 * r2 + d.k2 * r2**2 + d.k3 * r2**3
    return (
        x * radial + 2 * d.p1 * x * y + d.p2 * (r2 + 2 * x**2),
        y * radial + d.p1 * (r2 + 2 * y**2) + 2 * d.p2 * x * y,
    )


@settings(max_examples=50, deadline=None)
@given(
    k=st.tuples(*[st.floats(-0.08, 0.08)] * 3),
    p=st.tuples(*[st.floats(-0.005, 0.005)] * 2),
    x=st.floats(-0.8, 0.8),
    y=st.floats(-0.8, 0.8),
)
def test_removing_inverts_applying(
    k: tuple[float, float, float], p: tuple[float, float], x: float, y: float
) -> None:
    distortion = Distortion(*k, *p)
    plane = torch.tensor([[x, y]], dtype=torch.float64)
    bent = distortion.apply(plane)
    assert bent[0].tolist() == pytest.approx(bent_point(distortion, x, y), abs=1e-12)
    torch.testing.assert_close(distortion.remove(bent), plane, atol=1e-7, rtol=0)


def test_the_library_colmap_bends_rays_alike() -> None:
    pycolmap = pytest.importorskip("pycolmap")
    d = BARREL
    params = [50.0, 52.0, 31.0, 24.5, d.k1, d.k2, d.p1, d.p2]
    camera = pycolmap.Camera(model="OPENCV", width=64, height=48, params=params)
    lens = Lens(50.0, 52.0, 31.0, 24.5, 48, 64, d)
    pinhole = lens.pinhole()
    points = lens.photograph_points(pinhole)
    for row, column in [(0, 0), (47, 63), (20, 31), (3, 50)]:
        x = (column + 0.5 - pinhole.cx) / pinhole.fx
        y = (row + 0.5 - pinhole.cy) / pinhole.fy
        expected = camera.img_from_cam([x, y, 1.0])
        assert points[row, column].tolist() == pytest.approx(list(expected), abs=1e-9)


@pytest.mark.parametrize("distortion", [PHONE, BARREL, Distortion(k1=0.2)])
def test_every_pixel_of_the_pinhole_lies_in_the_photograph(distortion: Distortion) -> None:
    lens = Lens(60.0, 63.0, 47.0, 33.0, 64, 90, distortion)
    pinhole = lens.pinhole()
    assert (pinhole.height, pinhole.width) == (64, 90)
    assert pinhole.distortion.is_none
    assert pinhole.fx / pinhole.fy == pytest.approx(lens.fx / lens.fy)
    points = lens.photograph_points(pinhole)
    # The corners of a pincushion's inner rectangle may leave it by a trace.
    assert points[..., 0].min() > -0.2 and points[..., 0].max() < 90.2
    assert points[..., 1].min() > -0.2 and points[..., 1].max() < 64.2
    # And the view is no smaller than it need be: some edge of the photograph is reached.
    slack = [points[..., 0].min(), 90 - points[..., 0].max(), points[..., 1].min()]
    slack.append(64 - points[..., 1].max())
    assert min(float(s) for s in slack) < 1.5


def test_undistortion_agrees_with_a_slow_loop() -> None:
    lens = Lens(50.0, 52.0, 31.0, 24.5, 48, 64, BARREL)
    pinhole = lens.pinhole()
    # A photograph whose value at every point is known: a plane wave through the pixel centres.
    y, x = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    shade = 0.5 + 0.3 * torch.sin(0.11 * x) * torch.cos(0.09 * y)
    photo = torch.stack([shade, x / 64, y / 48])
    out = undistorted(photo, lens.sampling_grid(pinhole))
    for row in range(2, 46, 3):
        for column in range(2, 62, 3):
            ray_x = (column + 0.5 - pinhole.cx) / pinhole.fx
            ray_y = (row + 0.5 - pinhole.cy) / pinhole.fy
            bx, by = bent_point(BARREL, ray_x, ray_y)
            px, py = 50.0 * bx + 31.0, 52.0 * by + 24.5
            expected = 0.5 + 0.3 * math.sin(0.11 * px) * math.cos(0.09 * py)
            if 3 < px < 61 and 3 < py < 45:
                assert float(out[0, row, column]) == pytest.approx(expected, abs=2e-3)
                assert float(out[1, row, column]) == pytest.approx(px / 64, abs=2e-3)
                assert float(out[2, row, column]) == pytest.approx(py / 48, abs=2e-3)


def test_a_folding_lens_is_refused() -> None:
    lens = Lens(20.0, 20.0, 32.0, 24.0, 48, 64, Distortion(k1=-0.5))
    with pytest.raises(WysError, match="folds the image over"):
        lens.pinhole()


def test_a_pinhole_stays_itself() -> None:
    lens = Lens(50.0, 52.0, 31.0, 24.5, 48, 64)
    assert lens.pinhole() is lens


def test_optics_fit_the_photograph() -> None:
    given_in_pixels = Optics(focal=(100.0, 101.0), centre=(40.0, 30.0), size=(60, 80))
    lens = given_in_pixels.lens(30, 40)
    assert lens.intrinsics == (50.0, 50.5, 20.0, 15.0)
    by_angle = Optics(angles=(math.pi / 2, None)).lens(30, 40)
    assert by_angle.intrinsics == pytest.approx((20.0, 20.0, 20.0, 15.0))
    with pytest.raises(WysError, match="turn it by 90 degrees"):
        given_in_pixels.lens(80, 60)
    with pytest.raises(WysError, match="use the photographs that the poses are for"):
        given_in_pixels.lens(60, 60)
