"""Reading and writing images: every mode, exact bytes, one sentence for what cannot be read."""

import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from wys.errors import WysError, WysWarning
from wys.image import (
    Picture,
    draw_outline,
    from_model,
    from_uint8,
    heat_map,
    labelled_sheet,
    overlay_heat,
    read_image,
    read_mask,
    read_picture,
    resize,
    to_model,
    to_uint8,
    write_image,
    write_picture,
)


@pytest.fixture
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> torch.Tensor:
    image.save(path, **options)
    return to_uint8(read_image(path)).permute(1, 2, 0)


def test_uint8_round_trip_is_exact() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(from_uint8(values)), values)
    assert torch.allclose(from_model(to_model(from_uint8(values))), from_uint8(values), atol=1e-6)


@given(st.integers(1, 9), st.integers(1, 9))
def test_png_round_trip_is_exact(tmp_path_factory: pytest.TempPathFactory, h: int, w: int) -> None:
    path = tmp_path_factory.mktemp("png") / "x.png"
    image = from_uint8(torch.randint(0, 256, (3, h, w), dtype=torch.uint8))
    write_image(path, image)
    assert torch.equal(read_image(path), image)


def test_modes_are_read_as_pillow_shows_them(tmp_path: Path, rgb: np.ndarray) -> None:
    image = Image.fromarray(rgb)
    assert np.array_equal(saved(tmp_path / "a.png", image).numpy(), rgb)
    palette = image.quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    assert np.array_equal(saved(tmp_path / "p.png", palette).numpy(), expected)
    grey = image.convert("L")
    assert (saved(tmp_path / "l.png", grey).numpy() == np.asarray(grey)[..., None]).all()
    one = image.convert("1")
    assert (saved(tmp_path / "1.png", one).numpy() == 255 * np.asarray(one)[..., None]).all()
    cmyk = Image.merge("CMYK", [Image.new("L", (4, 4), v) for v in (0, 255, 255, 0)])
    red = saved(tmp_path / "c.jpg", cmyk, quality=100)[0, 0]
    assert red[0] > 250
    assert red[1:].max() < 5


def test_16_bit_grey(tmp_path: Path) -> None:
    values = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    with pytest.warns(WysWarning, match="16 bits"):
        assert to_uint8(read_image(tmp_path / "x.png"))[:, 0].tolist() == [[0, 100, 255]] * 3


