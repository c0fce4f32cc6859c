"""LPIPS against torchmetrics' own, with random networks: shapes and names are what counts."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wys.errors import WysError
from wys.evaluation.lpips import Lpips

Saved = Callable[[str], tuple[Path, nn.Module]]
"""Makes the file of a random LPIPS, and torchmetrics' own."""


def images(seed: int) -> tuple[Tensor, Tensor]:
    a, b = torch.rand(2, 3, 3, 48, 64, generator=torch.Generator().manual_seed(seed))
    return a, b


@pytest.mark.parametrize("name", ["alex", "vgg"])
def test_distances_are_those_of_torchmetrics(name: str, random_lpips: Saved) -> None:
    path, theirs = random_lpips(name)
    a, b = images(0)
    ours = Lpips.load(path, "cpu").distance(a, b)
    expected = theirs(a, b, normalize=True).flatten().double()
    assert ours.min() > 0
    assert torch.allclose(ours, expected, rtol=1e-3)


def test_laws_of_a_distance(random_lpips: Saved) -> None:
    """An image is like itself, both ways alike, alone as in a batch; channels are not alike."""
    lpips = Lpips.load(random_lpips("alex")[0], "cpu")
    a, b = images(1)
    assert lpips.distance(a, a).tolist() == [0, 0, 0]
    there = lpips.distance(a, b)
    assert torch.allclose(there, lpips.distance(b, a))
    assert torch.allclose(there[1:2], lpips.distance(a[1:2], b[1:2]), rtol=1e-4)
    assert not torch.allclose(there, lpips.distance(a.flip(1), b.flip(1)), rtol=1e-3)
    near = lpips.distance(a, (a + 0.05 * (b - a)))
    assert bool((near < there).all())


def test_what_is_no_lpips_is_named(tmp_path: Path, random_lpips: Saved) -> None:
    with pytest.raises(WysError, match="absent"):
        Lpips.load(tmp_path / "absent.safetensors", "cpu")
    path, theirs = random_lpips("alex")
    short = tmp_path / "short.safetensors"
    short.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(WysError, match=r"short\.safetensors"):
        Lpips.load(short, "cpu")
    save_file({"weight": torch.zeros(3)}, short)
    with pytest.raises(WysError, match="is no LPIPS of AlexNet or VGG16"):
        Lpips.load(short, "cpu")
    rest = {n: t.clone() for n, t in theirs.state_dict().items() if n.startswith("net.")}
    save_file(rest, short)
    with pytest.raises(WysError, match="lacks layers named lin0 to lin4"):
        Lpips.load(short, "cpu")
    with pytest.raises(WysError, match="at least 32 pixels"):
        Lpips.load(path, "cpu").distance(*torch.rand(2, 1, 3, 16, 64))
