"""Relevance maps in files: read as they were written, and refused where they are damaged."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from wys.errors import WysError
from wys.relevance import RelevanceMap, RelevanceSettings, VerdictSettings
from wys.relevance_file import read_relevance, write_relevance
from wys.store import read_metadata, read_tensors, write_tensors

NAN = float("nan")
ONES = torch.ones(1, 1, 4, 6)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    made = RelevanceMap(
        values=torch.rand(1, 1, 16, 24),
        raw=torch.rand(1, 1, 4, 6),
        spread=torch.rand(1, 1, 4, 6),
        instructions=("make the ball red",),
        image_size=(40, 60),
        settings=RelevanceSettings(
            timesteps=(0.6, 0.8), draws=2, edges=1.0, verdict=VerdictSettings(quantile=0.9)
        ),
    )
    write_relevance(tmp_path / "map.safetensors", made)
    found = read_relevance(tmp_path / "map.safetensors")
    assert found.settings == made.settings and found.instructions == made.instructions
    assert torch.equal(found.values, made.values) and found.verdicts == made.verdicts
    return tmp_path / "map.safetensors"


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("values", torch.full((1, 1, 16, 24), NAN)),
        ("values", torch.full((1, 1, 16, 24), 1.5)),
        ("values", torch.full((1, 1, 16, 24), -0.5)),
        ("values", torch.ones(1, 1, 16, 24).half()),
        ("values", torch.ones(1, 1, 16, 24, dtype=torch.int32)),
        ("values", torch.ones(1, 1, 0, 0)),
        ("values", torch.ones(3)),
        ("values", torch.ones(2, 1, 16, 24)),
        ("values", torch.ones(1, 1, 16, 12)),
        ("raw", ONES * NAN),
        ("raw", torch.ones(1, 1, 7, 9)),
        ("spread", ONES * NAN),
        ("spread", torch.ones(1, 1, 4, 5)),
    ],
)
def test_damaged_tensors_are_refused(saved: Path, name: str, tensor: Tensor) -> None:
    tensors, metadata = read_tensors(saved), read_metadata(saved)
    write_tensors(saved, {**tensors, name: tensor}, metadata)
    with pytest.raises(WysError, match=r"map\.safetensors is a damaged relevance map"):
        read_relevance(saved)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("instructions", []),
        ("instructions", [5]),
        ("instructions", "make the ball red"),
        ("image_size", [40]),
        ("image_size", [0, 60]),
        ("image_size", ["a", "b"]),
        ("image_size", [40.0, 60.0]),
        ("settings", []),
        ("settings", {}),
        ("settings", {"threshold": "some"}),
        ("settings", {"normalisation": "some"}),
        ("settings", {"timesteps": "abc"}),
        ("settings", {"scale": "some"}),
        ("settings", {"verdict": {"nothing_below": "abc"}}),
    ],
)
def test_damaged_facts_are_refused(saved: Path, name: str, value: Any) -> None:
    metadata = read_metadata(saved)
    write_tensors(saved, read_tensors(saved), {**metadata, name: json.dumps(value)})
    with pytest.raises(WysError, match=r"map\.safetensors is a damaged relevance map"):
        read_relevance(saved)
