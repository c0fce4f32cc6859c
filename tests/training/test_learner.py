"""Steps of the optimiser, and what a state file gives back."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from wys.errors import WysError
from wys.training import learner as learner_module
from wys.training.learner import MOST_LOST, Learner, OptimiserSettings, load_average
from wys.training.schedule import Schedule

SCHEDULE = Schedule(peak=0.1, warmup=0, total=1000, final=0.1)


def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2)


def learner(module: nn.Module) -> Learner:
    return Learner({"net": module}, OptimiserSettings(), Accelerator(cpu=True))


def loss(module: nn.Module, factor: float = 1.0) -> torch.Tensor:
    return module(torch.ones(4, 3)).square().mean() * factor


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(factor: float) -> None:
    module = linear()
    made = learner(module)
    made.step(loss(module), SCHEDULE, 4)
    before = [value.clone() for value in (*made.parameters, *made.ema.average)]
    made.step(loss(module, factor), SCHEDULE, 4)
    after = [*made.parameters, *made.ema.average]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert made.position.images == 8
    made.step(loss(module), SCHEDULE, 4)
    assert not torch.equal(made.parameters[0], before[0])
    assert all(bool(torch.isfinite(value).all()) for value in made.ema.average)


def test_training_ends_where_no_gradient_is_finite_any_more() -> None:
    module = linear()
    made = learner(module)
    for _ in range(MOST_LOST - 1):
        made.step(loss(module, float("nan")), SCHEDULE, 4)
    with pytest.raises(WysError, match="are not finite"):
        made.step(loss(module, float("nan")), SCHEDULE, 4)


def test_averages_are_read_without_an_accelerator(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second accelerator, for another device, is refused where training has made one."""
    module = linear()
    made = learner(module)
    for _ in range(3):
        made.step(loss(module), SCHEDULE, 4)
    made.save(tmp_path / "state.safetensors")
    monkeypatch.setattr(learner_module, "Accelerator", None)
    other = nn.Linear(3, 2)
    position = load_average({"net": other}, tmp_path / "state.safetensors")
    assert position == made.position
    for own, average in zip(other.parameters(), made.ema.average, strict=True):
        assert torch.equal(own, average)
    for wrong in ({"net": nn.Linear(3, 3)}, {"other": nn.Linear(3, 2)}):
        with pytest.raises(WysError, match="belongs to other settings"):
            load_average(wrong, tmp_path / "state.safetensors")
