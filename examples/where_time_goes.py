"""Where an edit's time goes, and what would make it faster.

    python examples/where_time_goes.py [--editor NAME] [--size PIXELS] [--steps N] [--compile]

First the parts of an edit of the whole image under the guidance of the preset `paper`, then the
operators that take most, then other ways to run the same edit: how long each takes beside it, and
by how much (of 255) the image differs at most. The median of several turns counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

import wys
from wys.devices import multiplies_bfloat16
from wys.diffusion.loading import hide_library_bars
from wys.image_edit import edit_image
from wys.tabletop.pairs import make_pairs
from wys.tabletop.world import PLAIN

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--editor", default="builtin")
parser.add_argument("--size", type=int, default=None, help="side of the image; else its own")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--repeats", type=int, default=3)
parser.add_argument("--compile", action="store_true", help="try torch.compile too (minutes)")
arguments = parser.parse_args()
hide_library_bars()


def load(**options: Any) -> wys.Editor:
    return wys.Editor.load(arguments.editor, **options)


editor = load()
side = arguments.size or editor.native_size
pairs = make_pairs(0, "test", 0, 1, size=side, scene_range=PLAIN)
settings = replace(wys.PAPER.edit, steps=arguments.steps)
everywhere = replace(editor.settings.relevance, threshold=0.0)


def edit(own: wys.Editor) -> Tensor:
    return edit_image(
        own, pairs.before, pairs.instructions, settings, relevance_settings=everywhere, force=True
    ).image


def seconds(own: wys.Editor) -> float:
    edit(own)  # Warms up.
    taken = []
    for _ in range(arguments.repeats):
        started = time.perf_counter()
        edit(own)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


@contextmanager
def clocked(own: wys.Editor) -> Iterator[dict[str, float]]:
    """Seconds of the networks of an editor while the context lasts."""
    spent: dict[str, float] = defaultdict(float)
    parts: dict[str, tuple[Any, str]] = {
        "predictions": (own.unet, "forward"),
        "encoding": (own.vae, "encode"),
        "decoding": (own.vae, "decode"),
        "text": (own, "encode_text"),
    }

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            try:
                return call(*args, **options)
            finally:
                spent[name] += time.perf_counter() - started

        return run

    for name, (network, method) in parts.items():
        setattr(network, method, timed(name, getattr(network, method)))
    try:
        yield spent
    finally:
        for network, method in parts.values():
            delattr(network, method)


edit(editor)
started = time.perf_counter()
with clocked(editor) as spent:
    edit(editor)
whole = time.perf_counter() - started
spent["all else"] = whole - sum(spent.values())
print(f"{side} x {side}, {settings.steps} steps of three predictions, and a map: {whole:.2f} s\n")
print("| part | seconds | share |\n| --- | ---: | ---: |")
for name, taken in spent.items():
    print(f"| {name} | {taken:.3f} | {taken / whole:.0%} |")

with profile(activities=[ProfilerActivity.CPU]) as measured, torch.no_grad():
    edit(editor)
events = sorted(measured.key_averages(), key=lambda event: -event.self_cpu_time_total)
total = sum(event.self_cpu_time_total for event in events)
print("\n| operator | calls | share |\n| --- | ---: | ---: |")
for event in events[:10]:
    print(f"| {event.key} | {event.count} | {event.self_cpu_time_total / total:.0%} |")

base, image = seconds(editor), edit(editor)
others: dict[str, Callable[[], wys.Editor]] = {
    "predictions one by one (`--max-batch 1`)": lambda: load(max_batch=1),
}


def in_other_order() -> wys.Editor:
    own = load()
    own.unet.to(memory_format=torch.channels_last)
    return own


def compiled() -> wys.Editor:
    own = load()
    own.unet.compile()
    return own


others["channels last in memory"] = in_other_order
if multiplies_bfloat16(editor.device):  # Emulated it takes tens of times as long.
    others["bfloat16 (`--dtype bf16`)"] = lambda: load(dtype="bf16")
if arguments.compile:
    others["torch.compile, once compiled"] = compiled
print("\n| instead | times as long | largest difference |\n| --- | ---: | ---: |")
for name, make in others.items():
    own = make()
    ratio = seconds(own) / base
    print(f"| {name} | {ratio:.2f} | {float((edit(own) - image).abs().max()) * 255:.1f} |")
