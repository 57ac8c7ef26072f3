"""A real SLURM: controller and node of Debian's packages, started here and stopped here. Run by `make test-cluster`."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_services import Slurm, Sweep, parent_and_name, same_bits, until

CPUS = os.cpu_count() or 1

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def programs() -> None:
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    missing = [name for name in Slurm.PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: apt-get install slurm-wlm munge")


@pytest.fixture(scope="module")
def slurm() -> Iterator[Slurm]:
    """A cluster of one node with all cores of this machine."""
    services = Slurm(nodes=1, cpus=CPUS)
    try:
        services.up()
        yield services
    finally:
        services.stop()


def sweep_on(services: Slurm, folder: Path) -> Iterator[Sweep]:
    made = Sweep(folder, services.environment, "executor=slurm")
    yield made
    made.stop()
    services.call("scancel", "--user", getpass.getuser())
    until(lambda: services.call("squeue", "-h") == "", 60, "the end of all jobs")


@pytest.fixture
def sweep(slurm: Slurm, tmp_path: Path) -> Iterator[Sweep]:
    """No job of it is left when the test ends."""
    yield from sweep_on(slurm, tmp_path)


def test_a_sweep_is_trained_by_an_array_of_jobs(sweep: Sweep) -> None:
    done = sweep.run("seed=0,1,2", "hydra.launcher.runs_per_job=1", "hydra.launcher.memory=0.5")
    assert done.returncode == 0, done.stderr
    assert "3 of 3 handed over in 3 slurm jobs" in done.stderr
    assert "3 not solved" in done.stdout
    assert [result["status"] for result in sweep.results()] == ["not_solved"] * 3
    again = sweep.run("seed=0,1,2")
    assert again.returncode == 0, again.stderr
    assert "3 finished before" in again.stdout


def test_without_waiting_the_results_are_there_for_the_report_when_the_jobs_have_ended(sweep: Sweep) -> None:
    done = sweep.run("seed=0,1", "hydra.launcher.wait=false", f"hydra.launcher.cpus={min(2, CPUS)}")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 handed over in 1 slurm job" in done.stdout
    assert "scancel" in done.stdout
    until(lambda: len(sweep.results()) == 2, 60, "two results")
    command = [sys.executable, "-m", "tprnn", "report"]
    shown = subprocess.run(command, cwd=sweep.folder, capture_output=True, text=True, check=True).stdout
    assert "2 runs" in shown


def test_a_job_that_meets_its_time_limit_is_queued_again_and_goes_on_from_its_checkpoint(
    slurm: Slurm, sweep: Sweep
) -> None:
    waiting = sweep.start("seed=0", "hydra.launcher.time=2", "hydra.launcher.notice=30", iterations=10_000_000)
    until(lambda: sweep.logs("out").count("Starting with JobEnvironment") == 2, 240, "a second start")
    assert sweep.logs("out").count("Requeued job") == 1
    (before,) = sweep.results()
    assert before["status"] == "interrupted"
    until(lambda: sweep.iterations()[-1] > before["iterations"] + 1000, 60, "more metrics")
    slurm.call("scancel", "--user", getpass.getuser())
    waiting.communicate(timeout=60)
    found = sweep.iterations()
    assert found == list(range(1000, 1000 * len(found) + 1, 1000))  # none lost, none twice


def test_a_preempted_job_goes_on_from_its_checkpoint_when_the_node_is_free_again(slurm: Slurm, sweep: Sweep) -> None:
    whole = f"hydra.launcher.cpus={CPUS}"
    first = sweep.start("seed=0", whole, iterations=10_000_000)
    until(sweep.iterations, 60, "a line of metrics")
    urgent = sweep.run("seed=1", whole, "hydra.launcher.partition=urgent", "outputs=urgent")
    assert urgent.returncode == 0, urgent.stderr
    (before,) = sweep.results()
    assert before["status"] == "interrupted"
    until(lambda: sweep.iterations()[-1] > before["iterations"] + 1000, 60, "more metrics")
    assert sweep.logs("out").count("Starting with JobEnvironment") == 2
    slurm.call("scancel", "--user", getpass.getuser())
    first.communicate(timeout=60)
    found = sweep.iterations()
    assert found == list(range(1000, 1000 * len(found) + 1, 1000))  # none lost, none twice


def test_a_cancelled_job_leaves_checkpoints_and_is_counted(slurm: Slurm, sweep: Sweep) -> None:
    waiting = sweep.start("seed=0,1", iterations=10_000_000)
    until(lambda: sweep.iterations(), 60, "a line of metrics")
    job = slurm.call("squeue", "-h", "-o", "%A").split()[-1]
    slurm.call("scancel", job)
    out, err = waiting.communicate(timeout=120)
    assert waiting.returncode == 1, err
    assert "2 unfinished" in out
    assert f"job {job}: 2 of 2 runs unfinished: cancelled; log: " in err
    assert [result["status"] for result in sweep.results()] == ["interrupted"] * 2
    assert len(list(sweep.folder.glob("outputs/runs/*/checkpoint.safetensors"))) == 2


def test_a_job_that_is_killed_is_counted_and_the_same_command_goes_on(slurm: Slurm, sweep: Sweep) -> None:
    waiting = sweep.start("seed=0", iterations=20_000)
    until(lambda: sweep.iterations(), 60, "a line of metrics")
    slurm.call("scancel", "--signal=KILL", "--full", slurm.call("squeue", "-h", "-o", "%A").split()[-1])
    out, err = waiting.communicate(timeout=120)
    assert waiting.returncode == 1, err
    assert "unfinished" in out
    assert "1 of 1 runs unfinished: " in err
    again = sweep.run("seed=0", iterations=20_000)
    assert again.returncode == 0, again.stderr
    assert [result["iterations"] for result in sweep.results()] == [20_000]


def test_what_is_at_work_is_not_handed_over_twice_and_an_interrupted_wait_leaves_it_at_work(
    slurm: Slurm, sweep: Sweep
) -> None:
    waiting = sweep.start("seed=0", iterations=10_000_000)
    until(lambda: sweep.iterations(), 60, "a line of metrics")
    second = sweep.run("seed=0,1", "hydra.launcher.wait=false", iterations=10_000_000)
    assert second.returncode == 0, second.stderr
    assert "another process works on it" in second.stderr
    assert "1 of 2 handed over" in second.stdout
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    assert "the jobs go on: squeue --jobs=" in err
    assert len(slurm.call("squeue", "-h", "-t", "RUNNING,PENDING", "-o", "%A").split()) == 2


def test_what_slurm_refuses_is_one_line(sweep: Sweep) -> None:
    done = sweep.run("seed=0", "hydra.launcher.partition=nowhere")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Invalid partition name" in done.stderr
    assert sweep.logs("out") == ""


# ---- two nodes, one of which is lost


@pytest.fixture(scope="module")
def pair() -> Iterator[Slurm]:
    """A cluster of two nodes of one core each; one that does not answer for ten seconds is down."""
    services = Slurm(nodes=2, cpus=1, patience=10)
    try:
        services.up()
        yield services
    finally:
        services.stop()


@pytest.fixture
def both(pair: Slurm, tmp_path: Path) -> Iterator[Sweep]:
    """A sweep on two nodes that are up; a job is one run."""
    for node in pair.nodes:
        if pair.daemons[node].poll() is not None:
            pair.start_node(node)
    for made in sweep_on(pair, tmp_path / "both"):
        made.folder.mkdir()
        made.launcher.append("hydra.launcher.runs_per_job=1")
        yield made


LOSSY = ("seed=range(4)", "checkpoint_seconds=1")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same sweep without a cluster."""
    folder = tmp_path_factory.mktemp("here")
    done = Sweep(folder, dict(os.environ), "executor=here").run(*LOSSY, iterations=20_000)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_runs_of_a_lost_node_go_on_elsewhere_to_the_same_bits(pair: Slurm, both: Sweep, here: Path) -> None:
    waiting = both.start(*LOSSY, iterations=20_000)
    until(lambda: both.checkpoints() == 2, 60, "a checkpoint on each node")
    pair.kill_node("node2")
    out, err, ends = both.follow(waiting, 300)
    assert waiting.returncode == 0, err
    assert "4 not solved" in out
    (told,) = [line for line in err.splitlines() if "queued again" in line]
    assert "queued again by SLURM" in told
    assert "(1 so far)" in told
    assert list(ends.values()) == [1] * 4
    assert same_bits(both.folder, here)


