"""Triplets (before, after, instruction) on disk: safetensors shards that several processes make.

A shard holds consecutive triplets of one split at one size. It is written whole or not at all, so
the shards that exist are the progress that was made, and training may begin on the first of them.
"""

import json
import multiprocessing
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from wys.errors import WysError
from wys.image import from_uint8, to_uint8
from wys.store import read_json, read_metadata, read_tensors, write_json, write_tensors
from wys.tabletop.edits import KINDS, Kind
from wys.tabletop.instructions import Description
from wys.tabletop.pairs import Pairs, make_pairs
from wys.tabletop.world import CLOSE_UP, FULL, PLAIN, Split
from wys.training.folder import FolderBatch

CHUNK = 64
"""Triplets rendered at once: enough to batch, small enough for memory."""


@dataclass(frozen=True)
class DataSettings:
    """What is drawn from the tabletop world, and how it is stored."""

    triplets: int = 72_000
    """Training triplets at the small size."""
    large_triplets: int = 24_000
    """Training triplets at the large size."""
    validation: int = 512
    """Validation triplets at each size."""
    size: int = 64
    """The small size in pixels, a multiple of 16."""
    large_size: int = 128
    """The large size in pixels, the one the editor is finished at."""
    edits_per_scene: int = 4
    """Triplets that share one image before."""
    kinds: tuple[Kind, ...] = (*KINDS, "absent")
    """Kinds of edits, in equal numbers; one that is named twice comes twice as often. A larger
    count of triplets with other kinds adds these to what a folder holds."""
    look: str = "plain"
    """"plain": the narrow range of scenes that trains quickly; "full": the whole world."""
    alike: float = 0.0
    """Share of the training scenes whose objects take after each other in shape or colour."""
    by_place: float = 0.0
    """Share of the training objects that are named by their place wherever one singles them out,
    instead of now and then."""
    seed: int = 0
    """Seed of the scenes."""
    shard: int = 1024
    """Triplets in a file."""


Triplets = Pairs | FolderBatch
"""A batch of triplets; without labels in the second."""

Naming = Literal["nothing", "colour", "words", "position"]
"""What an instruction tells its object by: its colour, other words, its place; or it has no object
to tell from others."""
NAMINGS: tuple[Naming, ...] = get_args(Naming)


CLASSES = ("shapes", "colours", "materials")
"""What is known of every object; of those after the edit under these names after "after_"."""
NO_OBJECT = -1


def naming(description: Description | None, alone: bool) -> Naming:
    """What a description tells its object by; nothing is needed where the object is alone."""
    if description is None or alone:
        return "nothing"
    if description.position is not None:
        return "position"
    return "words" if description.colour is None else "colour"


@runtime_checkable
class Source(Protocol):
    """Where triplets come from. Sources travel to worker processes, so they are plain records."""

    @property
    def edits_per_scene(self) -> int:
        """How many consecutive triplets share one image before."""

    @property
    def labelled(self) -> bool:
        """Whether object ids, targets and classes are known."""

    @property
    def identity(self) -> dict[str, Any]:
        """What tells this source's triplets from those of others, as JSON."""

    def count(self, split: Split, size: int) -> int:
        """How many triplets of a split there are at a size."""

    def pairs(self, split: Split, first: int, count: int, size: int) -> Triplets:
        """The triplets first..first + count - 1."""


@dataclass(frozen=True)
class Tabletop:
    """Triplets of the procedural world."""

    settings: DataSettings

    @property
    def labelled(self) -> bool:
        return True

    @property
    def identity(self) -> dict[str, Any]:
        """Without counts and kinds: a larger count, of other kinds, adds to what there is."""
        names = ("size", "large_size", "edits_per_scene", "look", "alike", "seed")
        world = {name: getattr(self.settings, name) for name in names}
        if self.settings.by_place:  # Folders from before there was this know nothing of it.
            world["by_place"] = self.settings.by_place
        return {"world": world}

    @property
    def edits_per_scene(self) -> int:
        return self.settings.edits_per_scene

    def count(self, split: Split, size: int) -> int:
        if split != "train":
            return self.settings.validation
        large = size == self.settings.large_size
        return self.settings.large_triplets if large else self.settings.triplets

    def pairs(self, split: Split, first: int, count: int, size: int) -> Triplets:
        large = size == self.settings.large_size
        # Small images show few objects from near, so that what is learned there about the size of
        # an object in pixels holds in the large ones.
        scene_range = FULL if self.settings.look == "full" else PLAIN if large else CLOSE_UP
        if split == "train":
            habits = self.settings
            scene_range = replace(scene_range, alike=habits.alike, by_place=habits.by_place)
        # Another seed for the large set, or it would hold the scenes of the small one again.
        return make_pairs(
            self.settings.seed + size,
            split,
            first,
            count,
            size=size,
            scene_range=scene_range,
            kinds=self.settings.kinds,
            edits_per_scene=self.edits_per_scene,
        )


