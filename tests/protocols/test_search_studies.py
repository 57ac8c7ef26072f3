"""Searches that are broken off and taken up again, and the studies that they are kept in."""

from __future__ import annotations

from pathlib import Path

import pytest
from search_trainer import BPTT, RUN, Install, Trainer, far, installer, tried

from tprnn.compose import compose
from tprnn.config import seeds_of
from tprnn.engine.signals import Interrupted
from tprnn.errors import DamagedFile, RunLocked, UserError
from tprnn.protocols.search import command as search
from tprnn.protocols.search import samplers
from tprnn.protocols.search.samplers import Trial
from tprnn.protocols.search.spaces import Choice, Numbers, Space
from tprnn.protocols.search.studies import searches
from tprnn.store import Store

WORDS = ["search.trials=17", "search.batch=6", "search.confirm=0"]


def whole(train: Install, tmp_path: Path) -> list[tuple[float, ...]]:
    """The trials of a search that nothing breaks off."""
    trainer = train()
    search.main([*RUN, f"outputs={tmp_path / 'whole'}", *WORDS])
    return tried(trainer)


@pytest.mark.parametrize("after", [0, 3, 6, 9])
def test_a_search_broken_off_while_it_trains_goes_on_to_the_same_trials(
    train: Install, tmp_path: Path, into: str, after: int, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = whole(train, tmp_path)
    first = train()
    first.interrupt_after = after
    with pytest.raises(Interrupted):
        search.main([*RUN, into, *WORDS])
    second = train()
    search.main([*RUN, into, *WORDS])
    assert tried(first) + tried(second) == expected  # nothing twice


def test_a_search_broken_off_while_it_asks_fills_up_its_batch(
    train: Install, tmp_path: Path, into: str, monkeypatch: pytest.MonkeyPatch
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
            search.main([*RUN, into, *WORDS])
    assert len(first.trained) == 6
    second = train()
    search.main([*RUN, into, *WORDS])
    assert tried(first) + tried(second) == expected


def test_a_search_that_is_done_trains_nothing_and_a_longer_one_goes_on(
    train: Install, tmp_path: Path, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = whole(train, tmp_path)
    first = train()
    search.main([*RUN, into, *WORDS, "search.trials=12"])
    told = capsys.readouterr().out.splitlines()[-1]
    again = train()
    search.main([*RUN, into, *WORDS, "search.trials=12"])
    assert not again.trained
    assert capsys.readouterr().out.splitlines()[-1] == told
    longer = train()
    search.main([*RUN, into, *WORDS])
    assert tried(first) + tried(longer) == expected


@pytest.mark.parametrize("drawn", [[], ["a"], ["a", "b"]])
def test_a_trial_that_was_asked_for_by_half_has_failed(tmp_path: Path, drawn: list[str]) -> None:
    numbers = Numbers(1e-5, 1.0, log=True)
    dimensions = {"a": Choice(("x", "y")), "b": numbers, "c": numbers}
    space = Space(dimensions, ["a"], {("x",): ["b", "c"], ("y",): ["c", "b"]})
    with samplers.tpe(tmp_path / "a.db", space, 0) as sampler:
        kept = sampler.ask()
        half = sampler.study.ask()
        for name in drawn:
            dimensions[name].suggest(half, name)
    with samplers.tpe(tmp_path / "a.db", space, 0) as sampler:
        assert sampler.before() == [kept]
        assert sampler.waiting(kept)
        assert sampler.study.trials[half.number].state.name == "FAIL"


def test_an_interrupted_search_shows_how_far_it_came(
    train: Install, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    train().interrupt_after = 13
    with pytest.raises(Interrupted):
        search.main([*RUN, into, "search.trials=20"])
    assert "10 of 20 trials" in capsys.readouterr().out


NAMED = ["task=copy_memory", "trainer=tptt_many", "optimizer=choice(adam,sgd)", "trainer.alpha_f=interval(0.1,1)"]


def test_a_study_is_named_by_what_is_held_by_its_space_and_by_its_kind_of_seeds() -> None:
    def names(*words: str, seeds: str = "same") -> list[str]:
        return [found.study_name(seeds) for found in searches([*NAMED[:2], *words])]

    (name,) = names()
    assert name.startswith("copy_memory-T10-tptt_many-s0-")
    assert names("workers=3") == [name]
    others = [
        *names(seeds="fresh"),
        *names("seed=1"),
        *names("trainer.shrink=0.9,0.8"),
        *names("trainer.alpha_g=0.5,0.6"),
        *names("train.max_iterations=10"),
        *[found.study_name("same") for found in searches(NAMED[:2], high=0.5)],
        *names("trainer.alpha_f=interval(0.1,1)"),
        *names("trainer.alpha_f=interval(0.1,2)"),
        *names("trainer.alpha_f=tag(log,interval(0.1,1))"),
        *names("trainer.alpha_f=choice(0.1,1)"),
        *names("trainer.alpha_f=choice(0.1,1,2)"),
        *names(*NAMED[2:]),
        *names(*NAMED[2:], "optimizer.sgd.momentum=0.5"),
        *names(*NAMED[2:], "optimizer.sgd.momentum=interval(0.5,0.9)"),
    ]
    assert len({name[-10:], *(other[-10:] for other in others)}) == len(others) + 1


# ---- seeds


def seeds(trainer: Trainer) -> list[int]:
    return [spec.config["seed"] for spec in trainer.trained]


FRESH = ["search.trials=7", "search.batch=3", "search.seeds=fresh", "search.confirm=2"]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_fresh_seeds_are_functions_of_the_seed_and_the_trial(train: Install, tmp_path: Path, sampler: str) -> None:
    found = []
    for name, words in (("a", ["seed=4"]), ("b", ["seed=4", "search.batch=2"]), ("c", ["seed=5"])):
        trainer = train()
        search.main([*RUN, f"outputs={tmp_path / name}", *FRESH, *words, f"search.sampler={sampler}"])
        found.append(seeds(trainer))
    assert found[0] == found[1]
    trials, confirmed = found[0][:7], found[0][7:]
    assert len(set(trials)) == 7
    assert confirmed == [5, 6]  # none of a trial
    assert not set(trials) & {*confirmed, *found[2][:7]}


@pytest.mark.parametrize("after", [2, 5])
def test_a_search_with_fresh_seeds_goes_on_and_trains_nothing_twice(
    train: Install, tmp_path: Path, into: str, after: int
) -> None:
    expected = train()
    search.main([*RUN, f"outputs={tmp_path / 'whole'}", *FRESH])
    first = train()
    first.interrupt_after = after
    with pytest.raises(Interrupted):
        search.main([*RUN, into, *FRESH])
    second = train()
    search.main([*RUN, into, *FRESH])
    signatures = [spec.signature for spec in [*first.trained, *second.trained]]
    assert signatures == [spec.signature for spec in expected.trained]
    third = train()
    search.main([*RUN, into, *FRESH, "search.trials=8"])
    assert seeds(third)[0] not in seeds(expected)
    assert len(third.trained) == 1  # which is not the best


def test_a_start_that_is_given_is_that_of_all_trials(train: Install, into: str) -> None:
    trainer = train()
    search.main([*BPTT, into, *FRESH, "init_seed=9"])
    assert {seeds_of(spec.config)[0] for spec in trainer.trained} == {9}
    assert len({seeds_of(spec.config)[1] for spec in trainer.trained}) == 9


def test_the_last_line_holds_the_seed_of_a_fresh_start(
    train: Install, into: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train()
    search.main([*RUN, into, *FRESH])
    last = capsys.readouterr().out.splitlines()[-1]
    best = min(trainer.trained[:7], key=lambda spec: far(spec)["best_validation_loss"])
    assert compose([*RUN, into, *last.split()]).signature == best.signature


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["search.seeds=fresh", "search.confirm=0"], "search.seeds=fresh: nothing follows from a seed where init_seed"),
        (["search.confirm=2"], "search.confirm=2: nothing follows from a seed where init_seed and data_seed are given"),
    ],
)
def test_seeds_from_which_nothing_follows_are_refused(train: Install, into: str, words: list[str], says: str) -> None:
    trainer = train()
    with pytest.raises(UserError, match=says):
        search.main([*BPTT, into, *words, "init_seed=1", "data_seed=2"])
    assert not trainer.calls
    assert search.main([*BPTT, into, "search.confirm=0", "search.trials=2", "init_seed=1", "data_seed=2"]) == 0


def test_a_seed_that_leaves_no_room_for_others_is_refused(train: Install, into: str) -> None:
    with pytest.raises(UserError, match=r"search.confirm=3 needs seeds up to \d+, more than 2\^63 - 1"):
        search.main([*BPTT, into, f"seed={2**63 - 2}"])


# ---- files


def test_a_damaged_study_is_named_and_left_untouched(into: str, monkeypatch: pytest.MonkeyPatch) -> None:
    installer(monkeypatch)()
    search.main([*BPTT, into, "search.trials=2"])
    (path,) = Path(into.removeprefix("outputs=")).glob("searches/*.db")
    path.write_bytes(b"no study of anybody's" * 100)
    with pytest.raises(DamagedFile, match=rf"{path.name}: cannot be used as a study"):
        search.main([*BPTT, into, "search.trials=2"])
    assert path.read_bytes() == b"no study of anybody's" * 100


def test_two_processes_do_not_work_on_one_study(train: Install, into: str) -> None:
    train()
    (found,) = searches([*BPTT, into])
    with (
        Store(found.spec.execution["outputs"]).study(found.study_name("same")),
        pytest.raises(RunLocked, match="another process works on it"),
    ):
        search.main([*BPTT, into])
