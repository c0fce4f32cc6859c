"""Names and words as shells and files give them: what is text, a plain name, or a way in a circle.

It imports nothing heavy, so that every command can ask before it loads anything.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def is_text(value: str) -> bool:
    """Whether a string is Unicode: one from a shell or from JSON may hold halves of characters."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_plain_name(value: Any) -> bool:
    """Whether it is the name of a file or folder, and no way to one."""
    if not isinstance(value, str) or value in ("", ".", ".."):
        return False
    return not {os.sep, os.altsep, "\0"} & set(value)


def resolved(path: Path) -> Path:
    """The path without links, as far as they lead somewhere: one that leads to itself is kept."""
    return Path(os.path.realpath(path))
