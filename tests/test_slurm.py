"""A real SLURM: controller and node of Debian's packages, started here and stopped here. Run by `make test-cluster`."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CPUS = os.cpu_count() or 1
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")

CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
# a job that is queued again waits for as long as credentials hold
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,bf_interval=1
MpiDefault=none
SwitchType=switch/none
KillWait=5
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=2000 State=UNKNOWN
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""

pytestmark = pytest.mark.cluster


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for `condition` and return what it gives."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"{what} did not come in {seconds} s"
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def slurm() -> Iterator[dict[str, str]]:
    """The environment in which SLURM's commands reach a cluster of this one machine."""
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: apt-get install slurm-wlm munge")
    folder = Path(tempfile.mkdtemp(prefix="tprnn-slurm-"))
    folder.chmod(0o755)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    # SLURM reads the host's short name
    fields = {"host": socket.gethostname().split(".")[0], "user": getpass.getuser(), "folder": folder}
    ports = {"controller": free_port(), "node": free_port(), "cpus": CPUS}
    (folder / "slurm.conf").write_text(CONFIG.format(**fields, **ports))
    environment = os.environ | {"SLURM_CONF": f"{folder}/slurm.conf", "OMP_NUM_THREADS": "1"}
    munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
    commands = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *munge],
        ["slurmctld", "-D", "-c"],
        ["slurmd", "-D", "-c"],
    ]
    daemons: list[subprocess.Popen[bytes]] = []

    def idle() -> bool:
        done = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True, check=False)
        return done.stdout.strip() == "idle"

    try:
        for command in commands:
            with open(folder / f"{command[0]}.out", "wb") as log:
                pipes = {"stdout": log, "stderr": log}
                daemons.append(subprocess.Popen(command, env=environment, start_new_session=True, **pipes))
            time.sleep(1)
        try:
            until(idle, 30, "an idle node")
        except AssertionError as error:
            logs = "\n".join(f"{path}\n{path.read_text()[-2000:]}" for path in sorted(folder.glob("*.out")))
            raise AssertionError(f"{error}\n{logs}") from error
        yield environment
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(folder, ignore_errors=True)


class Sweep:
    """A command line of a sweep on SLURM, in a folder of its own."""

    TINY = ("task=adding", "task.T=10", "model.H=4", "trainer=bptt", "trainer.alpha=1e-9")

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment

    def start(self, *line: str, iterations: int = 4) -> subprocess.Popen[str]:
        """About 4000 iterations a second; nothing but their number ends a run."""
        sizes = [f"train.max_iterations={iterations}", f"train.check_every={max(2, min(1000, iterations // 10))}"]
        fixed = [*self.TINY, *sizes, "train.validation_size=1000", "train.patience=null", "checkpoint_seconds=1e6"]
        command = [sys.executable, "-m", "tprnn", "train", "-m", *fixed, "hydra/launcher=stack"]
        command += ["hydra.launcher.executor=slurm", *line]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *line: str, iterations: int = 4) -> subprocess.CompletedProcess[str]:
        process = self.start(*line, iterations=iterations)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def slurm(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def results(self) -> list[dict[str, Any]]:
        paths = sorted((self.folder / "outputs" / "runs").glob("*/result.json"))
        return [json.loads(path.read_text()) for path in paths]

    def iterations(self) -> list[int]:
        """Of all checks in the metrics of all runs."""
        lines = [path.read_bytes().split(b"\n")[:-1] for path in self.folder.glob("outputs/runs/*/metrics.jsonl")]
        return [json.loads(line)["iteration"] for part in lines for line in part]

    def logs(self, kind: str) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob(f"outputs/jobs/*/*_log.{kind}")))


@pytest.fixture
def sweep(slurm: dict[str, str], tmp_path: Path) -> Iterator[Sweep]:
    """No job of it is left when the test ends."""
    made = Sweep(tmp_path, slurm)
    yield made
    made.slurm("scancel", "--user", getpass.getuser())
    until(lambda: made.slurm("squeue", "-h") == "", 60, "the end of all jobs")


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


