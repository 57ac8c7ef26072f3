"""Defaults that are not what a rule's own paper trains with are said before anything is trained."""

from __future__ import annotations

import pytest
from conftest import MEMBERS, make_spec

from tprnn.config import flatten, member_class
from tprnn.papers.departures import departures
from tprnn.papers.published import papers
from tprnn.store import Store
from tprnn.sweep.plan import Plan
from tprnn.sweep.progress import Progress

RULES = sorted({make_spec(trainer=name).config["trainer"]["rule"] for name in MEMBERS["trainer"]})


def test_a_default_that_the_paper_has_not_is_said_and_its_momentum_is_not() -> None:
    told = "lra's paper (manchev2025) has optimizer=sgd; the default here is optimizer=nesterov"
    assert departures([make_spec({"seed": seed}, trainer="lra") for seed in (0, 1)]) == [told]


@pytest.mark.parametrize(
    ("trainer", "optimizer", "changes"),
    [
        ("lra", "sgd", {}),
        ("lra", "adam", {}),  # a choice, and no default
        ("lra", "sgd", {"optimizer.momentum": 0.5, "model.H": 7}),
        ("tptt", "nesterov", {}),
        ("tptt", "sgd", {}),
        ("tptt_hx", "nesterov", {}),
        ("tptt_fixed", "nesterov", {"train.batch_size": 7}),
    ],
)
def test_what_was_chosen_or_is_the_papers_needs_no_telling(
    trainer: str, optimizer: str, changes: dict[str, object]
) -> None:
    assert departures([make_spec(changes, trainer=trainer, optimizer=optimizer)]) == []


def test_each_trainer_has_a_line_of_its_own_with_all_that_differs() -> None:
    many = "tptt_many's paper (dai2021) has model.H=128; the default here is model.H=100"
    found = departures([make_spec(trainer="tptt_many"), make_spec(trainer="lra"), make_spec(trainer="bptt")])
    assert [line.split("'")[0] for line in found] == ["tptt_many", "lra"]
    assert found[0] == many


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_with_a_paper_states_settings_that_there_are(rule: str) -> None:
    own = vars(member_class("trainer", rule))
    assert bool(own.get("paper")) == bool(own.get("paper_settings"))
    if own.get("paper"):
        assert own["paper"] in papers()
        names = [name for name in MEMBERS["trainer"] if make_spec(trainer=name).config["trainer"]["rule"] == rule]
        stated = own["paper_settings"]
        chosen = {key: values[0] for key, values in stated.items() if key.endswith(".name")}
        spec = make_spec(trainer=names[0], **{key.removesuffix(".name"): name for key, name in chosen.items()})
        changes = {key: values[0] for key, values in stated.items() if key not in chosen}
        assert departures([spec.replace(changes)]) == []
        assert set(stated) <= set(flatten(spec.config))


@pytest.mark.parametrize(("quiet", "count"), [(False, 1), (True, 0)])
def test_a_run_says_it_in_its_first_lines(
    quiet: bool, count: int, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(Plan([make_spec({"quiet": quiet}, trainer="lra")], Store(outputs)), 1):
        pass
    lines = capsys.readouterr().err.splitlines()
    assert sum(line.startswith("note: lra's paper (manchev2025) has optimizer=sgd") for line in lines[1:2]) == count
