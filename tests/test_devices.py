"""Devices by their names, and what they are good at."""

import pytest
import torch

from wys.devices import beside, find_device, multiplies_bfloat16
from wys.errors import WysError


def test_auto_takes_the_first_preferred_device_that_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_device("auto").type == "mps"
    assert find_device("auto", ("cuda",)).type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert find_device("auto").type == "cuda"
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert find_device("cuda:0") == torch.device("cuda", 0)
    with pytest.raises(WysError, match="no device cuda:1"):
        find_device("cuda:1")


def test_a_field_is_beside_its_editor_but_for_mps() -> None:
    for name, place in (("cpu", "cpu"), ("cuda:1", "cuda:1"), ("mps", "cpu")):
        assert beside(torch.device(name)) == torch.device(place)


@pytest.mark.parametrize("name", ["tpu", "", "cuda:x", "meta", "xpu"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(WysError, match="use auto"):
        find_device(name)


@pytest.mark.parametrize(
    ("capabilities", "fast"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"avx512_f": True}, False),
        ({}, False),
    ],
)
def test_bfloat16_is_for_processors_that_have_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert multiplies_bfloat16(torch.device("cpu")) is fast
