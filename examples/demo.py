"""What `make demo` runs: renders sample images and edits each of them.

python examples/demo.py [FOLDER [options of 'wys edit' ...]]
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from wys.apps import cli
from wys.datasets.edit_cases import read_cases
from wys.image import read_image, write_image

KINDS = ("recolour", "remove", "floor", "background", "light")
COUNT = 5
FIRST = 0


def main(out: Path, options: list[str]) -> int:
    """Writes samples/, a folder of results for each, and one sheet of all; 0 if all went well."""
    samples = out / "samples"
    which = ["--count", str(COUNT), "--first", str(FIRST), "--kinds", *KINDS, "--plain"]
    code = cli.main(["tabletop", "--out", str(samples), *which])
    if code:
        return code
    sheets = []
    for case in read_cases(samples):
        print(f"\n{case.instruction}")
        target = out / f"{case.before.stem}_{case.kind}"
        words = ["edit", str(case.before), case.instruction, "--out", str(target)]
        code = cli.main([*words, *options])
        if code:
            return code
        sheets.append(read_image(target / "sheet.png"))
    write_image(out / "sheet.png", torch.cat(sheets, dim=1))
    print(f"\nAll of them side by side: {out / 'sheet.png'}")
    return 0


if __name__ == "__main__":
    arguments = sys.argv[1:] or ["demo"]
    sys.exit(main(Path(arguments[0]), arguments[1:]))
