"""The loop that both networks are trained with: steps, saves, evaluations, log."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from wys.training.learner import Learner
from wys.training.progress import append_log, meter
from wys.training.schedule import Schedule


def run_steps(
    learner: Learner,
    schedule: Schedule,
    stage: str,
    out: Path,
    minutes: float,
    batch_loss: Callable[[], tuple[Tensor, Mapping[str, Tensor]]],
    batch_size: Callable[[], int],
    evaluate: Callable[[], Mapping[str, float]],
) -> None:
    """Steps until `schedule.total` images are seen; saves to `out/state/STAGE.safetensors`.

    Args:
        minutes: time between two saves; an evaluation, of the averaged weights, comes with each.
        batch_loss: the loss of this process' share of the step at the learner's position, and
            quantities to log. It draws randomness from the position alone.
        batch_size: images of the step at the learner's position, over all processes.
        evaluate: figures to log, by the first process alone.
    """
    main = learner.accelerator.is_main_process
    position = learner.position
    before, started = position.seconds, time.monotonic()
    saved = started
    recent: list[Mapping[str, Tensor]] = []
    with meter(stage, schedule.total, main) as bar:
        while position.images < schedule.total:
            size = batch_size()
            loss, quantities = batch_loss()
            learner.step(loss, schedule, size)
            recent.append({"loss": loss.detach(), **{k: q.detach() for k, q in quantities.items()}})
            now = time.monotonic()
            position.seconds = before + now - started
            if not main:
                continue
            bar.update(position.images, f"loss {float(recent[-1]['loss']):.4f}")
            if now - saved < 60 * minutes and position.images < schedule.total:
                continue
            learner.save(out / "state" / f"{stage}.safetensors")
            with learner.ema.applied(), torch.no_grad():
                figures = evaluate()
            means = {
                name: float(torch.stack([q[name] for q in recent]).float().mean())
                for name in recent[0]
            }
            recent.clear()
            saved = time.monotonic()
            entry = {
                "stage": stage,
                "images": position.images,
                "seconds": round(position.seconds, 1),
                "images_per_second": round(bar.rate, 1),
                "rate": schedule.rate(position.images),
                **{name: round(value, 5) for name, value in {**means, **figures}.items()},
            }
            append_log(out / "log.jsonl", entry)
            shown = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
            print(f"{stage}  {position.images} images  {shown}", flush=True)
