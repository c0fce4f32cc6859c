"""The pages: their commands parse, the marked ones run, their links and pictures are there."""

import ast
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from wys.apps import cli
from wys.diffusion.settings import read_settings
from wys.errors import WysError

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = [page for page in PAGES if "<!-- run -->" in page.read_text()]


def _load() -> ModuleType:
    """examples/draw_docs.py, which is no part of a package."""
    spec = importlib.util.spec_from_file_location("draw_docs", ROOT / "examples" / "draw_docs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules["draw_docs"] = module
    spec.loader.exec_module(module)
    return module


draw_docs = _load()


def all_commands(page: Path) -> Iterator[list[str]]:
    for block in draw_docs.code_blocks(page.read_text()):
        yield from draw_docs.commands(block)


def check(words: list[str]) -> None:
    """Raises where a command is not one that would be understood."""
    if words[0] == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert words[1] in targets, words
    elif words[:2] == ["python", "-c"]:
        compile(words[2], "a page's own line", "exec")
    elif words[0] == "python" and words[1] != "-m":
        assert (ROOT / words[1]).is_file(), words
    elif words[0] == "wys":
        found = cli.find_command(words[1:])
        assert found is not None, words
        if "--help" not in words:
            cli.parse(*found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_understood(page: Path) -> None:
    for words in all_commands(page):
        if words in (["wys", "COMMAND", "--help"], ["wys", "--help"], ["wys", "--version"]):
            continue
        try:
            check(words)
        except WysError as error:
            pytest.fail(f"{page.name}: {shlex.join(words)}: {error}")


def test_commands_are_found_in_every_kind_of_block() -> None:
    text = """Prose with `wys nothing`.

    wys edit a.png "make it red" --out b   # a comment
    pip install something

<!-- run -->
```sh
$ wys scene fit photos/ \\
    --out fox
wys completion fish | source
```

1. A list:

       wys scene undo fox

```
no command
```
"""
    blocks = list(draw_docs.code_blocks(text))
    assert [block.marked for block in blocks] == [False, True, False, False]
    assert [words for block in blocks for words in draw_docs.commands(block)] == [
        ["wys", "edit", "a.png", "make it red", "--out", "b"],
        ["wys", "scene", "fit", "photos/", "--out", "fox"],
        ["wys", "completion", "fish"],
        ["wys", "scene", "undo", "fox"],
    ]
    # The README alone shows so many, so that a change of its form cannot hide them.
    assert sum(words[0] == "wys" for words in all_commands(ROOT / "README.md")) >= 20


@pytest.mark.parametrize(
    "wrong",
    [
        "wys edit photo.png 'make it red' --treshold 0.4",
        "wys edit photo.png",
        "wys scene render fox --what color",
        "wys scene export fox",
        "wys bench tune --cases many --out wys.json",
    ],
)
def test_a_misspelt_command_does_not_pass(wrong: str) -> None:
    with pytest.raises(WysError):
        check(shlex.split(wrong))


@pytest.mark.parametrize("wrong", ["wys paint photo.png", "make demos", "python examples/9.py"])
def test_what_does_not_exist_does_not_pass(wrong: str) -> None:
    with pytest.raises(AssertionError):
        check(shlex.split(wrong))


@pytest.mark.filterwarnings("ignore::wys.errors.WysWarning")
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_marked_commands_run_and_make_the_pictures(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["wys"])
    text = page.read_text()
    for block in draw_docs.code_blocks(text):
        for words in draw_docs.commands(block) if block.marked else ():
            # The program that draws the figures takes long, and a test of its own.
            if words[0] == "wys":
                draw_docs.run(words)
    ran = {words[0] for block in draw_docs.code_blocks(text) for words in draw_docs.commands(block)}
    for source, _ in draw_docs.PICTURE.findall(text):
        if not source.startswith("figures/"):
            assert Image.open(tmp_path / source).size[0] > 100
        else:
            assert "python" in ran


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_what_their_commands_print(page: Path) -> None:
    text = page.read_text()
    assert draw_docs.with_tables(text) == text


def test_a_table_is_filled_in_only_behind_its_command() -> None:
    command = "    wys bench table docs/figures/speed.json --columns name seconds\n"
    stale = "| task | seconds |\n| --- | ---: |\n| relevance | 12.34 |\n"
    filled = draw_docs.with_tables(f"Words.\n\n{command}\n{stale}\nMore words.\n")
    seconds = json.loads((ROOT / "docs" / "figures" / "speed.json").read_text())[0]["seconds"]
    assert filled.startswith(f"Words.\n\n{command}\n| task | seconds |\n| --- | ---: |\n")
    assert f"| relevance | {seconds:.2f} |\n" in filled and filled.endswith("|\n\nMore words.\n")
    for other in (f"{command}\nWords between.\n\n{stale}", f"    wys doctor\n\n{stale}"):
        assert draw_docs.with_tables(other) == other


def test_what_the_pages_draw_is_small_and_drawn_once() -> None:
    drawn = [
        (page.parent / target).resolve()
        for page in PAGES
        for _, target in draw_docs.PICTURE.findall(page.read_text())
    ]
    assert len(drawn) >= 7 and len(drawn) == len(set(drawn))
    for picture in drawn:
        assert picture.stat().st_size < 300_000, f"{picture.name} is too large"


LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


def test_every_page_is_in_the_index_and_short() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in PAGES[1:]:
        assert page.name == "index.md" or f"]({page.name})" in index, page.name
        assert len(page.read_text().splitlines()) < 400


def test_python_and_settings_on_the_pages_are_valid(tmp_path: Path) -> None:
    for page in PAGES:
        text = page.read_text()
        for block in re.findall(r"^```python\n(.*?)^```", text, re.M | re.S):
            ast.parse(block)
        for line in re.findall(r'^    (\{"version".*\})$', text, re.M):
            if "..." in line:
                continue
            (tmp_path / "wys.json").write_text(line)
            assert read_settings(tmp_path / "wys.json") is not None
        for line in re.findall(r'^    (\{"before".*\})$', text, re.M):
            assert {"before", "after", "instruction"} <= set(json.loads(line))
