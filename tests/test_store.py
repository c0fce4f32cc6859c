"""Files are whole or absent."""

import errno
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from wys.errors import WysError
from wys.store import (
    read_header,
    read_json,
    read_metadata,
    read_tensors,
    remove_folder,
    write_atomically,
    write_json,
    write_tensors,
)


def test_round_trips(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6).reshape(2, 3), "b": torch.rand(3).half()}
    write_tensors(tmp_path / "new" / "t.safetensors", tensors, {"made": "here"})
    back = read_tensors(tmp_path / "new" / "t.safetensors")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[k], tensors[k]) for k in tensors)
    assert read_metadata(tmp_path / "new" / "t.safetensors") == {"made": "here"}
    write_json(tmp_path / "j.json", {"größe": [1, 2.5, None]})
    assert read_json(tmp_path / "j.json") == {"größe": [1, 2.5, None]}
    assert {path.name for path in tmp_path.iterdir()} == {"new", "j.json"}


def test_the_same_tensors_are_the_same_bytes(tmp_path: Path) -> None:
    tensors = {name: torch.rand(3) for name in ("b", "a", "c")}
    notes = {name: f'{name} äöü "quoted" \n' for name in ("one", "two", "three", "four", "five")}
    for number in range(8):
        write_tensors(tmp_path / f"{number}", tensors, notes)
    assert len({(tmp_path / f"{number}").read_bytes() for number in range(8)}) == 1
    assert read_metadata(tmp_path / "0") == notes
    assert all(torch.equal(v, tensors[k]) for k, v in read_tensors(tmp_path / "0").items())


def test_shared_memory_and_no_tensors_at_all(tmp_path: Path) -> None:
    whole = torch.arange(4.0)
    tensors = {"whole": whole, "view": whole[1:], "same": whole}
    write_tensors(tmp_path / "t", tensors)
    assert all(torch.equal(v, tensors[k]) for k, v in read_tensors(tmp_path / "t").items())
    write_tensors(tmp_path / "none", {})
    assert read_tensors(tmp_path / "none") == {} and read_metadata(tmp_path / "none") == {}


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "x.json"
    write_json(target, 1)
    with pytest.raises(RuntimeError), write_atomically(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert read_json(target) == 1
    assert list(tmp_path.iterdir()) == [target]


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "there" / "x.json")
    for value in (1, 2):
        write_json(tmp_path / "link.json", value)
        assert (tmp_path / "link.json").is_symlink()
        assert read_json(tmp_path / "there" / "x.json") == value


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(pipe.read_text)
        write_json(pipe, {"a": 1})
        assert json.loads(read.result(timeout=20)) == {"a": 1}
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(WysError, match="No space left"), write_atomically(tmp_path / "x"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(WysError, match=r"cannot write .*file"):
        write_json(tmp_path / "file" / "x.json", 1)


def test_json_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(WysError, match=r"bad\.json is not valid JSON"):
        read_json(tmp_path / "bad.json")
    with pytest.raises(WysError, match="does not exist"):
        read_json(tmp_path / "absent.json")
    with pytest.raises(WysError, match="cannot read"):
        read_json(tmp_path)


@pytest.mark.parametrize("kept", [0, 4, 8, 30, -1])
def test_a_cut_tensor_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.safetensors"
    write_tensors(path, {"a": torch.rand(10)})
    path.write_bytes(path.read_bytes()[:kept])
    for read in (read_header, read_tensors, read_metadata):
        with pytest.raises(WysError, match=r"cut\.safetensors is cut short"):
            read(path)


def test_other_files_are_no_tensors(tmp_path: Path) -> None:
    path = tmp_path / "text.safetensors"
    for content in (b"just some text, longer than eight bytes", b"\x02" + b"\0" * 7 + b"[]"):
        path.write_bytes(content)
        with pytest.raises(WysError, match=r"text\.safetensors is not a safetensors file"):
            read_tensors(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(WysError, match="git lfs pull"):
        read_tensors(path)
    with pytest.raises(WysError, match="does not exist"):
        read_tensors(tmp_path / "absent.safetensors")


def test_a_folder_goes_whole_and_what_stays_of_it_is_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        write_json(tmp_path / name / "deep" / "j.json", 1)
    remove_folder(tmp_path / "one")
    assert [path.name for path in tmp_path.iterdir()] == ["two"]

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "unlink", refuse)
    remove_folder(tmp_path / "two")
    (rest,) = tmp_path.iterdir()
    assert rest.name.startswith(".two.")
    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(WysError, match=r"cannot remove .*Permission denied"):
        remove_folder(rest)
