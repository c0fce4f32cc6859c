"""What the stage in the browser is given: an image, a map, colours. `stage.js` draws them.

The map goes over as numbers, so that the threshold moves the outline without asking the server.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wys.apps.page.jobs import fitted
from wys.apps.page.samples import Sample
from wys.apps.page.visit import Visit

if TYPE_CHECKING:
    from wys.image import Picture
    from wys.relevance import RelevanceMap

SIDE = 1200
"""Most pixels along the longer side of the image that the stage draws on."""


def scene(visit: Visit) -> dict[str, Any]:
    """The visitor's image and map, for the stage."""
    if visit.given is None:
        return {"picture": None, "map": None}
    height, width = visit.given.picture.size
    return {
        "picture": data_url(visit.given.picture, SIDE),
        "name": visit.given.path.name,
        "width": width,
        "height": height,
        "map": None if visit.look is None else _map(visit.look.relevance),
    }


def _map(relevance: RelevanceMap) -> dict[str, Any]:
    """R at latent size as little-endian 32-bit floats, the editor's own threshold and softness."""
    values = relevance.values[0, 0].float().cpu().contiguous().numpy().astype("<f4")
    return {
        "width": values.shape[1],
        "height": values.shape[0],
        "values": base64.b64encode(values.tobytes()).decode(),
        "threshold": float(relevance.mask().threshold[0]),
        "softness": relevance.settings.softness,
    }


def heat_colours() -> list[list[int]]:
    """The heat map's colours for 0/255 to 255/255, those of every other picture of ours."""
    import torch

    from wys.image import heat_map, to_uint8

    colours = to_uint8(heat_map(torch.linspace(0, 1, 256).reshape(1, 1, 1, 256)))
    return colours[0, :, 0].T.tolist()


def sample_cards(samples: Sequence[Sample]) -> list[dict[str, str]]:
    """Pictures and instructions of the samples."""
    from wys.image import read_picture

    return [
        {"picture": data_url(read_picture(sample.path), 192), "instruction": sample.instruction}
        for sample in samples
    ]


def data_url(picture: Picture, side: int) -> str:
    """The picture, scaled down to a side, as a URL that holds it."""
    from PIL import Image

    from wys.image import to_uint8

    values = to_uint8(fitted(picture.over_white(), 1, side))
    file = io.BytesIO()
    image = Image.fromarray(values.permute(1, 2, 0).contiguous().numpy())
    image.save(file, format="WEBP", quality=92)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
