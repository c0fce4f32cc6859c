"""CLIP measures against the library's own preprocessing, and what must not be rewarded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wys.diffusion.clip import MEAN, STD, Clip
from wys.errors import WysError
from wys.evaluation.clip_metrics import clip_measures, cosine, direction_consistency


@pytest.fixture(scope="module")
def clip(clip_directory: Path) -> Clip:
    return Clip.load(str(clip_directory), "cpu")


def test_images_are_rgb_and_normalised_as_clip_was_trained(clip: Clip) -> None:
    """Pillow and numpy say what the network should see; BGR or 8-bit wrapping would not agree."""
    bytes_ = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    bytes_[..., 0] //= 4  # little red: another order of the channels is another image
    seen = np.asarray(Image.fromarray(bytes_).convert("RGB"), dtype=np.float64) / 255
    pixels = torch.from_numpy((seen - MEAN) / STD).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        expected = clip.model.get_image_features(pixel_values=pixels)
        expected = getattr(expected, "pooler_output", expected).double()
    image = torch.from_numpy(bytes_).permute(2, 0, 1)[None] / 255
    ours = clip.embed_images(image)
    assert torch.allclose(ours, expected / expected.norm(dim=-1, keepdim=True), atol=1e-5)
    assert not torch.allclose(clip.embed_images(image.flip(1)), ours, atol=1e-3)


def test_texts_are_embedded_as_the_library_does(clip: Clip) -> None:
    words = ["make the ball red", "a cube"]
    batch = clip.tokenizer(words, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = clip.model.get_text_features(**batch)
        expected = getattr(expected, "pooler_output", expected).double()
    expected = expected / expected.norm(dim=-1, keepdim=True)
    assert torch.allclose(clip.embed_texts(words), expected, atol=1e-5)
    assert clip.embed_texts(["red " * 200]).shape == (1, 8)


def test_doing_nothing_has_no_direction_however_similar_it_is(clip: Clip) -> None:
    """The measure of the papers that an unedited image wins is not the one that counts edits."""
    before, after = torch.rand(2, 3, 3, 40, 32, generator=torch.Generator().manual_seed(0))
    said = [("a red ball", "a blue ball")] * 3
    idle = clip_measures(clip, before, before, after, said)
    assert torch.allclose(idle["clip_image"], torch.ones(3).double())
    assert idle["clip_direction"].isnan().all()
    done = clip_measures(clip, after, before, after, said)
    assert torch.allclose(done["clip_truth"], torch.ones(3).double())
    assert (done["clip_direction"].abs() <= 1).all()
    # Rounding to 8 bits and back is no edit either.
    rounded = (before * 255).round() / 255
    again = clip_measures(clip, rounded, rounded, after, said)
    assert again["clip_direction"].isnan().all()


def test_what_is_not_known_is_undefined(clip: Clip) -> None:
    before, image = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    found = clip_measures(clip, image, before, None, [None, ("a cube", "a sphere")])
    assert found["clip_truth"].isnan().all()
    assert found["clip_direction"].isnan().tolist() == [True, False]
    same = clip_measures(clip, image, before, None, [("a cube", "a cube")] * 2)
    assert same["clip_direction"].isnan().all()


def test_an_edit_that_turns_around_is_not_consistent(clip: Clip) -> None:
    g = torch.Generator().manual_seed(2)
    a, b = torch.rand(2, 3, 32, 32, generator=g)
    before, images = torch.stack([a, a, b, b]), torch.stack([b, b, a, b])
    found = direction_consistency(clip, images, before)
    assert found[:2].tolist() == pytest.approx([1, -1], abs=1e-6)
    assert found[2:].isnan().all()  # the last frame, and one beside a frame without an edit


def test_cosine_of_vectors() -> None:
    a = torch.tensor([[1.0, 0], [1, 1], [0, 0], [2, 0]]).double()
    b = torch.tensor([[0.0, 3], [2, 2], [1, 0], [-5, 0]]).double()
    found = cosine(a, b)
    assert found[[0, 1, 3]].tolist() == pytest.approx([0, 1, -1]) and bool(found[2].isnan())


def test_what_is_no_clip_is_named(tmp_path: Path, clip_directory: Path) -> None:
    with pytest.raises(WysError, match="there is no CLIP"):
        Clip.load(str(tmp_path / "absent"), "cpu")
    with pytest.raises(WysError, match=r"no config\.json"):
        Clip.load(str(tmp_path), "cpu")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WysError, match="is no CLIP: its config"):
        Clip.load(str(tmp_path), "cpu")
    (tmp_path / "config.json").write_text((clip_directory / "config.json").read_text())
    with pytest.raises(WysError, match="other formats are not read"):
        Clip.load(str(tmp_path), "cpu")
    whole = (clip_directory / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-10])
    with pytest.raises(WysError, match="cut short"):
        Clip.load(str(tmp_path), "cpu")
