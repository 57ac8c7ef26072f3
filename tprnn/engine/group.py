"""The runs of one ensemble, from one check to the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from tprnn.config import RunSpec
from tprnn.core import scans
from tprnn.core.products import norm
from tprnn.engine.ensemble import Ensemble
from tprnn.engine.runs import BEST, Check, Exam, Run, stop_reason
from tprnn.engine.signals import Stop
from tprnn.scores import Score


class Group:
    """Runs that come to their next checks together, with the ensemble that computes them.

    Args:
        alone: never to share an ensemble with others, because it broke one.
    """

    def __init__(self, runs: list[Run], ensemble: Ensemble, alone: bool = False) -> None:
        self.runs, self.ensemble, self.alone = runs, ensemble, alone
        self.rows = list(range(len(runs)))
        """Where each run lies in the ensemble: on a GPU, rows of ended runs stay for a while."""
        self.saved_at = time.monotonic()
        self.moved = False
        """Whether the last block had iterations: a run that stood at a check before has had it."""
        self.before: dict[str, Tensor] = {}
        ensemble.loss_sum.copy_(ensemble.loss_sum.new_tensor([run.progress.loss_sum for run in runs]))

    @staticmethod
    def merge(groups: Sequence[Group]) -> Group:
        """Groups with the same `remaining` as one."""
        for group in groups:
            group.compact()
        runs = [run for group in groups for run in group.runs]
        merged = Group(runs, Ensemble.merge([group.ensemble for group in groups]))
        merged.saved_at = min(group.saved_at for group in groups)
        return merged

    def split(self, size: int) -> list[Group]:
        """Groups of at most `size` runs."""
        if len(self.runs) <= size:
            return [self]
        parts = []
        for first in range(0, len(self.runs), size):
            runs = self.runs[first : first + size]
            parts.append(Group(runs, self.ensemble.select(range(first, first + len(runs)))))
            parts[-1].saved_at = self.saved_at
        return parts

    @property
    def score(self) -> Score:
        """What the task measures."""
        return self.ensemble.task.score

    @property
    def remaining(self) -> int:
        """Iterations to the next check, the same for all, or to the end of a run's budget before it."""
        return min(run.remaining for run in self.runs)

    def block(self, stop: Stop) -> bool:
        """Iterate up to the next check or end of a budget, or until `stop` is set; whether that was reached."""
        ensemble, remaining = self.ensemble, self.remaining
        self.moved = remaining > 0
        done = 0
        while done < remaining and not stop.is_set():
            if done == remaining - 1 and self._asked("update_norms"):
                self.before = {name: w.clone() for name, w in ensemble.state.params.items()}
            ensemble.advance()
            done += 1
        sums = ensemble.loss_sum.tolist()
        for run, row in zip(self.runs, self.rows, strict=True):
            run.progress.iteration += done
            run.progress.loss_sum = sums[row]
        return done == remaining

    def check(
        self, started: float, emit: Callable[[str, RunSpec, dict[str, Any]], None]
    ) -> list[tuple[Run, str, Check]]:
        """Validate, write the metrics, and say which runs end and why. `started`: when the block began (`scans.clock`).

        The last look at a run whose budget ends here (`_look`) leaves no trace in what goes on.
        """
        train, ensemble = self.ensemble.train, self.ensemble
        numbers: list[int] = [0] * len(ensemble.specs)
        full: list[bool | None] = [None] * len(ensemble.specs)
        due = []
        for run, row in zip(self.runs, self.rows, strict=True):
            numbers[row] = self._checks_before(run)
            if self.moved and run.progress.iteration % train.check_every == 0:
                full[row] = (numbers[row] + 1) % train.full_check_every == 0
                due.append((run, row))
        totals, validated, losses = (found.tolist() for found in ensemble.validate(numbers, full))
        finite = ensemble.finite().tolist()
        probed = self._probes()
        layers = {name: values.tolist() for name, values in ensemble.layers().items()} if self._asked("layers") else {}
        radii = {name: values.tolist() for name, values in self._radii().items()}
        seconds = (scans.clock() - started) / len(self.runs)  # on a CPU of one run, in its own blocks
        for run in self.runs:
            run.progress.seconds += seconds
        checks: dict[Run, Check] = {}
        ended = []
        for run, row in due:
            progress = run.progress
            loss, progress.loss_sum = progress.loss_sum / train.check_every, 0.0
            known = [values[row] for values in radii.values() if values[row] == values[row]]
            radius = max(known, default=float("nan"))
            sound = finite[row] and abs(loss) < float("inf")
            check = Check(progress.iteration, loss, totals[row], validated[row], losses[row], sound, radius, self.score)
            progress.checks_since_best += 1
            reason = self._judge(run, check)
            if reason and check.validated < train.validation_size:  # what is reported is always of the full set
                wrong, seen, mean = ensemble.select([row]).validate([numbers[row]], [True])
                check = replace(check, total=wrong.item(), validated=int(seen), validation_loss=float(mean))
                reason = self._judge(run, check)
            line = {
                "iteration": progress.iteration,
                "loss": check.loss,
                self.score.name: check.value,
                "validated": check.validated,
                "validation_loss": check.validation_loss,
                "seconds": round(progress.seconds, 3),
            }
            if run.spec.probe.spectral_radius:
                line |= {f"rho_{name}": values[row] for name, values in radii.items()}
            line |= {f"norm_{name}": values[row] for name, values in probed.items()}
            line |= {f"layers_{name}": values[row] for name, values in layers.items()}
            run.folder.append_metrics([line])
            emit("check", run.spec, line)
            checks[run] = check
            if reason:
                ended.append((run, reason, check))
        over = {run for run, _, _ in ended}
        spent = {run: why for run in self.runs if run not in over and (why := run.spent(at_check=run in checks))}
        looks = self._look(spent, checks)
        ensemble.loss_sum[[row for _, row in due]] = 0.0
        return ended + [(run, reason, looks[run]) for run, reason in spent.items()]

    def _checks_before(self, run: Run) -> int:
        """Checks that came before where a run stands now; its validation set is that of the next."""
        return -(-run.progress.iteration // self.ensemble.train.check_every) - 1

    def _look(self, runs: Iterable[Run], checks: Mapping[Run, Check]) -> dict[Run, Check]:
        """The full set at the end of runs' budgets; `checks` that were of the full set are taken as they are."""
        size = self.ensemble.train.validation_size
        looks = {run: checks[run] for run in runs if run in checks and checks[run].validated == size}
        rows = {run: self.rows[self.runs.index(run)] for run in runs if run not in looks}
        if not rows:
            return looks
        numbers: list[int] = [0] * len(self.ensemble.specs)
        full: list[bool | None] = [None] * len(self.ensemble.specs)
        for run, row in rows.items():
            numbers[row], full[row] = self._checks_before(run), True
        totals, validated, losses = (found.tolist() for found in self.ensemble.validate(numbers, full))
        for run, row in rows.items():
            loss, nan = run.loss_since_check(), float("nan")
            seen = totals[row], validated[row], losses[row]
            looks[run] = Check(run.progress.iteration, loss, *seen, True, nan, self.score)
        return looks

    def examine(self, run: Run, check: Check) -> Exam | None:
        """The test set with the weights of the run's best check, those of `check` (its last) where that was better.

        None where the best weights are not known: they were not kept, before there was an exam.
        """
        ensemble = self.ensemble.select([self.rows[self.runs.index(run)]])
        best = {name: w.unsqueeze(0).to(ensemble.device) for name, w in run.best.items()}
        if run.progress.bettered(check):  # a look of its budget's end
            best = ensemble.state.params
        if not best:
            return None
        total, loss = ensemble.examine(best)
        return Exam(ensemble.test_size, total.item(), float(loss))

    def _asked(self, probe: str) -> bool:
        return bool(getattr(self.runs[0].spec.probe, probe))

    def _judge(self, run: Run, check: Check) -> str | None:
        """Take in the errors of full sets, and say why the run ends, if it does.

        A part of a set is noisier than the whole: the best of hundreds of parts would never be bettered.
        """
        progress, train = run.progress, self.ensemble.train
        if check.validated == train.validation_size:
            so_far = progress.best_score
            progress.best_score = check.value if so_far is None else self.score.better(so_far, check.value)
            progress.best_validation_loss = min(progress.best_validation_loss, check.validation_loss)
            if check.error < progress.best_error:
                progress.checks_since_best = 0
            if progress.bettered(check):
                progress.best_error = check.error
                progress.best_loss = min(float("inf"), check.validation_loss)  # inf for nan
                run.best = {name: w.clone() for name, w in self.tensors_of(run, parameters=True).items()}
        return stop_reason(check, progress, train)

    def _radii(self) -> dict[str, Tensor]:
        return self.ensemble.radii(
            None if self._asked("spectral_radius") else self.ensemble.train.spectral_radius_limit or float("inf")
        )

    def _probes(self) -> dict[str, list[float]]:
        """Norm of the last update of each parameter, where asked for."""
        before, self.before = self.before, {}
        return {name: norm(self.ensemble.state.params[name] - w).tolist() for name, w in before.items()}

    def tensors_of(self, run: Run, parameters: bool = False) -> dict[str, Tensor]:
        """One run's tensors without the runs axis: all of its state, or the parameters alone by name."""
        row = self.rows[self.runs.index(run)]
        tensors = self.ensemble.state.params if parameters else self.ensemble.state.flat()
        return {name: value[row] for name, value in tensors.items()}

    def checkpoint(self, runs: Sequence[Run]) -> None:
        """Save where runs stand."""
        for run in runs:
            best = {f"{BEST}{name}": w for name, w in run.best.items()}
            run.folder.save_checkpoint(self.tensors_of(run) | best, run.progress.as_dict())

    def checkpoint_if_due(self) -> None:
        """Save all when `checkpoint_seconds` have passed since the last time."""
        if self.runs and time.monotonic() - self.saved_at >= self.runs[0].spec.execution["checkpoint_seconds"]:
            self.checkpoint(self.runs)
            self.saved_at = time.monotonic()

    def drop(self, ended: Sequence[Run]) -> None:
        """Let runs go. A GPU computes their rows for nothing until they are an eighth of all: a new one takes time."""
        kept = [(run, row) for run, row in zip(self.runs, self.rows, strict=True) if run not in ended]
        self.runs, self.rows = [run for run, _ in kept], [row for _, row in kept]
        places = len(self.ensemble.specs)
        if places - len(kept) > (0 if self.ensemble.device == "cpu" else places // 8):
            self.compact()

    def compact(self) -> None:
        """Rows of runs that are still under way only."""
        if self.runs and len(self.runs) < len(self.ensemble.specs):
            self.ensemble = self.ensemble.select(self.rows)
            self.rows = list(range(len(self.runs)))
