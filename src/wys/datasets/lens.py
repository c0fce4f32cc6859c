"""Lenses with OpenCV's distortion, and photographs without it.

Symbols: (x, y) is a point of the plane at depth 1 in front of the camera, r^2 = x^2 + y^2; the lens
brings it to (x', y') and the photograph shows it at (fx x' + cx, fy y' + cy):

    x' = x (1 + k1 r^2 + k2 r^4 + k3 r^6) + 2 p1 x y + p2 (r^2 + 2 x^2)
    y' = y (1 + k1 r^2 + k2 r^4 + k3 r^6) + p1 (r^2 + 2 y^2) + 2 p2 x y

(OpenCV, "Camera Calibration and 3D Reconstruction"). The centre of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from wys.errors import WysError

_ASPECT = 0.02  # Relative difference of aspect that rounding to whole pixels explains.


@dataclass(frozen=True)
class Distortion:
    """Coefficients of OpenCV's model; all zero for a pinhole."""

    k1: float = 0.0
    k2: float = 0.0
    k3: float = 0.0
    p1: float = 0.0
    p2: float = 0.0

    @property
    def is_none(self) -> bool:
        """Whether this is a pinhole."""
        return self == Distortion()

    def apply(self, plane: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
        """(x, y) to (x', y')."""
        x, y = plane[..., 0], plane[..., 1]
        r2 = x * x + y * y
        radial = 1 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
        return torch.stack(
            [
                x * radial + 2 * self.p1 * x * y + self.p2 * (r2 + 2 * x * x),
                y * radial + self.p1 * (r2 + 2 * y * y) + 2 * self.p2 * x * y,
            ],
            dim=-1,
        )

    def remove(self, plane: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b 2"]:
        """(x', y') to (x, y) by Newton's method.

        Raises:
            WysError: the model folds the image, so that a point has no origin.
        """
        goal = plane.double()
        guess = goal.clone()
        for _ in range(30):
            x, y = guess[..., 0], guess[..., 1]
            r2 = x * x + y * y
            radial = 1 + r2 * (self.k1 + r2 * (self.k2 + r2 * self.k3))
            slope = 2 * (self.k1 + r2 * (2 * self.k2 + 3 * r2 * self.k3))
            xx = radial + slope * x * x + 2 * self.p1 * y + 6 * self.p2 * x
            yy = radial + slope * y * y + 6 * self.p1 * y + 2 * self.p2 * x
            xy = slope * x * y + 2 * self.p1 * x + 2 * self.p2 * y
            error = self.apply(guess) - goal
            determinant = xx * yy - xy * xy
            step = torch.stack(
                [
                    (yy * error[..., 0] - xy * error[..., 1]) / determinant,
                    (xx * error[..., 1] - xy * error[..., 0]) / determinant,
                ],
                dim=-1,
            )
            guess = guess - step
            if float(step.abs().amax()) < 1e-13:
                break
        far = (self.apply(guess) - goal).abs().amax() > 1e-8
        # A negative determinant is the far side of a fold.
        if bool(far) or not bool((torch.isfinite(determinant) & (determinant > 0)).all()):
            raise WysError(
                f"the lens distortion k1 {self.k1:g}, k2 {self.k2:g}, k3 {self.k3:g} folds the "
                "image over; correct the coefficients or calibrate the camera again."
            )
        return guess.to(plane.dtype)


@dataclass(frozen=True)
class Lens:
    """How one photograph of known size was projected."""

    fx: float
    fy: float
    cx: float
    cy: float
    height: int
    width: int
    distortion: Distortion = Distortion()

    @property
    def intrinsics(self) -> tuple[float, float, float, float]:
        """fx, fy, cx, cy in pixels."""
        return self.fx, self.fy, self.cx, self.cy

    def resized(self, height: int, width: int) -> Lens:
        """The lens of the same photograph at another number of pixels."""
        across, down = width / self.width, height / self.height
        return replace(
            self,
            fx=self.fx * across,
            fy=self.fy * down,
            cx=self.cx * across,
            cy=self.cy * down,
            height=height,
            width=width,
        )

    def pinhole(self) -> Lens:
        """A lens without distortion all of whose pixels this one's photograph shows.

        The shape of a pixel stays what it was; the view is the largest whose edges, but for the
        corners of a cushion, lie inside the photograph.

        Raises:
            WysError: the distortion folds the image over.
        """
        if self.distortion.is_none:
            return self
        left, right, top, bottom = self._inner_edges()
        zoom = max(
            self.width / (right - left) / self.fx,
            self.height / (bottom - top) / self.fy,
        )
        fx, fy = zoom * self.fx, zoom * self.fy
        return Lens(
            fx,
            fy,
            self.width / 2 - fx * (left + right) / 2,
            self.height / 2 - fy * (top + bottom) / 2,
            self.height,
            self.width,
        )

    def _inner_edges(self) -> tuple[float, float, float, float]:
        """The largest upright rectangle of the undistorted plane inside the photograph's border.

        Judged at the points between the border's pixels: left, right, top, bottom.
        """
        along = torch.linspace(0, 1, 65, dtype=torch.float64)
        near, far = torch.zeros_like(along), torch.ones_like(along)
        borders = [
            torch.stack(pair, dim=-1)
            for pair in ((near, along), (far, along), (along, near), (along, far))
        ]
        pixels = torch.stack(borders) * torch.tensor([self.width, self.height])
        focal = torch.tensor([self.fx, self.fy], dtype=torch.float64)
        centre = torch.tensor([self.cx, self.cy], dtype=torch.float64)
        left, right, top, bottom = self.distortion.remove((pixels - centre) / focal)
        edges = (
            float(left[:, 0].max()),
            float(right[:, 0].min()),
            float(top[:, 1].max()),
            float(bottom[:, 1].min()),
        )
        if edges[0] >= edges[1] or edges[2] >= edges[3]:
            raise WysError(
                "the lens distortion leaves no undistorted image; correct the coefficients."
            )
        return edges

    def photograph_points(self, pinhole: Lens) -> Float[Tensor, "h w 2"]:
        """Where this lens's photograph shows the pixel centres of a pinhole at the same place."""
        rows = torch.arange(pinhole.height, dtype=torch.float64) + 0.5
        columns = torch.arange(pinhole.width, dtype=torch.float64) + 0.5
        y, x = torch.meshgrid(
            (rows - pinhole.cy) / pinhole.fy, (columns - pinhole.cx) / pinhole.fx, indexing="ij"
        )
        bent = self.distortion.apply(torch.stack([x, y], dim=-1))
        focal = torch.tensor([self.fx, self.fy], dtype=torch.float64)
        return bent * focal + torch.tensor([self.cx, self.cy], dtype=torch.float64)

    def sampling_grid(self, pinhole: Lens) -> Float[Tensor, "h w 2"]:
        """`photograph_points` with -1 and 1 at the photograph's edges, float32."""
        # As grid_sample counts without align_corners: edges of pixels, not their centres.
        size = torch.tensor([self.width, self.height], dtype=torch.float64)
        return (2 * self.photograph_points(pinhole) / size - 1).float()


def undistorted(
    photograph: Float[Tensor, "3 h w"], grid: Float[Tensor, "h w 2"]
) -> Float[Tensor, "3 h w"]:
    """The photograph that a pinhole in place of its lens would have taken.

    Every pixel looks up, by cubic interpolation, where the lens shows the ray through its centre:
    rays are exact. What lies outside the photograph repeats its border.

    Args:
        grid: `Lens.sampling_grid` of the pinhole.
    """
    out = F.grid_sample(
        photograph[None], grid[None], mode="bicubic", padding_mode="border", align_corners=False
    )
    return out[0].clamp(0, 1)


@dataclass(frozen=True)
class Optics:
    """A lens as files describe it: in pixels or by angles, with or without a size."""

    focal: tuple[float, float] | None = None
    """fx, fy in pixels."""
    angles: tuple[float, float | None] | None = None
    """Horizontal and vertical field of view in radians, where no focal length is given; without
    the vertical one pixels are square."""
    centre: tuple[float | None, float | None] = (None, None)
    """cx, cy in pixels; the middle of the photograph for each that is not given."""
    size: tuple[int, int] | None = None
    """(height, width) that the pixels refer to; the photograph's own where it is not given."""
    distortion: Distortion = field(default=Distortion())

    def lens(self, height: int, width: int) -> Lens:
        """The lens of a photograph that has this many pixels.

        Raises:
            WysError: the photograph is not of the shape that the numbers are for. The message
                begins with the fault, for the caller to put the file's name before it.
        """
        high, wide = self.size or (height, width)
        if abs(width * high - height * wide) > _ASPECT * width * high:
            turned = abs(height * high - width * wide) <= _ASPECT * height * high
            cure = "use the photographs that the poses are for"
            if turned:
                cure = "turn it by 90 degrees and take its EXIF orientation away"
            raise WysError(
                f"has {width} x {height} pixels and its camera is for {wide} x {high}; {cure}."
            )
        if self.focal is not None:
            fx, fy = self.focal
        elif self.angles is not None:
            fx = wide / 2 / math.tan(self.angles[0] / 2)
            fy = fx if self.angles[1] is None else high / 2 / math.tan(self.angles[1] / 2)
        else:
            raise WysError("has no focal length; give fl_x or camera_angle_x.")
        middle = (wide / 2, high / 2)
        cx, cy = (m if c is None else c for c, m in zip(self.centre, middle, strict=True))
        return Lens(fx, fy, cx, cy, high, wide, self.distortion).resized(height, width)
