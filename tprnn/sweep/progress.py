"""What a person sees while runs train: a live line on a terminal, plain lines elsewhere, nothing with quiet."""

from __future__ import annotations

import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from tprnn.budgets import ending
from tprnn.config import RunSpec
from tprnn.engine.runs import REFUSED, Outcome
from tprnn.papers.departures import departures
from tprnn.scores import ACCURACY, last_of, score_of
from tprnn.store import Store
from tprnn.sweep.plan import Plan

PLAIN_EVERY = 15.0
"""Seconds between plain lines."""
_SILENCE = 60.0  # seconds without news after which it is said what is waited for


class Progress:
    """Counts iterations of all runs of a call; `emit` is safe to call from a thread."""

    def __init__(self, plan: Plan, workers: int) -> None:
        self.specs = [spec for signature, spec in plan.runs.items() if signature not in plan.refused]
        self.quiet, self.workers = plan.execution["quiet"], min(workers, len(self.specs))
        self.skipped, self.todo = len(plan.done), len(plan.waiting)
        self.console = Console(file=sys.stderr)
        self.live = self.console.is_terminal and not self.quiet
        self.solved = sum(outcome.status == "solved" for outcome in plan.done.values())
        self.ended = 0
        self.told = False
        self.score, self.best = ACCURACY, 0.0
        self.loss = float("nan")
        self.reached: dict[str, int] = {}
        self.limits = {spec.signature: spec.train.max_iterations for spec in plan.waiting}
        self.started = self.printed = time.monotonic()
        self.first: dict[str, int] = {}
        self.heard = self.started
        self.under_way: dict[str, tuple[RunSpec, str]] = {}
        """Runs that have begun and not ended, with who works on them."""
        self.over = threading.Event()
        columns = (BarColumn(bar_width=12), TextColumn("{task.fields[text]}"))
        self.bar = Bar(*columns, console=self.console, transient=True, disable=not self.live)

    def __enter__(self) -> Progress:
        if not self.quiet:
            self.console.print(first_line(self.specs, self.skipped, self.workers), highlight=False, soft_wrap=True)
            for note in departures(self.specs) if self.todo else ():
                self._say(f"note: {note}")
        self.bar.start()
        total = sum(self.limits.values()) or 1
        self.task = self.bar.add_task("runs", total=total, text="starting")
        if not self.quiet and self.todo:
            threading.Thread(target=self._mind_silence, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self.bar.stop()

    def emit(self, kind: str, spec: RunSpec, row: dict[str, Any]) -> None:
        """Take in one event of the loop, or of the processes that train."""
        self.heard = time.monotonic()
        if kind == "compiling":
            self._tell_of_compilation()
        elif kind == "begin":
            self.under_way[spec.signature] = (spec, f"process {row['process']}")
        elif kind == "elsewhere":
            self._tell_of_others(spec, row["holder"])
        elif kind == "died":
            self._say(f"process {row['process']} has died ({row['cause']}); its {_runs(row['runs'])} go on in another")
        else:
            self._count(kind, spec, row)

    def _count(self, kind: str, spec: RunSpec, row: dict[str, Any]) -> None:
        signature = spec.signature
        if kind == "check":
            self.first.setdefault(signature, row["iteration"] - min(spec.train.check_every, row["iteration"]))
            self.reached[signature] = row["iteration"]
            value = row[spec.score.name]
            self.best = self.score.better(self.best, value) if self.score == spec.score else value
            self.score = spec.score
            self.loss = row["loss"]
        else:
            self.ended += 1
            self.solved += row["outcome"].status == "solved"
            self.under_way.pop(signature, None)
            self.limits[signature] = self.reached.get(signature, 0)
        self._show()

    def _say(self, line: str) -> None:
        if not self.quiet:
            self.console.print(line, highlight=False, soft_wrap=True)

    def _tell_of_compilation(self) -> None:
        if not self.told:
            self._say("compiling for this machine, once: half a minute at most")
        self.told = True

    def _tell_of_others(self, spec: RunSpec, holder: str) -> None:
        """Each holder is named once."""
        if holder not in [known for _, known in self.under_way.values()]:
            self._say(waited_for(holder, spec.folder_name))
        self.under_way[spec.signature] = (spec, holder)

    def _mind_silence(self) -> None:
        while not self.over.wait(1.0):
            silent = time.monotonic() - self.heard
            if silent >= _SILENCE:
                self._say(f"nothing heard for {_span(silent)}; waiting for {self._waited_for()}")
                self.heard = time.monotonic()

    def _waited_for(self) -> str:
        """Who works on what, as far as it has begun."""
        working: dict[str, list[RunSpec]] = {}
        for spec, holder in list(self.under_way.values()):
            working.setdefault(holder, []).append(spec)
        told = [f"{holder} with {_runs(len(specs))} ({specs[0].folder_name})" for holder, specs in working.items()]
        return ", ".join(told) or "processes that begin"

    def _show(self) -> None:
        if not self.reached:  # nothing to be said before the first check
            return
        if self.live:
            done = sum(self.reached.values())
            self.bar.update(self.task, completed=done, total=max(1, sum(self.limits.values())), text=self._text())
        elif not self.quiet and time.monotonic() - self.printed > PLAIN_EVERY:
            self.printed = time.monotonic()
            self.console.print(self._text(), highlight=False, soft_wrap=True)

    def _text(self) -> str:
        elapsed = max(time.monotonic() - self.started, 1e-9)
        made = sum(self.reached.values()) - sum(self.first.values())
        speed = made / elapsed
        left = sum(self.limits.values()) - sum(self.reached.values())
        if len(self.specs) == 1:
            text = f"iteration {sum(self.reached.values()):,}, loss {self.loss:.4g}"
        else:
            text = f"{self.ended}/{self.todo} done, {self.solved} solved"
        text += f", {speed:,.0f} it/s, best {self.score.name} {self.score.show(self.best)}"
        # the budget bounds the time; runs that are solved early shorten it
        return text + (f", ≤ {_span(left / speed)} left" if speed > 0 and left else "")


def tell_end(outcomes: Sequence[Outcome], store: Store) -> None:
    """The last lines: what went wrong, what came out, where it lies, how to see it."""
    tell_troubles(outcomes)
    print(last_line(outcomes, store))


def tell_troubles(outcomes: Sequence[Outcome]) -> None:
    """What went wrong, on standard error."""
    for line in troubles(outcomes):
        print(line, file=sys.stderr)


def troubles(outcomes: Sequence[Outcome]) -> list[str]:
    """A line for each run that failed, one for all that are left to others, one for what was refused for one reason."""
    lines = [f"{one.spec.folder_name}: {one.error}" for one in outcomes if one.status == "failed"]
    left = [str(one.error) for one in outcomes if one.status == "locked"]
    if left:
        lines.append(left[0] + (f" ({len(left) - 1} more are worked on)" if len(left) > 1 else ""))
    refused: dict[str, list[str]] = {}
    for one in outcomes:
        if one.status == REFUSED:
            refused.setdefault(str(one.error), []).append(one.spec.folder_name)
    for error, names in refused.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        lines.append(f"{names[0]}{more}: {error}")
    return lines


def waited_for(holder: str, name: str) -> str:
    """That a run is another call's for now."""
    return f"{holder} works on {name}, and maybe on more; they are waited for"


def first_line(specs: Sequence[RunSpec], skipped: int, workers: int | None = None) -> str:
    """What is about to be run, in words."""

    def values(path: str) -> list[Any]:
        group, key = path.split(".")
        return sorted({spec.config[group].get(key) for spec in specs if spec.config[group].get(key) is not None})

    tasks, trainers, lengths = values("task.name"), values("trainer.name"), values("task.T")
    length = "" if not lengths else f" T={lengths[0]}" if len(lengths) == 1 else f" T={lengths[0]}..{lengths[-1]}"
    where = f"on {specs[0].execution['device']}"
    if workers is not None:
        where += f", {workers} process{'es' if workers > 1 else ''}"
    count = "training" if len(specs) == 1 else f"{len(specs)} runs:"
    text = f"{count} {', '.join(tasks)}{length} with {', '.join(trainers)}, {where}"
    return text + (f"; {skipped} finished before" if skipped else "")


def last_line(outcomes: Sequence[Outcome], store: Store) -> str:
    """What came out, where it lies and how to plot it."""
    if len(outcomes) == 1:
        outcome = outcomes[0]
        folder = store.folder(outcome.spec).path
        result = outcome.result or {}
        text = outcome.status.replace("_", " ")
        if "iterations" in result:
            text += f" after {result['iterations']:,} iterations"
        if (value := last_of(result)) is not None:
            score = score_of(result)
            text += f", {score.name} {score.show(value)}"
        if outcome.skipped:
            text += " (finished before; --force trains again)"
        return f"{text}: {folder}  ({shlex.join(['tprnn', 'plot', str(folder)])})"
    counts = Counter(_ending(outcome) for outcome in outcomes)
    skipped = sum(outcome.skipped for outcome in outcomes)
    text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    text += f" ({skipped} finished before)" if skipped else ""
    commands = "; ".join(shlex.join(["tprnn", command, str(store.root)]) for command in ("report", "plot"))
    return f"{text}: {store.root}/runs  ({commands})"


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"


def _ending(outcome: Outcome) -> str:
    """A status in words; a run of a decided rung is not interrupted, it is left where the fastest was solved."""
    left = outcome.result is not None and ending(outcome.result) == "left"
    return "left" if left else outcome.status.replace("_", " ")


def _span(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
