"""Random networks that judge, saved as a user's would be."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchmetrics.functional.image.lpips as reference
from safetensors.torch import save_model
from torch import nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

from wys.evaluation.lpips import alexnet, vgg16


@pytest.fixture(scope="module")
def clip_directory(
    tiny_tokenizer: Callable[..., CLIPTokenizer], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tiny random CLIP, saved as an ordinary directory."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    text = {
        **small,
        "num_attention_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 256,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {**small, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    directory = tmp_path_factory.mktemp("clip")
    model.save_pretrained(directory, safe_serialization=True)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def random_lpips(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[str], tuple[Path, nn.Module]]:
    """Makes the file of a random LPIPS of "alex" or "vgg", and torchmetrics' own beside it."""

    def make(name: str) -> tuple[Path, nn.Module]:
        torch.manual_seed(0)
        # torchvision, which it would ask for the layers, is no dependency. A pooling ends them.
        layers = nn.Sequential(*{"alex": alexnet, "vgg": vgg16}[name]()[0], nn.MaxPool2d(2))
        monkeypatch.setattr(reference, "_TORCHVISION_AVAILABLE", True)
        monkeypatch.setattr(reference, "_get_tv_model_features", lambda *_: layers)
        theirs = reference._LPIPS(pretrained=False, net=name, pnet_rand=True)
        for row in theirs.lins:
            row.model[-1].weight.data.abs_()
        path = tmp_path / f"{name}.safetensors"
        save_model(theirs, str(path))
        return path, theirs

    return make
