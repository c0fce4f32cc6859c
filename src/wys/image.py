"""RGB images: reading, writing, resizing, pictures of masks and heat maps.

An image is `Float[Tensor, "b 3 h w"]` (or without the batch axis), float32 in [0, 1], display
encoded as in the file. Only `to_model` and `from_model` know the models' range [-1, 1].
"""

import io
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped, UInt8
from PIL import (
    ExifTags,
    Image,
    ImageCms,
    ImageDraw,
    ImageFont,
    ImageOps,
    UnidentifiedImageError,
)
from torch import Tensor

from wys.errors import WysError, WysWarning
from wys.store import PathLike, write_atomically

MAX_PIXELS = 100_000_000
"""The largest image that is read unless the caller allows more: 100 megapixels. Pillow's own limit,
twice its `Image.MAX_IMAGE_PIXELS`, holds besides."""


@dataclass(frozen=True)
class Picture:
    """An image file as it was: exact bytes, alpha and colour profile, upright unless it was read
    otherwise."""

    rgb: UInt8[Tensor, "3 h w"]
    alpha: UInt8[Tensor, "1 h w"] | None = None
    """Opacity, 255 opaque; None where the file has none."""
    icc_profile: bytes | None = None
    """The RGB colour profile of the values, None for plain sRGB."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.rgb.shape[-2], self.rgb.shape[-1]

    def over_white(self) -> Float[Tensor, "3 h w"]:
        """What a viewer sees on a white page, and what an editor is given."""
        rgb = from_uint8(self.rgb)
        if self.alpha is None:
            return rgb
        alpha = from_uint8(self.alpha)
        return torch.where(alpha == 1, rgb, alpha * rgb + (1 - alpha))

    def with_edit(self, image: Float[Tensor, "3 h w"], changed: Bool[Tensor, "1 h w"]) -> "Picture":
        """This picture with `image` (as seen over white) where `changed`; other bytes are kept.

        Alpha is kept: the stored colour is the one that, at that opacity over white, comes
        closest to `image`.
        """
        colour = image.cpu().clamp(0, 1)
        if self.alpha is not None:
            alpha = from_uint8(self.alpha)
            colour = ((colour - (1 - alpha)) / alpha.clamp(min=1 / 255)).clamp(0, 1)
        rgb = torch.where(changed.cpu(), to_uint8(colour), self.rgb)
        return Picture(rgb, self.alpha, self.icc_profile)


def read_picture(path: PathLike, max_pixels: int = MAX_PIXELS, upright: bool = True) -> Picture:
    """Reads an image file: any mode that Pillow knows, 8 or 16 bit, turned upright.

    Palettes, grey and CMYK become RGB (grey and CMYK through their own profile where they have
    one), 16 bit becomes 8, with a warning. Of several frames the first is read.

    Args:
        upright: apply EXIF orientation; without it rows and columns are those of the file.

    Raises:
        WysError: the file is missing, damaged, no image, or has more than `max_pixels`.
    """
    try:
        with warnings.catch_warnings():
            # The size is judged below, by our own limit.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                if file.width * file.height > max_pixels:
                    raise WysError(_too_large(path, f"{file.width} x {file.height}", max_pixels))
                # What Pillow scales to 16 bits by itself is in the same mode as 32 bits are.
                whole = file.mode == "I" and file.format not in ("PNG", "PPM")
                if whole or file.mode == "F":
                    numbers = "whole numbers of 32 bits" if whole else "floating-point values"
                    raise ValueError(f"it holds {numbers} without a range; save it with 8 bits")
                if _is_deep(file):
                    warnings.warn(
                        f"{path} has 16 bits a channel; it is read, and what becomes of it is "
                        "written, with 8.",
                        WysWarning,
                        stacklevel=2,
                    )
                profile = file.info.get("icc_profile")
                if not upright:
                    # Said before the pixels are loaded: Pillow turns a TIFF while it loads them.
                    file.getexif()[ExifTags.Base.Orientation] = 1
                rgba, profile = _as_rgb(ImageOps.exif_transpose(file), profile)
    except Image.DecompressionBombError as error:
        most = min(max_pixels, 2 * (Image.MAX_IMAGE_PIXELS or max_pixels))
        raise WysError(_too_large(path, "hundreds of millions of", most)) from error
    except FileNotFoundError as error:
        raise WysError(f"{path} does not exist.") from error
    except UnidentifiedImageError as error:
        raise WysError(f"{path} is not an image file that can be read.") from error
    except (WysError, MemoryError):
        raise
    except Exception as error:  # Each of Pillow's decoders has its own ways to fail.
        raise WysError(f"cannot read the image {path}: {error}.") from error
    values = torch.from_numpy(np.array(rgba)).permute(2, 0, 1).contiguous()
    alpha = values[3:] if values.shape[0] == 4 else None
    return Picture(values[:3].contiguous(), alpha, profile)


def _is_deep(file: Image.Image) -> bool:
    """Whether an image that was just opened has more than 8 bits a channel."""
    # Pillow reads 16-bit colour as 8-bit "RGB"; only how it is stored still tells.
    if file.mode.startswith("I"):
        return True
    for codec, _, _, arguments in getattr(file, "tile", ()):
        stored, *others = arguments if isinstance(arguments, tuple) else (arguments,)
        # "RGB;16B" is stored with 16 bits, and a PPM says its highest value.
        if ";16" in str(stored) or (codec.startswith("ppm") and max(others, default=0) > 255):
            return True
    return False


def _too_large(path: PathLike, size: str, max_pixels: int) -> str:
    return (
        f"{path} is too large ({size} pixels, the limit is {max_pixels / 1e6:.0f} megapixels); "
        "scale it down first."
    )


_PROFILED = {"L": b"GRAY", "LA": b"GRAY", "CMYK": b"CMYK", "LAB": b"Lab "}
"""What bytes 16 to 19 of a colour profile are where it is one of a mode's values."""


