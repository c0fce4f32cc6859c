"""Images: geometry against a brute-force tracer, and independence of batch, chunk and device."""

import pytest
import torch

from wys.tabletop import raytracer
from wys.tabletop.raytracer import object_ids, render
from wys.tabletop.sampling import sample_cameras, sample_scenes
from wys.tabletop.shapes import SOLIDS
from wys.tabletop.world import CLEVR, FULL, MATERIALS, PLAIN, SHAPES


def test_ids_and_depth_agree_with_brute_force() -> None:
    scene, camera = sample_scenes(4, 0, 8, FULL), sample_cameras(4, 0, 8, FULL, size=(24, 30))
    image = render(scene, camera, samples=1)
    rays = camera.rays()
    forward = camera.world_from_camera[:, :3, 2]
    for i in range(len(scene)):
        o = rays.origins[i].reshape(-1, 3).double()
        d = rays.directions[i].reshape(-1, 3).double()
        nearest = torch.full((len(o),), torch.inf, dtype=torch.float64)
        ids = torch.zeros(len(o), dtype=torch.long)
        for slot in range(5):
            if not scene.present[i, slot]:
                continue
            angle, radius = scene.yaw[i, slot].double(), scene.radius[i, slot].double()
            rotation = torch.tensor(
                [
                    [angle.cos(), angle.sin(), 0.0],
                    [-angle.sin(), angle.cos(), 0.0],
                    [0.0, 0.0, 1.0],
                ],
                dtype=torch.float64,
            )
            position = torch.cat([scene.position[i, slot].double(), torch.zeros(1)])
            solid = SOLIDS[SHAPES[int(scene.shape[i, slot])]]
            local = rotation @ (o - position).T / radius
            t = solid.intersect(local, rotation @ d.T, torch.zeros(len(o)).double()) * radius
            ids = torch.where(t < nearest, slot + 1, ids)
            nearest = torch.minimum(nearest, t)
        found = image.object_ids[i].flatten()
        assert (found == ids).float().mean() > 0.995
        agreed = (found == ids) & (ids > 0)
        depth = nearest * (d @ forward[i].double())
        error = (image.depth[i].flatten()[agreed].double() - depth[agreed]).abs()
        assert error.max() < 2e-3 and error.mean() < 5e-4


def test_floor_depth_puts_points_on_the_table() -> None:
    scene, camera = sample_scenes(5, 0, 4, PLAIN), sample_cameras(5, 0, 4, PLAIN, size=32)
    image = render(scene, camera, samples=1)
    pixels = camera.pixel_centres().reshape(1, -1, 2).expand(4, -1, -1)
    points = camera.unproject(pixels, image.depth.reshape(4, -1))
    floor = (image.object_ids.reshape(4, -1) == 0) & image.depth.reshape(4, -1).isfinite()
    assert points[floor][:, 2].abs().max() < 1e-4
    assert image.depth.isinf().any()


@pytest.mark.parametrize("samples", [1, 4])
def test_an_image_does_not_depend_on_its_batch(samples: int) -> None:
    scene, camera = sample_scenes(6, 0, 7, FULL), sample_cameras(6, 0, 7, FULL, size=40)
    together = render(scene, camera, samples=samples)
    for i in range(7):
        alone = render(scene[i], camera[i : i + 1], samples=samples)
        assert torch.equal(alone.object_ids[0], together.object_ids[i])
        torch.testing.assert_close(alone.rgb[0], together.rgb[i], rtol=0, atol=1e-6)


def test_an_image_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    scene, camera = sample_scenes(7, 0, 3, FULL), sample_cameras(7, 0, 3, FULL, size=40)
    whole = render(scene, camera)
    monkeypatch.setattr(raytracer, "CHUNK", 777)
    pieces = render(scene, camera)
    torch.testing.assert_close(whole.rgb, pieces.rgb, rtol=0, atol=1e-6)
    assert torch.equal(object_ids(scene, camera), whole.object_ids)


def test_adaptive_antialiasing_is_close_to_antialiasing_everywhere() -> None:
    scene, camera = sample_scenes(8, 0, 6, PLAIN), sample_cameras(8, 0, 6, PLAIN, size=48)
    adaptive = render(scene, camera, samples=4)
    full = render(scene, camera, samples=4, adaptive=False)
    rough = render(scene, camera, samples=1)
    error = (adaptive.rgb - full.rgb).square().mean()
    assert error < 1e-4 < (rough.rgb - full.rgb).square().mean()


def test_any_size_and_range_of_values() -> None:
    for size in ((1, 1), (17, 5), (20, 90)):
        scene, camera = sample_scenes(9, 0, 2, CLEVR), sample_cameras(9, 0, 2, CLEVR, size=size)
        image = render(scene, camera)
        assert image.rgb.shape == (2, 3, *size) and image.depth.shape == (2, *size)
        assert image.rgb.dtype == torch.float32 and image.rgb.isfinite().all()
        assert image.rgb.min() >= 0 and image.rgb.max() <= 1


def test_an_empty_table_is_rendered() -> None:
    scene, camera = sample_scenes(10, 0, 1, PLAIN), sample_cameras(10, 0, 1, PLAIN, size=24)
    scene.present[:] = False
    image = render(scene, camera)
    assert (image.object_ids == 0).all() and image.rgb.isfinite().all()


def test_metal_and_rubber_look_clearly_different() -> None:
    scene, camera = sample_scenes(11, 0, 40, PLAIN), sample_cameras(11, 0, 40, PLAIN, size=64)
    images = []
    for material in range(len(MATERIALS)):
        changed = scene.clone()
        changed.material[:] = material
        images.append(render(changed, camera).rgb)
    inside = object_ids(scene, camera) > 0
    difference = (images[0] - images[1]).abs().amax(dim=1)[inside]
    assert difference.mean() > 0.1 and (difference > 0.04).float().mean() > 0.7


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cpu_and_cuda_agree() -> None:
    scene, camera = sample_scenes(12, 0, 8, FULL), sample_cameras(12, 0, 8, FULL, size=64)
    here, there = render(scene, camera), render(scene.to("cuda"), camera.to("cuda"))
    difference = (here.rgb - there.rgb.cpu()).abs()
    assert (difference > 0.02).float().mean() < 2e-3