def test_a_job_that_meets_its_time_limit_is_queued_again_and_goes_on_from_its_checkpoint(sweep: Sweep) -> None:
    waiting = sweep.start("seed=0", "hydra.launcher.time=2", "hydra.launcher.notice=30", iterations=10_000_000)
    until(lambda: sweep.logs("out").count("Starting with JobEnvironment") == 2, 240, "a second start")
    assert sweep.logs("out").count("Requeued job") == 1
    (before,) = sweep.results()
    assert before["status"] == "interrupted"
    until(lambda: sweep.iterations()[-1] > before["iterations"] + 1000, 60, "more metrics")
    sweep.slurm("scancel", "--user", getpass.getuser())
    waiting.communicate(timeout=60)
    found = sweep.iterations()
    assert found == list(range(1000, 1000 * len(found) + 1, 1000))  # none lost, none twice


def test_a_preempted_job_goes_on_from_its_checkpoint_when_the_node_is_free_again(sweep: Sweep) -> None:
    whole = f"hydra.launcher.cpus={CPUS}"
    first = sweep.start("seed=0", whole, iterations=10_000_000)
    until(sweep.iterations, 60, "a line of metrics")
    urgent = sweep.run("seed=1", whole, "hydra.launcher.partition=urgent", "outputs=urgent")
    assert urgent.returncode == 0, urgent.stderr
    (before,) = sweep.results()
    assert before["status"] == "interrupted"
    until(lambda: sweep.iterations()[-1] > before["iterations"] + 1000, 60, "more metrics")
    assert sweep.logs("out").count("Starting with JobEnvironment") == 2
    sweep.slurm("scancel", "--user", getpass.getuser())
    first.communicate(timeout=60)
    found = sweep.iterations()
    assert found == list(range(1000, 1000 * len(found) + 1, 1000))  # none lost, none twice


def test_a_cancelled_job_leaves_checkpoints_and_is_counted(sweep: Sweep) -> None:
    waiting = sweep.start("seed=0,1", iterations=10_000_000)
    until(lambda: sweep.iterations(), 60, "a line of metrics")
    job = sweep.slurm("squeue", "-h", "-o", "%A").split()[-1]
    sweep.slurm("scancel", job)
    out, err = waiting.communicate(timeout=120)
    assert waiting.returncode == 1, err
    assert "2 unfinished" in out
    assert f"job {job}: 2 of 2 runs unfinished: cancelled; log: " in err
    assert [result["status"] for result in sweep.results()] == ["interrupted"] * 2
    assert len(list(sweep.folder.glob("outputs/runs/*/checkpoint.safetensors"))) == 2


def test_a_job_that_is_killed_is_counted_and_the_same_command_goes_on(sweep: Sweep) -> None:
    waiting = sweep.start("seed=0", iterations=20_000)
    until(lambda: sweep.iterations(), 60, "a line of metrics")
    sweep.slurm("scancel", "--signal=KILL", "--full", sweep.slurm("squeue", "-h", "-o", "%A").split()[-1])
    out, err = waiting.communicate(timeout=120)
    assert waiting.returncode == 1, err
    assert "unfinished" in out
    assert "1 of 1 runs unfinished: " in err
    again = sweep.run("seed=0", iterations=20_000)
    assert again.returncode == 0, again.stderr
    assert [result["iterations"] for result in sweep.results()] == [20_000]


def test_what_is_at_work_is_not_handed_over_twice_and_an_interrupted_wait_leaves_it_at_work(sweep: Sweep) -> None:
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
    assert len(sweep.slurm("squeue", "-h", "-t", "RUNNING,PENDING", "-o", "%A").split()) == 2


def test_what_slurm_refuses_is_one_line(sweep: Sweep) -> None:
    done = sweep.run("seed=0", "hydra.launcher.partition=nowhere")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Invalid partition name" in done.stderr
    assert sweep.logs("out") == ""
