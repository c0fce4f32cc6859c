"""What is trained, and on how much: the recipe's settings, and those of its two presets."""

from dataclasses import dataclass, field, replace
from typing import Literal

from wys.errors import WysError
from wys.training.autoencoder import AutoencoderSettings
from wys.training.denoiser import NetworkSettings
from wys.training.denoising import DenoiserSettings, Phase
from wys.training.learner import OptimiserSettings
from wys.training.locator import LocatorSettings
from wys.training.triplets import DataSettings

VIEWS = 1_000
"""How often a triplet of one's own is seen at most in a training whose length nobody chose. The
presets show theirs 3 to 20 times. Noise, its level and what is left out are drawn anew each time,
so that there is more to learn from a triplet than from a picture; but a dozen of them, seen as
often as hundreds of thousands are, cost a night and are learnt by heart long before."""

Stage = Literal["data", "tokenizer", "autoencoder", "latents", "denoiser", "locator", "export"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained editor, apart from the machine."""

    data: DataSettings = field(default_factory=DataSettings)
    """The triplets."""
    autoencoder: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    """The autoencoder and its training."""
    denoiser: DenoiserSettings = field(default_factory=DenoiserSettings)
    """Text encoder and UNet and their training."""
    locator: LocatorSettings = field(default_factory=LocatorSettings)
    """The network that says where, and its training."""
    vocabulary: int = 1000
    """Tokens of the tokenizer."""
    instruction_length: int = 32
    """Tokens of an instruction, with its two marks; longer ones are cut."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """Automatic mixed precision; auto is bf16 where the machine is faster in it, and else none."""

    def of_length(self, images: int) -> "Recipe":
        """The recipe with so many images for the denoiser, to half a batch of each phase.

        The phases share them in proportion, the learning rate's schedule ends with them, the
        locator has as many for each of them as before, and a shorter training makes triplets of the
        world in proportion, too.

        Raises:
            WysError: there is not a batch for each phase.
        """
        old, shortest = self.denoiser, sum(phase.batch for phase in self.denoiser.phases)
        if images < shortest:
            raise WysError(
                f"an editor is trained on at least {shortest} images, one batch of each size, not "
                f"on {images}; give --images {shortest} or more."
            )
        if images == old.images:
            return self
        share = images / old.images
        # Batches are not cut: part of one would be taken from the phase after it.
        phases = tuple(
            replace(phase, images=max(1, round(share * phase.images / phase.batch)) * phase.batch)
            for phase in old.phases
        )
        # Adam needs its first steps small however long it goes on.
        denoiser = replace(old, phases=phases, warmup=min(old.warmup, max(1, images // 10)))
        where = self.locator
        seen = max(1, round(share * where.images / where.batch)) * where.batch
        locator = replace(where, images=seen, warmup=min(where.warmup, max(1, seen // 10)))
        # A decoder is good after what the built-in editor's has seen; but a trial of the recipe
        # shall not wait longer for it than for the rest.
        most, enough = self.autoencoder.images, AutoencoderSettings().images
        decoder = min(most, max(round(share * most), min(images, enough)))
        data = self.data
        # Whole files, so that a longer training adds to them.
        file = data.shard - data.shard % data.edits_per_scene
        triplets, large = (
            min(count, -(-round(share * count) // file) * file)
            for count in (data.triplets, data.large_triplets)
        )
        return replace(
            self,
            data=replace(data, triplets=triplets, large_triplets=large),
            autoencoder=replace(self.autoencoder, images=decoder),
            denoiser=denoiser,
            locator=locator,
        )

    def for_triplets(self, count: int) -> "Recipe":
        """The recipe, shortened where it would show so many triplets more than `VIEWS` times."""
        images = VIEWS * count
        return self if images >= self.denoiser.images else self.of_length(images)


CPU = Recipe()
"""Two processor cores, some three hours (`compile` makes the difference)."""

GPU = Recipe(
    data=DataSettings(triplets=300_000, large_triplets=150_000, look="full"),
    autoencoder=AutoencoderSettings(channels=(32, 64, 128), images=1_500_000, batch=128),
    denoiser=DenoiserSettings(
        network=NetworkSettings(channels=(72, 144, 216), groups=8),
        phases=(Phase(64, 6_000_000, 512), Phase(128, 2_000_000, 256)),
        warmup=50_000,
        optimiser=OptimiserSettings(ema=0.9995),
    ),
    locator=LocatorSettings(channels=(48, 96, 144), images=4_000_000, batch=512, warmup=50_000),
)
"""One GPU, some hours: the whole world, a larger network."""