def test_exif_orientation_is_applied(tmp_path: Path, rgb: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise
    turned = saved(tmp_path / "x.png", Image.fromarray(rgb), exif=exif)
    assert np.array_equal(turned.numpy(), np.rot90(rgb, -1))


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_can_be_read_as_they_are_stored(
    tmp_path: Path, rgb: np.ndarray, suffix: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    how = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(rgb).save(path, exif=exif, **how)
    stored = read_picture(path, upright=False).rgb.permute(1, 2, 0).numpy()
    assert np.array_equal(stored, rgb)
    turned = read_picture(path).rgb.permute(1, 2, 0).numpy()
    assert np.array_equal(turned, rgb) == (orientation == 1)


def test_alpha_is_shown_over_white_and_kept(tmp_path: Path, rgb: np.ndarray) -> None:
    alpha = np.linspace(0, 255, 12 * 17).reshape(12, 17, 1).astype(np.uint8)
    Image.fromarray(np.concatenate([rgb, alpha], axis=2)).save(tmp_path / "x.png")
    picture = read_picture(tmp_path / "x.png")
    share = alpha / 255
    over = share * rgb / 255 + (1 - share)
    assert np.allclose(picture.over_white().permute(1, 2, 0).numpy(), over, atol=1e-6)

    changed = torch.zeros(1, 12, 17, dtype=torch.bool)
    changed[:, 8:, 5:] = True
    write_picture(tmp_path / "y.png", picture.with_edit(torch.full((3, 12, 17), 0.9), changed))
    back = read_picture(tmp_path / "y.png")
    assert back.alpha is not None
    assert picture.alpha is not None
    assert torch.equal(back.alpha, picture.alpha)
    assert torch.equal(back.rgb[:, ~changed[0]], picture.rgb[:, ~changed[0]])
    # Where the picture is opaque enough, the edit looks over white as it was made.
    assert (back.over_white()[:, changed[0]] - 0.9).abs().max() < 0.01


def test_transparent_palette_and_grey(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png", transparency=1)
    assert to_uint8(read_image(tmp_path / "p.png"))[:, 0].T.tolist() == [[255, 0, 0], [255] * 3]
    Image.fromarray(np.array([[[7, 255], [7, 0]]], np.uint8), "LA").save(tmp_path / "la.png")
    assert to_uint8(read_image(tmp_path / "la.png"))[:, 0].T.tolist() == [[7] * 3, [255] * 3]


def grey_profile(gamma: float) -> bytes:
    """The smallest ICC profile of grey values with a gamma (ICC.1:2001-04)."""

    def text(kind: bytes, words: bytes) -> bytes:
        return kind + bytes(4) + words

    white = struct.pack(">4s4x3i", b"XYZ ", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    curve = struct.pack(">4s4xIH", b"curv", 1, round(gamma * 256)) + bytes(2)
    name = struct.pack(">4s4xI", b"desc", 5) + b"grey\0" + bytes(83)
    tags = {
        b"desc": name,
        b"cprt": text(b"text", b"free\0\0\0\0"),
        b"wtpt": white,
        b"kTRC": curve,
    }
    place, table, body = 128 + 4 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for key, value in tags.items():
        value += bytes(-len(value) % 4)
        table += struct.pack(">4sII", key, place + len(body), len(value))
        body += value
    header = struct.pack(
        ">I4sI4s4s4s", place + len(body), b"", 0x02400000, b"mntr", b"GRAY", b"XYZ "
    )
    header += bytes(12) + b"acsp" + bytes(28)
    header += struct.pack(">3i", *(round(v * 65536) for v in (0.9642, 1.0, 0.8249)))
    return header.ljust(128, b"\0") + table + body


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_values_are_read_through_their_profile(tmp_path: Path, mode: str) -> None:
    values = np.array([[0, 64, 128, 200, 255]], dtype=np.uint8)
    image = Image.fromarray(values)
    if mode == "LA":
        image.putalpha(Image.fromarray(255 - values))
    image.save(tmp_path / "x.png", icc_profile=grey_profile(1.0))
    picture = read_picture(tmp_path / "x.png")
    light = values[0] / 255
    srgb = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    for channel in picture.rgb:
        assert np.abs(channel[0].numpy() - 255 * srgb).max() < 3
    assert picture.icc_profile is None
    assert (picture.alpha is None) == (mode == "L")
    damaged = grey_profile(1.0)[:140]
    image.save(tmp_path / "x.png", icc_profile=damaged)
    with pytest.raises(WysError, match="colour profile is damaged"):
        read_picture(tmp_path / "x.png")


def test_sixteen_bits_of_grey_have_a_profile_and_a_transparent_value(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    values = np.array([[0, 257 * 64, 257 * 64 + 1, 65535]], dtype=np.uint16)
    profile = grey_profile(1.0)
    Image.fromarray(values).save(path, transparency=257 * 64)
    with pytest.warns(WysWarning, match="16 bits"):
        plain = read_picture(path)
    Image.fromarray(values).save(path, transparency=257 * 64, icc_profile=profile)
    with pytest.warns(WysWarning, match="16 bits"):
        told = read_picture(path)
    for picture in (plain, told):
        assert picture.alpha is not None
        # Its neighbour is the same in 8 bits, and is seen.
        assert picture.alpha[0, 0].tolist() == [255, 0, 255, 255]
    assert plain.rgb[0, 0].tolist() == [0, 64, 64, 255]
    assert told.rgb[0, 0, 2] == pytest.approx(137, abs=3)


def test_a_profile_of_grey_leaves_the_transparent_value(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 64, 255]], dtype=np.uint8))
    image.save(tmp_path / "x.png", transparency=64, icc_profile=grey_profile(1.0))
    picture = read_picture(tmp_path / "x.png")
    assert picture.alpha is not None and picture.alpha[0, 0].tolist() == [255, 0, 255]
    assert picture.rgb[0, 0, 1] == pytest.approx(137, abs=3)


def test_sixteen_bits_of_a_portable_map_are_read(tmp_path: Path) -> None:
    (tmp_path / "x.pgm").write_bytes(b"P5 2 1 65535\n" + struct.pack(">2H", 0, 257 * 90))
    with pytest.warns(WysWarning, match="16 bits"):
        assert read_picture(tmp_path / "x.pgm").rgb[0, 0].tolist() == [0, 90]


def test_only_sixteen_bits_are_told_as_such(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    # Rows of 1620 and 1600 bytes, as some decoders note beside the mode.
    Image.new("RGB", (540, 2)).save(tmp_path / "colour.bmp")
    Image.new("L", (1600, 2)).save(tmp_path / "grey.bmp")
    (tmp_path / "eight.ppm").write_bytes(b"P6 1 1 255\n" + bytes(3))
    for name in ("colour.bmp", "grey.bmp", "eight.ppm"):
        read_picture(tmp_path / name)
    assert not recwarn.list
    (tmp_path / "deep.ppm").write_bytes(b"P6 1 1 65535\n" + struct.pack(">3H", *[257 * 90] * 3))
    with pytest.warns(WysWarning, match="16 bits a channel"):
        assert (read_picture(tmp_path / "deep.ppm").rgb == 90).all()


@pytest.mark.parametrize("mode", ["I;16", "RGB"])
def test_sixteen_bits_are_read_as_eight_with_a_warning(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "deep.png"
    if mode == "I;16":
        Image.fromarray(np.full((2, 3), 257 * 90, dtype=np.uint16)).save(path)
    else:
        rows = b"".join(b"\0" + struct.pack(">9H", *[257 * 90] * 9) for _ in range(2))
        header = struct.pack(">IIBBBBB", 3, 2, 16, 2, 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
        data = b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.warns(WysWarning, match="16 bits a channel"):
        picture = read_picture(path)
    assert (picture.rgb == 90).all()


def test_colour_profile_is_kept(tmp_path: Path, rgb: np.ndarray) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(rgb).save(tmp_path / "x.png", icc_profile=profile)
    picture = read_picture(tmp_path / "x.png")
    assert picture.icc_profile == profile
    write_picture(tmp_path / "y.png", picture)
    with Image.open(tmp_path / "y.png") as file:
        assert file.info["icc_profile"] == profile
    Image.fromarray(rgb[..., 0]).save(tmp_path / "grey.png", icc_profile=profile)
    assert read_picture(tmp_path / "grey.png").icc_profile is None


@pytest.mark.parametrize("mode", ["CMYK", "LAB"])
def test_a_profile_of_other_colours_is_left_out(tmp_path: Path, mode: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.new(mode, (3, 2), (90, 120, 140, 20)[: len(mode)])
    image.save(tmp_path / "plain.tif")
    image.save(tmp_path / "profiled.tif", icc_profile=profile)
    plain, profiled = (read_picture(tmp_path / f"{name}.tif") for name in ("plain", "profiled"))
    assert torch.equal(profiled.rgb, plain.rgb)
    assert profiled.icc_profile is None


def test_bad_files_are_one_sentence(tmp_path: Path, rgb: np.ndarray) -> None:
    stream = io.BytesIO()
    Image.fromarray(np.tile(rgb, (20, 20, 1))).save(stream, "PNG")
    (tmp_path / "cut.png").write_bytes(stream.getvalue()[: len(stream.getvalue()) // 2])
    (tmp_path / "text.png").write_text("not an image")
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.ones((2, 2), np.int32)).save(tmp_path / "whole.tiff")
    for name, said in {
        "cut.png": "cannot read the image",
        "text.png": "is not an image file",
        "absent.png": "does not exist",
        "float.tiff": "floating-point",
        "whole.tiff": "whole numbers of 32 bits",
    }.items():
        with pytest.raises(WysError, match=said) as caught:
            read_image(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [12_000, 30_000])
def test_huge_images_are_refused_before_they_are_decoded(tmp_path: Path, side: int) -> None:
    Image.new("1", (side, 10)).save(tmp_path / "x.png")
    data = bytearray((tmp_path / "x.png").read_bytes())
    data[20:24] = side.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(bytes(data))
    with pytest.raises(WysError, match="too large"):
        read_image(tmp_path / "x.png")
    with pytest.raises(WysError, match="limit is 0 megapixels"):
        Image.new("RGB", (20, 20)).save(tmp_path / "y.png")
        read_image(tmp_path / "y.png", max_pixels=399)


def test_masks_are_light_where_true(tmp_path: Path) -> None:
    write_image(tmp_path / "m.png", torch.tensor([[[0.0, 1.0, 0.4, 0.6]]]))
    assert read_mask(tmp_path / "m.png").tolist() == [[[False, True, False, True]]]


def test_a_mask_may_be_painted_on_a_transparent_layer(tmp_path: Path) -> None:
    layer = np.full((2, 4, 4), 255, np.uint8)
    layer[..., 3] = [0, 255, 0, 255]
    Image.fromarray(layer).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [2 * [[False, True, False, True]]]


def test_a_sheet_of_a_strip_is_no_wider_than_four_times_its_height() -> None:
    sheet = labelled_sheet([[("strip", torch.rand(3, 3, 5000)), ("pole", torch.rand(3, 500, 2))]])
    assert sheet.shape[-1] <= 4 * 256 + 1 + 3 * 8 and sheet.shape[-2] < 320


def test_a_title_stands_above_the_sheet_and_is_cut_where_it_ends() -> None:
    row = [[("one", torch.rand(3, 20, 20))]]
    plain = labelled_sheet(row, height=64)
    short, long = (labelled_sheet(row, height=64, title=text) for text in ("ab", "make it " * 99))
    above = short.shape[-2] - plain.shape[-2]
    assert above > 0 and short.shape == long.shape and short.shape[-1] == plain.shape[-1]
    for titled in (short, long):
        assert torch.equal(titled[:, above:], plain)
        # Words, and a margin to the right of them.
        assert (titled[:, :above] < 0.5).any() and (titled[:, :above, -8:] == 1).all()


def test_a_title_that_cannot_be_drawn_is_left_out_and_a_long_one_is_quick() -> None:
    row = [[("one", torch.rand(3, 20, 20))]]
    plain = labelled_sheet(row, height=64)
    assert torch.equal(labelled_sheet(row, height=64, title="\u0636\u0639 it"), plain)
    began = time.perf_counter()
    labelled_sheet(row, height=64, title="make it red " * 5000)
    assert time.perf_counter() - began < 2


def test_resize() -> None:
    image = torch.rand(2, 3, 8, 8)
    assert resize(image, (8, 8)) is image
    assert resize(image, (4, 12)).shape == (2, 3, 4, 12)
    flat = torch.full((3, 9, 7), 0.25)
    assert torch.allclose(resize(flat, (20, 3)), torch.full((3, 20, 3), 0.25))


def test_heat_map_goes_from_dark_to_light() -> None:
    colours = heat_map(torch.linspace(0, 1, 50).reshape(1, 1, 1, 50))[0, :, 0]
    light = (colours * torch.tensor([0.3, 0.6, 0.1])[:, None]).sum(dim=0)
    assert (light.diff() > 0).all()
    assert colours.min() >= 0
    assert colours.max() <= 1


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**16))
def test_an_outline_is_what_is_near_the_outside(h: int, w: int, seed: int) -> None:
    mask = torch.rand(1, h, w, generator=torch.Generator().manual_seed(seed)) < 0.8
    beyond = F.pad(mask, (1, 1, 1, 1), value=False)
    inner = torch.stack([beyond[:, y : y + h, x : x + w] for y in range(3) for x in range(3)]).all(
        0
    )
    drawn = draw_outline(torch.zeros(3, h, w), mask, colour=(1.0, 1.0, 1.0))
    assert torch.equal(drawn[:1] == 1, mask & ~inner)


def test_numbers_of_sixteen_bits_are_resized() -> None:
    image = torch.rand(3, 6, 8)
    for kind in (torch.float16, torch.bfloat16):
        small = resize(image.to(kind), (3, 4))
        assert small.dtype == kind
        assert torch.allclose(small.float(), resize(image, (3, 4)), atol=0.02)


def test_pictures_of_masks() -> None:
    image = torch.rand(1, 3, 20, 30)
    mask = torch.zeros(1, 1, 20, 30, dtype=torch.bool)
    mask[..., 5:15, 5:15] = True
    drawn = draw_outline(image, mask)
    changed = (drawn != image).any(dim=1, keepdim=True)
    assert changed[..., 5, 5:15].all()
    assert not changed[..., 7:13, 7:13].any()
    assert not changed[~mask].any()
    assert overlay_heat(image, torch.rand(1, 1, 5, 7)).shape == image.shape
    sheet = labelled_sheet([[("one", image[0]), ("two", mask[0].float())], [("three", image[0])]])
    assert sheet.shape[0] == 3
    assert sheet.max() == 1
    assert isinstance(Picture(to_uint8(sheet)).size, tuple)
