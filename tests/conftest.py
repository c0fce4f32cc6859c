"""Editors for every test that needs one: tiny pipelines with random weights, and painters."""

# ruff: noqa: E402 - nothing of wys is imported before what checks it is in place.

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from hypothesis import settings
from jaxtyping import config, install_import_hook
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SOURCE = Path(__file__).parents[1] / "src"
UNCHECKED = "wys.apps.page.app"
"""Gradio asks its handlers whether they are generators, and one that is checked says no."""


def checked_modules() -> list[str]:
    """The modules of wys, by their names. A package's name stands for all that is in it."""
    files = SOURCE.rglob("*.py")
    names = [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in files]
    names = [name.removesuffix(".__init__") for name in names]
    return [name for name in names if not f"{UNCHECKED}.".startswith(f"{name}.")]


# Every function checks the types and shapes that it is annotated with. Whole numbers will do where
# any are asked for; of a list the same item is checked each time: no test fails by chance.
install_import_hook(
    checked_modules(),
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True, is_random=False))",
)

# No test fails for its time: checked calls are slower, and a machine may be busy.
settings.register_profile("wys", deadline=None)
settings.load_profile("wys")

from wys.diffusion.conditioning import Branch, Conditioning, Guidance
from wys.diffusion.editor import Editor
from wys.diffusion.noise import NoisePrediction
from wys.diffusion.sampler import EditSettings
from wys.diffusion.schedule import Schedule
from wys.diffusion.settings import EditorSettings
from wys.errors import WysError
from wys.image import from_model, to_model
from wys.nerf.field import FieldSettings
from wys.relevance import RelevanceSettings

WORDS = [
    "make",
    "the",
    "ball",
    "red",
    "blue",
    "remove",
    "it",
    "turn",
    "a",
    "cube",
    "green",
    "into",
    "sphere",
    "paint",
    "metal",
]


