"""Files that are whole or absent: atomic JSON, safetensors and folders, strict on reading.

Every write goes to a temporary file in the same folder that is renamed over the target once it is
complete, so that a kill, a full disk or an exception never leaves half a file.
"""

import dataclasses
import json
import os
import shutil
import struct
import sys
import tempfile
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
from torch import Tensor

from wys.errors import WysError
from wys.names import resolved

try:
    import fcntl
except ImportError:  # Windows: two processes are then not kept apart.
    fcntl = None  # type: ignore[assignment]

PathLike = str | os.PathLike[str]


def _umask() -> int:
    """The permissions that new files of this process lack; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


UMASK = _umask()
"""Read once, before there are threads: between the two lines above files are open to everyone."""


@contextmanager
def write_atomically(path: PathLike) -> Iterator[Path]:
    """Yields a temporary path that becomes `path` on success and disappears on failure.

    The folder is created where it is missing. The temporary path keeps the suffix of `path`. A link
    stays one, and what it leads to is replaced; a device or a pipe is written to.

    Raises:
        WysError: the folder cannot be made or written, or the disk is full.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        stream = is_stream(path)
        target = path if stream else resolved(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = None if stream else target.parent
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.stem}.", suffix=path.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        if stream:
            with temporary.open("rb") as whole, target.open("wb") as written:
                shutil.copyfileobj(whole, written)
            return
        # mkstemp makes private files; a result is as readable as any file the user makes.
        temporary.chmod(0o666 & ~UMASK)
        temporary.replace(target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WysError(
            f"cannot write {path}: {reason}; choose another place or make room."
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def is_stream(path: Path) -> bool:
    """Whether there is something that is written to and cannot be replaced: a device or a pipe."""
    return path.exists() and not path.is_file() and not path.is_dir()


def check_vacant(path: Path) -> None:
    """Raises WysError where no new folder can be made, or an empty one filled."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise WysError(f"{path} is already there and not empty; choose another --out.")
        if resolved(path) == Path.cwd():
            raise WysError("the folder that you are in cannot be replaced; name another --out.")
        with tempfile.TemporaryFile(dir=resolved(path).parent):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise WysError(f"cannot write to {path}: {reason}; choose another --out.") from error


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields a new folder that becomes `path` on success and disappears on failure."""
    temporary: Path | None = None
    try:
        check_vacant(path)
        path = resolved(path)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        yield temporary
        # mkdtemp makes private folders; a result is as readable as any folder the user makes.
        temporary.chmod(0o777 & ~UMASK)
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WysError(f"cannot write to {path}: {reason}; choose another --out.") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Removes a folder: all of it at once under its name, then file by file under a hidden one.

    What cannot be deleted, or was not when a kill came, stays hidden beside it.

    Raises:
        WysError: the folder it lies in cannot be written.
    """
    try:
        hidden = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        path.rename(hidden / path.name)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WysError(f"cannot remove {path}: {reason}; make {path.parent} writable.") from error
    shutil.rmtree(hidden, ignore_errors=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a folder against every other process that would change it.

    The system lets go of it when the process ends, however it ends.

    Raises:
        WysError: another process holds it.
    """
    try:
        file = (path / ".lock").open("a+")
    except OSError as error:
        raise WysError(f"cannot write to {path}: {error.strerror or error}.") from error
    with file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise WysError(
                    f"another process (number {holder}) is changing {path}; wait for its end."
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield


def write_json(path: PathLike, value: Any) -> None:
    """Writes a value as indented UTF-8 JSON, atomically. NaN and infinity are refused."""
    _write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: PathLike, values: Iterable[Any]) -> None:
    """Writes values as UTF-8 JSON, a line each, atomically. NaN and infinity are refused."""
    lines = (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values)
    _write_text(path, "".join(lines))


def _write_text(path: PathLike, text: str) -> None:
    with write_atomically(path) as temporary:
        # A file's name may hold bytes that are no UTF-8.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def with_tuples(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record from a file, as settings take it: JSON has lists where they have tuples."""
    return {name: tuple(v) if isinstance(v, list) else v for name, v in record.items()}


def read_json(path: PathLike) -> Any:
    """Reads a JSON file.

    Raises:
        WysError: the file is missing, unreadable or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WysError(f"{path} does not exist.") from error
    except OSError as error:
        raise WysError(f"cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise WysError(f"{path} is not valid JSON: {error}.") from error


def parse_as(kind: Any, value: Any, place: str) -> Any:
    """A JSON value as the type that a settings field declares.

    Args:
        kind: a frozen dataclass, a number, a Literal, a tuple of one type, None, or a union.
        place: what the value is, for the sentence.

    Raises:
        WysError: it does not fit, or names a setting that there is not.
    """
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise WysError(f"{place} must be an object of named settings, not {value!r}.")
        hints = typing.get_type_hints(kind)
        unknown = sorted(set(value) - set(hints))
        if unknown:
            raise WysError(f"{place} has no setting {unknown[0]!r}; it has {', '.join(hints)}.")
        entries = {k: parse_as(hints[k], v, f"{place}, {k}") for k, v in value.items()}
        try:
            return kind(**entries)
        except WysError as error:
            raise WysError(f"{place}: {error}") from error
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal and value in arguments:
        return value
    if origin in (typing.Union, types.UnionType):
        for choice in arguments:
            try:
                return parse_as(choice, value, place)
            except WysError:
                continue
    elif origin is tuple and isinstance(value, list | tuple):
        return tuple(parse_as(arguments[0], entry, place) for entry in value)
    elif kind is type(None) and value is None:
        return None
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        # Python's JSON knows NaN and infinity, and whole numbers beyond every float.
        if abs(value) <= sys.float_info.max:
            return float(value)
    elif kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    raise WysError(f"{place} does not take the value {value!r}.")


def write_tensors(
    path: PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes named tensors (from any device) and text metadata as safetensors, atomically.

    Tensors that share their memory are written each for itself.
    """
    whole: dict[str, Tensor] = {}
    known: set[int] = set()
    for name, tensor in tensors.items():
        whole[name] = tensor.detach().cpu().contiguous()
        place = whole[name].untyped_storage().data_ptr()
        if place in known:
            whole[name] = whole[name].clone()
        known.add(place)
    with write_atomically(path) as temporary:
        try:
            # Without any tensor an empty metadata makes a broken header.
            safetensors.torch.save_file(whole, temporary, metadata=dict(metadata or {}) or None)
            _sort_metadata(temporary)
        except safetensors.SafetensorError as error:
            raise OSError(str(error)) from error


def _sort_metadata(path: Path) -> None:
    """Puts a file's metadata in order: safetensors writes it in another one each time."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        if "__metadata__" not in header:
            return
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        assert len(text) <= length
        file.seek(8)
        file.write(text.ljust(length))


def read_tensors(path: PathLike) -> dict[str, Tensor]:
    """Reads every tensor of a safetensors file, on the CPU.

    Raises:
        WysError: the file is missing, cut short or not safetensors.
    """
    read_header(path)
    try:
        return safetensors.torch.load_file(Path(path))
    except (OSError, safetensors.SafetensorError) as error:
        raise WysError(f"cannot read {path}: {error}.") from error


def read_metadata(path: PathLike) -> dict[str, str]:
    """The text metadata of a safetensors file; raises as `read_header` does."""
    return dict(read_header(path).get("__metadata__", {}))


def read_header(path: PathLike) -> dict[str, Any]:
    """The header of a safetensors file: name -> {"dtype", "shape", "data_offsets"}.

    The file's length is compared with what its header promises, so that a download that was cut
    short is found before anything is loaded. (Format: 8 bytes of header length, JSON, data.)

    Raises:
        WysError: the file is missing, cut short or not safetensors.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            size = path.stat().st_size
            if prefix == b"version ":
                raise WysError(f"{path} is a pointer of Git LFS, not the file; run 'git lfs pull'.")
            if len(prefix) < 8:
                raise WysError(f"{path} is cut short ({size} bytes); fetch or make it again.")
            (length,) = struct.unpack("<Q", prefix)
            if length > 100_000_000:
                raise WysError(f"{path} is not a safetensors file.")
            if 8 + length > size:
                raise WysError(f"{path} is cut short ({size} bytes); fetch or make it again.")
            header = json.loads(file.read(length))
            ends = [v["data_offsets"][1] for k, v in header.items() if k != "__metadata__"]
            promised = 8 + length + max(ends, default=0)
    except FileNotFoundError as error:
        raise WysError(f"{path} does not exist.") from error
    except OSError as error:
        raise WysError(f"cannot read {path}: {error.strerror or error}.") from error
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        IndexError,
        RecursionError,
    ) as error:
        raise WysError(f"{path} is not a safetensors file.") from error
    if size != promised:
        raise WysError(
            f"{path} is cut short or damaged ({size} bytes where its header promises {promised}); "
            "fetch or make it again."
        )
    return header
