"""What the tests share: specs from the project's own YAMLs, and stacks built from them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tprnn import plugins
from tprnn.config import NO_OPTIMIZER, RunSpec, set_dotted
from tprnn.core import scans
from tprnn.engine.ensemble import prepare_process
from tprnn.store import RunFolder, Store

prepare_process(threads=1)
CONF = Path(__file__).parent.parent / "conf"
MEMBERS = {
    kind: sorted(p.stem for p in (CONF / kind).glob("*.yaml")) for kind in ("task", "model", "trainer", "optimizer")
}
TASKS = [name for name in MEMBERS["task"] if "T" in yaml.safe_load((CONF / "task" / f"{name}.yaml").read_text())]
"""Those of any length; one that reads files has that of its data."""
OPTIMIZERS = [name for name in MEMBERS["optimizer"] if name != NO_OPTIMIZER]
"""Those that rules by gradients have a choice of."""
Make = Callable[..., RunFolder]


def raw_config(**choices: str) -> dict[str, Any]:
    """The composed config as plain containers, read from the YAMLs without Hydra."""
    config = yaml.safe_load((CONF / "config.yaml").read_text())
    for key in ("defaults", "hydra"):
        config.pop(key)
    picks = {
        "task": "temporal_order",
        "model": "srn",
        "trainer": "bptt",
        "optimizer": "nesterov",
        "probe": "none",
    } | choices
    config |= {kind: yaml.safe_load((CONF / kind / f"{name}.yaml").read_text()) for kind, name in picks.items()}
    return config | {"workers": 1, "quiet": True, "checkpoint_seconds": 0.0}


def make_spec(changes: dict[str, Any] | None = None, **choices: str) -> RunSpec:
    """A checked spec: `make_spec({"task.T": 20}, trainer="tptt")`."""
    config = raw_config(**choices)
    for key, value in (changes or {}).items():
        set_dotted(config, key, value)
    return RunSpec.from_config(config)


@pytest.fixture
def spec() -> Callable[..., RunSpec]:
    """The spec maker."""
    return make_spec


@pytest.fixture(params=["call by call", "compiled"])
def recurrences(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test twice: with recurrences of PyTorch's calls, and with compiled ones also in float64."""
    monkeypatch.setattr(scans, "COMPILED", set() if request.param == "call by call" else {torch.float32, torch.float64})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """An open run folder."""
    spec = make_spec()
    folder = Store(tmp_path).folder(spec)
    folder.open(spec)
    return folder


@functools.cache
def base_spec(trainer: str) -> RunSpec:
    return make_spec(trainer=trainer)


@pytest.fixture
def make(outputs: str) -> Make:
    """Writes a run folder with a hand-made result: `make({"seed": 1}, trainer="tptt", iterations=300)`."""
    store = Store(outputs)

    def write(changes: dict[str, Any] | None = None, *, trainer: str = "bptt", **result: Any) -> RunFolder:
        spec = base_spec(trainer).replace(changes or {})
        folder = store.folder(spec)
        folder.open(spec)
        folder.set_budget(spec.train)
        result = {"status": "solved", "iterations": 100, "accuracy": 1.0, "seconds": 1.0} | result
        shared = {"stopped_by": result["status"], "loss": 0.5, "best_accuracy": 1.0, "signature": spec.signature}
        if result["status"] is not None:
            folder.write_result(shared | result)
        return folder

    return write


@pytest.fixture
def outputs(tmp_path: Path) -> str:
    """A folder for runs; it is not there yet."""
    return str(tmp_path / "outputs")


@pytest.fixture
def into(outputs: str) -> str:
    """The override that says so."""
    return f"outputs={outputs}"


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Installs a trainer that knows how good settings are, for searches (search_trainer.py)."""
    import search_trainer  # with Optuna

    search_trainer.keep_in_memory(monkeypatch)
    return search_trainer.installer(monkeypatch)


@pytest.fixture
def change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Changes the text of a recipe for tests (figure_trials.py)."""
    from figure_trials import trial_folder  # with its imports for drawing

    yield from trial_folder(tmp_path, monkeypatch)


@pytest.fixture(autouse=True)
def asked_for() -> Iterator[None]:
    """Plugins and folders that a test asks for are not asked for in the next."""
    yield
    if plugins.as_words():
        plugins.ask(anew=True)


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A notebook whose cells can be run (notebook_cells.py)."""
    from notebook_cells import new_session  # with Hydra

    yield from new_session(monkeypatch)
