"""The model card, written from the record and the log of the run."""

import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from wys.diffusion.refusals import LOCATOR
from wys.store import read_json, write_atomically, write_json
from wys.training.progress import duration, read_log

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "tokenizers")


def record(
    out: Path,
    settings: Any,
    stages: Sequence[str],
    device: str,
    processes: int,
    data: Path | None,
    start: Path | None = None,
    also: Sequence[Path] = (),
) -> None:
    """Notes in `out/record.json` what is run, with which settings and on which machine."""
    if device == "cpu":
        machine = f"{_processor()}, {os.cpu_count()} cores"
    else:
        machine = torch.cuda.get_device_name()
    program = Path(sys.argv[0]).name
    if program == "recipe.py":
        program = "python -m wys.training.recipe"
    words = [_published(word, out) for word in sys.argv[1:]]
    many = "1 training process" if processes == 1 else f"{processes} training processes"
    entry = {
        "command": f"{program} {shlex.join(words)}",
        "machine": f"{machine}, {many}",
        "data": "the tabletop world" if data is None else f"the folder {data.resolve().name}",
        "start": None if start is None else start.resolve().name,
        "also": [folder.resolve().name for folder in also],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "stages": list(stages),
        "recipe": asdict(settings),
    }
    path = out / "record.json"
    runs = read_json(path) if path.exists() else []
    write_json(path, [*runs, entry])


def _published(word: str, out: Path) -> str:
    """A word of a command for the card, which names folders but not where they lie."""
    name, sign, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if value and (Path(value).is_absolute() or Path(value) == out):
        value = Path(value).resolve().name
    return name + sign + value


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def write_card(out: Path, folder: Path) -> None:
    """Writes `folder/README.md`: what it is, data, command, time, figures, limits."""
    runs = read_json(out / "record.json")
    last = runs[-1]
    recipe = last["recipe"]
    commands = list(dict.fromkeys(run["command"] for run in runs))
    autoencoder = read_log(out / "log.jsonl", "autoencoder")
    denoiser = read_log(out / "log.jsonl", "denoiser")
    locator = read_log(out / "log.jsonl", "locator")
    figures = [
        f"| {name} | {value} |"
        for name, value in {
            **_figures(autoencoder, {"psnr": "autoencoder, PSNR on held-out images (dB)"}),
            **_figures(
                denoiser,
                {
                    "validation_clean": "diffusion loss",
                    "validation_edit": "the same at the first steps of an edit",
                    "change_iou": "IoU of the relevance head's mask, at latent size",
                    "grounding_head": "grounding of the relevance head",
                    "grounding_difference": "grounding of the difference",
                    "grounding_chance": "grounding by chance",
                },
            ),
            **_figures(locator, {"locator_iou": "IoU of the locator's mask, at latent size"}),
        }.items()
    ]
    seen = [
        f"- {name}: {log[-1]['images']:,} images in {duration(log[-1]['seconds'])} "
        f"(hours, minutes, seconds; lately {log[-1]['images_per_second']:.0f} images a second)"
        for name, log in (
            ("autoencoder", autoencoder),
            ("text encoder and UNet", denoiser),
            ("locator", locator),
        )
        if log
    ]
    index = read_json(out / "data" / "index.json")
    # A triplet of one's own is kept at both sizes.
    triplets = index["triplets"] if index["labelled"] else index["triplets"] // 2
    others = sorted({name for run in runs for name in run.get("also", ())})
    also = f" The locator learnt from those of {', '.join(others)} as well." if others else ""
    start = last.get("start")
    origin = "from nothing" if start is None else f"further from the editor {start}"
    text = "\n".join(
        [
            *_HEADER.replace("ORIGIN", origin).splitlines(),
            *(_LOCATOR.splitlines() if (folder / LOCATOR).is_dir() else ()),
            "",
            "## Data",
            "",
            f"{triplets:,} triplets (before, after, instruction) of {last['data']}, at "
            f"{recipe['data']['size']} and {recipe['data']['large_size']} pixels, seed "
            f"{recipe['data']['seed']}"
            + (f", look: {recipe['data']['look']}." if index["labelled"] else ".")
            + also,
            "",
            "## Training",
            "",
            *seen,
            f"- machine: {last['machine']}",
            f"- Python {last['python']}, "
            + ", ".join(f"{name} {number}" for name, number in last["versions"].items()),
            f"- seeds: weights and batches {recipe['denoiser']['seed']}, of the locator "
            f"{recipe['locator']['seed']}, data {recipe['data']['seed']}",
            "",
            *(f"    {command}" for command in commands),
            "",
            "## Figures",
            "",
            "Of the averaged weights on held-out validation triplets, at the end of training "
            "(grounding: the share of local edits whose named object has the highest mean of all "
            "objects, at timestep 800, from the input's latent).",
            "",
            "| | |",
            "|---|---|",
            *figures,
            "",
            *(_LIMITS if start is None else _LIMITS_FURTHER).splitlines(),
            "",
        ]
    )
    with write_atomically(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


def _figures(log: list[dict[str, Any]], names: dict[str, str]) -> dict[str, str]:
    return {title: f"{log[-1][key]:.3g}" for key, title in names.items() if log and key in log[-1]}


_HEADER = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: image-to-image
---

# A small InstructPix2Pix editor

An ordinary diffusers `StableDiffusionInstructPix2PixPipeline` (DDIM; the network predicts the clean
latent), trained ORIGIN. The autoencoder's encoder is set, not trained: principal components
of patches. UNet and autoencoder are float16, the text encoder is float32: the stock pipeline runs
with `torch_dtype` left out. `relevance_head.safetensors` holds a convolution of the features that
enter the UNet's `conv_out`; its sigmoid is the probability that a latent pixel is to be edited."""

_LOCATOR = """`locator` is a small UNet of its own that sees the clean latent, the one that the UNet
predicts, the head's answer (as log-odds) and the text, at the UNet's timestep; the sigmoid of its
answer says how much of the edit is worth taking."""

_LIMITS = """## Limits

It has seen nothing but the data above. Expect sense of it only for images and instructions of that
kind; photographs, other objects, other words and other languages are outside of what it knows."""

_LIMITS_FURTHER = """## Limits

It has seen the data above and what the editor that it began with had seen. Expect sense of it only
for images and instructions of those kinds, and the better the more recent."""
