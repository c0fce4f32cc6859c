"""The loop that both networks are trained with: steps, saves, evaluations, log."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from wys.training.learner import Learner
from wys.training.progress import append_log, meter, read_log
from wys.training.schedule import Schedule


def compile_first(
    learner: Learner, enabled: bool, batch_loss: Callable[[], tuple[Tensor, Mapping[str, Tensor]]]
) -> None:
    """Compiles the networks by a step that is not taken, in the first process before the others.

    The others take its kernels over.
    """
    with learner.accelerator.main_process_first():
        if enabled:
            batch_loss()[0].backward()
            learner.optimiser.zero_grad()


def run_steps(
    learner: Learner,
    schedule: Schedule,
    stage: str,
    out: Path,
    minutes: float,
    batch_loss: Callable[[], tuple[Tensor, Mapping[str, Tensor]]],
    batch_size: Callable[[], int],
    evaluate: Callable[[], Mapping[str, float]],
    work: Callable[[int], float] = float,
) -> None:
    """Steps until `schedule.total` images are seen; saves to `out/state/STAGE.safetensors`.

    Args:
        minutes: time between two saves; an evaluation, of the averaged weights, comes with each.
        batch_loss: the loss of this process' share of the step at the learner's position, and
            quantities to log. It draws randomness from the position alone.
        batch_size: images of the step at the learner's position, over all processes.
        evaluate: figures to log, by the first process alone.
        work: what so many images from the beginning cost, in any unit: the time left goes by it.
    """
    main = learner.accelerator.is_main_process
    position = learner.position
    before, started = position.seconds, time.monotonic()
    saved = started
    recent: list[Mapping[str, Tensor]] = []

    def report() -> None:
        """Evaluates the averaged weights and logs their figures, and the means since the last."""
        with learner.ema.applied(), torch.no_grad():
            figures = evaluate()
        means = {
            name: float(torch.stack([q[name] for q in recent]).float().mean())
            for name in (recent[0] if recent else ())
        }
        recent.clear()
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

    with meter(stage, schedule.total, main, work) as bar:
        if main and position.images >= schedule.total and not _told(out, stage, position.images):
            report()  # A kill came between the last save and its figures.
        while position.images < schedule.total:
            size = batch_size()
            loss, quantities = batch_loss()
            learner.step(loss, schedule, size)
            now = time.monotonic()
            position.seconds = before + now - started
            if not main:
                continue
            recent.append({"loss": loss.detach(), **{k: q.detach() for k, q in quantities.items()}})
            bar.update(position.images, f"loss {float(loss.detach()):.4f}")
            if now - saved < 60 * minutes and position.images < schedule.total:
                continue
            learner.save(out / "state" / f"{stage}.safetensors")
            report()
            saved = time.monotonic()


def _told(out: Path, stage: str, images: int) -> bool:
    """Whether the log has figures of a stage after so many images."""
    entries = read_log(out / "log.jsonl", stage)
    return bool(entries) and entries[-1]["images"] >= images
