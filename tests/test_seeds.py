"""Noise is a function of (seed, item, purpose) and of nothing else."""

import subprocess
import sys

import torch
from hypothesis import given
from hypothesis import strategies as st

from wys.seeds import generator, normal


@given(st.integers(0, 2**40), st.lists(st.integers(0, 1000), min_size=1, max_size=4))
def test_noise_of_an_item_does_not_depend_on_its_batch(seed: int, items: list[int]) -> None:
    batch = normal((2, 3), seed, items, "test")
    alone = torch.cat([normal((2, 3), seed, [item], "test") for item in items])
    assert torch.equal(batch, alone)


def test_seeds_items_and_purposes_are_independent() -> None:
    draws = [normal((1000,), s, [i], p)[0] for s in (0, 1) for i in (0, "0x") for p in ("a", "b")]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    assert correlation.abs().max() < 0.15
    assert torch.equal(normal((3,), 1, [7], "a"), normal((3,), 1, ["7"], "a"))


def test_same_numbers_in_another_process() -> None:
    code = "from wys.seeds import generator; print(generator(5, 'image', 'noise').initial_seed())"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) == generator(5, "image", "noise").initial_seed()


def test_empty_batch() -> None:
    assert normal((2, 3), 0, [], "test").shape == (0, 2, 3)


def test_what_torch_takes_by_default_changes_nothing() -> None:
    expected = normal((4, 5), 3, ["a", 1], "test")
    drawn = torch.randn((4, 5), generator=generator(3, "a", "test"))
    assert torch.equal(expected[0], drawn)
    try:
        torch.set_default_dtype(torch.float64)
        torch.set_default_device("meta")
        found = normal((4, 5), 3, ["a", 1], "test")
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert found.dtype == torch.float32 and torch.equal(found, expected)
