"""Windows: where they lie, and that what is cropped comes back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wys.diffusion.conditioning import Conditioning
from wys.diffusion.window import Windows, WindowSettings, windows
from wys.errors import WysError
from wys.masks import Box

WHOLE = Box(0, 0, 32, 32)


def square(left: int, top: int, width: int, height: int, size: int = 32) -> torch.Tensor:
    mask = torch.zeros(1, 1, size, size, dtype=torch.bool)
    mask[..., top : top + height, left : left + width] = True
    return mask


@given(
    st.integers(0, 31),
    st.integers(0, 31),
    st.integers(1, 32),
    st.integers(1, 32),
    st.sampled_from([1, 2, 4, 8]),
)
def test_a_window_holds_its_mask_and_its_context(
    left: int, top: int, width: int, height: int, unit: int
) -> None:
    mask = square(left, top, width, height)
    settings = WindowSettings()
    (box,) = windows(mask, unit, settings)
    assert box.size[0] % unit == box.size[1] % unit == 0
    area = box.size[0] * box.size[1] / 32**2
    assert box == WHOLE or 0.25**2 <= area <= settings.most
    right, bottom = min(32, left + width), min(32, top + height)
    # Two pixels of context on every side that has them.
    assert box.left <= max(0, left - 2) and box.top <= max(0, top - 2)
    assert box.right >= min(32, right + 2) and box.bottom >= min(32, bottom + 2)


def test_a_mask_of_a_tenth_asks_for_a_quarter() -> None:
    # A centred square of 10 % of the area, on the latents of 128 and of 512 pixels.
    for size, side, unit in ((32, 10, 4), (64, 20, 8)):
        first = (size - side) // 2
        (box,) = windows(square(first, first, side, side, size), unit, WindowSettings())
        assert box.size == (size // 2, size // 2)


def test_context_is_rounded_to_whole_latents() -> None:
    # 15 % of 21 is 3 on every side: 27, and 28 is the next multiple of 4.
    (box,) = windows(square(21, 21, 21, 21, 64), 4, WindowSettings())
    assert box.size == (28, 28)


def test_what_is_large_empty_or_not_asked_for_is_the_whole() -> None:
    assert windows(square(4, 4, 20, 20), 4, WindowSettings()) == [WHOLE]
    assert windows(square(4, 4, 0, 0), 4, WindowSettings()) == [WHOLE]
    assert windows(square(4, 4, 2, 2), 4, None) == [WHOLE]
    (box,) = windows(square(4, 4, 20, 20), 4, WindowSettings(margin=0, most=1))
    assert box == Box(2, 2, 26, 26)


def test_windows_lie_inside() -> None:
    masks = torch.cat([square(0, 0, 3, 3), square(29, 29, 3, 3), square(0, 14, 3, 3)])
    assert windows(masks, 4, WindowSettings()) == [
        Box(0, 0, 8, 8),
        Box(24, 24, 32, 32),
        Box(0, 11, 8, 19),
    ]


def test_what_is_cropped_comes_back() -> None:
    whole = torch.randn(2, 3, 8, 8)
    view = Windows((Box(0, 1, 4, 3), Box(4, 6, 8, 8)))
    parts = view.crop(whole)
    assert torch.equal(parts[1], whole[1, :, 6:8, 4:8])
    assert torch.equal(view.paste(whole, parts), whole)
    pasted = view.paste(whole, torch.zeros_like(parts))
    assert (view.crop(pasted) == 0).all() and (pasted != whole).sum() == 2 * 3 * 8
    # What the windows decode to lies where they lie.
    images = view.paste(torch.zeros(2, 1, 16, 16), torch.ones(2, 1, 4, 8))
    assert images.sum() == 64 and (images[0, :, 2:6, :8] == 1).all()
    told = Conditioning(whole, 2 * whole, torch.zeros(2, 1, 1), torch.ones(2, 1, 1))
    seen = view.crop_told(told)
    assert torch.equal(seen.z0, parts) and torch.equal(seen.image_latents, 2 * parts)
    assert seen.text is told.text and seen.null_text is told.null_text


@pytest.mark.parametrize("bad", [{"margin": -1.0}, {"least": 2.0}, {"most": float("nan")}])
def test_bad_settings(bad: dict) -> None:
    with pytest.raises(WysError, match="window"):
        WindowSettings(**bad)
