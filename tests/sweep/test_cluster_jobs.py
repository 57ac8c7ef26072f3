"""Jobs: how SLURM and Ray are spoken to (by stand-ins for both), and what a job does on its node."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from cluster_settings import settings
from conftest import make_spec
from fake_ray import FakeRay

from tprnn.config import RunSpec
from tprnn.engine.runs import Outcome
from tprnn.engine.signals import Interrupted, catch_signals
from tprnn.errors import UserError
from tprnn.sweep import run as many
from tprnn.sweep.executors import jobs
from tprnn.sweep.executors.cluster import Job, reason
from tprnn.sweep.executors.jobs import StackJob, config_for_node
from tprnn.sweep.executors.ray import RayExecutor
from tprnn.sweep.executors.slurm import SlurmExecutor

# ---- SLURM, by programs that stand for its own


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the PATH with an sbatch that keeps the script it is given, and a squeue that prints a file."""
    programs = {
        "sbatch": f'cp "$1" {tmp_path}/script; echo Submitted batch job 12',
        "squeue": f"cat {tmp_path}/queue",
        "srun": "",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    return tmp_path


def slurm_jobs(folder: Path, count: int, **changes: Any) -> tuple[SlurmExecutor, list[Job]]:
    submitit = pytest.importorskip("submitit")
    executor = SlurmExecutor(settings(executor="slurm", **changes), submitit, folder / "jobs")
    executor.asked = float("-inf")
    return executor, executor.submit([[make_spec({"seed": seed})] for seed in range(count)])


def test_the_settings_reach_sbatch(slurm: Path) -> None:
    options = {"constraint": "a100", "mail-type": "END", "exclusive": True}
    asked = {"partition": "long", "account": "lab", "qos": "low", "memory": 1.5, "cpus": 3, "gpus": 2, "parallel": 2}
    slurm_jobs(slurm, 3, time="1:30:00", notice=60, setup=["module load cuda"], sbatch=options, **asked)
    script = (slurm / "script").read_text().splitlines()
    for line in (
        *("--partition=long", "--account=lab", "--qos=low", "--mem=1536MB", "--cpus-per-task=3", "--gpus-per-node=2"),
        *("--array=0-2%2", "--time=90", "--signal=USR2@60", "--constraint=a100", "--mail-type=END", "--exclusive"),
    ):
        assert f"#SBATCH {line}" in script
    assert "module load cuda" in script


def test_the_state_of_jobs_is_that_of_squeue(slurm: Path) -> None:
    executor, handed = slurm_jobs(slurm, 6)
    assert [job.id for job in handed] == [f"12_{number}" for number in range(6)]
    states = ["PENDING|Resources", "PENDING|JobHeldUser", "RUNNING|None", "COMPLETING|None", "OUT_OF_MEMORY|None"]
    (slurm / "queue").write_text("".join(f"12_{number}|{state}\n" for number, state in enumerate(states)))
    executor.refresh(handed)
    assert [job.over for job in handed] == [False, False, False, False, True, True]
    words = ["waiting", "waiting (JobHeldUser)", "running", "running", "out of memory", "ended"]
    assert [job.state for job in handed] == words
    assert reason(handed[4]) == "out of memory"


def test_a_job_that_slurm_queues_again_is_told_each_time(slurm: Path) -> None:
    executor, handed = slurm_jobs(slurm, 1)
    lines = []
    for state in ("PENDING|None", "RUNNING|None", "PENDING|BeginTime", "PENDING|None", "RUNNING|None", "PENDING|None"):
        (slurm / "queue").write_text(f"12|{state}\n")
        executor.asked = float("-inf")
        lines += executor.refresh(handed)
    assert [line[: line.index(" after")] for line in lines] == ["job 12: queued again by SLURM"] * 2
    assert [line[line.index("(") :] for line in lines] == ["(1 so far)", "(2 so far)"]


def test_a_controller_that_does_not_answer_leaves_jobs_as_they_were(slurm: Path) -> None:
    executor, handed = slurm_jobs(slurm, 2)
    (slurm / "squeue").write_text("#!/bin/sh\necho 'Unable to contact slurm controller' >&2; exit 1\n")
    executor.refresh(handed)
    assert [job.over for job in handed] == [False, False]


def test_what_sbatch_refuses_is_said_and_leaves_no_files(slurm: Path) -> None:
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: Invalid qos' >&2; exit 1\n")
    with pytest.raises(UserError, match=r"refused .*Invalid qos"):
        slurm_jobs(slurm, 2)
    assert not (slurm / "jobs").exists()


# ---- what a job does on its node


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Submitit's handler stands ready; notes when it is called. Handlers are put back."""
    calls: list[int] = []

    def queue_again(signum: int, frame: FrameType | None) -> None:
        calls.append(signum)
        raise SystemExit(-1)

    for name in ("SUBMITIT_EXECUTOR", "SUBMITIT_PREEMPT_SIGNAL", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)
    before = {signum: signal.getsignal(signum) for signum in (signal.SIGUSR2, signal.SIGTERM)}
    signal.signal(signal.SIGUSR2, queue_again)
    yield calls
    for signum, handler in before.items():
        signal.signal(signum, handler)


def interrupted_by(signum: signal.Signals, seen: list[bool]) -> Callable[..., None]:
    """A training that gets a signal, ends its iteration as the engine does, and says so."""

    def train(*_: Any) -> None:
        with catch_signals() as flag:
            signal.raise_signal(signum)
            signal.raise_signal(signal.SIGUSR2)
            seen.append(flag.is_set())
        raise Interrupted(flag.signum or 0)

    return train


def test_before_the_time_limit_a_job_writes_checkpoints_and_then_is_queued_again(
    node: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(jobs, "train", interrupted_by(signal.SIGUSR2, seen))
    pytest.importorskip("submitit")
    with pytest.raises(SystemExit) as end:
        StackJob([])()
    assert seen == [True]  # the training came to its own end, though the signal came twice
    assert node == [signal.SIGUSR2]
    assert end.value.code == -1


def test_a_cancelled_job_writes_checkpoints_and_is_not_queued_again(
    node: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancelled(*_: Any) -> None:
        with catch_signals() as flag:
            signal.raise_signal(signal.SIGTERM)
        raise Interrupted(flag.signum or 0)

    monkeypatch.setattr(jobs, "train", cancelled)
    with pytest.raises(SystemExit) as end:
        StackJob([])()
    assert node == []
    assert end.value.code == 128 + signal.SIGTERM


@pytest.mark.parametrize(("state", "queued"), [("RUNNING", True), ("COMPLETING", False), ("CANCELLED", False)])
def test_a_preempted_job_is_queued_again_and_a_cancelled_one_is_not(
    node: list[int], slurm: Path, monkeypatch: pytest.MonkeyPatch, state: str, queued: bool
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    (slurm / "queue").write_text(f"{state}\n")
    monkeypatch.setattr(jobs, "train", lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit):
        StackJob([])()
    assert node == [signal.SIGUSR2] * queued


def test_a_signal_before_training_begins_ends_the_job_too(node: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setattr(jobs, "train", lambda *_: signal.raise_signal(signal.SIGUSR2))
    with pytest.raises(SystemExit):
        StackJob([])()
    assert node == [signal.SIGUSR2]


def test_what_keeps_a_job_from_its_work_stands_in_its_log(
    node: list[int], outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_for_node(make_spec({"outputs": outputs, "device": "cuda:99"}), settings())
    with pytest.raises(SystemExit) as end:
        StackJob([config])()
    assert end.value.code == 2
    assert "tprnn: error: device: 'cuda:99' is not there" in capsys.readouterr().err


@pytest.mark.parametrize(("again", "restarts", "forced"), [(False, "", True), (True, "", False), (False, "1", False)])
def test_a_job_forces_its_runs_only_at_its_first_start(
    node: list[int], monkeypatch: pytest.MonkeyPatch, outputs: str, again: bool, restarts: str, forced: bool
) -> None:
    seen: list[bool] = []

    def run_all(specs: Sequence[RunSpec]) -> list[Outcome]:
        seen.extend(spec.execution["force"] for spec in specs)
        return []

    monkeypatch.setattr(many, "run_all", run_all)
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    StackJob([config_for_node(make_spec({"outputs": outputs, "force": True}), settings())], again=again)()
    assert seen == [forced]


def test_a_job_that_is_stored_for_another_start_is_the_same_job_begun_before() -> None:
    pytest.importorskip("submitit")
    stored = StackJob([{"seed": 1}]).checkpoint()
    assert stored.function == StackJob([{"seed": 1}], again=True)


# ---- Ray, by a module that stands for it


def ray_job(ends: list[Any], requeues: int) -> tuple[Job, FakeRay]:
    ray = FakeRay(ends)
    executor = RayExecutor(settings(executor="ray", requeues=requeues), ray)
    handed = executor.submit([[make_spec({"seed": 3})]])
    for _ in ends:
        executor.refresh(handed)
    return handed[0], ray


def test_a_job_whose_ray_worker_is_lost_is_handed_over_again_as_one_begun_before() -> None:
    job, ray = ray_job([FakeRay.exceptions.RayError("worker died"), None], requeues=1)
    assert ray.started == [([3], False), ([3], True)]
    assert (job.over, job.error) == (True, None)


def test_a_job_that_is_handed_over_again_is_told_in_one_line_with_how_often() -> None:
    lost = FakeRay.exceptions.RayError("The worker died. Check these files:\n  a\n  b. It was on node 7.")
    executor = RayExecutor(settings(executor="ray", requeues=5), FakeRay([lost, lost, None]))
    handed = executor.submit([[make_spec({"seed": 3})]])
    lines = [line for _ in range(3) for line in executor.refresh(handed)]
    ends = "times: its worker was lost (The worker died)"
    assert lines == [f"job 0: handed over again, {count} of 5 {ends}" for count in (1, 2)]


@pytest.mark.parametrize(
    ("cpus", "state"), [(1, "handed over"), (2, "waiting (no node has what a job asks for)")], ids=str
)
def test_a_job_that_fits_no_living_node_of_ray_says_so(cpus: int, state: str) -> None:
    executor = RayExecutor(settings(executor="ray", cpus=cpus), FakeRay(["at work"]))
    (job,) = executor.submit([[make_spec({"seed": 3})]])
    executor.refresh([job])
    assert (job.over, job.state) == (False, state)


@pytest.mark.parametrize("error", [BrokenPipeError, FakeRay.exceptions.LocalRayletDiedError])
def test_a_lost_connection_to_ray_is_one_line_and_no_lost_worker(error: type[Exception]) -> None:
    executor = RayExecutor(settings(executor="ray"), FakeRay([error("Broken pipe")]))
    handed = executor.submit([[make_spec({"seed": 3})]])
    with pytest.raises(UserError, match=r"lost \(Broken pipe\); the same command goes on"):
        executor.refresh(handed)


def test_what_ray_prints_from_its_thread_stays_out_of_our_output(capsys: pytest.CaptureFixture[str]) -> None:
    executor = RayExecutor(settings(executor="ray"), FakeRay([]))
    before = sys.stdout
    with executor.attended():
        theirs = threading.Thread(target=print, args=("(raylet) ten lines",))
        theirs.start()
        theirs.join()
        print("ours")
    assert sys.stdout is before
    assert capsys.readouterr().out == "ours\n"


def test_a_job_that_loses_its_ray_worker_too_often_is_over_and_says_why() -> None:
    job, ray = ray_job([FakeRay.exceptions.RayError("worker died")] * 2, requeues=1)
    assert len(ray.started) == 2
    assert (job.over, job.state, job.error) == (True, "lost", "worker died")


def test_an_error_of_a_ray_job_is_no_lost_worker() -> None:
    job, ray = ray_job([FakeRay.exceptions.RayTaskError("a bug")], requeues=5)
    assert len(ray.started) == 1
    assert (job.over, job.state, job.error) == (True, "failed", "a bug")


def test_a_ray_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # not listening
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"no Ray at '{address}'"):
            RayExecutor(settings(executor="ray", address=address), FakeRay([]))
