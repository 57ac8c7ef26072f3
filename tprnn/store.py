"""The only writer of outputs/: run folders in which nothing half-written is ever read as whole.

A run folder holds ``config.yaml``, ``metrics.jsonl``, ``checkpoint.safetensors``, ``model.safetensors``,
``failure.txt`` and ``result.json``, which is written last. Where a run went on with a larger budget, the results of the
smaller ones stay in ``earlier.jsonl``. Every file but these and the metrics is written whole (see `tprnn.files`).
Metrics are appended; a line counts only with its line break. What a search has asked and was told is in a file of
``searches/``, which its sampler's own library writes.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import fnmatch
import functools
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tprnn.budgets import FINISHED, is_cut, is_made, view
from tprnn.config import BUDGET_KEYS, EXECUTION_KEYS, MEMBER_KINDS, SEED_KEYS, RunSpec, TrainSettings
from tprnn.errors import DamagedFile, RunLocked, UserError
from tprnn.files import (
    append_lines,
    damaged,
    dump_json,
    dump_yaml,
    load_json,
    load_yaml,
    pack,
    read_whole,
    sync,
    unpack,
    write_atomically,
    writing,
)
from tprnn.lookup import by_signature
from tprnn.scores import ACCURACY, Score, score_of

if TYPE_CHECKING:
    from torch import Tensor

STATUSES = (*FINISHED, "interrupted", "failed")
CONFIG, METRICS, RESULT, FAILURE = "config.yaml", "metrics.jsonl", "result.json", "failure.txt"
EARLIER = "earlier.jsonl"
CHECKPOINT, MODEL = "checkpoint.safetensors", "model.safetensors"
HOLDER = ".holder.json"
NUMBERS = (
    *("iterations", "sequences", "accuracy", "best_accuracy", "best_validation_loss", "loss", "seconds"),
    *("test_sequences", "test_right", "test_loss"),
)
"""The numbers of a result, each None where there is none."""
RUN_FILES = (CONFIG, RESULT, METRICS, CHECKPOINT, MODEL, FAILURE, EARLIER)


def stored_spec(path: Path, config: Mapping[str, Any]) -> RunSpec:
    """The run a stored config describes, unchecked but for its shape (`path` names it). Raises DamagedFile."""
    # without its plugins: what a run folder names is never imported
    execution = {key: [] if key == "plugins" else value for key, value in config.items() if key in EXECUTION_KEYS}
    spec = RunSpec({key: value for key, value in config.items() if key not in EXECUTION_KEYS}, execution)
    for key in (*MEMBER_KINDS, "train", "probe"):
        if not isinstance(config.get(key), Mapping) or ("name" not in config[key] and key != "train"):
            raise damaged(path, f"{key} is {config.get(key)!r}; expected a group of settings")
    for key in SEED_KEYS:
        value = config.get(key)
        if type(value) is not int and (key == "seed" or value is not None):
            raise damaged(path, f"{key} is {value!r}; expected a whole number")
    if type(limit := config["train"].get("max_iterations")) is not int:
        raise damaged(path, f"train.max_iterations is {limit!r}; expected a whole number")
    try:
        _ = spec.signature, spec.family  # computed once, here, where errors can name the file
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise damaged(path, f"no {error.args[0]}" if isinstance(error, KeyError) else error) from error
    return spec


@dataclass(frozen=True)
class RunFolder:
    """One run's files. Reading needs no lock; whoever writes holds `lock()`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out for the length of the block; the folder is made if it is not there.

        The operating system gives the lock back when the process ends, however it ends. Raises RunLocked.
        """
        from filelock import FileLock, Timeout

        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            try:
                # a report that asks `is_locked` holds the lock for microseconds; it must not turn a run away
                lock.acquire(timeout=0.03, poll_interval=0.01)
            except Timeout:
                raise RunLocked.by(self.holder(), f"run {self.name}") from None
        note = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with contextlib.suppress(OSError):  # for people; what counts is the lock
            (self.path / HOLDER).write_text(dump_json(note))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                (self.path / HOLDER).unlink()
            lock.release()

    def holder(self) -> str:
        """Who holds the lock, in words; to be asked only while somebody does."""
        path = self.path / HOLDER
        try:
            note = load_json(path, read_whole(path) or b"")
            return f"process {note['process']} on {note['host']} (since {note['since']})"
        except (DamagedFile, KeyError):  # it is just being written, or an earlier version holds it
            return "another process"

    def is_locked(self) -> bool:
        """Whether a process works on this run now."""
        from filelock import FileLock, Timeout

        if not os.path.exists(self.path / ".lock"):
            return False
        try:
            with FileLock(self.path / ".lock", timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # somebody else's folder, which we may only read
            return False

    def open(self, spec: RunSpec) -> None:
        """Make the folder ready for the run `spec`; config.yaml is written if it is not there.

        Raises DamagedFile when config.yaml describes another run, UserError when it cannot be written.
        """
        path = self.path / CONFIG
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            for leftover in self.path.glob(".*.tmp"):  # of a process that was killed while it wrote
                leftover.unlink(missing_ok=True)
        if not os.path.exists(path):
            write_atomically(path, dump_yaml(spec.as_dict()))
        elif (found := self.read_spec().signature) != spec.signature:
            raise damaged(path, f"it describes the run {found}, not {spec.signature}")

    def set_budget(self, train: TrainSettings) -> None:
        """Say in config.yaml what budget the run is trained for now."""
        config = self.read_config()
        given = {key: getattr(train, key) for key in BUDGET_KEYS}
        if any(config["train"][key] != value for key, value in given.items()):
            config["train"] |= given
            write_atomically(self.path / CONFIG, dump_yaml(config))

    def read_config(self) -> dict[str, Any]:
        """The resolved config, execution keys included. Raises DamagedFile, also when it is missing."""
        return copy.deepcopy(self.shared_config())

    def shared_config(self) -> dict[str, Any]:
        """`read_config` without the copy, for readers of thousands: not to be changed."""
        path = self.path / CONFIG
        if (data := read_whole(path)) is None:
            raise DamagedFile(f"{path}: missing, though the folder holds other files of a run")
        return load_yaml(path, data)

    def read_spec(self) -> RunSpec:
        """The run this folder is of, as stored: not checked against today's members. Raises DamagedFile."""
        return stored_spec(self.path / CONFIG, self.read_config())

    # -- result

    def result(self) -> dict[str, Any] | None:
        """result.json, or None where the run has not ended. Raises DamagedFile."""
        path = self.path / RESULT
        if (data := read_whole(path)) is None:
            return None
        return _checked(path, load_json(path, data))

    def earlier_results(self) -> list[dict[str, Any]]:
        """What the run came to with smaller budgets, before it went on; the last first. Raises DamagedFile."""
        path = self.path / EARLIER
        lines = (read_whole(path) or b"").split(b"\n")[:-1]
        return [_checked(path, load_json(path, line)) for line in reversed(lines)]

    def results(self) -> list[dict[str, Any]]:
        """result.json and what the run came to with smaller budgets, the last first. Raises DamagedFile."""
        result = self.result()
        return [*([result] if result else []), *self.earlier_results()]

    def finished(self, train: TrainSettings, stands: int = 0, score: Score = ACCURACY) -> dict[str, Any] | None:
        """The result as of the budget of `train`, or None where that has not been reached (`tprnn.budgets.view`).

        `stands`: the iteration of a checkpoint, where that was read; `score`: the task's. Raises DamagedFile.
        """
        found = view(train.budget, self.results(), self.read_metrics, train.validation_size, stands, score)
        return None if found is None else dict(found)

    def usefulness(self, train: TrainSettings) -> tuple[int, int, int]:
        """Which of several folders of a run serves: how well it answers, where its checkpoint stands, how far it is."""
        answer, checkpoint, result = self.finished(train), self.load_checkpoint(), self.result()
        stands = int(checkpoint[1].get("iteration", 0)) if checkpoint else 0
        known = 0 if answer is None else 1 if is_made(answer) else 2
        return known, stands, (result or {}).get("iterations") or 0

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write result.json: the last thing a run does. The traceback of an earlier, failed try goes.

        The result of a smaller budget, beyond which the run went, is put by.
        """
        if result["status"] not in STATUSES:
            raise ValueError(f"status {result['status']!r} is none of {STATUSES}")
        before = self.result()
        if before and is_cut(before) and before.get("iterations") != result.get("iterations"):
            append_lines(self.path / EARLIER, (dump_json(before) + "\n").encode())
        write_atomically(self.path / RESULT, (dump_json(result, indent=2) + "\n").encode())
        if result["status"] != "failed":
            with writing(self.path):
                (self.path / FAILURE).unlink(missing_ok=True)

    def write_failure(self, text: str) -> None:
        """Write failure.txt, the traceback of a failed run."""
        write_atomically(self.path / FAILURE, text.encode(errors="backslashreplace"))

    # -- tensors

    def save_checkpoint(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Replace the checkpoint; metrics appended before are on the disk before it is. Keys of `state` become text."""
        if os.path.exists(path := self.path / METRICS):
            sync(path)
        write_atomically(self.path / CHECKPOINT, pack(tensors, state))

    def load_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """(tensors, state) of the last checkpoint, bit for bit, or None. Raises DamagedFile."""
        path = self.path / CHECKPOINT
        return None if (blob := read_whole(path)) is None else unpack(path, blob)

    def save_model(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Write the trained parameters, readable by any safetensors program."""
        write_atomically(self.path / MODEL, pack(tensors, meta))

    def load_model(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """(parameters, meta) of the trained network, or None where there is none. Raises DamagedFile."""
        path = self.path / MODEL
        return None if (blob := read_whole(path)) is None else unpack(path, blob)

    # -- metrics

    def append_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add one line per row, all or none of them; each row has a whole number `iteration`."""
        data = "".join(dump_json(row) + "\n" for row in rows).encode()
        append_lines(self.path / METRICS, data)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All rows; a last line without its line break does not count, any other bad line raises DamagedFile."""
        return [row for _, row in self._metric_lines()]

    def rewind_metrics(self, iteration: int) -> None:
        """Drop rows beyond `iteration` and a torn last line, at one stroke. Raises DamagedFile."""
        path = self.path / METRICS
        kept = b"".join(line for line, row in self._metric_lines() if row["iteration"] <= iteration)
        if read_whole(path) not in (None, kept):
            write_atomically(path, kept)

    def _metric_lines(self) -> list[tuple[bytes, dict[str, Any]]]:
        path = self.path / METRICS
        lines = []
        for number, line in enumerate((read_whole(path) or b"").split(b"\n")[:-1], start=1):
            row = load_json(path, line, where=f"line {number}: ")
            if type(row.get("iteration")) is not int:
                raise damaged(path, f"line {number}: iteration is {row.get('iteration')!r}; expected a whole number")
            lines.append((line + b"\n", row))
        return lines

    def clear(self) -> None:
        """Forget what was trained, the result first; config.yaml and the lock stay."""
        with writing(self.path):
            for name in (RESULT, EARLIER, CHECKPOINT, METRICS, MODEL, FAILURE):
                (self.path / name).unlink(missing_ok=True)


class Store:
    """An outputs folder. Nothing is made before the first run writes."""

    def __init__(self, outputs: str | os.PathLike[str]) -> None:
        self.root = Path(outputs)
        self.runs = self.root / "runs"
        self.searches = self.root / "searches"
        self._index: tuple[int, dict[str, list[str]]] = (-1, {})

    def check_writable(self) -> None:
        """Raise UserError where runs could not be written."""
        probe = self.runs / f".write-test.{os.getpid()}"
        try:
            self.runs.mkdir(parents=True, exist_ok=True)
            probe.touch()
            probe.unlink()
        except OSError as error:
            advice = "choose another folder with outputs=DIR"
            raise UserError(f"outputs: cannot write to '{self.root}' ({error.strerror}); {advice}") from error

    @contextlib.contextmanager
    def study(self, name: str) -> Iterator[Path]:
        """The file of the search `name`, there or not, kept from other processes for the length of the block.

        Raises RunLocked, and UserError where it could not be written.
        """
        from filelock import FileLock, Timeout

        path = self.searches / f"{name}.db"
        with writing(path):
            self.searches.mkdir(parents=True, exist_ok=True)
            lock = FileLock(path.with_suffix(".lock"))
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise RunLocked.by("another process", f"search {name}") from None
        try:
            yield path
        finally:
            lock.release()

    def folder(self, spec: RunSpec) -> RunFolder:
        """The folder of the run `spec`, there or not: found by signature, else named by `spec.folder_name`.

        `tptt_hx` and `tptt` with wxh=local are one run: whichever name it got first, it is not trained twice. A run
        may have several folders from when each budget had one: taken is the one with the answer for the spec's budget
        (a result rather than what metrics tell), else the one with the furthest checkpoint.
        """
        found = [RunFolder(self.runs / name) for name in self._by_signature().get(spec.signature, [spec.folder_name])]
        return found[0] if len(found) == 1 else max(found, key=lambda folder: folder.usefulness(spec.train))

    def folders(self) -> list[RunFolder]:
        """Folders below runs/ that hold any file of a run, by name. Raises UserError where they cannot be listed."""
        return [
            RunFolder(self.runs / name)
            for name in self._names()
            if any(os.path.lexists(f"{self.runs}/{name}/{file}") for file in RUN_FILES)
        ]

    def find(self, pattern: str) -> list[RunFolder]:
        """Runs by path, name, signature or shell pattern of names; those of another outputs folder by its path.

        In the order of their names. Raises UserError where there is none.
        """
        if os.path.exists(Path(pattern) / CONFIG):
            return [RunFolder(Path(pattern))]
        if found := Store(pattern).folders() if os.path.isdir(Path(pattern) / "runs") else []:
            return found
        folders = self.folders()
        names = os.path.relpath(pattern, self.runs) if os.sep in pattern else pattern
        found = [f for f in folders if f.name.endswith(f"-{names}") or fnmatch.fnmatchcase(f.name, names)]
        if not found:
            close = difflib.get_close_matches(names, [folder.name for folder in folders], cutoff=0.5)
            told = "nearest: " + ", ".join(close) if close else f"it holds {len(folders)} runs, see tprnn report"
            raise UserError(f"no run '{pattern}' in {self.root}; {told}")
        return found

    def _names(self) -> list[str]:
        try:
            with os.scandir(self.runs) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UserError(f"cannot list runs in '{self.root}' ({error.strerror})") from error

    def _by_signature(self) -> dict[str, list[str]]:
        """Names of folders by the signatures of their runs."""
        changed = os.stat(self.runs).st_mtime_ns if os.path.exists(self.runs) else -1
        if changed != self._index[0]:
            found = by_signature(self._names(), lambda name: _signature_of(self.runs / name))
            self._index = (changed, found)
        return self._index[1]


@functools.cache
def _signature_of(path: Path) -> str:
    """The signature of the run of a folder that an old one names; read once in a process, for it never changes."""
    return RunFolder(path).read_spec().signature


def _checked(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    """A result as it was read from `path`. Raises DamagedFile where it says nonsense."""
    if result.get("status") not in STATUSES:
        raise damaged(path, f"status is {result.get('status')!r}; expected one of {', '.join(STATUSES)}")
    score = score_of(result).name
    for key in (*NUMBERS, score, f"best_{score}", f"test_{score}"):
        value = result.get(key)
        if isinstance(value, bool) or not (value is None or isinstance(value, (int, float))):
            raise damaged(path, f"{key} is {value!r}; expected a number")
    return result
