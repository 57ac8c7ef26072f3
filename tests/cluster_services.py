"""Services that the tests of clusters start and stop, a SLURM and a Ray of one or more nodes, and sweeps on them.

Each has folders, ports and keys of its own, so that two copies of the tests can run beside each other. What they start
carries a mark in its environment, by which the last of it is found and ended.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

MARK = "TPRNN_TEST_SERVICE"


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


def carrying(words: str) -> list[int]:
    """The processes with these words in their environment."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if words.encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # not ours to read, or gone
            continue
    return found


def writing_below(folder: Path) -> list[int]:
    """The processes with an open file below a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(file).startswith(f"{folder}/") for file in (entry / "fd").iterdir()):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def parent_and_name(pid: int) -> tuple[int, str]:
    """Of a process; (0, "") where it is gone."""
    try:
        head, _, tail = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
    except OSError:
        return 0, ""
    return int(tail.split()[1]), head.partition("(")[2]


def kill(pids: Iterable[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


class Services:
    """Daemons with a folder and an environment of their own, all ended by `stop`."""

    def __init__(self, prefix: str) -> None:
        self.mark = uuid.uuid4().hex
        # not pytest's folder: other users' daemons read it, and the paths of sockets must be short
        self.folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
        self.folder.chmod(0o755)
        self.environment = os.environ | {MARK: self.mark, "OMP_NUM_THREADS": "1"}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        with open(self.folder / f"{name}.out", "ab") as log:
            self.daemons[name] = subprocess.Popen(
                command, env=self.environment, start_new_session=True, stdout=log, stderr=log
            )

    def ready(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for `condition`; the daemons' logs are shown where it does not come."""
        try:
            until(condition, 60, what)
        except AssertionError as error:
            logs = "\n".join(f"{path}\n{path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.out")))
            raise AssertionError(f"{error}\n{logs}") from error

    def stop(self) -> None:
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(timeout=15)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        kill(carrying(f"{MARK}={self.mark}"))
        kill(writing_below(self.folder))  # slurmstepd has no environment
        shutil.rmtree(self.folder, ignore_errors=True)


class Slurm(Services):
    """Controller and nodes of Debian's packages; each node has `cpus` cores."""

    PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "sinfo")
    CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
AuthType=auth/munge
# a job that is queued again waits for as long as credentials hold
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
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
# seconds after which a node that does not answer is down
SlurmdTimeout={patience}
ReturnToService=2
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=9 PreemptMode=OFF
"""

    def __init__(self, nodes: int, cpus: int, patience: int = 300) -> None:
        super().__init__("tprnn-slurm-")
        self.nodes = [f"node{number}" for number in range(1, nodes + 1)]
        folder, host = self.folder, socket.gethostname().split(".")[0]  # SLURM reads the host's short name
        for name in ("state", *(f"spool-{node}" for node in self.nodes)):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o600)
        place = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=2000 State=UNKNOWN"
        lines = "\n".join(f"NodeName={node} Port={free_port()} {place}" for node in self.nodes)
        fields = {"host": host, "user": getpass.getuser(), "folder": folder, "controller": free_port()}
        (folder / "slurm.conf").write_text(self.CONFIG.format(**fields, nodes=lines, patience=patience))
        self.environment["SLURM_CONF"] = f"{folder}/slurm.conf"

    def up(self) -> None:
        folder = self.folder
        files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        self.start("munged", "munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files)
        self.ready((folder / "munge.socket").exists, "munge's socket")
        self.start("slurmctld", "slurmctld", "-D", "-c")
        for node in self.nodes:
            self.start_node(node)

    def start_node(self, node: str) -> None:
        self.start(node, "slurmd", "-D", "-c", "-N", node)
        look = ("sinfo", "--noheader", f"--nodes={node}", "--partition=main", "--format=%T")
        self.ready(lambda: self.call(*look, check=False) == "idle\n", f"an idle {node}")

    def at_work(self, node: str) -> set[int]:
        """The processes of a node's jobs."""
        return set(carrying(f"SLURMD_NODENAME={node}")) & set(carrying(f"{MARK}={self.mark}"))

    def kill_daemon(self, node: str) -> None:
        """End slurmd alone, as where a node is out of the controller's reach: its jobs go on."""
        self.daemons[node].kill()
        self.daemons[node].wait()

    def kill_node(self, node: str) -> None:
        """End slurmd and all that it runs, as where a node loses its power."""
        at_work = self.at_work(node)
        parents = {parent for pid in at_work if "slurmstepd" in parent_and_name(parent := parent_and_name(pid)[0])[1]}
        assert parents, f"no job on {node}"
        self.kill_daemon(node)
        kill([*parents, *at_work])

    def call(self, *command: str, check: bool = True) -> str:
        """What one of SLURM's commands prints."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=check).stdout


class Ray(Services):
    """A head and other nodes of one core each, guarded by a token of their own."""

    def __init__(self) -> None:
        super().__init__("ray-")
        self.port, self.dashboard = free_port(), free_port()
        self.environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_TMPDIR": str(self.folder),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def up(self) -> None:
        """Start the head."""
        ports = {"port": self.port, "dashboard-port": self.dashboard, "ray-client-server-port": free_port()}
        self.start_node("head", "--head", *(f"--{name}={port}" for name, port in ports.items()))
        (host,) = re.findall(r"Local node IP\D*([\d.]+)", self.colourless("head"))
        self.address = f"{host}:{self.port}"

    def start_node(self, name: str, *options: str) -> None:
        # another host than the head's: commands join the node of the host by which they reach the head
        place = options or (f"--address={self.address}", "--node-ip-address=127.0.0.2")
        sizes = ("--num-cpus=1", "--object-store-memory=100000000")
        ports = ("--min-worker-port=0", "--max-worker-port=0", f"--dashboard-agent-listen-port={free_port()}")
        self.start(name, "ray", "start", "--block", *place, *sizes, *ports)
        self.ready(lambda: "Ray runtime started" in self.colourless(name), f"Ray's {name}")

    def colourless(self, name: str) -> str:
        """What a node's command has printed."""
        return re.sub(r"\x1b\[\d*m", "", (self.folder / f"{name}.out").read_text())

    def kill_node(self, name: str) -> None:
        """Kill the raylet of a node; what else runs there ends with it."""
        command = self.daemons[name].pid
        raylets = [pid for pid in carrying(f"{MARK}={self.mark}") if parent_and_name(pid) == (command, "raylet")]
        assert len(raylets) == 1
        kill(raylets)