def _as_rgb(image: Image.Image, profile: bytes | None) -> tuple[Image.Image, bytes | None]:
    """The image as 8-bit RGB or RGBA, and the profile that still describes its values."""
    if image.mode.startswith("I"):
        image = _as_grey(image)
    # A profile of other colours says nothing of these: the file was converted without it.
    fits = profile is not None and profile[16:20] == _PROFILED.get(image.mode)
    if image.mode == "LAB" or (image.mode == "CMYK" and fits):
        return _to_srgb(image, profile if fits else None), None
    if image.mode in ("L", "LA") and fits:
        if "transparency" in image.info:
            image = image.convert("LA")
        converted = _to_srgb(image.getchannel("L"), profile)
        if image.mode == "LA":
            converted.putalpha(image.getchannel("A"))
        return converted, None
    transparent = image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info
    # Only an RGB profile still fits the values after the conversion to RGB.
    keeps = image.mode in ("RGB", "RGBA", "RGBX", "RGBa", "P", "PA", "YCbCr")
    return image.convert("RGBA" if transparent else "RGB"), profile if keeps else None


def _as_grey(image: Image.Image) -> Image.Image:
    """16-bit grey as 8-bit grey, with alpha where one of its values stands for transparent."""
    deep = np.asarray(image)
    # 65535 = 257 * 255.
    grey = Image.fromarray(np.clip(deep / 257 + 0.5, 0, 255).astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is not None:
        # Told apart in 16 bits: neighbours of the value become the same in 8.
        grey.putalpha(Image.fromarray(np.where(deep == clear, 0, 255).astype(np.uint8)))
    return grey


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Values of a profile as sRGB; without one they are CIE Lab."""
    try:
        source = (
            ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if profile
            else ImageCms.createProfile("LAB")
        )
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise ValueError(f"its colour profile is damaged ({error})") from error
    assert converted is not None
    return converted


def write_picture(path: PathLike, picture: Picture) -> None:
    """Writes a PNG with alpha and colour profile, atomically."""
    parts = [picture.rgb] if picture.alpha is None else [picture.rgb, picture.alpha]
    values = torch.cat(parts).permute(1, 2, 0).contiguous().cpu().numpy()
    with write_atomically(Path(path)) as temporary:
        Image.fromarray(values).save(temporary, format="PNG", icc_profile=picture.icc_profile)


def read_image(path: PathLike, max_pixels: int = MAX_PIXELS) -> Float[Tensor, "3 h w"]:
    """Reads an image file as RGB in [0, 1], transparent parts over white; raises WysError."""
    return read_picture(path, max_pixels).over_white()


def write_image(
    path: PathLike,
    image: Float[Tensor, "3 h w"] | Float[Tensor, "1 3 h w"] | Float[Tensor, "1 h w"],
) -> None:
    """Writes an image (or the only image of a batch, or one channel as grey) as PNG, atomically."""
    values = to_uint8(image.reshape(image.shape[-3:]))
    values = values.expand(3, -1, -1) if values.shape[0] == 1 else values
    write_picture(path, Picture(values))


def read_mask(path: PathLike, max_pixels: int = MAX_PIXELS) -> Bool[Tensor, "1 h w"]:
    """Reads a mask image: true where it is lighter than middle grey; raises WysError.

    What is transparent is dark: a mask may be painted on a layer of its own.
    """
    picture = read_picture(path, max_pixels)
    light = from_uint8(picture.rgb).mean(dim=0, keepdim=True)
    return (light if picture.alpha is None else light * from_uint8(picture.alpha)) >= 0.5


def from_uint8(values: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """0..255 to [0, 1]."""
    return values.to(torch.float32) / 255


def to_uint8(values: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """[0, 1] to 0..255, rounded; exact inverse of `from_uint8`. Values outside are clamped."""
    return (values.detach().to(torch.float32) * 255).round().clamp(0, 255).to(torch.uint8)


def to_model(image: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """[0, 1] to the autoencoder's [-1, 1]."""
    return 2 * image - 1


def from_model(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The autoencoder's [-1, 1] to [0, 1], clamped."""
    return ((values + 1) / 2).clamp(0, 1)


def resize(image: Float[Tensor, "*b c h w"], size: tuple[int, int]) -> Float[Tensor, "*b c H W"]:
    """Bicubic, antialiased, clamped to [0, 1]; the image itself where the size is the same."""
    if image.shape[-2:] == tuple(size):
        return image
    # Not every device resizes numbers of 16 bits.
    batch = image.reshape(-1, *image.shape[-3:]).float()
    out = F.interpolate(batch, size=tuple(size), mode="bicubic", antialias=True).clamp(0, 1)
    return out.to(image).reshape(*image.shape[:-2], *size)


# Dark violet, purple, red, orange, pale yellow: dark to light, readable in grey as well.
_HEAT = (
    (0.0, 0.0, 0.02),
    (0.34, 0.06, 0.43),
    (0.74, 0.21, 0.33),
    (0.98, 0.56, 0.04),
    (0.99, 1, 0.64),
)


def heat_map(values: Float[Tensor, "*b 1 h w"]) -> Float[Tensor, "*b 3 h w"]:
    """Colours for values in [0, 1]: dark violet over red to pale yellow."""
    anchors = torch.tensor(_HEAT, dtype=values.dtype, device=values.device)
    position = values.clamp(0, 1) * (len(_HEAT) - 1)
    index = position.floor().clamp(max=len(_HEAT) - 2).long()
    fraction = (position - index).movedim(-3, -1)
    low, high = anchors[index.squeeze(-3)], anchors[index.squeeze(-3) + 1]
    return torch.lerp(low, high, fraction).movedim(-1, -3)


def overlay_heat(
    image: Float[Tensor, "*b 3 h w"], values: Float[Tensor, "*#b 1 hv wv"], opacity: float = 0.65
) -> Float[Tensor, "*b 3 h w"]:
    """The heat map of values (any size, brought to the image's) over the image in grey."""
    size = (image.shape[-2], image.shape[-1])
    fine = F.interpolate(
        values.reshape(-1, *values.shape[-3:]), size=size, mode="bilinear", align_corners=False
    ).reshape(*values.shape[:-2], *size)
    grey = image.mean(dim=-3, keepdim=True).expand_as(image)
    return torch.lerp(grey, heat_map(fine), opacity)


def draw_outline(
    image: Float[Tensor, "*b 3 h w"],
    mask: Bool[Tensor, "*#b 1 h w"],
    colour: tuple[float, float, float] = (1.0, 0.1, 0.6),
) -> Float[Tensor, "*b 3 h w"]:
    """The image with the mask's inner border drawn, about 1/200 of the longer side thick.

    Beyond the image is outside: a mask of all of it has a border too.
    """
    radius = max(1, round(max(image.shape[-2:]) / 200))
    outside = (~mask).to(image.dtype).reshape(-1, *mask.shape[-3:])
    beyond = F.pad(outside, (radius,) * 4, value=1.0)
    reach = 2 * radius + 1
    near = F.max_pool2d(F.max_pool2d(beyond, (reach, 1), stride=1), (1, reach), stride=1)
    border = mask & (near > 0).reshape(mask.shape)
    paint = torch.tensor(colour, dtype=image.dtype, device=image.device).reshape(3, 1, 1)
    return torch.where(border, paint, image)


def labelled_sheet(
    rows: Sequence[Sequence[tuple[str, Float[Tensor, "3 h w"]]]],
    height: int = 256,
    gap: int = 8,
    title: str = "",
) -> Float[Tensor, "3 H W"]:
    """A white sheet of rows of labelled images, each image scaled to `height` pixels.

    What is more than four times as wide as high is scaled to four times `height` in width. The
    title stands above them, cut where the sheet ends, unless it is in letters that cannot be drawn.
    """
    font, large = ImageFont.load_default(size=14), ImageFont.load_default(size=18)
    band = 22
    cells = [
        [(label, resize(image.cpu(), in_sheet(image, height))) for label, image in row]
        for row in rows
    ]
    width = max(sum(cell.shape[-1] + gap for _, cell in row) for row in cells) + gap
    title = _shortened(title, large, width - 2 * gap)
    head = 30 if title else 0
    sheet = Image.new("RGB", (width, head + len(cells) * (height + band + gap) + gap), "white")
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((gap, gap), title, fill=(0, 0, 0), font=large)
    top = gap + head
    for row in cells:
        left = gap
        for label, cell in row:
            draw.text((left, top), label, fill=(40, 40, 40), font=font)
            pixels = to_uint8(cell).expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
            sheet.paste(Image.fromarray(pixels), (left, top + band))
            left += cell.shape[-1] + gap
        top += height + band + gap
    return from_uint8(torch.from_numpy(np.array(sheet)).permute(2, 0, 1).contiguous())


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """One line of a text, so much of it as fits; nothing where the font lacks its letters."""
    whole = " ".join(text.split())
    if not all(_has(font, letter) for letter in set(whole[:width])):
        return ""
    line = whole[:width]  # No letter is narrower than a pixel.
    if line == whole and font.getlength(line) <= width:
        return line
    lengths = range(len(line) + 1)
    fitting = bisect_right(lengths, width, key=lambda n: int(font.getlength(f"{line[:n]}...")) + 1)
    return f"{line[: max(fitting - 1, 0)].rstrip()}..."


def _has(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, letter: str) -> bool:
    """Whether a font has a letter: what it lacks all looks the same."""
    if not isinstance(font, ImageFont.FreeTypeFont):
        return letter.isascii()
    return bytes(font.getmask(letter)) != bytes(font.getmask("\U0010ffff"))


def in_sheet(image: Shaped[Tensor, "*b c h w"], height: int) -> tuple[int, int]:
    """The (height, width) of an image in a sheet of such height."""
    h, w = image.shape[-2:]
    scale = min(height / h, 4 * height / w)
    return max(1, round(h * scale)), max(1, round(w * scale))
