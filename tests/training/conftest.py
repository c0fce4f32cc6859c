"""What the tests of training share."""

import json

import pytest
import torch

from wys.image import write_image


@pytest.fixture
def write_folder():
    """Writes a folder of one's own triplets; gives the lines of its metadata."""

    def write(folder, count=24, size=(40, 56)):
        lines = []
        for i in range(count):
            before = torch.full((3, *size), i / count)
            after = before.clone()
            after[0, :, 28:] = 1.0
            write_image(folder / f"{i}a.png", before)
            write_image(folder / f"{i}b.png", after)
            lines.append({"before": f"{i}a.png", "after": f"{i}b.png", "instruction": f"paint {i}"})
        (folder / "metadata.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
        return lines

    return write
