"""Kills and full disks: what was complete is kept, and nothing half-written is read as whole."""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from run_files import RESULT, STATE, in_process, same_bits, snapshot, some_tensors

from tprnn.errors import UserError
from tprnn.store import RunFolder


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
