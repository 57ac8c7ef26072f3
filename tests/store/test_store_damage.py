"""A damaged file is named in one line and left as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from run_files import RESULT, STATE, snapshot, some_tensors

from tprnn.errors import DamagedFile
from tprnn.store import RunFolder, Store

READERS: dict[str, Callable[[RunFolder], object]] = {
    "config.yaml": RunFolder.read_spec,
    "result.json": RunFolder.result,
    "checkpoint.safetensors": RunFolder.load_checkpoint,
    "model.safetensors": RunFolder.load_model,
}


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    return data[:-2] + bytes([data[-2] ^ 64]) + data[-1:]


def multiplied() -> bytes:
    """Twelve lists, each nine times the one before: a few hundred bytes that stand for 9^12 numbers."""
    lists = [f"&x{n} [{', '.join([f'*x{n - 1}' if n else '1'] * 9)}]" for n in range(12)]
    return f"a: [{', '.join(lists)}]".encode()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "zeros": lambda data: bytes(len(data)),
    "half": cut,
    "not text": lambda data: b"\xff\xfe\x00" + data,
    "another kind": lambda data: b"[1, 2]\n",
    "a number": lambda data: b"7\n",
    "nested without end": lambda data: b"[" * 100_000,
    "nested deeply": lambda data: b"seed: " + b"[" * 1000 + b"]" * 1000,
    "nested in itself": lambda data: b"seed: &a [*a]",
    "multiplied": lambda data: multiplied(),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_named_in_one_line_and_left_byte_for_byte(run: RunFolder, name: str, damage: str) -> None:
    run.write_result(RESULT)
    run.save_checkpoint(some_tensors(), STATE)
    run.save_model(some_tensors(), {})
    (run.path / name).write_bytes(DAMAGES[damage]((run.path / name).read_bytes()))
    before = snapshot(run.path)
    with pytest.raises(DamagedFile) as caught:
        READERS[name](run)
    assert str(run.path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert snapshot(run.path) == before


@pytest.mark.parametrize("name", ["checkpoint.safetensors", "model.safetensors"])
def test_one_changed_bit_among_the_numbers_is_found(run: RunFolder, name: str) -> None:
    run.save_checkpoint(some_tensors(), STATE)
    run.save_model(some_tensors(), {})
    (run.path / name).write_bytes(flip((run.path / name).read_bytes()))
    with pytest.raises(DamagedFile, match="checksum"):
        READERS[name](run)


@pytest.mark.parametrize(
    "change",
    [{"status": "done"}, {"status": None}, {"accuracy": "high"}, {"iterations": [1]}, {"seconds": True}],
)
def test_a_result_that_says_nonsense_is_damaged(run: RunFolder, change: dict[str, Any]) -> None:
    (run.path / "result.json").write_text(json.dumps(RESULT | change))
    with pytest.raises(DamagedFile, match=next(iter(change))):
        run.result()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("seed: 0", "seed: x", "seed"),
        ("task:\n", "tusk:\n", "task"),
        ("max_iterations:", "maximal:", "max_iterations"),
        ("batch_size: 20", "batch_size: .nan", "float"),
        ("batch_size: 20", "batch_size: 2020-01-01", "date"),
        ("seed: 0", "seed: !!python/object/apply:os.system [exit]", "python"),
        ("seed: 0", "seed: *nowhere", "alias"),
    ],
)
def test_a_config_that_describes_no_run_is_damaged(run: RunFolder, old: str, new: str, named: str) -> None:
    path = run.path / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(DamagedFile, match=rf"config\.yaml: damaged \(.*{named}"):
        run.read_spec()


def test_files_of_a_run_without_its_config_are_damage(run: RunFolder) -> None:
    run.write_result(RESULT)
    (run.path / "config.yaml").unlink()
    with pytest.raises(DamagedFile, match=r"config\.yaml: missing"):
        run.read_config()
    assert [folder.name for folder in Store(run.path.parent.parent).folders()] == [run.name]


@pytest.mark.parametrize("line", ["{", "", "[1]", '{"loss": 1.0}', '{"iteration": "a"}', '{"iteration": true}', "\xff"])
def test_a_bad_line_within_the_metrics_is_named_and_left(run: RunFolder, line: str) -> None:
    path = run.path / "metrics.jsonl"
    path.write_bytes(b'{"iteration": 1}\n' + line.encode("latin-1") + b'\n{"iteration": 3}\n')
    before = path.read_bytes()
    with pytest.raises(DamagedFile, match=r"metrics\.jsonl: damaged \(line 2: "):
        run.read_metrics()
    with pytest.raises(DamagedFile):
        run.rewind_metrics(1)
    assert path.read_bytes() == before
