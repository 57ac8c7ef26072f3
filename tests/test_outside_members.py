"""The contracts hold for members that are nothing like ours: three in tests/members, two files each.

A rule without gradients and without an optimizer; a network with two states and three pre-activations to each unit; a
task with values of which several may be right, sequences of unequal length and sets that are gone through in epochs.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import tprnn
from tprnn import cli, plugins
from tprnn.compose import compose
from tprnn.config import RunSpec
from tprnn.core.sets import words_of
from tprnn.core.streams import Stream
from tprnn.engine.ensemble import Ensemble
from tprnn.errors import UserError
from tprnn.store import Store
from tprnn.tasks.base import Batch
from tprnn.testing import check_trainer

FOLDER = Path(__file__).parent / "members"
NAMES = ("guess", "cifg", "coin", "echo")
ASKED = [*(f"--plugin={FOLDER / name}.py" for name in NAMES), f"--config-dir={FOLDER / 'conf'}"]
SMALL = ["train.validation_size=200", "train.check_every=50", "probe=none", "quiet=true", "workers=1"]


@pytest.fixture(autouse=True)
def asked() -> Iterator[None]:
    """The three are there, and are forgotten afterwards."""
    plugins.ask([str(FOLDER / f"{name}.py") for name in NAMES], [str(FOLDER / "conf")], anew=True)
    yield
    plugins.ask(anew=True)


def spec_of(*lines: str) -> RunSpec:
    return compose([*lines, *SMALL])


def results(outputs: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(Path(outputs).glob("runs/*/result.json"))]


# ---- a rule without gradients


def test_a_rule_without_gradients_keeps_the_contract_of_a_rule() -> None:
    check_trainer("guess", tasks=["temporal_order", "adding", "echo"], iterations=12)


def test_guesses_get_better_and_are_reported(outputs: str, into: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Two of a hundred classes occur, so that the best of some guesses is far above untrained weights' 1 %."""
    line = ["task=random_permutation", "task.T=3", "trainer=guess", "model.H=3", "train.max_iterations=200"]
    assert cli.main(["train", "-m", *line, "seed=0,1", *SMALL, into, *ASKED]) == 0
    for result in results(outputs):
        assert result["sequences"] == 200 * 20
        assert result["best_accuracy"] > 0.05  # of 200 sequences, 1 % by chance: more than five standard errors
    capsys.readouterr()
    assert cli.main(["report", outputs]) == 0
    assert "guess" in capsys.readouterr().out


def test_no_optimizer_is_part_of_its_runs() -> None:
    line = ["task=temporal_order", "trainer=guess"]
    given = [spec_of(*line, *more) for more in ([], ["optimizer=none"], ["optimizer=adam", "optimizer.beta1=0.5"])]
    assert len({spec.signature for spec in given}) == 1
    assert {spec.config["optimizer"]["name"] for spec in given} == {"none"}
    with pytest.raises(UserError, match="optimizer: bptt needs one"):
        spec_of("task=temporal_order", "trainer=bptt", "optimizer=none")


def test_its_loss_never_rises() -> None:
    ensemble = Ensemble([spec_of("task=temporal_order", "task.T=10", "trainer=guess")])
    losses, before = [], 0.0
    for _ in range(60):
        ensemble.advance()
        losses.append(ensemble.loss_sum.item() - before)
        before = ensemble.loss_sum.item()
    assert all(later <= earlier + 1e-6 for earlier, later in itertools.pairwise(losses))
    assert losses[-1] < losses[0]


# ---- a network of two states


@pytest.mark.parametrize("task", ["adding", "temporal_order", "copy_memory"])
def test_the_gradients_of_a_network_with_gates_are_those_of_autograd(task: str) -> None:
    spec = spec_of(f"task={task}", "task.T=10", "trainer=bptt", "model=cifg", "model.H=6", "dtype=float64")
    ensemble = Ensemble([spec])
    params, model = ensemble.state.params, ensemble.model
    batch = ensemble.batch(0)
    if not batch.tokens:  # sequences of unequal length
        start = torch.arange(batch.sequences) % 4
        batch = Batch(batch.inputs, batch.targets, start[None], empty=3)
    states = model.forward(params, batch)
    reading = model.readout(params, states)
    da = model.adjoint(params, states, reading.dh)
    found = model.gradients(states, da, ("W_xh", "W_hh", "b_h")) | model.readout_gradients(states, reading)

    leaves = {name: w[0].clone().requires_grad_() for name, w in params.items()}
    x = batch.inputs[0]
    x = torch.nn.functional.one_hot(x, model.inputs).double() if batch.tokens else x
    losses = []
    for b in range(x.shape[1]):  # each sequence from its own start on
        first = 0 if batch.start is None else int(batch.start[0, b])
        (h, c), outputs = torch.zeros(2, 6, dtype=torch.float64), []
        for t in range(first, x.shape[0]):
            f, g, o = (x[t, b] @ leaves["W_xh"] + h @ leaves["W_hh"] + leaves["b_h"]).split(6)
            c = torch.lerp(g.tanh(), c, f.sigmoid())
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        y = torch.stack(outputs[-batch.outputs :]) @ leaves["W_hy"] + leaves["b_y"]
        target = batch.targets[0, :, b]
        losses.append(
            torch.nn.functional.cross_entropy(y, target) if batch.tokens else (y - target).square().sum(-1).mean()
        )
    E = torch.stack(losses).mean()
    E.backward()
    torch.testing.assert_close(reading.loss[0], E.detach(), rtol=1e-9, atol=1e-12)
    for name, leaf in leaves.items():
        assert leaf.grad is not None
        torch.testing.assert_close(found[name][0], leaf.grad, rtol=1e-9, atol=1e-12)


