"""What a bench has measured so far, line by line, so that a run that was killed goes on.

DIR/run.json      what is measured: another bench cannot go on in this folder
DIR/cases.jsonl   one line a case and method, appended as it is made
DIR/pictures/     what the methods made of the cases of the first seed
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from wys.errors import WysError
from wys.image import read_image, resize, write_image
from wys.store import read_json, write_json

Record = dict[str, Any]
"""The measures of one method on one case: names, numbers and lists, None where undefined."""
FORMAT = 2
"""What a line holds; it grows when lines hold more, and runs with other lines cannot go on."""
PICTURE_SIDE = 256
"""Most pixels of a kept picture's longer side."""


class Journal:
    """The records of a run; without a folder they are kept in memory only."""

    def __init__(self, folder: Path | None = None, settings: dict[str, Any] | None = None) -> None:
        """Opens a folder's records, or begins them.

        Args:
            settings: what the records depend on, as JSON. Methods are no part of it: they may come
                one after the other.

        Raises:
            WysError: the folder holds a run with other settings, is damaged or cannot be written.
        """
        self.folder = folder
        self.records: list[Record] = []
        self._done: set[tuple[Any, ...]] = set()
        self._run: dict[str, Any] = {
            "settings": {"format": FORMAT, **(settings or {})},
            "once": {},
        }
        if folder is None:
            return
        # The round trip makes tuples the lists that they are read back as.
        self._run = json.loads(json.dumps(self._run))
        if not (folder / "run.json").is_file():
            write_json(folder / "run.json", self._run)
        known = read_json(folder / "run.json")
        settings = self._run["settings"]
        if not isinstance(known, dict) or not isinstance(known.get("settings"), dict):
            raise WysError(f"{folder / 'run.json'} is no bench's; choose another --out.")
        for name in {**known["settings"], **settings}:
            old, new = known["settings"].get(name), settings.get(name)
            if old != new:
                raise WysError(
                    f"{folder} holds a run with {name} {old}, and this one has {new}; choose "
                    "another --out."
                )
        self._run = known
        self._read()

    @property
    def lines(self) -> Path | None:
        """The file of the records."""
        return None if self.folder is None else self.folder / "cases.jsonl"

    def _read(self) -> None:
        assert self.lines is not None
        if not self.lines.is_file():
            return
        data = self.lines.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            # A kill in the middle of a line: what was measured there is measured again.
            os.truncate(self.lines, whole)
        for number, line in enumerate(data[:whole].split(b"\n")[:-1], start=1):
            try:
                self._remember(json.loads(line.decode("utf-8")))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise WysError(f"{self.lines}, line {number} is damaged; delete it.") from error

    def _remember(self, record: Record) -> None:
        key = (record["seed"], record["case"], record["method"])
        if key not in self._done:
            self._done.add(key)
            self.records.append(record)

    def has(self, seed: int, cases: Iterable[str], method: str) -> bool:
        """Whether a method is measured on all of these cases."""
        return all((seed, case, method) in self._done for case in cases)

    def comparable(self, methods: Sequence[str], seeds: Sequence[int]) -> list[Record]:
        """The records of methods on some seeds, in this order, and those of every other method
        that was measured on all of the same cases before."""
        own = [record for record in self.records if record["seed"] in seeds]
        cases: dict[str, set[tuple[int, str]]] = {}
        for record in own:
            cases.setdefault(record["method"], set()).add((record["seed"], record["case"]))
        asked = set[tuple[int, str]]().union(*(cases.get(m, set()) for m in methods))
        others = [m for m, had in cases.items() if m not in methods and had >= asked]
        order = [*methods, *others]
        known = [record for record in own if record["method"] in order]
        return sorted(known, key=lambda record: order.index(record["method"]))

    def add(self, records: Sequence[Record]) -> None:
        """Appends records; those that are there already stay as they are."""
        fresh = [r for r in records if (r["seed"], r["case"], r["method"]) not in self._done]
        # A record is what its line says, so that a run that went on has the same rows.
        lines = [json.dumps(record, allow_nan=False) for record in fresh]
        if self.lines is not None and lines:
            try:
                with self.lines.open("a", encoding="utf-8") as file:
                    file.write("".join(line + "\n" for line in lines))
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise WysError(
                    f"cannot write {self.lines}: {error.strerror or error}; make room and give "
                    "the same command again."
                ) from error
        for line in lines:
            self._remember(json.loads(line))

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """A JSON value that the run makes once; from then on it is read."""
        if name not in self._run["once"]:
            self._run["once"][name] = make()
            if self.folder is not None:
                write_json(self.folder / "run.json", self._run)
        return self._run["once"][name]

    def keep_picture(self, case: str, name: str, image: Float[Tensor, "c h w"]) -> None:
        """Keeps what is to be shown of a case, no larger than a report needs."""
        path = self.picture_path(case, name)
        if path is None or path.is_file():
            return
        scale = PICTURE_SIDE / max(image.shape[-2:])
        if scale < 1:
            size = (round(image.shape[-2] * scale), round(image.shape[-1] * scale))
            image = resize(image.float().cpu(), (max(size[0], 1), max(size[1], 1)))
        write_image(path, image.cpu())

    def picture_path(self, case: str, name: str) -> Path | None:
        """Where a picture of a case is, or would be; None without a folder."""
        if self.folder is None:
            return None
        words = [re.sub(r"[^\w.-]+", "-", word) for word in (case, name)]
        return self.folder / "pictures" / words[0] / f"{words[1]}.png"

    def picture(self, case: str, name: str) -> Float[Tensor, "3 h w"] | None:
        """A picture that was kept."""
        path = self.picture_path(case, name)
        return None if path is None or not path.is_file() else read_image(path)