def _tiny_tokenizer(length: int = 16) -> CLIPTokenizer:
    """A CLIP tokenizer over letters and a few whole words, built without any file."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        left = f"{word[0]}" if len(word) > 1 else f"{word}</w>"
        for position in range(1, len(word)):
            right = word[position] + ("</w>" if position == len(word) - 1 else "")
            if (left, right) not in merges:
                merges.append((left, right))
            left += right
            if left not in tokens:
                tokens.append(left)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def _tiny_pipeline(
    prediction: str = "epsilon", seed: int = 0, in_channels: int = 8
) -> StableDiffusionInstructPix2PixPipeline:
    """A pipeline laid out as Stable Diffusion, for 32 x 32 pixels: 4 latent channels, f = 4."""
    torch.manual_seed(seed)
    tokenizer = _tiny_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=16,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(8, 8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=32,
        scaling_factor=0.7,
    )
    unet = UNet2DConditionModel(
        sample_size=8,
        in_channels=in_channels,
        out_channels=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(16, 32),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=16,
        norm_num_groups=4,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
    )
    pipeline = StableDiffusionInstructPix2PixPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class Painter(Editor):
    """An editor whose latents are the pixels, and whose every prediction is exact.

    Args:
        painted: what the instruction makes of pixels in [-1, 1].
        relevance: how its maps are made.
    """

    latent_unit = 1

    def __init__(
        self, painted: Callable[[torch.Tensor], torch.Tensor], relevance: RelevanceSettings
    ) -> None:
        self.painted = painted
        self.settings = EditorSettings(
            relevance=relevance, edit=EditSettings(guidance=Guidance(1, 1), steps=2)
        )
        self.schedule = Schedule.from_config(
            {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
        )

    def fit(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def condition(
        self, images: torch.Tensor, instructions: Sequence[str], negative: str = ""
    ) -> Conditioning:
        if any(not words.strip() for words in instructions):
            raise WysError("the instruction is empty; say what to change.")
        nothing = torch.zeros(len(images), 1, 1)
        pixels = to_model(images)
        return Conditioning(pixels, pixels, nothing, nothing)

    def predict(
        self,
        z: torch.Tensor,
        t: int | torch.Tensor,
        conditioning: Conditioning,
        branches: Sequence[Branch] = ("full", "image", "none"),
        change: bool = False,
    ) -> NoisePrediction:
        assert not change  # It has no relevance head.
        level = self.schedule.level(t, z)
        image = conditioning.image_latents
        clean = {"full": self.painted(image), "image": image, "none": torch.zeros_like(image)}
        noise = {b: (z - level.sqrt() * clean[b]) / (1 - level).sqrt() for b in branches}
        return NoisePrediction(**noise)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return from_model(z)


@pytest.fixture(scope="session")
def painter() -> Callable[..., Editor]:
    """Makes an editor that knows one thing: `painter(painted, relevance)`."""
    return Painter


@pytest.fixture(scope="session")
def small_field() -> FieldSettings:
    """A radiance field of a size that a test can afford."""
    return FieldSettings(
        levels=3,
        log2_size=10,
        features=2,
        coarsest=4,
        finest=16,
        width=16,
        geometry=3,
        proposal_grids=(8,),
        proposal_samples=24,
        samples=12,
        precision="float32",
    )


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Callable[..., CLIPTokenizer]:
    """Makes a tokenizer of its own for a test: `tiny_tokenizer(length=16)`."""
    return _tiny_tokenizer


@pytest.fixture(scope="session")
def tiny_pipeline() -> Callable[..., StableDiffusionInstructPix2PixPipeline]:
    """Makes a pipeline of its own for a test: `tiny_pipeline(prediction="epsilon", seed=0)`."""
    return _tiny_pipeline


@pytest.fixture(scope="session")
def tiny_locator() -> UNet2DConditionModel:
    """A locator that fits the tiny pipeline. Tests must not change it."""
    torch.manual_seed(7)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=9,
        out_channels=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_head_dim=2,
        cross_attention_dim=16,
        norm_num_groups=4,
    ).eval()


@pytest.fixture(scope="session")
def pipeline() -> StableDiffusionInstructPix2PixPipeline:
    """A tiny pipeline that predicts noise. Tests must not change it."""
    return _tiny_pipeline()


@pytest.fixture(scope="session")
def v_pipeline() -> StableDiffusionInstructPix2PixPipeline:
    """A tiny pipeline that predicts v. Tests must not change it."""
    return _tiny_pipeline("v_prediction")


@pytest.fixture(scope="session")
def editor(pipeline: StableDiffusionInstructPix2PixPipeline) -> Editor:
    """An editor around the tiny pipeline."""
    return Editor.from_pipeline(pipeline)


@pytest.fixture(scope="session")
def editor_directory(
    pipeline: StableDiffusionInstructPix2PixPipeline, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The tiny pipeline saved as an ordinary directory. Tests must not change it."""
    directory = tmp_path_factory.mktemp("editor")
    pipeline.save_pretrained(directory, safe_serialization=True)
    return directory


@pytest.fixture
def images() -> torch.Tensor:
    """Three different images of 48 x 32 pixels."""
    rows, columns = torch.meshgrid(
        torch.linspace(0, 1, 48), torch.linspace(0, 1, 32), indexing="ij"
    )
    ramp = torch.stack([rows, columns, 1 - rows])
    noise = torch.rand(3, 48, 32, generator=torch.Generator().manual_seed(1))
    disc = ((rows - 0.5) ** 2 + (columns - 0.3) ** 2 < 0.04).float().expand(3, -1, -1)
    return torch.stack([ramp, (ramp + noise) / 2, 0.2 + 0.6 * disc])


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Nothing checks types: for tests of what wys says itself to callers who pass wrong ones."""
    config.update("jaxtyping_disable", True)
    yield
    config.update("jaxtyping_disable", False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Figures that tests measured, at the end of a run, where they would else go unseen."""
    passed = terminalreporter.stats.get("passed", [])
    for report in passed:
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{report.nodeid}: {name} {value}")
