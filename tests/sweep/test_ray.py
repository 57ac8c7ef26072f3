"""A real Ray of two nodes on this machine, started here and stopped here. Run by `make test-cluster`."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_services import Ray, Sweep, same_bits, until

DOCS = Path(__file__).parent.parent.parent / "docs" / "clusters.md"

pytestmark = pytest.mark.cluster


@pytest.fixture
def ray() -> Iterator[Ray]:
    """A head and one more node."""
    pytest.importorskip("ray", reason="ray is not installed: pip install 'tprnn[ray]'")
    services = Ray()
    try:
        services.up()
        services.start_node("other")
        yield services
    finally:
        services.stop()


@pytest.fixture
def sweep(ray: Ray, tmp_path: Path) -> Iterator[Sweep]:
    (tmp_path / "ray").mkdir()
    launcher = ("executor=ray", f"address={ray.address}", "runs_per_job=1")
    made = Sweep(tmp_path / "ray", ray.environment, *launcher)
    yield made
    made.stop()


def test_the_runs_of_a_lost_node_go_on_elsewhere_to_the_same_bits(ray: Ray, sweep: Sweep, tmp_path: Path) -> None:
    line = ("seed=range(4)", "checkpoint_seconds=1")
    waiting = sweep.start(*line, iterations=20_000)
    until(lambda: sweep.checkpoints() == 2, 120, "a checkpoint on each node")
    ray.kill_node("other")
    out, err, ends = sweep.follow(waiting, 300)
    assert waiting.returncode == 0, err
    assert "4 not solved" in out
    assert out.count("\n") == 1  # nothing of Ray's
    told = [line for line in err.splitlines() if not re.match(r"4 runs: |\d/4 done", line)]
    assert len(told) == 1
    assert re.fullmatch(r"job \d: handed over again, 1 of 20 times: its worker was lost \(.{10,120}\)", told[0])
    assert list(ends.values()) == [1] * 4
    (tmp_path / "here").mkdir()
    here = Sweep(tmp_path / "here", dict(os.environ), "executor=here")
    assert here.run(*line, iterations=20_000).returncode == 0
    assert same_bits(sweep.folder, here.folder)


def test_the_documented_command_leaves_a_sweep_to_ray(ray: Ray, sweep: Sweep) -> None:
    (documented,) = re.findall(r"^ray job submit (?:.*\\\n)*.*", DOCS.read_text(), flags=re.MULTILINE)
    line = documented.replace("http://HEAD:8265", f"http://127.0.0.1:{ray.dashboard}")
    line = line.replace("/shared/lab", str(sweep.folder))
    assert line.count(str(sweep.folder)) == line.count("127.0.0.1") == 1
    environment = ray.environment | {"RAY_ADDRESS": f"http://127.0.0.1:{ray.dashboard}"}

    def call(command: str) -> str:
        done = subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (job,) = set(re.findall(r"raysubmit_\w+", call(line)))
    until(lambda: "succeeded" in call(f"ray job status {job}"), 120, "the end of the sweep")
    assert [result["status"] for result in sweep.results()] == ["not_solved"] * 3
    assert "3 not solved" in call(f"ray job logs {job}")
