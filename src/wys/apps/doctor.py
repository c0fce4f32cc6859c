"""`wys doctor`: what this installation has, what it lacks, and the command that cures it.

Every question is answered by looking, not by loading: packages by their metadata, editors by the
heads of their files. Only `--try` runs the built-in editor.
"""

from __future__ import annotations

import importlib
import itertools
import json as json_format
import os
import platform
import shutil
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated

import tyro
from packaging.requirements import Requirement

from wys.apps.editors_at_hand import EditorAtHand, hub_cache, hub_editors, own_editors
from wys.apps.options import Flag, optional

GB = 1e9
DEVELOPMENT = "dev"
"""The extra that only those who change wys need."""
WIDTH = 80


@dataclass(frozen=True)
class Package:
    """A package that wys asks for."""

    name: str
    version: str | None
    """None where it is not installed."""
    wanted: str
    """The versions that wys takes, such as >=2.6."""
    fits: bool


@dataclass(frozen=True)
class Device:
    """Something that an editor can run on."""

    name: str
    """As --device takes it."""
    what: str
    memory_gb: float | None = None
    free_gb: float | None = None


@dataclass(frozen=True)
class Missing:
    """Something that is not there, and what to do."""

    what: str
    cure: str


@dataclass(frozen=True)
class Trial:
    """What `--try` measured, in seconds."""

    device: str
    load: float
    relevance: float
    edit: float
    largest_change_outside: float


@dataclass(frozen=True)
class Health:
    """Everything that the doctor tells."""

    wys: str
    python: str
    platform: str
    packages: tuple[Package, ...]
    extras: dict[str, tuple[Package, ...]]
    devices: tuple[Device, ...]
    memory_gb: float
    free_memory_gb: float
    free_disk_gb: dict[str, float]
    editors: tuple[EditorAtHand, ...]
    missing: tuple[Missing, ...]
    trial: Trial | None


def doctor(
    editors: Annotated[tyro.conf.Positional[tuple[Path, ...]], optional("[DIR...]")] = (),
    trial: Annotated[Flag, tyro.conf.arg(name="try")] = False,
    json: Flag = False,
) -> None:
    """Say what is here and what is missing, with the command that cures it.

    Looks at packages, devices, memory, disk and editors; loads none without --try.

    Args:
        editors: Pipeline directories to look at, beside the built-in editor and the hub's cache.
        trial: Make one map and one edit with the built-in editor, and time them.
        json: Print it as JSON.
    """
    health = examine(editors, trial)
    if json:
        json_format.dump(asdict(health), sys.stdout, indent=2, ensure_ascii=False)
        print()
    else:
        print(in_words(health))


def examine(directories: Sequence[Path] = (), trial: bool = False) -> Health:
    """Looks at everything."""
    import psutil

    core, extras = packages("wys")
    missing = [*lacking(core, extras), *importing()]
    editors: list[EditorAtHand] = []
    # Without these libraries there is nothing to ask the rest with.
    works = not any(each.what.startswith("the diffusion") for each in missing)
    if works:
        editors = [*own_editors(directories), *hub_editors(hub_cache())]
        asked = {"builtin", *map(str, directories)}
        missing += [
            Missing(f"the editor {each.name}", each.what)
            for each in editors
            if each.name in asked and not each.usable
        ]
    found = tuple(devices()) if works else ()
    if len(found) == 1 and shutil.which("nvidia-smi"):
        cure = (
            'make install PIP_FLAGS="--extra-index-url ..." with the index of a CUDA build of torch'
        )
        missing.append(Missing("the use of this machine's NVIDIA GPU: torch sees none", cure))
    memory = psutil.virtual_memory()
    return Health(
        wys=metadata.version("wys"),
        python=platform.python_version(),
        platform=platform.platform(),
        packages=core,
        extras=extras,
        devices=found,
        memory_gb=round(memory.total / GB, 1),
        free_memory_gb=round(memory.available / GB, 1),
        free_disk_gb=free_disk((Path.cwd(), hub_cache())),
        editors=tuple(editors),
        missing=tuple(missing),
        trial=attempt() if trial and works else None,
    )


def packages(name: str) -> tuple[tuple[Package, ...], dict[str, tuple[Package, ...]]]:
    """What a distribution asks for always, and for each of its extras."""
    extras = metadata.metadata(name).get_all("Provides-Extra") or []
    looked_up = {
        extra: tuple(_package(each) for each in requirements(name, extra))
        for extra in extras
        if extra != DEVELOPMENT
    }
    return tuple(_package(each) for each in requirements(name)), looked_up


def requirements(name: str, extra: str = "") -> Iterator[Requirement]:
    """What a distribution asks for, or what one of its extras adds, with the extras of those."""
    for text in metadata.requires(name) or ():
        asked = Requirement(text)
        always = asked.marker is None or asked.marker.evaluate({"extra": ""})
        if asked.marker is not None and not asked.marker.evaluate({"extra": extra}):
            continue
        if extra and always:
            continue
        yield asked
        for further in asked.extras:
            if _version(asked.name) is not None:
                yield from requirements(asked.name, further)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _package(asked: Requirement) -> Package:
    version = _version(asked.name)
    fits = version is not None and asked.specifier.contains(version, prereleases=True)
    return Package(asked.name, version, str(asked.specifier), fits)


