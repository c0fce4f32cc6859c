"""The data set as the denoiser sees it: latents, labels at latent size, tokens.

Latents are the posterior's mode, unscaled (float16); masks and object ids are averaged over the
pixels of a latent pixel (8 bit shares of its area).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderKL
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from transformers import CLIPTokenizer

from wys.errors import WysError
from wys.image import from_uint8, to_model, to_uint8
from wys.store import read_json, read_metadata, write_tensors
from wys.tabletop.world import Split
from wys.training.parallel import compiled
from wys.training.tokenizer import load_tokenizer
from wys.training.triplets import (
    CLASSES,
    NAMINGS,
    ShardFile,
    find_shards,
    read_shard,
    unpack_bits,
)

ENCODED_AT_ONCE = 64
"""Images of 64 pixels in a batch of the encoder; fewer of larger ones."""


@dataclass
class Batch:
    """b triplets at latent size; `before` and `after` are unscaled latents."""

    before: Float[Tensor, "b c h w"]
    after: Float[Tensor, "b c h w"]
    changed: Float[Tensor, "b 1 h w"]
    """Share of each latent pixel that changes."""
    coverage: Float[Tensor, "b slots h w"]
    """Share of each latent pixel that an object covers."""
    shapes: Int[Tensor, "b slots"]
    """Class of each object, -1 where there is none; colours and materials alike."""
    colours: Int[Tensor, "b slots"]
    materials: Int[Tensor, "b slots"]
    after_coverage: Float[Tensor, "b slots h w"]
    """The same four of what stands there after the edit."""
    after_shapes: Int[Tensor, "b slots"]
    after_colours: Int[Tensor, "b slots"]
    after_materials: Int[Tensor, "b slots"]
    target: Int[Tensor, " b"]
    """Slot + 1 of the named object, 0 where there is none."""
    naming: Int[Tensor, " b"]
    """What the object is named by, as an index into NAMINGS."""
    tokens: Int[Tensor, "b length"]
    kinds: list[str]

    @property
    def labelled(self) -> bool:
        """Whether it is known what stands where."""
        return self.coverage.shape[1] > 0

    def first(self, count: int) -> "Batch":
        """The first `count` triplets."""
        values: dict[str, Any] = {key: value[:count] for key, value in vars(self).items()}
        return Batch(**values)

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device."""
        values: dict[str, Any] = {
            k: v.to(device) if isinstance(v, Tensor) else v for k, v in vars(self).items()
        }
        return Batch(**values)


def tokenise(tokenizer: CLIPTokenizer, texts: list[str]) -> Int[Tensor, "b length"]:
    """Token numbers, cut or filled to the tokenizer's length."""
    encoded = tokenizer(
        texts,
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    )
    return encoded.input_ids


def pool_mask(packed: UInt8[Tensor, "b h w8"], factor: int) -> UInt8[Tensor, "b hl wl"]:
    """The share of each latent pixel that a mask covers, in 255ths."""
    return to_uint8(F.avg_pool2d(unpack_bits(packed)[:, None].float(), factor)[:, 0])


def pool_ids(
    ids: UInt8[Tensor, "b h w"], slots: int, factor: int
) -> UInt8[Tensor, "b slots hl wl"]:
    """The share of each latent pixel that each object covers, in 255ths."""
    planes = (ids[:, None] == torch.arange(slots).view(-1, 1, 1) + 1).float()
    blocks = planes.unflatten(-1, (-1, factor)).unflatten(-3, (-1, factor))
    return to_uint8(blocks.mean(dim=(-3, -1)))