@dataclass(frozen=True)
class Shard:
    """The name of a shard: which triplets it holds."""

    split: Split
    size: int
    first: int
    count: int

    def path(self, folder: Path) -> Path:
        return folder / str(self.size) / f"{self.split}-{self.first:08d}.safetensors"


def plan(source: Source, settings: DataSettings) -> list[Shard]:
    """All shards in the order they are made: validation first, then both sizes side by side."""
    shards: list[tuple[float, Shard]] = []
    step = settings.shard - settings.shard % source.edits_per_scene
    for size in sorted({settings.size, settings.large_size}):
        for split in ("validation", "train"):
            total = source.count(split, size)
            for first in range(0, total, step):
                # The small set is wanted first.
                speed = 0.5 if size == settings.size else 1.0
                order = -1.0 if split == "validation" else speed * first / total
                shards.append((order, Shard(split, size, first, min(step, total - first))))
    return [shard for _, shard in sorted(shards, key=lambda item: item[0])]


def shard_tensors(pairs: Triplets, edits_per_scene: int) -> dict[str, Tensor]:
    """The tensors of a shard, images as 8 bit. Before images stand once per scene.

    Keys: before [s 3 h w], object_ids [s h w], shapes, colours, materials [s 5] (-1: no object),
    after [n 3 h w], after_ids [n h w], after_shapes, after_colours, after_materials [n 5],
    changed [n h w/8] (one bit a pixel), target [n], scene [n] (row of before), naming [n] (index
    into NAMINGS).
    """
    every = slice(None, None, edits_per_scene)
    n, slots = pairs.shapes.shape
    present, present_after = (
        (ids.flatten(1)[:, :, None] == torch.arange(slots) + 1).any(dim=1)
        for ids in (pairs.object_ids[every], pairs.after_ids)
    )
    classes = {name: getattr(pairs, name)[every].where(present, NO_OBJECT) for name in CLASSES}
    for name in (f"after_{name}" for name in CLASSES):
        classes[name] = getattr(pairs, name).where(present_after, NO_OBJECT)
    alone = ((present.sum(1) < 2)[torch.arange(n) // edits_per_scene] & (pairs.target > 0)).tolist()
    names = [naming(*pair) for pair in zip(pairs.descriptions, alone, strict=True)]
    return {
        "before": to_uint8(pairs.before[every]),
        "object_ids": pairs.object_ids[every].to(torch.uint8),
        "after": to_uint8(pairs.after),
        "after_ids": pairs.after_ids.to(torch.uint8),
        **{name: values.to(torch.int8) for name, values in classes.items()},
        "changed": pack_bits(pairs.mask),
        "target": pairs.target.to(torch.uint8),
        "scene": torch.arange(n, dtype=torch.int32) // edits_per_scene,
        "naming": torch.tensor([NAMINGS.index(name) for name in names], dtype=torch.uint8),
    }


def pack_bits(mask: Bool[Tensor, "b h w"]) -> UInt8[Tensor, "b h w8"]:
    """Eight pixels of a row in a byte, the first in the highest bit; w is a multiple of 8."""
    weights = 2 ** torch.arange(7, -1, -1)
    return (mask.unflatten(-1, (-1, 8)) * weights).sum(-1).to(torch.uint8)


def unpack_bits(packed: UInt8[Tensor, "b h w8"]) -> Bool[Tensor, "b h w"]:
    """The inverse of `pack_bits`."""
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8)
    return ((packed[..., None] >> shifts) & 1).flatten(-2).bool()


def write_shard(source: Source, shard: Shard, folder: Path) -> None:
    """Makes and writes one shard."""
    chunk = max(CHUNK - CHUNK % source.edits_per_scene, source.edits_per_scene)
    tensors: list[dict[str, Tensor]] = []
    instructions: list[str] = []
    kinds: list[str] = []
    scenes = 0
    for first in range(shard.first, shard.first + shard.count, chunk):
        count = min(chunk, shard.first + shard.count - first)
        pairs = source.pairs(shard.split, first, count, shard.size)
        part = shard_tensors(pairs, source.edits_per_scene)
        part["scene"] += scenes
        scenes += part["before"].shape[0]
        tensors.append(part)
        instructions += pairs.instructions
        kinds += pairs.kinds
    whole = {name: torch.cat([part[name] for part in tensors]) for name in tensors[0]}
    texts = {"instructions": json.dumps(instructions), "kinds": json.dumps(kinds)}
    write_tensors(shard.path(folder), whole, texts)


def _work(source: Source, shards: Sequence[Shard], folder: Path, sentences: Any) -> None:
    # An interrupt reaches all processes at once; the first one ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    for shard in shards:
        if parent is not None and not parent.is_alive():
            return
        try:
            write_shard(source, shard, folder)
        except WysError as error:
            sentences.put(str(error))
            sys.exit(2)


def _origin(source: Source, settings: DataSettings) -> dict[str, Any]:
    """What the shards of a folder have in common."""
    return {"source": source.identity, "shard": settings.shard}


def check_origin(source: Source, settings: DataSettings, folder: Path) -> bool:
    """Whether a folder holds triplets of a source already; raises WysError where of another."""
    index, origin = folder / "index.json", _origin(source, settings)
    if not index.exists() or not any(folder.glob("*/*.safetensors")):
        return False
    kept = read_json(index)
    if any(kept.get(key) != origin[key] for key in origin):
        raise WysError(
            f"{folder} holds triplets of another source, or of other settings; train in another "
            "folder."
        )
    return True


def generate(
    source: Source,
    settings: DataSettings,
    folder: Path,
    workers: int,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Makes all shards that are missing, in `workers` processes (0: in this one).

    `folder/index.json`, written first, tells how many triplets there will be, and of what.

    Args:
        report: called with the triplets that exist and that there will be.

    Raises:
        WysError: a worker failed, or the folder holds triplets of another source.
    """
    shards = plan(source, settings)
    total = sum(shard.count for shard in shards)
    check_origin(source, settings, folder)
    entry = {"triplets": total, "labelled": source.labelled, **_origin(source, settings)}
    write_json(folder / "index.json", entry)
    missing = [shard for shard in shards if not shard.path(folder).exists()]

    def done() -> int:
        return total - sum(s.count for s in missing if not s.path(folder).exists())

    if workers == 0:
        for shard in missing:
            write_shard(source, shard, folder)
            report(done(), total)
        return
    context = multiprocessing.get_context("spawn")
    sentences = context.SimpleQueue()
    workers = min(workers, len(missing))
    processes = [
        context.Process(
            target=_work, args=(source, missing[i::workers], folder, sentences), daemon=True
        )
        for i in range(workers)
    ]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        time.sleep(1)
        report(done(), total)
    if not sentences.empty():
        raise WysError(sentences.get())
    if any(process.exitcode for process in processes):
        raise WysError(f"making triplets in {folder} failed; its output above tells why.")
    report(done(), total)


def read_shard(path: Path) -> dict[str, Tensor]:
    """A shard's tensors, or its latents'; raises WysError where an earlier version made it."""
    tensors = read_tensors(path)
    if "after_shapes" not in tensors:
        raise WysError(
            f"{path} was made by an earlier version; delete the run's folders data and latents, "
            "and start again."
        )
    return tensors


@dataclass(frozen=True)
class ShardFile:
    """One shard that is being read. Tensors are mapped from the file, not held in memory."""

    path: Path

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return read_shard(self.path)

    @cached_property
    def instructions(self) -> list[str]:
        return json.loads(read_metadata(self.path)["instructions"])

    @cached_property
    def kinds(self) -> list[str]:
        return json.loads(read_metadata(self.path)["kinds"])

    def changed(self, rows: Int64[Tensor, " b"]) -> Bool[Tensor, "b h w"]:
        """The masks of pixels that change."""
        return unpack_bits(self.tensors["changed"][rows])

    def images(self, rows: Int64[Tensor, " b"], which: str) -> Float[Tensor, "b 3 h w"]:
        """Images "before" (rows are scenes) or "after" (rows are triplets) in [0, 1]."""
        return from_uint8(self.tensors[which][rows])


def find_shards(folder: Path, split: Split, size: int) -> list[ShardFile]:
    """The shards of a split that exist by now, in order."""
    return [ShardFile(path) for path in sorted((folder / str(size)).glob(f"{split}-*.safetensors"))]


def require_shards(folder: Path, split: Split, size: int) -> list[ShardFile]:
    """As `find_shards`; raises WysError where there is none yet."""
    shards = find_shards(folder, split, size)
    if not shards:
        raise WysError(f"{folder} has no {split} triplets of {size} pixels; run the data stage.")
    return shards