def test_it_learns_by_backpropagation_and_goes_on_from_a_checkpoint(outputs: str, into: str) -> None:
    line = ["task=temporal_order", "task.T=10", "trainer=bptt", "model=cifg", "optimizer=adam", "trainer.alpha=0.01"]
    for limit in (300, 600):
        more = [f"train.max_iterations={limit}", "train.success_error=null"]
        assert cli.main(["train", *line, *more, *SMALL, into, *ASKED]) == 0
    (result,) = results(outputs)
    assert result["iterations"] == 600
    assert result["best_accuracy"] > 0.6
    network = tprnn.load(Store(outputs).folders()[0].path)
    batch = network.sample(50)
    assert network.predict(batch).shape == batch.targets.shape


def test_a_rule_that_needs_more_of_a_network_refuses_it() -> None:
    with pytest.raises(UserError, match="tptt cannot train model=cifg, which is not 'additive'; choices: srn"):
        spec_of("task=temporal_order", "trainer=tptt", "model=cifg")


# ---- a network whose states are drawn


def test_a_network_of_drawn_states_is_trained_judged_and_loaded(outputs: str, into: str) -> None:
    line = ["task=adding", "task.T=10", "trainer=guess", "model=coin", "train.max_iterations=50"]
    assert cli.main(["train", *line, *SMALL, into, *ASKED]) == 0
    (result,) = results(outputs)
    path = Store(outputs).folders()[0].path
    assert cli.main(["evaluate", str(path), "--sequences", "1200", *ASKED]) == 0
    network = tprnn.load(path)
    batch = network.sample(50)
    assert network.answers(batch).shape == (1, 1, 200, 1)  # four rows of each sequence
    assert torch.equal(network.predict(batch), network.predict(batch))
    assert network.score(200) == result["test_right"] / 200  # one check, and the same draws


# ---- a task of values


@pytest.mark.parametrize("trainer", ["bptt", "tptt", "tptt_hx", "dfa", "guess"])
def test_every_kind_of_rule_trains_a_mixture_on_sequences_of_unequal_length(
    trainer: str, outputs: str, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["task=echo", f"trainer={trainer}", "model.H=10", "train.max_iterations=100"]
    assert cli.main(["train", *line, *SMALL, into, *ASKED]) == 0
    (result,) = results(outputs)
    assert result["score"] == {"name": "nll", "unit": "nats a step", "higher": False, "counted": False}
    assert result["status"] == "not_solved"  # there is no criterion of success
    assert all(math.isfinite(result[key]) for key in ("nll", "best_nll", "test_nll"))
    assert result["test_sequences"] == 1000  # all that there are
    assert "accuracy" not in result
    (row,) = tprnn.runs(outputs).to_dict("records")
    assert (row["score"], row["best_score"], row["test_score"]) == ("nll", result["best_nll"], result["test_nll"])
    capsys.readouterr()
    assert cli.main(["report", outputs]) == 0
    assert "nll" in capsys.readouterr().out
    assert cli.main(["plot", outputs, f"--output={outputs}/curves.png"]) == 0


def test_a_mixture_learns_more_than_a_mean_can_say(outputs: str, into: str) -> None:
    """At T = 2 a learner that ignores y has nll 0 (x is uniform on [0, 1)); knowing y is worth more."""
    line = ["task=echo", "task.T=2", "trainer=bptt", "optimizer=adam", "trainer.alpha=0.01", "model.H=20"]
    assert cli.main(["train", *line, "train.max_iterations=600", *SMALL, into, *ASKED]) == 0
    (result,) = results(outputs)
    assert result["best_nll"] < -0.2


def test_a_score_that_counts_nothing_has_no_climb_and_a_search_that_prefers_less(
    outputs: str, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["depth", "task=echo", "trainer=bptt", *SMALL, into, *ASKED]) == 2
    assert "no criterion of success (it measures nll)" in capsys.readouterr().err
    line = ["task=echo", "trainer=bptt", "trainer.alpha='interval(1e-4, 0.01)'", "search.trials=3"]
    line = [word.replace("'", "") for word in line]
    assert cli.main(["search", *line, "train.max_iterations=50", *SMALL, into, *ASKED]) == 0
    told = capsys.readouterr().out
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in told.splitlines() if row.startswith("|")]
    place = rows[0].index("nll")
    ranked = [float(row[place]) for row in rows[2:5]]
    assert ranked == sorted(ranked)
    assert ranked[0] < ranked[-1]


