"""The stack launcher as the hand of a cluster: settings, what is handed over, what is gathered."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest
from cluster_settings import settings
from conftest import make_spec

from tprnn import cli
from tprnn.budgets import FINISHED
from tprnn.config import RunSpec
from tprnn.engine.signals import Interrupted
from tprnn.errors import UserError
from tprnn.store import Store
from tprnn.sweep.executors import cluster
from tprnn.sweep.executors import connect as connection
from tprnn.sweep.executors.cluster import Job, JobExecutor
from tprnn.sweep.executors.jobs import JobSettings, config_for_node, minutes
from tprnn.sweep.run import run_all

SWEEP = ["train", "-m", "task=adding", "trainer=tptt"]
TINY = ["task.T=10", "model.H=4", "train.max_iterations=4", "train.check_every=2", "train.validation_size=20"]


class FakeExecutor(JobExecutor):
    """Takes jobs; what becomes of them is said by `work`, called with each job at the first refresh."""

    patience = 0.0

    def __init__(self, work: Callable[[Job], None]) -> None:
        self.work, self.settings = work, settings()
        self.stacks: list[list[RunSpec]] = []

    def submit(self, stacks: Sequence[Sequence[RunSpec]]) -> list[Job]:
        self.stacks = [list(stack) for stack in stacks]
        return [Job(f"7_{number}", stack) for number, stack in enumerate(stacks)]

    def attended(self) -> AbstractContextManager[None]:
        return nullcontext()

    def refresh(self, handed: Sequence[Job]) -> list[str]:
        for job in handed:
            if not job.over:
                self.work(job)
                job.over, job.state = True, "ended"
        return [f"job {job.id}: queued again" for job in handed]

    def advice(self, handed: Sequence[Job]) -> str:
        return "the jobs go on"


def solve(job: Job) -> None:
    """Every run of the job is solved."""
    for spec in job.specs:
        write(spec, "solved")


def write(spec: RunSpec, status: str, **more: Any) -> None:
    folder = Store(spec.execution["outputs"]).folder(spec)
    folder.open(spec)
    folder.write_result({"status": status, "iterations": 1, "accuracy": 0.5, "seconds": 1.0} | more)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Callable[[Job], None]], FakeExecutor]:
    """Puts a fake executor in the place of every cluster; the working folder is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "_POLL", 0.01)

    def put(work: Callable[[Job], None] = solve) -> FakeExecutor:
        fake = FakeExecutor(work)

        def connected(how: JobSettings, execution: Mapping[str, Any]) -> FakeExecutor:
            fake.settings = how
            return fake

        monkeypatch.setattr(connection, "connect", connected)
        return fake

    return put


# ---- settings


@pytest.mark.parametrize(
    ("given", "expected"), [(90, 90), ("90", 90), ("1:30:00", 90), ("01:30:01", 91), ("2-00:00:00", 2880)], ids=str
)
def test_a_time_limit_is_minutes_or_hours_minutes_seconds(given: Any, expected: int) -> None:
    assert minutes(given) == expected


BAD = [
    ("hydra.launcher.exectuor=slurm", ["unknown key 'hydra.launcher.exectuor'", "nearest: hydra.launcher.executor"]),
    ("hydra.launcher.executor=slrum", ["hydra.launcher.executor: 'slrum'", "nearest: slurm"]),
    ("hydra.launcher.time=1:30", ["hydra.launcher.time: expected minutes", "'1:30'"]),
    ("hydra.launcher.time=0", ["hydra.launcher.time: expected at least 1"]),
    ("hydra.launcher.time=1", ["hydra.launcher.notice: expected less than 60 s", "got 90"]),
    ("hydra.launcher.time=2 hydra.launcher.executor=slurm", ["hydra.launcher.notice: expected less than 60 s"]),
    ("hydra.launcher.cpus=many", ["hydra.launcher.cpus: expected a whole number, got 'many'"]),
    ("hydra.launcher.memory=0", ["hydra.launcher.memory: expected a number above 0"]),
    ("hydra.launcher.setup=x", ["hydra.launcher.setup: expected a list"]),
    ("hydra.launcher.sbatch=x", ["hydra.launcher.sbatch: expected a mapping"]),
    ("hydra.launcher.sbatch.time=5", ["hydra.launcher.sbatch.time: give hydra.launcher.time instead"]),
    ("hydra.launcher.sbatch.output=x", ["hydra.launcher.sbatch.output: it is set by the launcher"]),
    ("hydra.launcher.sbatch.constraint=[a]", ["hydra.launcher.sbatch.constraint: expected text"]),
    ("hydra.launcher.executor=local device=cuda", ["device=cuda", "hydra.launcher.gpus=1"]),
    ("hydra.launcher.executor=ray hydra.launcher.wait=false", ["hydra.launcher.wait", "ray job submit"]),
]


