"""Searches for learning rates: what is looked for, what is best, what is refused, and one for real."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import pytest
from conftest import make_spec
from search_trainer import BPTT, RATES, RUN, Install, far, tried

from tprnn.compose import compose
from tprnn.errors import UserError
from tprnn.protocols.search import command as search
from tprnn.protocols.search.samplers import Trial
from tprnn.store import Store
from tprnn.sweep.run import Outcome

# ---- what is looked for


def test_the_space_is_every_rate_by_its_mark() -> None:
    assert make_spec(trainer="bptt").rates == ["trainer.alpha"]  # and not clip_norm, which is positive and per run too
    assert make_spec(trainer="tptt_many").rates == [f"trainer.{name}" for name in RATES]


def test_a_given_rate_is_held(train: Install, into: str) -> None:
    trainer = train()
    search.main([*RUN, into, "trainer.alpha_g=0.003", "search.trials=4", "search.sampler=random"])
    assert {spec.config["trainer"]["alpha_g"] for spec in trainer.trained} == {0.003}
    assert len({spec.config["trainer"]["alpha_f"] for spec in trainer.trained}) == 4


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_the_same_seed_and_batch_size_give_the_same_trials(train: Install, tmp_path: Path, sampler: str) -> None:
    found = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        trainer = train()
        words = [f"outputs={tmp_path / name}", f"seed={seed}", f"search.sampler={sampler}"]
        search.main([*RUN, *words, "search.trials=14", "search.batch=6"])
        found.append(tried(trainer))
    assert found[0] == found[1]
    assert not set(found[0]) & set(found[2])


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_batch_is_trained_in_one_call(train: Install, into: str, sampler: str) -> None:
    trainer = train()
    search.main([*BPTT, into, "search.trials=10", "search.batch=4", f"search.sampler={sampler}"])
    assert [len(call) for call in trainer.calls] == [4, 4, 2, 3]  # the last: the best with other seeds
    assert len({call[0].stack_key for call in trainer.calls}) == 1


def test_the_estimator_looks_closer_to_the_best(train: Install, into: str) -> None:
    trainer = train()
    search.main([*RUN, into, "search.trials=40"])
    losses = [far(spec)["best_validation_loss"] for spec in trainer.trained]
    assert sorted(losses[30:])[5] < 0.5 * sorted(losses[:10])[5]


# ---- what is best


def outcome_of(accuracy: float | None, loss: float, status: str = "not_solved") -> Outcome:
    result = {"status": status, "best_accuracy": accuracy, "best_validation_loss": loss}
    return Outcome(make_spec({"train.validation_size": 1000}), status, result)


def test_accuracy_decides_and_equals_are_told_apart_by_loss() -> None:
    better_first = [
        outcome_of(1.0, 5.0, "solved"),
        outcome_of(0.999, 0.0),  # one mistake in the thousand outweighs any loss
        outcome_of(0.5, 0.1),
        outcome_of(0.5, 0.2),
        outcome_of(0.0, 3.0),
        outcome_of(0.0, math.inf, "diverged"),
    ]
    scores = [search.score(outcome) for outcome in better_first]
    assert scores == sorted(set(scores), reverse=True)
    assert search.score(outcome_of(0.0, math.nan)) == search.score(better_first[-1])
    assert search.score(outcome_of(None, 0.0, "failed")) is None


def test_a_run_that_went_further_has_a_score_without_a_full_set() -> None:
    seen = {"best_accuracy": None, "best_validation_loss": None, "seen_accuracy": 0.25}
    assert search.score(Outcome(make_spec(), "not_solved", seen)) == pytest.approx(0.25, abs=1e-4)


def test_ranks_are_by_score_then_by_number() -> None:
    outcomes = [outcome_of(0.5, 0.2), outcome_of(None, 0.0, "failed"), outcome_of(0.5, 0.1), outcome_of(0.5, 0.2)]
    found = search.ranked([search.Tried(Trial(i, {}), outcome) for i, outcome in enumerate(outcomes)])
    assert [one.trial.number for one in found] == [2, 0, 3, 1]


def test_the_last_line_holds_the_best_rates_as_overrides(
    train: Install, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train()
    assert search.main([*RUN, into, "search.trials=12", "search.sampler=random"]) == 0
    lines = capsys.readouterr().out.splitlines()
    best = min(trainer.trained, key=lambda spec: far(spec)["best_validation_loss"])
    pasted = compose([*RUN, into, *lines[-1].split()])
    assert pasted.signature == best.signature
    assert "12 of 12 trials, the best 10 shown" in lines
    rows = [
        [part.strip() for part in line.split("|")[1:-1]]
        for line in lines[: lines.index("12 of 12 trials, the best 10 shown")]
    ]
    rows = [row for row in rows if len(row) > 1]
    del rows[1]  # the rule below the names
    assert len(rows) == 11
    assert rows[1][-1] == best.folder_name


def test_the_best_setting_is_tried_with_further_seeds(
    train: Install, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train()
    search.main([*RUN, into, "seed=4", "search.trials=5", "search.confirm=3", "search.sampler=random"])
    last = trainer.calls[-1]
    assert [spec.config["seed"] for spec in last] == [5, 6, 7]
    best = min(trainer.trained[:5], key=lambda spec: far(spec)["best_validation_loss"])
    assert {spec.family for spec in last} == {best.family}
    assert all(spec.folder_name in capsys.readouterr().out for spec in last[:1])


def test_a_search_of_each_length(train: Install, into: str, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = train()
    search.main([*BPTT, into, "task.T=5,10", "search.trials=3", "search.sampler=random", "search.confirm=0"])
    assert [{spec.config["task"]["T"] for spec in call} for call in trainer.calls] == [{5}, {10}]
    shown = capsys.readouterr().out
    assert "search of copy_memory T=5 with bptt" in shown
    assert "search of copy_memory T=10 with bptt" in shown


def test_failed_trials_make_the_exit_code_one_and_are_never_the_best(
    train: Install, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train(lambda spec: {"status": "failed", "best_accuracy": 1.0} if spec.config["trainer"]["alpha"] > 1e-3 else {})
    assert search.main([*BPTT, into, "search.trials=8", "search.batch=3"]) == 1
    best = capsys.readouterr().out.splitlines()[-1]
    assert float(best.removeprefix("trainer.alpha=")) <= 1e-3
    train(lambda spec: {"status": "failed"})
    assert search.main([*BPTT, into, "seed=1", "search.trials=3"]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "best: none, every trial failed"


# ---- what is refused


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["search.trails=10"], "unknown key 'search.trails'; nearest: search.trials"),
        (["search.sampler=tree"], "search.sampler: 'tree' is not a choice; nearest: tpe"),
        (["search.trials=0"], "search.trials: expected a whole number from 1 on, got '0'"),
        (["search.confirm=-1"], "search.confirm: expected a whole number from 0 on"),
        (["search.seeds=3"], "search.seeds: expected same or fresh, got '3'; seeds for the best: search.confirm"),
        (["search.seeds=frsh"], "search.seeds: 'frsh' is not a choice; nearest: fresh"),
        (["search.low=x"], "search.low: expected a finite number above 0, got 'x'"),
        (["search.low=0.1", "search.high=0.01"], "search.high: expected more than search.low = 0.1, got 0.01"),
        (["trainer.alpha=0.1"], r"no learning rate of trainer=bptt is left to look for; all of them \(trainer.alpha\)"),
        (["grid=manchev2020"], "points differ in nothing but what is looked for"),
        (["task.delay=3"], r"unknown key 'task\.delay'"),
    ],
)
def test_bad_searches_are_refused_before_anything_is_trained(
    train: Install, into: str, outputs: str, words: list[str], says: str
) -> None:
    trainer = train()
    with pytest.raises(UserError, match=says):
        search.main([*BPTT, into, *words])
    assert not trainer.calls
    assert not Path(outputs).exists()


def test_without_optuna_a_search_is_random_or_refused(
    train: Install, into: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = train()
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "optuna" else find(name, *rest)
    )
    with pytest.raises(UserError, match=r"needs optuna: pip install 'tprnn\[search\]', or give search.sampler=random"):
        search.main([*BPTT, into])
    assert not trainer.calls
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert search.main([*BPTT, into, "search.sampler=random", "search.trials=3"]) == 0


def test_a_run_that_another_process_holds_ends_the_search(into: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "run_all", lambda specs: [Outcome(spec, "locked", error="held") for spec in specs])
    with pytest.raises(UserError, match="search: held"):
        search.main([*BPTT, into, "search.trials=2"])


# ---- for real


def test_a_real_search_finds_rates_that_learn(into: str, outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["model.H=20", "train.max_iterations=300", "train.validation_size=200", "train.full_check_every=1"]
    words = ["task=temporal_order", "trainer=bptt", "optimizer=adam", into, "quiet=true", "workers=1", *small]
    assert search.main([*words, "search.trials=6", "search.batch=3", "search.confirm=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    best = Store(outputs).folder(compose([*words, lines[-1]])).result()
    assert best is not None
    assert best["best_accuracy"] > 0.9  # guessing: 25 %
    assert search.main([*words, "search.trials=6", "search.batch=3", "search.confirm=1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == lines[-1]
