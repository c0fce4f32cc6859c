"""Run the commands that the pages mark, and keep the pictures and tables that those pages show.

    python examples/draw_docs.py [--tables] [PAGE ...]

A fenced block after `<!-- run -->` is run, in order, in a temporary folder.
`<!-- from look/sheet.png -->` before a picture says which file of that folder the picture is.
A table after a block that ends with `wys bench table` is what that command prints; `--tables` fills
in these alone.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import runpy
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wys.apps import cli

ROOT = Path(__file__).resolve().parents[1]
TABLE = re.compile(r"((?:^\|.*\n)+)", re.M)
ENDS_WITH_CODE = re.compile(r"^(?:    .*|```)\n+\Z", re.M)
PICTURE = re.compile(r"<!-- from (\S+) -->\n!\[[^\]]*\]\((\S+)\)")


@dataclass(frozen=True)
class Block:
    """The commands of one code block."""

    marked: bool
    """Whether a comment before it says that it is to be run."""
    lines: tuple[str, ...]


def code_blocks(text: str) -> Iterator[Block]:
    """The code blocks of a Markdown page, fenced ones and those indented by four spaces."""
    marked, lines, fenced = False, list[str](), False
    for line in [*text.splitlines(), ""]:
        if line.startswith("```"):
            if fenced:
                yield Block(marked, tuple(lines))
                marked = False
            lines, fenced = [], not fenced
        elif fenced:
            lines.append(line)
        elif line.startswith("    "):
            lines.append(line[4:])
        else:
            if lines:
                yield Block(False, tuple(lines))
                lines = []
            marked = line == "<!-- run -->"


def commands(block: Block) -> Iterator[list[str]]:
    """The commands of a block that begin with wys, python or make, as words without comments."""
    joined = "\n".join(block.lines).replace("\\\n", " ")
    for line in map(str.lstrip, joined.splitlines()):
        if re.match(r"(\$ )?(wys|python|make) ", line):
            words = shlex.split(line.removeprefix("$ "), comments=True)
            # What follows is for the shell.
            ends = [i for i, word in enumerate(words) if word in ("|", ">", "&&")]
            yield words[: ends[0]] if ends else words


def run(words: list[str]) -> None:
    """Runs a command of wys or an example in this process; raises where it fails."""
    if words[0] == "wys":
        code = cli.main(words[1:])
        if code:
            raise RuntimeError(f"{shlex.join(words)} ended with {code}")
        return
    program, sys.argv = ROOT / words[1], words[1:]
    runpy.run_path(str(program), run_name="__main__")


def with_tables(text: str) -> str:
    """A page with the tables that its `wys bench table` commands print, run from the root."""
    parts = list[str]()
    for part in TABLE.split(text):
        if part.startswith("|") and ENDS_WITH_CODE.search(parts[-1]):
            *_, block = code_blocks(parts[-1])
            last = list(commands(block))[-1:]
            if last and last[0][:3] == ["wys", "bench", "table"]:
                printed = io.StringIO()
                with contextlib.redirect_stdout(printed), contextlib.chdir(ROOT):
                    run(last[0])
                part = printed.getvalue()
        parts.append(part)
    return "".join(parts)


def main(pages: list[Path], tables_only: bool) -> None:
    """Fills in tables, runs what is marked, and copies what is shown."""
    for page in pages:
        text = with_tables(page.read_text())
        page.write_text(text)
        if tables_only:
            continue
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            for block in code_blocks(text):
                for words in commands(block) if block.marked else ():
                    print(f"$ {shlex.join(words)}", flush=True)
                    run(words)
            for source, target in PICTURE.findall(text):
                shutil.copyfile(source, page.parent / target)
                print(f"{page.name}: {target}")
            os.chdir(ROOT)


if __name__ == "__main__":
    given = sys.argv[1:]
    chosen = [Path(argument).resolve() for argument in given if argument != "--tables"]
    every = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    main(chosen or every, "--tables" in given)