@pytest.mark.parametrize(("line", "said"), BAD, ids=[line for line, _ in BAD])
def test_a_bad_setting_is_one_line_and_nothing_is_written(
    line: str, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main([*SWEEP, *line.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tprnn train: error: ")
    assert error.count("\n") == 1
    assert not [part for part in said if part not in error], error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("executor", "library"), [("slurm", "submitit"), ("local", "submitit"), ("ray", "ray")])
def test_a_missing_library_is_named_with_the_command_that_installs_it(
    executor: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, library, None)
    assert cli.main([*SWEEP, f"hydra.launcher.executor={executor}"]) == 2
    extra = "ray" if executor == "ray" else "slurm"
    assert f"needs {library}: pip install 'tprnn[{extra}]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_sbatch_the_line_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.main([*SWEEP, "hydra.launcher.executor=slurm"]) == 2
    assert "no sbatch, srun, squeue on the PATH" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_single_run_for_a_cluster_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "task=adding", "trainer=tptt", "hydra.launcher.executor=slurm"]) == 2
    assert "add -m" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# ---- handing over and gathering


def test_a_grid_is_handed_over_in_stacks_and_its_results_are_gathered(
    connect: Callable[..., FakeExecutor], capsys: pytest.CaptureFixture[str]
) -> None:
    fake = connect()
    line = [*SWEEP, "seed=range(5)", "hydra.launcher.executor=local", "hydra.launcher.runs_per_job=2"]
    assert cli.main(line) == 0
    assert [[spec.config["seed"] for spec in stack] for stack in fake.stacks] == [[0, 1], [2, 3], [4]]
    shown = capsys.readouterr()
    assert "5 solved" in shown.out
    assert "5 of 5 handed over in 3 local jobs (7_0 to 7_2)" in shown.err


