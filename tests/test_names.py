"""Names and words that are none."""

import json
from pathlib import Path

import pytest

from wys.names import is_plain_name, is_text, resolved


def test_halves_of_characters_are_no_text() -> None:
    assert is_text("caf\u00e9 \U0001f600") and is_text("")
    assert not is_text(json.loads('"a\\ud800b"'))


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", "/", "a\0", None, 3])
def test_what_leads_elsewhere_is_no_plain_name(name: object) -> None:
    assert not is_plain_name(name)


def test_names_of_views_are_plain() -> None:
    assert all(map(is_plain_name, ("0001", "IMG 12.b", "..a", "caf\u00e9")))


def test_a_link_to_itself_is_kept(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    assert resolved(tmp_path / "loop" / "a").name == "a"
    assert resolved(tmp_path / "link" / "a") == resolved(tmp_path) / "there" / "a"
