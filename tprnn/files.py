"""Files written as a whole, and what stands in them: JSON, YAML, tensors. What a run folder holds is no matter here.

A file is replaced at one stroke: a temporary file in the same folder, synced, then renamed over the old one.
Nothing read here is ever run: YAML without tags, JSON, safetensors.

JSON has no word for non-finite numbers: they are written as the texts "nan", "inf", "-inf" and read back as numbers.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tprnn.errors import DamagedFile, UserError

if TYPE_CHECKING:
    from torch import Tensor

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times faster, and not on all machines
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


# ---- whole files


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """OSErrors of the block as one line that names `path`: UserError."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = f"disk full while writing {path}" if full else f"cannot write {path} ({error.strerror})"
        raise UserError(f"{what}; what was complete is kept") from error


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data` as a whole: a reader, and a kill at any moment, finds the old or the new file.

    Raises UserError when the disk is full or the place cannot be written; the old file is then still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
            try:
                _write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def sync(path: Path) -> None:
    """What was written to `path` before is on the disk when this returns. Raises UserError."""
    with writing(path):
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def append_lines(path: Path, data: bytes) -> None:
    """Add whole lines to a file, all or none of them; a torn last line that is there goes first. Raises UserError."""
    with writing(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":  # the torn line of a kill; nothing may follow it
                size = path.read_bytes().rfind(b"\n") + 1
                os.ftruncate(fd, size)
            try:
                _write_all(fd, data)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.ftruncate(fd, size)
                raise
        finally:
            os.close(fd)


def read_whole(path: Path) -> bytes | None:
    """The bytes of `path`, or None where there is no such file. Raises DamagedFile."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DamagedFile(f"{path}: cannot be read ({error.strerror})") from error


def damaged(path: Path, what: object) -> DamagedFile:
    """The one line that says what is wrong with `path`."""
    line = " ".join(str(what).split())
    return DamagedFile(f"{path}: damaged ({line}); it is left as it is")


# ---- JSON and YAML


def _as_json(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if isinstance(value, Mapping):
        return {str(key): _as_json(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(entry) for entry in value]
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, str):
        return _NON_FINITE.get(value, value)
    if isinstance(value, dict):
        return {key: _from_json(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_from_json(entry) for entry in value]
    return value


def dump_json(value: Any, indent: int | None = None) -> str:
    """`value` as JSON; numbers that are not finite become texts, tuples lists, keys text."""
    return json.dumps(_as_json(value), indent=indent, allow_nan=False, ensure_ascii=False)


def load_json(path: Path, data: bytes, where: str = "") -> dict[str, Any]:
    """The JSON object in `data`, which was read from `path` (from the place `where` in it). Raises DamagedFile."""
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise damaged(path, f"{where}{error}") from error
    if not isinstance(value, dict):
        raise damaged(path, f"{where}expected an object of names and values, found a {type(value).__name__}")
    return {key: _from_json(entry) for key, entry in value.items()}


def dump_yaml(value: Mapping[str, Any]) -> bytes:
    """`value` as block YAML in the order of its keys, without aliases."""
    plain = json.loads(dump_json(value))  # without objects in common, which YAML would write as aliases
    dumped: str = yaml.dump(plain, Dumper=_DUMPER, sort_keys=False, allow_unicode=True)
    return dumped.encode()


def _parse(text: str) -> Any:
    # the C parser recurses without a guard: no long text can be trusted to it
    value = yaml.load(text, Loader=_LOADER if len(text) < 4096 else yaml.SafeLoader)
    rest, count = [(value, 0)], 0
    while rest:
        node, depth = rest.pop()
        count += 1
        if depth > 20 or count > 10_000:  # aliases may even hold themselves
            raise ValueError("nested too deeply for settings of a run")
        if isinstance(node, (dict, list)):
            rest += [(entry, depth + 1) for entry in (node.values() if isinstance(node, dict) else node)]
    return value


_parse_block = functools.lru_cache(maxsize=4096)(_parse)


def load_yaml(path: Path, data: bytes) -> dict[str, Any]:
    """The settings in `data`, read from `path`. Raises DamagedFile. Do not change them: calls share the groups.

    Runs of one outputs folder share most top-level blocks (train, model, probe, ...), so blocks are parsed
    apart and remembered: thousands of configs then take seconds, not minutes.
    """
    config: Any = {}
    try:
        text = data.decode()
        try:
            for block in re.split(r"^(?=[A-Za-z_])", text, flags=re.MULTILINE):
                config.update(_parse_block(block) or {})
        except (yaml.YAMLError, ValueError, TypeError):  # not laid out as dump_yaml does it: read it in one piece
            config = _parse(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise damaged(path, error) from error
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise damaged(path, "expected the settings of a run by name")
    return config


# ---- tensors


def pack(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    """One safetensors file: `tensors`, with a digest and `meta` as JSON in its header. The same bytes for the same.

    Both are one entry, for entries would stand in any order: "DIGEST JSON", the digest being that of both.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    text = dump_json(meta)
    return save(plain, metadata={"tprnn": f"{_digest(text, save(plain))} {text}"})


def _digest(text: str, blob: bytes) -> str:
    start = 8 + int.from_bytes(blob[:8], "little")  # the numbers follow the header, whose length comes first
    digest = hashlib.sha256(text.encode())
    digest.update(memoryview(blob)[start:])
    return digest.hexdigest()


def unpack(path: Path, blob: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors, meta) of the bytes `pack` made, read from `path`. Raises DamagedFile."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(blob)
        meta = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])["__metadata__"]
        digest, _, text = meta["tprnn"].partition(" ")
        if "sha256" in meta:  # a file of before both were one entry
            digest, text = meta["sha256"], meta["tprnn"]
        if _digest(text, blob) != digest:
            raise ValueError("its numbers do not match their checksum")
        return tensors, load_json(path, text.encode())
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise damaged(path, f"no {error.args[0]}" if isinstance(error, KeyError) else error) from error
