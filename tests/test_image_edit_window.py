"""Edits of a window of the latents, against edits of the whole."""

from dataclasses import replace

import pytest
import torch

from wys.diffusion.conditioning import Guidance
from wys.diffusion.editor import Editor
from wys.diffusion.sampler import EditSettings
from wys.diffusion.window import Windows, WindowSettings, windows
from wys.image_edit import edit_image, edit_steps
from wys.masks import Box, Mask
from wys.relevance import RelevanceSettings, VerdictSettings

TEXT = "make the ball red"
EDIT = EditSettings(guidance=Guidance(3.0, 1.2), steps=3)
WINDOW = replace(EDIT, window=WindowSettings())


@pytest.fixture
def pictures() -> torch.Tensor:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def large(editor: Editor) -> Editor:
    """The tiny editor at 64 pixels: 16 x 16 latents."""
    return Editor.from_pipeline(editor.pipeline, settings=replace(editor.settings, size=64))


def drawn(*boxes: Box) -> Mask:
    masks = torch.zeros(len(boxes), 1, 64, 64, dtype=torch.bool)
    for mask, box in zip(masks, boxes, strict=True):
        mask[:, box.top : box.bottom, box.left : box.right] = True
    return Mask.from_image(masks, (64, 64))


SMALL = drawn(Box(8, 8, 16, 16), Box(40, 30, 48, 40), Box(4, 4, 60, 60))


def test_a_window_that_covers_everything_is_the_whole_edit(
    large: Editor, pictures: torch.Tensor
) -> None:
    plain = edit_image(large, pictures, TEXT, EDIT, mask=SMALL)
    covering = replace(EDIT, window=WindowSettings(least=1, most=1))
    assert torch.equal(edit_image(large, pictures, TEXT, covering, mask=SMALL).image, plain.image)
    # A mask that is too large for a window.
    one, mask = pictures[2], SMALL.select([2])
    assert torch.equal(
        edit_image(large, one, TEXT, WINDOW, mask=mask).image,
        edit_image(large, one, TEXT, EDIT, mask=mask).image,
    )


def test_outside_the_mask_no_byte_changes_and_inside_some_do(
    large: Editor, pictures: torch.Tensor
) -> None:
    edit = edit_image(large, pictures, TEXT, WINDOW, mask=SMALL)
    region = SMALL.at((64, 64)).expand(-1, 3, -1, -1)
    assert torch.equal(edit.image[~region], pictures[~region])
    assert (edit.changed_share > 0).all()


def test_a_window_is_the_edit_of_the_crop(large: Editor, pictures: torch.Tensor) -> None:
    """By hand: the latents of the window, denoised as if they were all there is."""
    from wys.diffusion.sampler import denoise
    from wys.seeds import normal

    told = large.condition(pictures[:1], [TEXT])
    cells = SMALL.select([0]).at((16, 16))
    (box,) = windows(cells, large.latent_unit, WindowSettings())
    assert box.size == (6, 6)
    rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
    crop = replace(
        told,
        z0=told.z0[..., rows, columns],
        image_latents=told.image_latents[..., rows, columns],
    )
    noise = normal(told.z0.shape[1:], 0, [0], "edit")[..., rows, columns]
    *_, last = denoise(large, crop, cells[..., rows, columns], noise, EDIT)
    pixels = large.decode(last.latents)
    edit = edit_image(large, pictures[:1], TEXT, WINDOW, mask=SMALL.select([0]))
    inside = edit.image[..., 8:16, 8:16]
    at = (slice(8 - 4 * box.top, 16 - 4 * box.top), slice(8 - 4 * box.left, 16 - 4 * box.left))
    assert torch.allclose(inside, pixels[..., at[0], at[1]], atol=1e-6)


def test_an_item_agrees_with_itself_in_a_batch(large: Editor, pictures: torch.Tensor) -> None:
    steps = list(edit_steps(large, pictures, TEXT, WINDOW, mask=SMALL, items="abc"))
    assert steps[-1].result is not None
    together = steps[-1].result
    assert [step.index for step in steps[:-1]] == list(range(1, steps[0].count + 1))
    for i, item in enumerate("abc"):
        alone = edit_image(large, pictures[i], TEXT, WINDOW, mask=SMALL.select([i]), items=[item])
        assert (alone.image[0] - together.image[i]).abs().max() < 1e-4


def test_windows_of_one_size_share_a_batch(large: Editor, pictures: torch.Tensor) -> None:
    alike = drawn(Box(8, 8, 16, 16), Box(40, 32, 48, 40), Box(4, 4, 60, 60))
    steps = list(edit_steps(large, pictures, TEXT, WINDOW, mask=alike))
    assert {step.items for step in steps[:-1]} == {(0, 1), (2,)}
    # Steps show whole latents: the input's where no window is.
    view = Windows((Box(0, 0, 4, 4),) * 2)
    told = large.condition(pictures[:2], [TEXT] * 2)
    shown = steps[0].latents
    assert shown is not None and shown.shape == told.z0.shape
    assert torch.equal(shown[..., 10:, 14:], told.z0[..., 10:, 14:])
    assert view.crop(shown).shape[-2:] == (4, 4)


def test_a_map_from_the_first_steps_goes_on_in_its_window(
    large: Editor, pictures: torch.Tensor
) -> None:
    always = VerdictSettings(nothing_below=0, noise_ratio=0)
    how = RelevanceSettings(first_steps=1, threshold=0.9, verdict=always)
    edit = edit_image(large, pictures, TEXT, WINDOW, relevance_settings=how)
    region = edit.mask.at((64, 64)).expand(-1, 3, -1, -1)
    assert torch.equal(edit.image[~region], pictures[~region])
    covering = replace(EDIT, window=WindowSettings(least=1, most=1))
    assert torch.equal(
        edit_image(large, pictures, TEXT, covering, relevance_settings=how).image,
        edit_image(large, pictures, TEXT, EDIT, relevance_settings=how).image,
    )