def test_what_is_finished_or_worked_on_is_not_handed_over(
    connect: Callable[..., FakeExecutor], outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = connect()
    specs = [make_spec({"seed": seed, "outputs": outputs, "locked": "leave"}) for seed in range(4)]
    write(specs[0], "solved")
    write(specs[3], "interrupted")
    with Store(outputs).folder(specs[1]).lock():
        outcomes = run_all(specs, fake)
    assert [spec.config["seed"] for stack in fake.stacks for spec in stack] == [2, 3]
    assert [outcome.status for outcome in outcomes] == ["solved", "locked", "solved", "solved"]
    assert [outcome.skipped for outcome in outcomes] == [True, False, False, False]
    said = capsys.readouterr().err
    assert f"run {specs[1].folder_name}: process {os.getpid()} on {socket.gethostname()} (since" in said


def test_what_another_call_works_on_is_waited_for_and_handed_over_if_it_is_left_unfinished(
    connect: Callable[..., FakeExecutor],
    outputs: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handed: list[int] = []

    def work(job: Job) -> None:
        handed.extend(spec.config["seed"] for spec in job.specs)
        solve(job)

    fake = connect(work)
    specs = [make_spec({"seed": seed, "outputs": outputs, "quiet": False}) for seed in range(3)]
    with ExitStack() as locks:
        for spec in specs[:2]:
            locks.enter_context(Store(outputs).folder(spec).lock())

        def let_go(seconds: float) -> None:
            if "waited for" in capsys.readouterr().err:
                write(specs[0], "solved")  # the other call ends the first run and leaves the second
                locks.close()

        monkeypatch.setattr(cluster.time, "sleep", let_go)
        outcomes = run_all(specs, fake)
    assert handed == [2, 1]
    assert [outcome.status for outcome in outcomes] == 3 * ["solved"]


def test_a_larger_budget_is_handed_over_once_and_a_smaller_one_is_not(
    connect: Callable[..., FakeExecutor], outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def within(limit: int) -> RunSpec:
        return make_spec({"outputs": outputs, "train.max_iterations": limit})

    cut = {"stopped_by": "max_iterations"}
    write(within(1000), "not_solved", iterations=1000, **cut)
    fake = connect(lambda job: write(job.specs[0], "not_solved", iterations=5000, **cut))
    assert run_all([within(1000)], fake)[0].skipped
    assert fake.stacks == []
    outcomes = run_all([within(2000), within(5000), within(1000)], fake)
    assert [[spec.train.max_iterations for spec in stack] for stack in fake.stacks] == [[5000]]
    assert [(outcome.result or {})["iterations"] for outcome in outcomes] == [2000, 5000, 1000]
    assert "3 not solved" in capsys.readouterr().out


def test_force_hands_over_what_is_finished_and_does_not_take_the_old_result(
    connect: Callable[..., FakeExecutor], outputs: str
) -> None:
    spec = make_spec({"outputs": outputs, "force": True})
    write(spec, "solved")
    fake = connect(lambda job: write(job.specs[0], "not_solved"))
    outcomes = run_all([spec], fake)
    assert len(fake.stacks) == 1
    assert outcomes[0].status == "not_solved"


def test_runs_of_a_job_that_died_are_counted_with_its_id_and_its_reason(
    connect: Callable[..., FakeExecutor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def die(job: Job) -> None:
        write(job.specs[0], "solved")
        write(job.specs[1], "interrupted")  # its checkpoint is there, but no job goes on with it
        job.log = tmp_path / "7_0_0_log.err"
        job.log.write_text("noise\ntprnn: error: no memory\nnoise\n")

    connect(die)
    assert cli.main([*SWEEP, "seed=range(3)", "hydra.launcher.executor=local"]) == 1
    shown = capsys.readouterr()
    assert "1 solved, 2 unfinished" in shown.out
    assert f"job 7_0: 2 of 3 runs unfinished: no memory; log: {tmp_path}/7_0_0_log.err" in shown.err


def test_a_run_that_another_process_took_first_is_left_to_it(
    connect: Callable[..., FakeExecutor], outputs: str
) -> None:
    spec = make_spec({"outputs": outputs, "locked": "leave"})
    with ExitStack() as locks:
        fake = connect(lambda job: locks.enter_context(Store(outputs).folder(spec).lock()))
        outcomes = run_all([spec], fake)
    assert outcomes[0].status == "locked"


def test_a_failed_run_makes_the_exit_code_1_and_shows_its_error(
    connect: Callable[..., FakeExecutor], capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(job: Job) -> None:
        write(job.specs[0], "failed", error="ValueError: broken")
        write(job.specs[1], "solved")

    connect(fail)
    assert cli.main([*SWEEP, "seed=0,1", "hydra.launcher.executor=local"]) == 1
    shown = capsys.readouterr()
    assert "1 failed, 1 solved" in shown.out
    assert ": ValueError: broken" in shown.err


@pytest.mark.parametrize("quiet", [False, True])
def test_what_happens_to_a_job_is_told_while_its_runs_are_waited_for(
    connect: Callable[..., FakeExecutor], capsys: pytest.CaptureFixture[str], quiet: bool
) -> None:
    connect()
    assert cli.main([*SWEEP, "seed=0,1", "hydra.launcher.executor=local", f"quiet={quiet}"]) == 0
    assert capsys.readouterr().err.splitlines().count("job 7_0: queued again") == (0 if quiet else 1)


def test_without_waiting_the_command_says_which_jobs_and_how_to_see_them(
    connect: Callable[..., FakeExecutor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(job: Job) -> None:
        raise AssertionError("nobody waits")

    connect(never)
    assert cli.main([*SWEEP, "seed=0,1", "hydra.launcher.executor=local", "hydra.launcher.wait=false"]) == 0
    shown = capsys.readouterr().out
    assert "2 of 2 handed over in 1 local job (7_0)" in shown
    assert "tprnn report outputs" in shown
    assert "the jobs go on" in shown


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (Interrupted(signal.SIGTERM), 143)], ids=str)
def test_an_interrupted_wait_says_that_the_jobs_go_on(
    connect: Callable[..., FakeExecutor], capsys: pytest.CaptureFixture[str], error: BaseException, code: int
) -> None:
    def interrupt(job: Job) -> None:
        raise error

    connect(interrupt)
    assert cli.main([*SWEEP, "hydra.launcher.executor=local"]) == code
    assert "the jobs go on; tprnn report outputs shows" in capsys.readouterr().err


def test_outputs_that_cannot_be_written_are_refused_before_a_job_is_handed_over(
    connect: Callable[..., FakeExecutor], tmp_path: Path
) -> None:
    fake = connect()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="outputs"):
        run_all([make_spec({"outputs": str(tmp_path / "file" / "outputs")})], fake)
    assert fake.stacks == []


def test_a_job_gets_paths_that_hold_elsewhere_and_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    spec = make_spec({"outputs": "here", "data": "there", "threads": 2})
    config = config_for_node(spec, settings(cpus=4))
    assert (config["outputs"], config["data"]) == (str(tmp_path / "here"), str(tmp_path / "there"))
    assert (config["quiet"], config["workers"]) == (True, 2)
    assert RunSpec.from_config(config).signature == spec.signature


# ---- real jobs


def test_local_jobs_train_real_runs_and_a_second_command_needs_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "_POLL", 0.1)
    command = [*SWEEP, *TINY, "seed=0,1", "hydra.launcher.executor=local"]
    assert cli.main(command) == 0
    folders = Store("outputs").folders()
    assert [folder.result()["status"] in FINISHED for folder in folders] == [True, True]
    assert sorted(os.listdir("outputs")) == ["jobs", "runs"]
    assert cli.main(command) == 0
    assert "2 finished before" in capsys.readouterr().err
    assert len(os.listdir("outputs/jobs")) == 1


@pytest.mark.slow
def test_a_local_job_goes_on_after_its_time_limit_to_the_same_metrics(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    changes = {"task.T": 10, "model.H": 4, "trainer.alpha": 1e-9, "train.patience": None, "checkpoint_seconds": 1e6}
    changes |= {"train.max_iterations": 120_000, "train.validation_size": 1000, "train.check_every": 1000}
    limited = dataclasses.replace(settings(), time=0.4, notice=12)  # told after 12 of 24 seconds
    rows, starts = [], []
    for name, how in (("limited", limited), ("free", settings())):
        spec = make_spec(changes | {"outputs": str(tmp_path / name)}, trainer="bptt", task="adding")
        outcomes = run_all([spec], connection.connect(how, spec.execution))
        assert outcomes[0].status == "not_solved"
        metrics = Store(tmp_path / name).folder(spec).read_metrics()
        rows.append([{key: value for key, value in row.items() if key != "seconds"} for row in metrics])
        logs = [path.read_text() for path in (tmp_path / name / "jobs").glob("*/*_log.out")]
        starts.append(sum(log.count("Starting with") for log in logs))
    assert rows[0] == rows[1]
    assert starts[0] > starts[1] == 1


def test_ray_tasks_train_real_runs(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'tprnn[ray]' (about 300 MB)")
    line = [*SWEEP, *TINY, "seed=0,1,2", "hydra.launcher.executor=ray", "hydra.launcher.address=local"]
    command = [sys.executable, "-m", "tprnn", *line, "hydra.launcher.runs_per_job=2"]
    home = {"XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"), "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=os.environ | home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 handed over in 2 ray jobs" in done.stderr
    assert os.listdir(tmp_path) == ["outputs"]  # no token of Ray's in the home
    assert len(list((tmp_path / "outputs" / "runs").glob("*/result.json"))) == 3