def lacking(core: Iterable[Package], extras: dict[str, tuple[Package, ...]]) -> Iterator[Missing]:
    """The packages that are absent or too old."""
    for each in core:
        if not each.fits:
            yield Missing(_absence(each), f"pip install '{each.name}{each.wanted}'")
    for extra, wanted in extras.items():
        absent = [_absence(each) for each in wanted if not each.fits]
        if absent:
            yield Missing(f"{', '.join(absent)} (extra {extra})", f"pip install 'wys[{extra}]'")


def _absence(package: Package) -> str:
    old = f" {package.version} is installed, {package.wanted} is needed"
    return package.name + ("" if package.version is None else old)


def importing() -> Iterator[Missing]:
    """Whether the libraries that an editor needs can be imported at all."""
    try:
        importlib.import_module("wys.diffusion.loading")
    except Exception as error:  # Broken builds raise whatever they like.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        # A torchvision that was built for another torch breaks what imports it.
        vision = _version("torchvision") is not None
        cure = "pip uninstall torchvision, which wys does not need" if vision else "make install"
        yield Missing(f"the diffusion libraries do not import ({reason})", cure)


def devices() -> Iterator[Device]:
    """The processor, and what else torch can use."""
    import psutil
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory, threads = psutil.virtual_memory(), torch.get_num_threads()
    yield Device(
        "cpu",
        f"{cores} cores, of which torch uses {threads} (OMP_NUM_THREADS)",
        round(memory.total / GB, 1),
        round(memory.available / GB, 1),
    )
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        free, total = torch.cuda.mem_get_info(i)
        yield Device(
            f"cuda:{i}",
            torch.cuda.get_device_name(i),
            round(total / GB, 1),
            round(free / GB, 1),
        )
    if torch.backends.mps.is_available():
        yield Device("mps", "Apple's GPU, which shares the memory of the processor")


def free_disk(places: Iterable[Path]) -> dict[str, float]:
    """The free space of some folders, or of the nearest folder above that exists."""
    found = {}
    for place in places:
        there = next(path for path in (place, *place.parents) if path.exists())
        found[str(place)] = round(shutil.disk_usage(there).free / GB, 1)
    return found


def attempt() -> Trial:
    """One map and one edit of a sample image by the built-in editor."""
    import wys
    from wys.diffusion.loading import hide_library_bars
    from wys.tabletop.pairs import make_pairs
    from wys.tabletop.world import PLAIN

    hide_library_bars()
    clock = [time.perf_counter()]
    editor = wys.Editor.load("builtin")
    clock.append(time.perf_counter())
    size = editor.native_size
    sample = make_pairs(0, "validation", 0, 1, size=size, scene_range=PLAIN, kinds=["recolour"])
    image, instruction = sample.before[0], sample.plain_instructions[0]
    clock.append(time.perf_counter())
    found = wys.relevance_map(editor, image, instruction)
    clock.append(time.perf_counter())
    made = wys.edit_image(editor, image, instruction, relevance=found, force=True)
    clock.append(time.perf_counter())
    load, _, relevance, edit = (round(b - a, 2) for a, b in itertools.pairwise(clock))
    outside = float(made.largest_change_outside.max())
    return Trial(str(editor.device), load, relevance, edit, outside)


def in_words(health: Health) -> str:
    """The report for a terminal of 80 columns."""
    extras = {
        name: ", ".join(f"{p.name} {p.version or '(missing)'}" for p in found)
        for name, found in health.extras.items()
    }
    devices = {
        each.name: each.what
        + ("" if each.free_gb is None else f"; {each.free_gb} of {each.memory_gb} GB free")
        for each in health.devices
    }
    blocks = [
        f"wys {health.wys}, Python {health.python}, {health.platform}",
        _block("Packages", {"": ", ".join(f"{p.name} {p.version}" for p in health.packages)}),
        _block("Extras", extras),
        _block("Devices", devices),
        _block("Free disk", {place: f"{gb} GB" for place, gb in health.free_disk_gb.items()}),
        _block("Editors", {each.name: each.what for each in health.editors}),
    ]
    if health.trial is not None:
        trial = health.trial
        words = (
            f"loading {trial.load} s, map {trial.relevance} s, edit {trial.edit} s; largest change "
            f"outside the mask {trial.largest_change_outside:g}"
        )
        blocks.append(_block("Trial", {trial.device: words}))
    if health.missing:
        blocks.append(_block("Missing", {each.what: each.cure for each in health.missing}))
    else:
        blocks.append("Nothing is missing.")
    return "\n\n".join(blocks)


def _block(title: str, rows: dict[str, str]) -> str:
    """A heading with names and what is to be said of them; a long name has a line of its own."""
    width = max((len(name) for name in rows if len(name) <= 16), default=0)
    lines = [title]
    for name, text in rows.items():
        first = f"  {name:<{width}}  " if name else "  "
        if len(name) > width:
            # Names such as paths and commands are to be copied: they are never broken.
            lines.append(f"  {name}")
            first = "      "
        rest = "      " if len(name) > width else " " * len(first)
        lines += textwrap.wrap(
            text,
            WIDTH,
            initial_indent=first,
            subsequent_indent=rest,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)
