"""One run as the loop sees it: where it stands, when it stops, and what its result says."""

from __future__ import annotations

import functools
import platform
import subprocess
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from torch import Tensor

from tprnn.config import RunSpec, TrainSettings
from tprnn.engine.machine import machine
from tprnn.scores import ACCURACY, Score
from tprnn.store import RunFolder

REFUSED = "refused"
"""The status of a run that nothing was begun of: it needs more memory than is free."""

BEST = "best/"
"""Before the names of the parameters of the best check, among a checkpoint's tensors."""


@dataclass
class Outcome:
    """What became of a run that was asked for."""

    spec: RunSpec
    status: str
    """A result's status, "locked" where another process works on the run, or REFUSED."""
    result: dict[str, Any] | None = None
    error: str | None = None
    skipped: bool = False
    """Whether it was finished before."""


@dataclass
class Progress:
    """What a checkpoint holds beside tensors. All of it is a function of the run alone, but `seconds`."""

    iteration: int = 0
    loss_sum: float = 0.0
    """Training loss summed since the last check."""
    best_error: float = float("inf")
    """Over checks that used the full validation set, as patience is."""
    best_loss: float = float("inf")
    """The validation loss of the best check: the least one among those of the least error."""
    checks_since_best: int = 0
    best_score: float | None = None
    """Over checks that used the full validation set."""
    best_validation_loss: float = float("inf")
    """Over the same checks."""
    seconds: float = 0.0

    def bettered(self, check: Check) -> bool:
        """Whether a check of the full set is the best so far: by fewer mistakes, then by a lower loss.

        By mistakes alone the best check of a run that never answers a whole sequence rightly would be its first.
        """
        return (check.error, check.validation_loss) < (self.best_error, self.best_loss)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)


@dataclass(frozen=True)
class Exam:
    """The test set, looked at once, with the weights of the best check."""

    sequences: int
    total: float
    """Right answers, of a score that counts; else its sum."""
    loss: float
    """Mean E."""


@dataclass(frozen=True)
class Check:
    """One validation of one run."""

    iteration: int
    loss: float
    total: float
    """Mistakes, of a score that counts; else the sum of scores."""
    validated: int
    validation_loss: float
    """Mean E of the validated."""
    finite: bool
    radius: float
    """The largest of the watched spectral radii; nan where none needed computing."""
    score: Score = ACCURACY

    @property
    def error(self) -> float:
        """Share of mistakes among the validated, or the mean score as something of which less is better."""
        mean = self.total / self.validated
        return mean if self.score.counted else self.score.error(mean)

    @property
    def value(self) -> float:
        """The mean score."""
        return self.score.value(self.error)


def stop_reason(check: Check, progress: Progress, train: TrainSettings) -> str | None:
    """Why a run ends at this check whatever its budget, or None: the stopping rules, in order of precedence."""
    if not check.finite:
        return "not_finite"
    whole = check.validated == train.validation_size
    criterion = train.success_error if check.score.counted else None
    if criterion is not None and whole and check.error < criterion:
        return "solved"
    if train.spectral_radius_limit is not None and check.radius > train.spectral_radius_limit:
        return "spectral_radius"
    if train.patience is not None and progress.checks_since_best >= train.patience:
        return "patience"
    return None


STATUS_OF = {
    "solved": "solved",
    "not_finite": "diverged",
    "spectral_radius": "diverged",
    "max_iterations": "not_solved",
    "patience": "not_solved",
    "max_seconds": "not_solved",
    "signal": "interrupted",
    "decided": "interrupted",
    "error": "failed",
}


def result_of(
    spec: RunSpec, progress: Progress, stopped_by: str, check: Check | None, stack: int, exam: Exam | None = None
) -> dict[str, Any]:
    """The content of result.json. `check`: of the full set, at the end; None where there is none, as for `exam`.

    A check that only the budget asked for counts among the best here, but not in `progress`, which goes on.
    """
    rule, score = spec.member("trainer"), spec.score
    best, best_loss = progress.best_score, progress.best_validation_loss
    if check is not None:
        best = check.value if best is None else score.better(best, check.value)
        best_loss = min(best_loss, check.validation_loss)
    elif best is None and score.counted:
        best = 0.0  # nothing has been answered rightly yet
    tested = {f"test_{score.name}": None if exam is None else exam.total / exam.sequences}
    return {
        "status": STATUS_OF[stopped_by],
        "stopped_by": stopped_by,
        "iterations": progress.iteration,
        "sequences": progress.iteration * rule.sequences(spec.config),
        "score": score.as_dict(),
        score.name: None if check is None else check.value,
        "loss": None if check is None else check.loss,
        f"best_{score.name}": best,
        "best_validation_loss": best_loss,
        "test_sequences": None if exam is None else exam.sequences,
        **({"test_right": None if exam is None else int(exam.total)} if score.counted else tested),
        "test_loss": None if exam is None else exam.loss,
        "seconds": round(progress.seconds, 3),
        "signature": spec.signature,
        "versions": versions(),
        "machine": machine(),
        "commit": commit(),
        "device": spec.execution["device"],
        "threads": spec.execution["threads"],
        "stack": stack,
        **({"code": {kind: source.as_dict() for kind, source in sources.items()}} if (sources := spec.sources) else {}),
    }


@functools.cache
def versions() -> dict[str, str]:
    """Versions that decide numbers."""
    found = {"python": platform.python_version()}
    for name in ("torch", "numba", "tprnn"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from a source tree that is not installed
            found[name] = "unknown"
    return found


@functools.cache
def commit() -> str | None:
    """The commit of the source tree that runs, with "+changes" where it differs from it; None outside one."""
    root = Path(__file__).parent.parent.parent
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10)
        dirty = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if head.returncode else head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


@dataclass(eq=False)
class Run:
    """A run under way."""

    spec: RunSpec
    folder: RunFolder
    progress: Progress
    tensors: dict[str, Tensor] = field(default_factory=dict)
    """Its checkpoint's tensors, without the runs axis; empty at the start."""
    best: dict[str, Tensor] = field(default_factory=dict)
    """Its parameters at the best check, without the runs axis; empty before a check that used the full set."""
    lock: ExitStack = field(default_factory=ExitStack)
    """Closed when the run is let go."""

    @property
    def remaining(self) -> int:
        """Iterations to the next check, or to the end of the budget; 0 for a run that stands at it."""
        train, iteration = self.spec.train, self.progress.iteration
        return min((iteration // train.check_every + 1) * train.check_every, train.max_iterations) - iteration

    def spent(self, at_check: bool) -> str | None:
        """Which part of its budget is used up, or None. A limit of seconds cuts it at a check only."""
        reason = self.spec.train.budget.spent(self.progress.iteration, self.progress.seconds)
        return None if reason == "max_seconds" and not at_check else reason

    def loss_since_check(self) -> float:
        """Mean training loss since the last check; where the run stands at one, that of the check."""
        if since := self.progress.iteration % self.spec.train.check_every:
            return self.progress.loss_sum / since
        rows = self.folder.read_metrics()
        return float(rows[-1]["loss"]) if rows else float("nan")
