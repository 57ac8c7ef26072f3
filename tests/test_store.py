"""Nothing half-written is ever read as whole, nothing damaged is ever touched, and two processes exclude each other."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_spec

from tprnn.config import RunSpec
from tprnn.errors import DamagedFile, RunLocked, UserError
from tprnn.store import RunFolder, Store

RESULT = {"status": "solved", "iterations": 300, "accuracy": 1.0, "best_accuracy": 1.0, "loss": 0.01, "seconds": 2.5}
STATE = {"iteration": 200, "best": 0.1, "text": "Grüße", "none": None}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """An open run folder."""
    spec = make_spec()
    folder = Store(tmp_path).folder(spec)
    folder.open(spec)
    return folder


def some_tensors(shift: float = 0.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {
        "W_hh": torch.randn(5, 5, generator=generator) + shift,
        "double": torch.randn(3, generator=generator, dtype=torch.float64),
        "steps": torch.tensor(2**60 + 1),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "odd": torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1e-45]),
        "empty": torch.zeros(0, 4),
    }


def same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype
        and a[k].shape == b[k].shape
        and a[k].contiguous().numpy().tobytes() == b[k].contiguous().numpy().tobytes()
        for k in a
    )


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def in_process(code: str, *args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


# ---- what is written is what is read


def test_config_is_read_back_as_it_was_written(run: RunFolder) -> None:
    changes = {"trainer.freeze": ["W_hh", "b_h"], "trainer.rate_factors": {"W_xh": 1e-7}, "trainer.alpha": 1e-5}
    spec = make_spec(changes)
    folder = RunFolder(run.path.parent / spec.folder_name)
    folder.open(spec)
    assert folder.read_config() == spec.as_dict()
    assert folder.read_spec().signature == spec.signature
    assert folder.read_spec().execution == spec.execution


def test_config_is_plain_yaml_for_any_reader(run: RunFolder) -> None:
    import yaml

    assert yaml.safe_load((run.path / "config.yaml").read_text()) == run.read_config()


@pytest.mark.parametrize(
    "text", ["{seed: 1, task: {name: x}}", "a: 1\n'b': [1,\n 2]\nc:\n- 1\n- {d: 2}\ne: |\n  f: 1\n"]
)
def test_config_in_another_layout_is_read_as_yaml_reads_it(run: RunFolder, text: str) -> None:
    import yaml

    (run.path / "config.yaml").write_text(text)
    assert run.read_config() == yaml.safe_load(text)


def test_changing_a_read_config_changes_no_other_reader(run: RunFolder) -> None:
    run.read_config()["task"]["T"] = -1
    assert run.read_config()["task"]["T"] != -1


def test_open_keeps_the_config_that_is_there(run: RunFolder) -> None:
    before = snapshot(run.path)
    run.open(run.read_spec())
    assert snapshot(run.path) == before


def test_open_refuses_a_folder_of_another_run(run: RunFolder) -> None:
    before = snapshot(run.path)
    other = make_spec({"seed": 5})
    with pytest.raises(DamagedFile, match=rf"config\.yaml.*{run.read_spec().signature}, not {other.signature}"):
        run.open(other)
    assert snapshot(run.path) == before


def test_checkpoint_comes_back_bit_for_bit(run: RunFolder) -> None:
    assert run.load_checkpoint() is None
    run.save_checkpoint(some_tensors(), STATE)
    loaded = run.load_checkpoint()
    assert loaded is not None
    assert same_bits(loaded[0], some_tensors())
    assert loaded[1] == STATE


def test_slices_of_one_stacked_tensor_are_saved_apart(run: RunFolder) -> None:
    stack = torch.randn(4, 3, 2)
    run.save_model({"a": stack[1], "b": stack[2], "again": stack[1]}, {})
    loaded = run.load_model()
    assert loaded is not None
    assert torch.equal(loaded[0]["b"], stack[2])
    assert torch.equal(loaded[0]["again"], stack[1])
    assert os.path.getsize(run.path / "model.safetensors") < 1000


def test_a_model_file_is_plain_safetensors(run: RunFolder) -> None:
    from safetensors.torch import load_file

    run.save_model(some_tensors(), {"task": "adding"})
    assert same_bits(load_file(run.path / "model.safetensors"), some_tensors())


def test_non_finite_numbers_survive_as_texts_that_any_json_reader_takes(run: RunFolder) -> None:
    run.write_result(RESULT | {"loss": math.nan, "accuracy": -math.inf, "nested": {"a": [math.inf, "nan?"]}})
    plain = json.loads((run.path / "result.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert (plain["loss"], plain["accuracy"], plain["nested"]["a"]) == ("nan", "-inf", ["inf", "nan?"])
    result = run.result()
    assert result is not None
    assert math.isnan(result["loss"])
    assert (result["accuracy"], result["nested"]["a"]) == (-math.inf, [math.inf, "nan?"])
    run.append_metrics([{"iteration": 100, "loss": math.inf}])
    assert run.read_metrics() == [{"iteration": 100, "loss": math.inf}]
    run.save_checkpoint({}, {"best": math.inf})
    assert run.load_checkpoint() == ({}, {"best": math.inf})


@pytest.mark.parametrize(
    ("status", "counts"),
    [("solved", True), ("not_solved", True), ("diverged", True), ("interrupted", False), ("failed", False)],
)
def test_only_an_ended_run_is_finished(run: RunFolder, status: str, counts: bool) -> None:
    assert run.finished() is None
    run.write_result(RESULT | {"status": status})
    assert run.result() == RESULT | {"status": status}
    assert (run.finished() is not None) == counts


def test_a_result_takes_the_traceback_of_an_earlier_try_away(run: RunFolder) -> None:
    run.write_failure("Traceback\n")
    run.write_result(RESULT | {"status": "failed"})
    assert (run.path / "failure.txt").read_text() == "Traceback\n"
    run.write_result(RESULT)
    assert not (run.path / "failure.txt").exists()


def test_clear_keeps_config_and_lock_only(run: RunFolder) -> None:
    with run.lock():
        run.append_metrics([{"iteration": 1}])
        run.save_checkpoint({}, {})
        run.save_model({}, {})
        run.write_failure("")
        run.write_result(RESULT | {"status": "failed"})
        run.clear()
    assert sorted(snapshot(run.path)) == [".lock", "config.yaml"]


# ---- metrics


def test_a_torn_last_line_is_ignored_then_cut_off_by_the_next_append(run: RunFolder) -> None:
    run.append_metrics([{"iteration": 100}, {"iteration": 200}])
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 300}')  # whole JSON, but without its line break it may be part of 3000
    assert [row["iteration"] for row in run.read_metrics()] == [100, 200]
    run.append_metrics([{"iteration": 400}])
    assert [row["iteration"] for row in run.read_metrics()] == [100, 200, 400]


def test_rewind_drops_later_rows_and_a_torn_line(run: RunFolder) -> None:
    run.rewind_metrics(0)
    assert run.read_metrics() == []
    run.append_metrics([{"iteration": n, "loss": 0.1 * n} for n in (100, 200, 300)])
    kept = (run.path / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:2]
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"itera')
    run.rewind_metrics(250)
    assert (run.path / "metrics.jsonl").read_bytes() == b"".join(kept)
    run.rewind_metrics(0)
    assert run.read_metrics() == []


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


# ---- damage


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


# ---- kills and full disks


@pytest.mark.parametrize("moment", ["write", "fsync", "replace"])
def test_a_kill_while_writing_leaves_the_old_file_whole(run: RunFolder, moment: str) -> None:
    run.save_checkpoint(some_tensors(), STATE)
    run.write_result(RESULT)
    killed = in_process(
        """
        import os, signal, sys, torch
        from pathlib import Path
        from tprnn.store import RunFolder
        run, moment = RunFolder(Path(sys.argv[1])), sys.argv[2]
        def die(*args):
            if moment == "write":
                real(args[0], bytes(args[1])[:50])  # half of the file is there
            os.kill(os.getpid(), signal.SIGKILL)
        real = getattr(os, moment)
        setattr(os, moment, die)
        run.save_checkpoint({"W_hh": torch.zeros(100)}, {"iteration": 900})
        """,
        run.path,
        moment,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    loaded = run.load_checkpoint()
    assert loaded is not None
    assert same_bits(loaded[0], some_tensors())
    assert loaded[1] == STATE
    assert run.result() == RESULT
    leftovers = [name for name in snapshot(run.path) if name.endswith(".tmp")]
    assert len(leftovers) == 1
    run.open(run.read_spec())
    assert not [name for name in snapshot(run.path) if name.endswith(".tmp")]


def fail_with(code: int, partly: bool = False) -> Callable[..., int]:
    real = os.write
    calls = 0

    def broken(fd: int, data: bytes) -> int:
        nonlocal calls
        calls += 1
        if partly and calls == 1:
            return real(fd, bytes(data)[:20])
        raise OSError(code, os.strerror(code))

    return broken


WRITERS: dict[str, Callable[[RunFolder], None]] = {
    "result.json": lambda run: run.write_result(RESULT | {"status": "failed"}),
    "checkpoint.safetensors": lambda run: run.save_checkpoint(some_tensors(1.0), {}),
    "model.safetensors": lambda run: run.save_model(some_tensors(1.0), {}),
    "failure.txt": lambda run: run.write_failure("Traceback (most recent call last):"),
    "metrics.jsonl": lambda run: run.append_metrics([{"iteration": 200, "loss": 0.5}]),
}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_keeps_what_was_complete(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, name: str, partly: bool, code: int
) -> None:
    run.append_metrics([{"iteration": 100, "loss": 1.0}])
    run.save_checkpoint(some_tensors(), STATE)
    run.save_model(some_tensors(), {})
    run.write_failure("old")
    before = snapshot(run.path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail_with(code, partly))
        with pytest.raises(UserError, match=f"disk full while writing .*{name}; what was complete is kept"):
            WRITERS[name](run)
    assert snapshot(run.path) == before
    WRITERS[name](run)
    assert snapshot(run.path) != before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_device_is_told_as_such(run: RunFolder) -> None:
    (run.path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match="disk full"):
        run.append_metrics([{"iteration": 1}])


def test_a_file_size_limit_of_the_system_keeps_the_old_checkpoint(run: RunFolder) -> None:
    run.save_checkpoint(some_tensors(), STATE)
    before = snapshot(run.path)
    limited = in_process(
        """
        import sys, torch
        from pathlib import Path
        from tprnn.errors import UserError
        from tprnn.store import RunFolder
        try:
            RunFolder(Path(sys.argv[1])).save_checkpoint({"W_hh": torch.zeros(100_000)}, {})
        except UserError as error:
            print(error)
        """,
        run.path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536)),
    )
    assert "cannot write" in limited.stdout, limited.stderr
    assert "checkpoint.safetensors" in limited.stdout
    assert snapshot(run.path) == before


# ---- locks


def test_a_second_process_is_kept_out_until_the_first_ends(run: RunFolder) -> None:
    hold = """
        import sys
        from pathlib import Path
        from tprnn.store import RunFolder
        with RunFolder(Path(sys.argv[1])).lock():
            print("locked", flush=True)
            sys.stdin.read()
        """
    command = [sys.executable, "-c", textwrap.dedent(hold), str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        assert run.is_locked()
        with pytest.raises(RunLocked, match=run.name), run.lock():
            pytest.fail("two processes in one run folder")
        holder.kill()  # SIGKILL: the system itself gives the lock back
    assert not run.is_locked()
    with run.lock():
        assert run.is_locked()
    assert not run.is_locked()


def test_one_process_does_not_lock_a_run_twice(run: RunFolder) -> None:
    with run.lock(), pytest.raises(RunLocked), RunFolder(run.path).lock():
        pytest.fail("locked twice")


def test_lock_makes_the_folder_but_no_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.folder(make_spec()).lock():
        pass
    assert store.folders() == []


def test_asking_whether_a_run_is_locked_writes_nothing(run: RunFolder) -> None:
    before = snapshot(run.path)
    assert not run.is_locked()
    assert snapshot(run.path) == before


# ---- the outputs folder


def test_folders_are_those_with_files_of_a_run_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.folders() == []
    specs = [make_spec({"seed": seed}) for seed in (2, 0, 1)]
    for spec in specs:
        store.folder(spec).open(spec)
    (store.runs / "empty").mkdir()
    (store.runs / "note.txt").write_text("")
    assert [folder.name for folder in store.folders()] == sorted(spec.folder_name for spec in specs)


def test_one_run_under_two_names_has_one_folder(tmp_path: Path) -> None:
    hx = make_spec(trainer="tptt_hx")
    same = {key: hx.config["trainer"][key] for key in ("alpha_i", "alpha_f", "alpha_g", "wxh")}
    local = make_spec({f"trainer.{key}": value for key, value in same.items()}, trainer="tptt")
    assert local.signature == hx.signature
    assert local.folder_name != hx.folder_name
    store = Store(tmp_path)
    assert store.folder(local).name == local.folder_name
    store.folder(hx).open(hx)
    assert store.folder(local) == store.folder(hx)


def test_runs_are_found_by_path_name_signature_and_pattern(tmp_path: Path) -> None:
    store = Store(tmp_path)
    specs: list[RunSpec] = [make_spec({"seed": seed}) for seed in range(3)]
    for spec in specs:
        store.folder(spec).open(spec)
    one = store.folder(specs[1])
    assert store.find(str(one.path) + "/") == [RunFolder(one.path)]
    assert store.find(one.name) == store.find(specs[1].signature) == [one]
    assert (
        store.find("*-s[02]-*")
        == store.find(str(store.runs / "*-s[02]-*"))
        == [
            store.folder(specs[0]),
            store.folder(specs[2]),
        ]
    )
    with pytest.raises(UserError, match=f"nearest: .*{specs[1].signature}"):
        store.find(one.name.replace("-s1-", "-s7-"))


@pytest.fixture
def forbidden(tmp_path: Path) -> Iterator[Path]:
    """A folder in which this process may not write, also where it is root's."""
    folder = tmp_path / "forbidden"
    folder.mkdir(mode=0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)


def test_outputs_that_cannot_be_written_are_told_before_anything_is_made(forbidden: Path) -> None:
    for outputs in (forbidden, forbidden / "new" / "outputs"):
        with pytest.raises(UserError, match=r"outputs: cannot write to '.*forbidden.*outputs=DIR"):
            Store(outputs).check_writable()
        with pytest.raises(UserError, match="cannot write"), Store(outputs).folder(make_spec()).lock():
            pytest.fail("locked")


def test_outputs_that_are_a_file_are_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("mine")
    with pytest.raises(UserError, match="outputs: cannot write"):
        Store(tmp_path / "outputs").check_writable()
    with pytest.raises(UserError, match="cannot list"):
        Store(tmp_path / "outputs").folders()
    assert (tmp_path / "outputs").read_text() == "mine"


def test_writable_outputs_pass_and_hold_no_run_afterwards(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "outputs")
    store.check_writable()
    assert list(store.runs.iterdir()) == []
