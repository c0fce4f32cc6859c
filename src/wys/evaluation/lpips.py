"""LPIPS (Zhang et al. 2018): how different two images look, by what a network sees in them.

The networks' weights are the user's: one safetensors file with the names that LPIPS itself gives
them. Which of its two usual networks it is, AlexNet or VGG16, the shapes in the file say.
"""

from __future__ import annotations

import re
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wys.devices import find_device
from wys.errors import WysError
from wys.store import read_tensors

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
"""Of RGB in [-1, 1]: the mean and deviation that the networks were trained with."""
LEAST_SIDE = 32
"""Pixels, below which AlexNet has nothing left to pool."""

Network = tuple[nn.Sequential, tuple[int, ...]]
"""Layers, numbered as in LPIPS, and those whose outputs are compared."""


def alexnet() -> Network:
    """The convolutions of AlexNet (Krizhevsky 2014)."""
    layers = nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
    )
    return layers, (1, 4, 7, 9, 11)


def vgg16() -> Network:
    """The convolutions of VGG16 (Simonyan and Zisserman 2015)."""
    layers: list[nn.Module] = []
    compared: list[int] = []
    channels = 3
    for widths in ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3):
        if compared:
            layers.append(nn.MaxPool2d(2))
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        compared.append(len(layers) - 1)
    return nn.Sequential(*layers), tuple(compared)


class Lpips:
    """LPIPS on its device.

    Args:
        network: with trained weights.
        linear: what each channel of each compared layer counts.
    """

    def __init__(
        self, network: Network, linear: list[Float[Tensor, " c"]], device: torch.device
    ) -> None:
        layers, self._compared = network
        self._layers = layers.eval().requires_grad_(False).to(device)
        self._linear = [row.to(device) for row in linear]
        self._shift, self._scale = (
            torch.tensor(values, device=device).reshape(3, 1, 1) for values in (SHIFT, SCALE)
        )
        self._device = device

    @staticmethod
    def load(path: Path, device: str = "auto") -> Lpips:
        """Loads a safetensors file with the names of LPIPS; docs/benchmarks.md says how to make it.

        Raises:
            WysError: it is missing, damaged, or holds anything else.
        """
        tensors = read_tensors(path)
        convolutions: dict[str, Tensor] = {}
        linear: dict[int, Tensor] = {}
        for name, tensor in tensors.items():
            if found := re.fullmatch(r"net\.slice\d\.(\d+\.(?:weight|bias))", name):
                convolutions[found[1]] = tensor.float()
            elif found := re.fullmatch(r"lins?\.?(\d)\.model\.\d\.weight", name):
                linear[int(found[1])] = tensor.float().flatten()
        shapes = {name: tensor.shape for name, tensor in convolutions.items()}
        for network in (alexnet(), vgg16()):
            layers, compared = network
            if shapes != {name: tensor.shape for name, tensor in layers.state_dict().items()}:
                continue
            layers.load_state_dict(convolutions)
            widths = [_width(layers[i - 1]) for i in compared]
            if [len(linear.get(k, ())) for k in range(len(widths))] != widths:
                raise WysError(f"{path} is no whole LPIPS: it lacks layers named lin0 to lin4.")
            rows = [linear[k] for k in range(len(widths))]
            return Lpips(network, rows, find_device(device))
        raise WysError(
            f"{path} is no LPIPS of AlexNet or VGG16: it needs tensors named net.slice1.0.weight "
            "to net.slice5... and lin0.model.1.weight to lin4...; docs/benchmarks.md says how to "
            "make such a file."
        )

    @torch.no_grad()
    def distance(
        self, image: Float[Tensor, "b 3 h w"], other: Float[Tensor, "b 3 h w"]
    ) -> Float[Tensor, " b"]:
        """0 for images that look alike (equation 1). Images are RGB in [0, 1], not quantised.

        Raises:
            WysError: they are too small for the networks.
        """
        if min(image.shape[-2:]) < LEAST_SIDE:
            raise WysError(f"LPIPS needs images of at least {LEAST_SIDE} pixels a side.")
        x, y = (self._standardised(images) for images in (image, other))
        distance = torch.zeros(len(image), dtype=torch.float64)
        compared = dict(zip(self._compared, self._linear, strict=True))
        for i, layer in enumerate(self._layers):
            x, y = layer(x), layer(y)
            if i in compared:
                squared = (_unit(x) - _unit(y)).square().mean(dim=(2, 3))
                distance += (squared * compared[i]).sum(1).double().cpu()
        return distance

    def _standardised(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        signed = 2 * images.float().to(self._device) - 1
        return (signed - self._shift) / self._scale


def _width(convolution: nn.Module) -> int:
    assert isinstance(convolution, nn.Conv2d)
    return convolution.out_channels


def _unit(features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return features / (features.norm(dim=1, keepdim=True) + 1e-10)
