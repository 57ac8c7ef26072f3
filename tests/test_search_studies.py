"""Searches that are broken off and taken up again, and the studies that they are kept in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_spec
from search_trainer import BPTT, RUN, Install, installer, keep_in_memory, tried

from tprnn.compose import compose
from tprnn.engine.signals import Interrupted
from tprnn.errors import DamagedFile, RunLocked
from tprnn.protocols import samplers, search
from tprnn.protocols.samplers import Space, Trial
from tprnn.store import Store


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch) -> Install:
    keep_in_memory(monkeypatch)
    return installer(monkeypatch)


@pytest.fixture
def outputs(tmp_path: Path) -> str:
    return f"outputs={tmp_path}/outputs"


WORDS = ["search.trials=17", "search.batch=6"]


def whole(train: Install, tmp_path: Path) -> list[tuple[float, ...]]:
    """The trials of a search that nothing breaks off."""
    trainer = train()
    search.main([*RUN, f"outputs={tmp_path / 'whole'}", *WORDS])
    return tried(trainer)


@pytest.mark.parametrize("after", [0, 3, 6, 9])
def test_a_search_broken_off_while_it_trains_goes_on_to_the_same_trials(
    train: Install, tmp_path: Path, outputs: str, after: int, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = whole(train, tmp_path)
    first = train()
    first.interrupt_after = after
    with pytest.raises(Interrupted):
        search.main([*RUN, outputs, *WORDS])
    second = train()
    search.main([*RUN, outputs, *WORDS])
    assert tried(first) + tried(second) == expected  # nothing twice


def test_a_search_broken_off_while_it_asks_fills_up_its_batch(
    train: Install, tmp_path: Path, outputs: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = whole(train, tmp_path)
    ask = samplers.TPE.ask

    def breaks(self: samplers.TPE) -> Trial:
        if len(self.study.trials) == 9:
            raise Interrupted(15)
        return ask(self)

    first = train()
    with monkeypatch.context() as patch:
        patch.setattr(samplers.TPE, "ask", breaks)
        with pytest.raises(Interrupted):
            search.main([*RUN, outputs, *WORDS])
    assert len(first.trained) == 6
    second = train()
    search.main([*RUN, outputs, *WORDS])
    assert tried(first) + tried(second) == expected


def test_a_search_that_is_done_trains_nothing_and_a_longer_one_goes_on(
    train: Install, tmp_path: Path, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = whole(train, tmp_path)
    first = train()
    search.main([*RUN, outputs, "search.trials=12", "search.batch=6"])
    told = capsys.readouterr().out.splitlines()[-1]
    again = train()
    search.main([*RUN, outputs, "search.trials=12", "search.batch=6"])
    assert not again.trained
    assert capsys.readouterr().out.splitlines()[-1] == told
    longer = train()
    search.main([*RUN, outputs, *WORDS])
    assert tried(first) + tried(longer) == expected


def test_a_trial_that_was_asked_for_by_half_has_failed(tmp_path: Path) -> None:
    space = Space(["trainer.alpha_f", "trainer.alpha_i"], 1e-5, 1.0)
    with samplers.tpe(tmp_path / "a.db", space, 0) as sampler:
        kept = sampler.ask()
        half = sampler.study.ask({"trainer.alpha_f": sampler.space["trainer.alpha_f"]})
    with samplers.tpe(tmp_path / "a.db", space, 0) as sampler:
        assert sampler.before() == [kept]
        assert sampler.waiting(kept)
        assert sampler.study.trials[half.number].state.name == "FAIL"


def test_an_interrupted_search_shows_how_far_it_came(
    train: Install, outputs: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train().interrupt_after = 13
    with pytest.raises(Interrupted):
        search.main([*RUN, outputs, "search.trials=20"])
    assert "10 of 20 trials" in capsys.readouterr().out


def test_a_study_is_named_by_what_is_held_and_by_its_space() -> None:
    spec = make_spec(trainer="tptt_many", task="copy_memory")
    space = Space(spec.rates, 1e-5, 1.0)
    name = search.study_name(spec, space)
    assert name.startswith("copy_memory-T10-tptt_many-s0-")
    assert search.study_name(spec.replace({"trainer.alpha_f": 0.5, "workers": 3}), space) == name
    others = [
        search.study_name(spec.replace({"seed": 1}), space),
        search.study_name(spec.replace({"trainer.shrink": 0.9}), space),
        search.study_name(spec, replace(space, high=0.5)),
        search.study_name(spec, replace(space, keys=space.keys[:2])),
        search.study_name(spec.replace({"trainer.alpha_g": 0.5}), replace(space, keys=space.keys[:2])),
    ]
    assert len({name[-10:], *(other[-10:] for other in others)}) == 6


# ---- files


def test_a_damaged_study_is_named_and_left_untouched(outputs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installer(monkeypatch)()
    search.main([*BPTT, outputs, "search.trials=2"])
    (path,) = Path(outputs.removeprefix("outputs=")).glob("searches/*.db")
    path.write_bytes(b"no study of anybody's" * 100)
    with pytest.raises(DamagedFile, match=rf"{path.name}: cannot be used as a study"):
        search.main([*BPTT, outputs, "search.trials=2"])
    assert path.read_bytes() == b"no study of anybody's" * 100


def test_two_processes_do_not_work_on_one_study(train: Install, outputs: str) -> None:
    train()
    spec = compose([*BPTT, outputs])
    name = search.study_name(spec, Space(spec.rates, 1e-5, 1.0))
    with Store(spec.execution["outputs"]).study(name), pytest.raises(RunLocked, match="another process works on it"):
        search.main([*BPTT, outputs])