def test_where_slurm_does_not_queue_again_the_lost_runs_are_counted_and_the_same_command_goes_on(
    pair: Slurm, both: Sweep, here: Path
) -> None:
    line = (*LOSSY, "hydra.launcher.sbatch={no-requeue: true}")
    waiting = both.start(*line, iterations=20_000)
    until(lambda: both.checkpoints() == 2, 60, "a checkpoint on each node")
    pair.kill_node("node2")
    out, err, _ = both.follow(waiting, 300)
    assert waiting.returncode == 1, err
    assert "3 not solved, 1 unfinished" in out
    assert "1 of 1 runs unfinished: node fail; log: " in err
    again = both.run(*line, iterations=20_000)
    assert again.returncode == 0, again.stderr
    assert "1 of 4 handed over" in again.stderr
    assert same_bits(both.folder, here)


def test_a_job_whose_first_start_is_still_at_work_on_a_lost_node_waits_for_it(pair: Slurm, both: Sweep) -> None:
    waiting = both.start("seed=0", iterations=20_000)
    until(both.iterations, 60, "a line of metrics")
    node = pair.call("squeue", "-h", "-o", "%N").strip()
    (training,) = [pid for pid in pair.at_work(node) if parent_and_name(pid)[1].startswith("python")]
    os.kill(training, signal.SIGSTOP)  # so that it still holds its run when the second start comes
    pair.kill_daemon(node)
    until(lambda: both.logs("out").count("Starting with JobEnvironment") == 2, 120, "a second start")
    time.sleep(10)
    assert pair.call("squeue", "-h", "-o", "%T") == "RUNNING\n"
    os.kill(training, signal.SIGCONT)
    out, err, ends = both.follow(waiting, 300)
    assert waiting.returncode == 0, err
    assert "not solved" in out
    assert list(ends.values()) == [1]
    assert both.iterations() == list(range(1000, 21_000, 1000))
