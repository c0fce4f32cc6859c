"""CLIP (Radford et al. 2021): images and texts as directions of one space, for measuring edits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel

from wys.devices import find_device
from wys.errors import WysError
from wys.image import resize
from wys.store import read_header, read_json

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Of RGB in [0, 1]: what OpenAI's models were trained with; a checkpoint may name others."""


class Clip:
    """A CLIP on its device. Images are RGB in [0, 1] and stay float numbers all the way."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        device: torch.device,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
    ) -> None:
        self.model = model.eval().to(device)
        self.tokenizer = tokenizer
        self.device = device
        self._mean = torch.tensor(mean).reshape(3, 1, 1)
        self._std = torch.tensor(std).reshape(3, 1, 1)

    @staticmethod
    def load(name: str, device: str = "auto") -> Clip:
        """Loads a directory or hub id with a CLIPModel in safetensors and its tokenizer.

        Raises:
            WysError: it is missing, cut short, no CLIP, or has other weights than safetensors.
        """
        path = Path(name).expanduser()
        settings: dict[str, Any] = {}
        place = find_device(device)
        try:
            if path.is_dir():
                _check_directory(path)
                if (path / "preprocessor_config.json").is_file():
                    settings = read_json(path / "preprocessor_config.json")
            elif name.count("/") != 1 or name.startswith((".", "~", "/")):
                raise WysError(
                    f"there is no CLIP {name}; give a directory or a hub id (owner/name)."
                )
            source = str(path) if path.is_dir() else name
            model, report = CLIPModel.from_pretrained(
                source, use_safetensors=True, output_loading_info=True
            )
            missing = sorted(report["missing_keys"])
            if missing:
                raise WysError(f"the CLIP {name} is incomplete: it lacks {missing[0]}.")
            tokenizer = AutoTokenizer.from_pretrained(source)
        except WysError:
            raise
        # What the library raises for damaged and unreachable checkpoints has no common base.
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError) as error:
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise WysError(f"cannot load the CLIP {name}: {reason[0]}") from error
        mean, std = settings.get("image_mean", MEAN), settings.get("image_std", STD)
        return Clip(model, tokenizer, place, mean, std)

    @torch.no_grad()
    def embed_images(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit vectors of images of any size: the shorter side fitted, the middle cut out."""
        side = self.model.config.vision_config.image_size
        height, width = images.shape[-2:]
        scale = side / min(height, width)
        size = (max(side, round(height * scale)), max(side, round(width * scale)))
        fitted = resize(images.float().cpu(), size)
        top, left = (size[0] - side) // 2, (size[1] - side) // 2
        pixels = (fitted[..., top : top + side, left : left + side] - self._mean) / self._std
        seen = self.model.vision_model(pixel_values=pixels.to(self.device)).pooler_output
        return F.normalize(self.model.visual_projection(seen).double().cpu(), dim=-1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "b d"]:
        """Unit vectors of texts; what exceeds the text encoder's length is cut off."""
        length = self.model.config.text_config.max_position_embeddings
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt"
        ).to(self.device)
        read = self.model.text_model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask
        ).pooler_output
        return F.normalize(self.model.text_projection(read).double().cpu(), dim=-1)


def _check_directory(path: Path) -> None:
    """Raises WysError where a directory holds no CLIP, or one that is cut short."""
    if not (path / "config.json").is_file():
        raise WysError(f"{path} is no CLIP's directory: it has no config.json.")
    config = read_json(path / "config.json")
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "clip":
        raise WysError(f"{path} is no CLIP: its config.json says {kind or 'nothing'}.")
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise WysError(f"{path} has no *.safetensors (other formats are not read).")
    for file in files:
        read_header(file)
    if not ((path / "tokenizer.json").is_file() or (path / "vocab.json").is_file()):
        raise WysError(f"{path} is incomplete: it has no tokenizer.json or vocab.json.")
