"""What the page says: figures of a run, and the command that does the same."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wys.apps.options import EditorOptions

if TYPE_CHECKING:
    from wys.diffusion.sampler import EditSettings
    from wys.relevance import Verdict
    from wys.thresholds import Threshold

ANYWAY = "Paint a region with the brush, or tick 'edit anyway' in the settings, to edit it."


def verdict_in_words(verdict: Verdict) -> str:
    """What the map says of the instruction, and what can be done about it."""
    from wys.apps.results import VERDICTS

    sentence = VERDICTS[verdict]
    return f"{sentence} {ANYWAY}" if verdict == "nothing to edit" else sentence


@dataclass(frozen=True)
class Figures:
    """The figures of one run."""

    mask: float
    """Share of the image in the mask."""
    changed: float
    """Share of the pixels that changed."""
    outside: int
    """The largest change of an 8-bit value outside the mask."""
    seconds: float
    """What the edit took."""

    def rows(self) -> tuple[tuple[str, str], ...]:
        """Names and values, as the page shows them."""
        kept = "unchanged" if self.outside == 0 else f"changed by {self.outside}"
        return (
            ("In the mask", percent(self.mask)),
            ("Changed", percent(self.changed)),
            ("Outside the mask", kept),
            ("Time", f"{self.seconds:.1f} s"),
        )


def percent(share: float) -> str:
    """A share as a percentage: small ones keep a digit that says something."""
    return f"{share:.1%}" if share >= 0.001 or share == 0 else "< 0.1%"


def edit_command(
    image: str,
    instruction: str,
    *,
    editor: EditorOptions,
    settings: EditSettings,
    threshold: Threshold,
    seed: int,
    map_file: str | None = None,
    mask_file: str | None = None,
    zoom: bool = False,
    force: bool = False,
) -> str:
    """The `wys edit` line that does what the page did, in the folder of the files it names.

    Args:
        map_file: the map, where the command would make another one (its seed differs).
        mask_file: the mask, where strokes changed it.
    """
    words = ["wys", "edit", *_positional(image, instruction)]
    words += ["--threshold", str(threshold), "--seed", str(seed)]
    words += ["--guidance-text", str(settings.guidance.text)]
    words += ["--guidance-image", str(settings.guidance.image)]
    words += ["--steps", str(settings.steps)]
    words += ["--relevance", map_file] if map_file else []
    words += ["--mask", mask_file] if mask_file else []
    words += ["--zoom"] if zoom else []
    words += ["--force"] if force else []
    return shlex.join([*words, *_flags(editor)])


def _positional(*values: str) -> list[str]:
    """Values that do not look like options: a file is named from here, words after a blank."""
    image, instruction = values
    image = f"./{image}" if image.startswith("-") else image
    return [image, f" {instruction}" if instruction.startswith("-") else instruction]


def _flags(options: EditorOptions) -> list[str]:
    """The options that are not at their defaults, as they are typed."""
    words: list[str] = []
    for entry in fields(options):
        value: Any = getattr(options, entry.name)
        if value == entry.default:
            continue
        words.append(f"--{entry.name.replace('_', '-')}")
        words += [] if value is True else [str(value)]
    return words


def file_name(name: str) -> str:
    """An uploaded file's name as one that is safe in a folder of ours, and short."""
    kept = "".join(c for c in Path(name.replace("\\", "/")).name if c.isprintable() and c != "/")
    path = Path(kept.strip(" .") or "image")
    return f"{path.stem[:60]}{path.suffix[:8]}"