def test_a_validation_set_larger_than_there_is_data_is_refused() -> None:
    with pytest.raises(UserError, match=r"validation_size: expected at most the 1,000 sequences .* task=echo has"):
        compose(["task=echo", "trainer=bptt", "train.validation_size=2000"])


def test_a_criterion_of_success_is_no_part_of_runs_that_have_none() -> None:
    given = [spec_of("task=echo", "trainer=bptt", *more) for more in ([], ["train.success_error=0.5"])]
    assert len({spec.signature for spec in given}) == 1
    assert given[0].train.success_error is None


def test_a_test_set_is_judged_once_however_many_sequences_are_asked_for(outputs: str, into: str) -> None:
    """1,300 sequences are two chunks of which the second is not whole."""
    line = ["task=echo", "task.held_out=1300", "trainer=bptt", "model.H=5", "train.max_iterations=50"]
    assert cli.main(["train", *line, *SMALL, into, *ASKED]) == 0
    (result,) = results(outputs)
    network = tprnn.load(Store(outputs).folders()[0].path)
    assert network.there(3000) == result["test_sequences"] == 1300
    assert network.score(3000) == pytest.approx(result["test_nll"], rel=1e-12)
    assert network.sample(1200).sequences == 1200


def test_a_run_that_was_killed_is_seen_within_a_smaller_budget(outputs: str, into: str) -> None:
    """It has no result that says by which score it is judged; train knows it from the task, a report does without."""
    line = ["train", "task=echo", "trainer=bptt", "model.H=5", *SMALL, into, *ASKED]
    assert cli.main([*line, "train.max_iterations=150"]) == 0
    (path,) = Path(outputs).glob("runs/*")
    (path / "result.json").unlink()
    best = min(row["nll"] for row in map(json.loads, (path / "metrics.jsonl").read_text().splitlines()[:2]))
    spec = spec_of("task=echo", "trainer=bptt", "model.H=5", "train.max_iterations=100", into)
    assert Store(outputs).folder(spec).finished(spec.train, score=spec.score)["best_nll"] == best  # type: ignore[index]
    assert cli.main([*line, "train.max_iterations=100"]) == 0
    assert cli.main(["report", outputs, "--where", "train.max_iterations=100"]) == 0


def test_a_run_may_be_judged_on_its_training_set() -> None:
    """All of it, each sequence once, however the last chunk of a thousand ends."""
    line = ["task=echo", "task.sequences=1300", "trainer=bptt", "dtype=float64", "model.H=5"]
    spec = compose([*line, "train.validation=train", "train.validation_size=1300", "quiet=true"])
    ensemble = Ensemble([spec])
    total, seen, _ = ensemble.validate([7], [True])
    assert seen.item() == 1300
    task, stream = ensemble.task, Stream([0], "train")
    whole = task.sample(words_of(stream, torch.arange(1300)[None], task.words)).cast(torch.float64)
    assert total.item() == pytest.approx(ensemble.judge(whole)[0].item(), rel=1e-12)
    with pytest.raises(UserError, match=r"train\.validation: 'train' needs a set .* task=adding draws anew"):
        compose(["task=adding", "trainer=bptt", "train.validation=train"])


def test_read_outs_are_chosen_by_what_a_task_has() -> None:
    assert spec_of("task=adding", "trainer=bptt").config["model"]["readout"] is None
    chosen = spec_of("task=adding", "trainer=bptt", "model.readout=mixture").config["model"]["readout"]
    assert chosen == {"name": "mixture", "K": 3}
    five = spec_of("task=adding", "trainer=bptt", "model.readout={name: mixture, K: 5}")
    assert Ensemble([five]).trainer.shapes()["W_mu"] == (100, 5)
    with pytest.raises(UserError, match="softmax reads classes, task=adding has values; choices: linear, mixture"):
        spec_of("task=adding", "trainer=bptt", "model.readout=softmax")
    with pytest.raises(UserError, match=r"model.readout.*mixtur.*nearest: mixture"):
        spec_of("task=adding", "trainer=bptt", "model.readout=mixtur")
    with pytest.raises(UserError, match=r"unknown key 'model.readout.k'"):
        spec_of("task=adding", "trainer=bptt", "model.readout={name: mixture, k: 5}")
