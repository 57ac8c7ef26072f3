"""A rule that is defined in a notebook: it trains as any other, and its code is part of its runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from notebook_cells import Session

import tprnn
from tprnn import members
from tprnn.errors import UserError
from tprnn.protocols.evaluate import load

CELL = """
from dataclasses import dataclass
import tprnn
from tprnn.settings import rate, setting
from tprnn.trainers.base import Trainer, TrainerSettings

@dataclass(frozen=True)
class SmallSettings(TrainerSettings):
    alpha: float = rate()
    kind: str = setting(choices=("plain", "sign"))
    weights: dict[str, float] = setting()

@tprnn.register(alpha=0.25, kind="plain")
class ReadoutAlone(Trainer):
    Settings = SmallSettings

    def step(self, state, batch, position):
        states = self.model.forward(state.params, batch)
        readout = self.model.readout(state.params, states)
        self.update(state, self.model.readout_gradients(states, readout), "alpha")
        return readout.loss
"""
LINE = ("task=temporal_order", "trainer=readout_alone", "model.H=20", "train.max_iterations=20")
SMALL = (*LINE, "train.validation_size=100", "workers=2")


def test_it_trains_beside_others_in_the_process_that_knows_it(
    session: Session, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    session.run(CELL)
    rows = tprnn.train(*SMALL, "trainer=bptt,readout_alone", "trainer.readout_alone.alpha=0.5,0.25", into)
    assert rows["trainer.name"].tolist() == ["bptt", "readout_alone", "readout_alone"]
    assert rows["trainer.alpha"].tolist()[1:] == [0.5, 0.25]
    assert rows["status"].tolist() == ["not_solved"] * 3
    assert "on cpu, 1 process" in capsys.readouterr().err
    assert rows["trainer.code"].notna().tolist() == [False, True, True]


def test_free_mappings_can_be_given(session: Session, into: str) -> None:
    session.run(CELL)
    (row,) = tprnn.train(*SMALL, "trainer.weights={a: 1.5}", "trainer.rate_factors={W_hy: 0.5}", into).to_dict(
        "records"
    )
    assert (row["trainer.weights.a"], row["trainer.rate_factors.W_hy"]) == (1.5, 0.5)


def test_an_update_of_it_can_be_laid_beside_another(session: Session, into: str) -> None:
    session.run(CELL)
    network = tprnn.load(tprnn.train(*SMALL, into).path[0])
    batch = network.sample(20)
    own, other = (tprnn.update(network, f"trainer={name}", batch=batch) for name in ("readout_alone", "bptt"))
    assert not own.changes["W_hh"].any()
    assert own.angles(other)["W_hy"] == pytest.approx(0.0, abs=1e-3)


def test_changed_code_makes_other_runs_and_a_comment_none(
    session: Session, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    session.run(CELL)
    (first,) = tprnn.train(*SMALL, into)["run"]
    session.run(CELL.replace("return", "# E\n        return"))
    assert tprnn.train(*SMALL, into)["run"].tolist() == [first]
    assert "finished before" in capsys.readouterr().out
    session.run(CELL.replace("return readout.loss", "return readout.loss * 1.0"))
    (second,) = tprnn.train(*SMALL, into)["run"]
    assert second != first


def test_a_session_that_lacks_the_class_is_told_so(session: Session, into: str) -> None:
    session.run(CELL)
    (path,) = tprnn.train(*SMALL, into)["path"]
    members._registered.clear()
    members.changed()
    with pytest.raises(UserError, match=r"no trainer 'readout_alone' here .*: define its class again, and give it to"):
        load(path)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ('alpha=0.25, kind="plain", alpah=1', "unknown key 'readout_alone.alpah'; nearest: readout_alone.alpha"),
        ("alpha=0.25", "readout_alone.kind: missing; expected text"),
        ('alpha=-1, kind="plain"', "readout_alone.alpha: expected a number above 0, got -1"),
        ('alpha=0.25, kind="plan"', "readout_alone.kind: 'plan' is not a choice; nearest: plain"),
    ],
)
def test_values_are_checked_where_the_class_is_registered(session: Session, given: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        session.run(CELL.replace('alpha=0.25, kind="plain"', given))
    assert not members.registered()


def test_a_name_that_is_taken_is_refused(session: Session) -> None:
    with pytest.raises(UserError, match="tprnn has the trainer 'bptt' too"):
        session.run(CELL.replace("ReadoutAlone", "BPTT"))
    named = "    rule = 'tptt_hx'\n    Settings = SmallSettings"
    with pytest.raises(UserError, match=r"trainer/tptt_hx\.yaml gives its settings their values"):
        session.run(CELL.replace("    Settings = SmallSettings", named))


def test_a_class_with_a_yaml_is_registered_without_values(session: Session, tmp_path: Path, into: str) -> None:
    session.run(CELL.replace('@tprnn.register(alpha=0.25, kind="plain")', "@tprnn.register"))
    folder = tmp_path / "conf" / "trainer"
    folder.mkdir(parents=True)
    values = {"name": "readout_alone", "alpha": 0.75, "kind": "sign", "weights": {}, "freeze": [], "rate_factors": {}}
    (folder / "readout_alone.yaml").write_text(yaml.safe_dump(values))
    rows = tprnn.train(*SMALL, into, f"--config-dir={folder.parent}")
    assert rows["trainer.alpha"].tolist() == [0.75]