class Sweep:
    """Command lines of sweeps of tiny runs, in a folder of their own."""

    TINY = ("task=adding", "task.T=10", "model.H=4", "trainer=bptt", "trainer.alpha=1e-9", "train.patience=null")

    def __init__(self, folder: Path, environment: dict[str, str], *launcher: str) -> None:
        self.folder, self.environment = folder, environment
        self.launcher = [f"hydra.launcher.{setting}" for setting in launcher]
        self.processes: list[subprocess.Popen[str]] = []

    def command(self, *line: str, iterations: int = 4) -> list[str]:
        """About 4000 iterations a second; nothing but their number ends a run."""
        sizes = [f"train.max_iterations={iterations}", f"train.check_every={max(2, min(1000, iterations // 10))}"]
        fixed = [*self.TINY, *sizes, "train.validation_size=1000", "checkpoint_seconds=1e6", "hydra/launcher=stack"]
        given = {part.split("=")[0] for part in line}
        fixed = [part for part in [*fixed, *self.launcher] if part.split("=")[0] not in given]
        return [sys.executable, "-m", "tprnn", "train", "-m", *fixed, *line]

    def start(self, *line: str, iterations: int = 4) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.command(*line, iterations=iterations),
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.processes.append(process)
        return process

    def run(self, *line: str, iterations: int = 4) -> subprocess.CompletedProcess[str]:
        process = self.start(*line, iterations=iterations)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def stop(self) -> None:
        """End what a failed test left."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def results(self) -> list[dict[str, Any]]:
        paths = sorted((self.folder / "outputs" / "runs").glob("*/result.json"))
        return [json.loads(path.read_text()) for path in paths]

    def checkpoints(self) -> int:
        return len(list(self.folder.glob("outputs/runs/*/checkpoint.safetensors")))

    def iterations(self) -> list[int]:
        """Of all checks in the metrics of all runs."""
        lines = [path.read_bytes().split(b"\n")[:-1] for path in self.folder.glob("outputs/runs/*/metrics.jsonl")]
        return [json.loads(line)["iteration"] for part in lines for line in part]

    def logs(self, kind: str) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob(f"outputs/jobs/*/*_log.{kind}")))

    def follow(self, process: subprocess.Popen[str], seconds: float) -> tuple[str, str, dict[str, int]]:
        """Stay until a command has ended: what it printed, and how often each run was brought to its end."""
        ends: dict[str, set[tuple[int, int]]] = defaultdict(set)

        def look() -> bool:
            over = process.poll() is not None
            for path in self.folder.glob("outputs/runs/*/result.json"):
                found = path.stat()
                if json.loads(path.read_text())["status"] == "not_solved":
                    ends[path.parent.name].add((found.st_ino, found.st_mtime_ns))
            return over

        until(look, seconds, "the end of the command")
        out, err = process.communicate()
        return out, err, {run: len(times) for run, times in ends.items()}


def same_bits(found: Path, expected: Path) -> bool:
    """Whether two folders hold the same runs with the same weights."""
    ours, theirs = (
        {path.parent.name: load_file(path) for path in folder.glob("outputs/runs/*/model.safetensors")}
        for folder in (found, expected)
    )
    return bool(ours) and ours.keys() == theirs.keys() and all(_equal(ours[run], theirs[run]) for run in ours)


def _equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
