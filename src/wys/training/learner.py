"""Modules in training with everything that a kill must not lose."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from wys.errors import WysError
from wys.store import read_metadata, read_tensors, write_tensors
from wys.training.ema import Ema
from wys.training.schedule import Schedule

MOST_LOST = 20
"""Steps in a row without a finite gradient, after which training ends."""


@dataclass(frozen=True)
class OptimiserSettings:
    """AdamW (Loshchilov and Hutter 2019), gradient clipping and the weights' average."""

    weight_decay: float = 0.01
    """Decoupled weight decay."""
    beta2: float = 0.99
    """Decay of the squared gradients' average."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    ema: float = 0.999
    """Largest decay of the weights' average."""


@dataclass
class Position:
    """How far training has come. All randomness of a step is a function of the step's number."""

    step: int = 0
    images: int = 0
    seconds: float = 0.0


class Learner:
    """Modules, their optimiser, averaged weights and position.

    Args:
        modules: name -> module; the names prefix the weights in the state file. The modules are
            moved to the accelerator's device.
        accelerator: the device, and the processes among which gradients are averaged.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        settings: OptimiserSettings,
        accelerator: Accelerator,
    ) -> None:
        self.modules = dict(modules)
        self.settings = settings
        self.accelerator = accelerator
        for module in self.modules.values():
            module.to(accelerator.device)
        self.names = _names_of(self.modules)
        self.parameters = list(self.names.values())
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=0.0,
            betas=(0.9, settings.beta2),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        self.ema = Ema(self.parameters, settings.ema)
        self.position = Position()
        self._lost = 0

    def step(self, loss: Tensor, schedule: Schedule, images: int) -> float:
        """One optimiser step on this process' loss; returns the gradient's norm.

        A gradient that is not finite changes nothing: one would spoil weights, moments and averages
        for good.

        Args:
            loss: scalar, the mean over this process' share of the batch.
            images: images of this step over all processes.

        Raises:
            WysError: `MOST_LOST` steps in a row had no finite gradient.
        """
        loss.backward()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self._average(gradients)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.settings.clip, foreach=True)
        for group in self.optimiser.param_groups:
            group["lr"] = schedule.rate(self.position.images)
        # The gradients are those of all processes together, so all of them decide alike.
        finite = bool(torch.isfinite(norm))
        self._lost = 0 if finite else self._lost + 1
        if self._lost >= MOST_LOST:
            raise WysError(
                f"the gradients of {MOST_LOST} steps in a row are not finite; train with a lower "
                "rate or without 16-bit precision. What was saved last is whole."
            )
        if finite:
            self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.position.step += 1
        self.position.images += images
        if finite:
            self.ema.update(self.position.step)
        return float(norm)

    def _average(self, gradients: list[Tensor]) -> None:
        if self.accelerator.num_processes == 1:
            return
        # One message for all parameters: on a CPU the count of messages costs more than bytes.
        rows = [_in_memory_order(gradient) for gradient in gradients]
        flat = self.accelerator.reduce(torch.cat(rows), reduction="mean")
        torch._foreach_copy_(rows, list(flat.split([row.numel() for row in rows])))

    def save(self, path: Path) -> None:
        """Writes weights, averages, moments and position to one file, atomically."""
        tensors: dict[str, Tensor] = {}
        for (name, parameter), average in zip(self.names.items(), self.ema.average, strict=True):
            tensors[f"weight.{name}"] = parameter
            tensors[f"average.{name}"] = average
            for key, value in self.optimiser.state.get(parameter, {}).items():
                tensors[f"{key}.{name}"] = value
        write_tensors(path, tensors, {"position": json.dumps(asdict(self.position))})

    def load(self, path: Path) -> None:
        """Continues from a file of `save`, exactly.

        Raises:
            WysError: the file belongs to other modules, or is damaged.
        """
        tensors = _state_of(path, self.names)
        with torch.no_grad():
            for (name, parameter), average in zip(
                self.names.items(), self.ema.average, strict=True
            ):
                parameter.copy_(tensors[f"weight.{name}"])
                average.copy_(tensors[f"average.{name}"])
                state = self.optimiser.state[parameter]
                for key in ("step", "exp_avg", "exp_avg_sq"):
                    if f"{key}.{name}" in tensors:
                        value = tensors[f"{key}.{name}"].to(parameter.device)
                        state[key] = value.clone() if key == "step" else _like(value, parameter)
        self.position = position_of(path)


def load_average(modules: Mapping[str, nn.Module], path: Path) -> Position:
    """Gives modules, where they are, the averaged weights of a file of `Learner.save`.

    Returns:
        How far training had come.

    Raises:
        WysError: the file belongs to other modules, or is damaged.
    """
    names = _names_of(modules)
    tensors = _state_of(path, names)
    with torch.no_grad():
        for name, parameter in names.items():
            parameter.copy_(tensors[f"average.{name}"])
    return position_of(path)


def _names_of(modules: Mapping[str, nn.Module]) -> dict[str, nn.Parameter]:
    return {
        f"{name}.{key}": parameter
        for name, module in modules.items()
        for key, parameter in module.named_parameters()
    }


def _state_of(path: Path, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a state file that fits these parameters."""
    tensors = read_tensors(path)
    shapes = {f"weight.{name}": parameter.shape for name, parameter in names.items()}
    kept = {key: value.shape for key, value in tensors.items() if key.startswith("weight.")}
    if kept != shapes:
        raise WysError(f"{path} belongs to other settings; use another folder or delete it.")
    return tensors


def position_of(path: Path) -> Position:
    """How far the training of a file of `Learner.save` had come."""
    return Position(**json.loads(read_metadata(path)["position"]))


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    return torch.empty_like(parameter).copy_(value)


def _in_memory_order(values: Tensor) -> Tensor:
    """A view of all values as one row, in the order in which they lie in memory."""
    if values.dim() == 4 and values.is_contiguous(memory_format=torch.channels_last):
        values = values.permute(0, 2, 3, 1)
    return values.view(-1)