class Encoder(torch.nn.Module):
    """Images in [-1, 1] to the posterior's mode, one graph."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hl wl"]:
        return self.vae.quant_conv(self.vae.encoder(images)).chunk(2, dim=1)[0].float()


def encode_shards(
    accelerator: Accelerator,
    load_vae: Callable[[], AutoencoderKL],
    tokenizer_folder: Path,
    out: Path,
    sizes: tuple[int, ...],
    compile: bool,
    wait: bool,
) -> None:
    """Encodes all triplets of `out/data` into `out/latents`; what is there is not made again.

    Args:
        wait: go on until all triplets that the data stage plans are there.
    """
    vae = load_vae().to(accelerator.device)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    tokenizer = load_tokenizer(tokenizer_folder)
    encoder = compiled(Encoder(vae), compile)
    rank, processes = accelerator.process_index, accelerator.num_processes

    def encode(images: UInt8[Tensor, "n 3 h w"]) -> Tensor:
        at_once = max(1, ENCODED_AT_ONCE * 64**2 // images.shape[-1] ** 2)
        parts = []
        for part in images.split(at_once):
            # A batch that is not full is filled up: a new shape would be compiled anew.
            full = torch.cat([part, part[-1:].expand(at_once - len(part), -1, -1, -1)])
            values = to_model(from_uint8(full))
            values = values.to(accelerator.device)
            with torch.no_grad(), accelerator.autocast():
                parts.append(encoder(values)[: len(part)].half().cpu())
        return torch.cat(parts)

    def missing() -> list[ShardFile]:
        every = [
            shard
            for size in sizes
            for split in ("validation", "train")
            for shard in find_shards(out / "data", split, size)
        ]
        return [shard for shard in every[rank::processes] if not _encoded(shard, out).exists()]

    total = read_json(out / "data" / "index.json")["triplets"]
    while True:
        # Counted before they are encoded: what is made meanwhile is another turn's.
        made = sum(
            len(shard.kinds)
            for size in sizes
            for split in ("validation", "train")
            for shard in find_shards(out / "data", split, size)
        )
        for shard in missing():
            raw = shard.tensors
            slots = raw["shapes"].shape[1]
            tensors = {
                "before": encode(raw["before"]),
                "after": encode(raw["after"]),
                "changed": pool_mask(raw["changed"], factor),
                "coverage": pool_ids(raw["object_ids"], slots, factor),
                "after_coverage": pool_ids(raw["after_ids"], slots, factor),
                "tokens": tokenise(tokenizer, shard.instructions).to(torch.int16),
                **{k: raw[k] for k in _LABELS},
            }
            texts = {
                "kinds": json.dumps(shard.kinds),
                "instructions": json.dumps(shard.instructions),
            }
            write_tensors(_encoded(shard, out), tensors, texts)
        if made >= total or not wait:
            break
        time.sleep(10)
    accelerator.wait_for_everyone()


_AFTER = tuple(f"after_{name}" for name in CLASSES)
_LABELS = (*CLASSES, *_AFTER, "target", "scene", "naming")


def _encoded(shard: ShardFile, out: Path) -> Path:
    return out / "latents" / shard.path.parent.name / shard.path.name


@dataclass(frozen=True)
class LatentShard:
    """One file of `encode_shards`, mapped."""

    path: Path

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        return read_shard(self.path)

    @cached_property
    def kinds(self) -> list[str]:
        return json.loads(read_metadata(self.path)["kinds"])

    @cached_property
    def instructions(self) -> list[str]:
        return json.loads(read_metadata(self.path)["instructions"])

    @cached_property
    def starts(self) -> list[int]:
        """Row of the first triplet of each scene, and the number of triplets at the end."""
        scene = self.tensors["scene"]
        return torch.searchsorted(scene, torch.arange(self.scenes + 1, dtype=scene.dtype)).tolist()

    @property
    def scenes(self) -> int:
        return self.tensors["before"].shape[0]

    def rows(self, rows: Int[Tensor, " b"]) -> Batch:
        """The triplets with these numbers."""
        t = self.tensors
        scene = t["scene"][rows].long()
        return Batch(
            before=t["before"][scene].float(),
            after=t["after"][rows].float(),
            changed=from_uint8(t["changed"][rows])[:, None],
            coverage=from_uint8(t["coverage"][scene]),
            shapes=t["shapes"][scene].long(),
            colours=t["colours"][scene].long(),
            materials=t["materials"][scene].long(),
            after_coverage=from_uint8(t["after_coverage"][rows]),
            after_shapes=t["after_shapes"][rows].long(),
            after_colours=t["after_colours"][rows].long(),
            after_materials=t["after_materials"][rows].long(),
            target=t["target"][rows].long(),
            naming=t["naming"][rows].long(),
            tokens=t["tokens"][rows].long(),
            kinds=[self.kinds[int(row)] for row in rows],
        )


def concatenate(batches: list[Batch]) -> Batch:
    """One batch of several."""
    tensors = [key for key, value in vars(batches[0]).items() if isinstance(value, Tensor)]
    return Batch(
        **{key: torch.cat([getattr(batch, key) for batch in batches]) for key in tensors},
        kinds=[kind for batch in batches for kind in batch.kinds],
    )


def check_emphasis(emphasis: Sequence[float], kinds: Mapping[str, float]) -> None:
    """Raises WysError where triplets of a kind would never be drawn (see `LatentSet`)."""
    if min((*emphasis, *kinds.values())) <= 0:
        raise WysError("an emphasis is above 0: what is never drawn is never learnt.")


class LatentSet:
    """The latents of a split at one size; looks for new shards every minute.

    Args:
        emphasis: how often triplets are drawn, relative to each other, by what they are named by.
        kinds: the same by kind of edit, on top; a kind left out counts 1.
        every: seconds between two looks.

    Raises:
        WysError: there are none.
    """

    def __init__(
        self,
        folder: Path,
        split: Split,
        size: int,
        emphasis: Sequence[float] = (1.0,) * len(NAMINGS),
        kinds: Mapping[str, float] | None = None,
        every: float = 60.0,
    ) -> None:
        self.folder, self.split, self.size, self.every = folder, split, size, every
        self._emphasis = torch.tensor(emphasis)
        self._kinds = kinds or {}
        self._shards: list[LatentShard] = []
        self._odds: dict[Path, tuple[Tensor, Tensor]] = {}
        self._looked = -float("inf")

    def shards(self) -> list[LatentShard]:
        now = time.monotonic()
        if now - self._looked >= self.every:
            self._looked = now
            known = {shard.path: shard for shard in self._shards}
            paths = sorted((self.folder / str(self.size)).glob(f"{self.split}-*.safetensors"))
            self._shards = [known.get(path) or LatentShard(path) for path in paths]
            if not self._shards:
                raise WysError(
                    f"{self.folder} has no {self.split} latents of {self.size} pixels; "
                    "run the latents stage."
                )
        return self._shards

    def first(self, count: int) -> Batch:
        """The first `count` triplets of the first shard."""
        shard = self.shards()[0]
        return shard.rows(torch.arange(min(count, len(shard.kinds))))

    def _odds_of(self, shard: LatentShard) -> tuple[Tensor, Tensor]:
        """The odds of each of a shard's triplets and scenes to be drawn."""
        if shard.path not in self._odds:
            rows = self._emphasis[shard.tensors["naming"].long()]
            rows = rows * torch.tensor([self._kinds.get(kind, 1.0) for kind in shard.kinds])
            scenes = torch.zeros(shard.scenes).index_add(0, shard.tensors["scene"].long(), rows)
            self._odds[shard.path] = rows, scenes
        return self._odds[shard.path]

    def draw(self, count: int, group: int, draw: torch.Generator) -> Batch:
        """Random triplets, in groups of up to `group` that share their scene."""
        shards = self.shards()
        odds = torch.stack([self._odds_of(shard)[1].sum() for shard in shards])
        batches: list[Batch] = []
        while count > 0:
            shard = shards[int(torch.multinomial(odds, 1, generator=draw))]
            rows, scenes = self._odds_of(shard)
            scene = int(torch.multinomial(scenes, 1, generator=draw))
            first, last = shard.starts[scene], shard.starts[scene + 1]
            size = min(group, count, last - first)
            chosen = torch.multinomial(rows[first:last], size, generator=draw)
            batches.append(shard.rows(first + chosen))
            count -= size
        return concatenate(batches)
