"""What a search looks over: ranges in Hydra's grammar, members with settings of their own, and what is refused."""

from __future__ import annotations

import math
import shlex
from pathlib import Path

import pytest
from scipy import stats
from search_trainer import Install, far

from tprnn.compose import compose, points
from tprnn.errors import UserError
from tprnn.protocols.search import command as search
from tprnn.protocols.search import samplers
from tprnn.protocols.search.samplers import AtRandom
from tprnn.protocols.search.spaces import Choice, Numbers, Space
from tprnn.protocols.search.studies import Search, searches

BPTT = ["task=copy_memory", "trainer=bptt"]
LRA = ["task=temporal_order", "trainer=lra"]


def one(*words: str) -> Search:
    (found,) = searches(words)
    return found


def drawn(space: Space, count: int) -> list[dict[str, str]]:
    sampler = AtRandom(space, seed=0)
    return [dict(sampler.ask().values) for _ in range(count)]


# ---- the grammar


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("trainer.alpha=tag(log, interval(1e-5, 1e-1))", Numbers(1e-5, 0.1, log=True)),
        ("trainer.alpha=interval(0.5,0.99)", Numbers(0.5, 0.99)),
        ("trainer.alpha=interval(1,9)", Numbers(1, 9)),
        ("trainer.alpha=int(interval(1,9))", Numbers(1, 9, 1, whole=True)),
        ("trainer.K=interval(1,9)", Numbers(1, 9, 1, whole=True)),
        ("trainer.K=tag(log, int(interval(1, 90)))", Numbers(1, 90, 1, whole=True, log=True)),
        ("trainer.K=float(interval(1,9))", Numbers(1, 9, 1, whole=True)),  # the setting decides
        ("model.H=range(50,200,50)", Numbers(50, 150, 50, whole=True)),
        ("model.H=range(200,50,-50)", Numbers(100, 200, 50, whole=True)),
        ("model.H=range(10.0,31.0,10.0)", Numbers(10, 30, 10, whole=True)),
        ("trainer.alpha=range(0.1,0.5,0.1)", Numbers(0.1, 0.4, 0.1)),
        ("trainer.K=choice(1,5,10)", Choice(("1", "5", "10"))),
        ("trainer.K=sort(choice(5,1,1))", Choice(("1", "5"))),
        ("trainer.freeze=choice([W_hh,b_h],[])", Choice(("[W_hh,b_h]", "[]"))),
        ("trainer.loss=choice(mse,log_penalty)", Choice(("mse", "log_penalty"))),
        ("trainer.rate_factors.W_hh=tag(log,interval(0.01,1))", Numbers(0.01, 1, log=True)),
        ("train.patience=choice('${oc.decode:null}',10)", Choice(("null", "10"))),
        ("optimizer=choice(adam,sgd)", Choice(("adam", "sgd"))),
        ("optimizer=glob(a*)", Choice(("adagrad", "adam"))),
        ("task.T=range(10,31,10)", Numbers(10, 30, 10, whole=True)),
    ],
)
def test_ranges_are_those_of_hydra(line: str, expected: Numbers | Choice) -> None:
    found = one(*LRA, line)
    assert dict(found.space.dimensions) == {line.partition("=")[0]: expected}
    for values in drawn(found.space, 5):
        told = found.lines(values)
        assert found.run(values).signature == compose([*LRA, *told]).signature  # also pasted


def test_a_range_has_the_values_of_a_sweep() -> None:
    for line in ("range(0.1,1,0.3)", "range(5)", "range(7,1,-2)", "range(0.05,0.2,0.05)"):
        swept = [spec.config["trainer"]["omega"] for spec in points([*LRA, f"trainer.omega={line}"])]
        numbers = one(*LRA, f"trainer.omega={line}").space.dimensions["trainer.omega"]
        shares = [(i + 0.5) / len(swept) for i in range(len(swept))]
        assert [float(numbers.at(share)) for share in shares] == pytest.approx(sorted(swept), abs=1e-12)


def test_commas_make_a_search_of_each_and_ranges_are_looked_over_in_all() -> None:
    found = searches([*BPTT, "task.T=5,10", "trainer.alpha=interval(0.1,1)", "model.H=choice(10,20)"])
    assert [search.spec.config["task"]["T"] for search in found] == [5, 10]
    assert [list(search.space.dimensions) for search in found] == [["trainer.alpha", "model.H"]] * 2


def test_with_a_range_rates_that_have_none_are_held() -> None:
    found = one("task=copy_memory", "trainer=tptt_many", "trainer.alpha_f=interval(0.1,1)")
    assert list(found.space.dimensions) == ["trainer.alpha_f"]
    default = compose(["task=copy_memory", "trainer=tptt_many"]).config["trainer"]
    held = found.run({"trainer.alpha_f": "0.5"}).config["trainer"]
    assert held == default | {"alpha_f": 0.5}


# ---- distributions


def test_random_rates_are_log_uniform_independent_and_have_three_digits() -> None:
    found = one("task=copy_memory", "trainer=tptt_many", "trainer.alpha_g=0.1")
    tried = [{key: float(text) for key, text in values.items()} for values in drawn(found.space, 400)]
    exponents = {key: [math.log10(point[key]) for point in tried] for key in tried[0]}
    for key, values in exponents.items():
        assert all(point[key] == float(f"{point[key]:.3g}") for point in tried)
        assert stats.kstest(values, "uniform", args=(-5, 5)).pvalue > 1e-3
    assert stats.pearsonr(*exponents.values()).pvalue > 1e-3


def test_the_estimators_first_trials_are_log_uniform_too(monkeypatch: pytest.MonkeyPatch, train: Install) -> None:
    train()
    space = Space({"a": Numbers(1e-5, 1.0, log=True)}, inner={(): ["a"]})
    with samplers.tpe(Path("a.db"), space, 0) as sampler:  # without any told, all are first trials
        exponents = [math.log10(float(sampler.ask().values["a"])) for _ in range(150)]
    assert stats.kstest(exponents, "uniform", args=(-5, 5)).pvalue > 1e-3


@pytest.mark.parametrize(
    ("dimension", "expected"),
    [
        (Numbers(1, 4, 1, whole=True), ["1", "2", "3", "4"]),
        (Numbers(50, 150, 50, whole=True), ["50", "100", "150"]),
        (Numbers(0.1, 0.4, 0.1), ["0.1", "0.2", "0.3", "0.4"]),
        (Choice(("b", "a")), ["b", "a"]),
    ],
)
def test_counted_values_are_equally_likely_by_either_sampler(
    dimension: Numbers | Choice, expected: list[str], train: Install
) -> None:
    train()
    shares = [(i + 0.5) / 1200 for i in range(1200)]
    exact = [dimension.at(share) for share in shares]
    assert [exact.count(text) for text in expected] == [1200 // len(expected)] * len(expected)
    space = Space({"a": dimension}, inner={(): ["a"]})
    with samplers.tpe(Path("b.db"), space, 0) as sampler:
        found = [sampler.ask().values["a"] for _ in range(120)]
    assert stats.chisquare([found.count(text) for text in expected]).pvalue > 1e-3
    assert set(found) == set(expected)


def test_whole_numbers_of_a_logarithm_have_the_shares_of_their_places() -> None:
    numbers = Numbers(1, 8, 1, whole=True, log=True)
    found = [numbers.at((i + 0.5) / 10_000) for i in range(10_000)]
    for k in range(1, 9):
        share = math.log((k + 0.5) / (k - 0.5)) / math.log(8.5 / 0.5)
        assert found.count(str(k)) / 10_000 == pytest.approx(share, abs=2e-4)


@pytest.mark.parametrize(
    "numbers",
    [Numbers(0.9995, 0.9999), Numbers(0.995, 0.9999, log=True), Numbers(-3.0, 1e6), Numbers(1e-5, 1.0, log=True)],
)
def test_rounding_leaves_many_values_and_stays_within_the_ends(numbers: Numbers) -> None:
    found = [float(numbers.at((i + 0.5) / 500)) for i in range(500)]
    assert len(set(found)) > 450
    assert numbers.low <= min(found)
    assert max(found) <= numbers.high


# ---- members


OWN = ["optimizer=choice(adam,sgd)", "optimizer.sgd.momentum=interval(0,0.99)", "optimizer.adam.beta1=0.5"]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_setting_of_one_member_is_looked_over_with_that_member_alone(
    train: Install, into: str, sampler: str, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = train()
    words = [*BPTT, *OWN, "trainer.alpha=tag(log,interval(1e-3,1))", into, f"search.sampler={sampler}"]
    assert search.main([*words, "search.trials=20", "search.confirm=0"]) == 0
    optimizers = [spec.config["optimizer"] for spec in trainer.trained]
    assert {group["name"] for group in optimizers} == {"adam", "sgd"}
    assert {group["beta1"] for group in optimizers if group["name"] == "adam"} == {0.5}
    momenta = {group["momentum"] for group in optimizers if group["name"] == "sgd"}
    assert len(momenta) > 3
    best = min(trainer.trained, key=lambda spec: far(spec)["best_validation_loss"])
    last = shlex.split(capsys.readouterr().out.splitlines()[-1])
    held = ["optimizer.beta1=0.5"] if "optimizer=adam" in last else []
    assert compose([*BPTT, *held, *last]).signature == best.signature
    again = train()
    assert search.main([*words, "search.trials=20", "search.confirm=0"]) == 0
    assert not again.trained


def test_a_value_for_one_trainer_stands_against_a_range_for_all() -> None:
    words = [
        "task=copy_memory",
        "trainer=tptt_many,tptt",
        "trainer.alpha_f=interval(0.1,1)",
        "trainer.noise=choice(0,1)",
    ]
    first, second = searches([*words, "trainer.tptt.alpha_f=0.3"])
    assert list(first.space.dimensions) == ["trainer.alpha_f", "trainer.noise"]
    assert list(second.space.dimensions) == ["trainer.noise"]
    assert second.run({"trainer.noise": "1"}).config["trainer"]["alpha_f"] == 0.3
    first, second = searches([*words, "trainer.tptt.alpha_f=interval(2,3)"])
    assert list(second.space.dimensions) == ["trainer.tptt.alpha_f", "trainer.noise"]
    assert second.lines({"trainer.tptt.alpha_f": "2.5", "trainer.noise": "1"}) == [
        "trainer.alpha_f=2.5",
        "trainer.noise=1",
    ]


def test_rates_are_looked_for_with_each_trainer_of_a_choice() -> None:
    own = ["trainer.bptt.alpha=interval(0.1,1)", "trainer.tptt.alpha_f=interval(0.1,1)"]
    found = one("task=copy_memory", "trainer=choice(bptt,tptt)", *own)
    assert found.lines({"trainer": "tptt", "trainer.tptt.alpha_f": "0.5"}) == ["trainer=tptt", "trainer.alpha_f=0.5"]
    assert {tuple(values) for values in drawn(found.space, 20)} == {
        ("trainer", "trainer.bptt.alpha"),
        ("trainer", "trainer.tptt.alpha_f"),
    }


# ---- what is refused


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("trainer.alpha=tag(lgo,interval(1,2))", "no tag 'lgo'; nearest: log"),
        ("trainer.alpha=tag(log,choice(0.1,0.2))", r"a tag is for interval\(\)"),
        ("trainer.alpha=interval(2,1)", r"expected interval\(START,END\) with START below END, both finite"),
        ("trainer.alpha=interval(nan,1)", r"expected interval\(START,END\) with START below END, both finite"),
        ("trainer.alpha=interval(1,inf)", r"expected interval\(START,END\) with START below END, both finite"),
        ("trainer.alpha=interval(1)", r"cannot read .*: expected interval\(START,END\)"),
        ("trainer.alpha=tag(log,intervl(1,2))", "no function 'intervl'; nearest: interval"),
        ("trainer.alpha=tag(log,interval(0,1))", "a logarithm needs a START above 0, got 0"),
        ("trainer.alpha=interval(0,1)", "trainer.alpha: expected a number above 0, got 0"),
        ("trainer.alpha=shuffle(choice(0.1,0.2))", r"leave shuffle\(\) out"),
        ("trainer.alfa=interval(0.1,1)", "unknown key 'trainer.alfa' of trainer=bptt; nearest: trainer.alpha"),
        ("trainer.clip_norm=choice(null,1)", r"no null within a function: write '\$\{oc.decode:null\}' for it"),
        ("trainer.freeze=choice(W_hh)", "trainer.freeze: expected a list, got 'W_hh'"),
        ("trainer.rate_factors.W_hx=interval(0.1,1)", "no parameter 'W_hx'; nearest: W_xh"),
        ("model.H=interval(0.5,3)", "model.H: expected a whole number, got 0.5"),
        ("model.H=interval(1,3.5)", "expected whole numbers at both ends"),
        ("model.H=range(1,3.5,0.5)", "expected whole numbers"),
        ("model.H=range(5,5)", "has no values"),
        ("model.H=range(1,5,0)", "whose STEP is not 0"),
        ("model.activation=interval(0,1)", "model.activation: expected text, got 0"),
        ("model.activation=choice(tanh,thna)", "model.activation: 'thna' is not a choice; nearest: tanh"),
        ("task.T=interval(0,10)", "task.T: copy_memory needs at least 1 steps, got 0"),
        ("optimizer=choice(adam,sdg)", "optimizer: no 'sdg'; nearest: sgd"),
        ("optimizer=interval(0,1)", r"expected choice\(\) of members of optimizer"),
        (
            "optimizer=choice(adam,sgd) optimizer.momentum=interval(0,1)",
            r"unknown key .* of optimizer=adam; .*; for sgd alone: optimizer.sgd.momentum=interval\(0,1\)",
        ),
        (
            "optimizer=choice(adam,sgd) optimizer.nesterov.momentum=interval(0,1)",
            "'optimizer.nesterov.momentum': no trial has optimizer=nesterov; choices: adam, sgd",
        ),
        (
            "optimizer=choice(adam,sgd) optimizer.sgd.momentum=0.5,0.9",
            "sweeps of one member's settings do not go with a choice of members",
        ),
        (
            "trainer=bptt,tptt trainer.alpha=interval(0.1,1)",
            r"of trainer=tptt; .*; for bptt alone: trainer.bptt.alpha=interval\(0.1,1\)",
        ),
        ("trainer=bptt,tptt trainer.bptt.alpha=interval(0.1,1)", "nothing is left to look for with .* trainer=tptt"),
        ("trainer.tptt.alpha_i=interval(0.1,1)", "no point has trainer=tptt"),
        ("trainer.alpha=0.1 trainer.alpha=interval(0.1,1)", "trainer.alpha is given twice"),
        ("trainer.alpha=interval(0.1,1) trainer.alpha=interval(0.1,2)", "a setting is given two ranges"),
        ("seed=range(0,9)", "search.seeds=fresh gives each trial its own"),
        ("workers=choice(1,2)", "workers is the same for all trials of a search; for a search of each: workers=a,b"),
        ("points=choice(temporal_order)", "points is the same for all trials"),
        ("train.validation_size=choice(1,2)", "trials are judged by train.validation_size"),
        ("search.low=0.1 trainer.alpha=interval(0.1,1)", "search.low is for a search of all rates"),
    ],
)
def test_bad_ranges_are_refused_before_anything_is_written(
    train: Install, into: str, outputs: str, line: str, says: str
) -> None:
    trainer = train()
    words = [word for word in BPTT if word.partition("=")[0] not in [part.partition("=")[0] for part in line.split()]]
    with pytest.raises(UserError, match=says) as caught:
        search.main([*words, into, *line.split()])
    assert "\n" not in str(caught.value)
    assert not trainer.calls
    assert not Path(outputs).exists()


APART = ["trainer.gradient=choice(local,through_time)", "trainer.inner=choice(literal,fixed_target)"]


def test_settings_that_do_not_go_together_are_refused_where_all_combinations_are_few(
    train: Install, into: str, outputs: str
) -> None:
    trainer = train()
    with pytest.raises(UserError, match=r"^trainer.gradient: .* give trainer.inner=literal too"):
        search.main([*LRA, *APART, into])
    assert not trainer.calls
    assert not Path(outputs).exists()


def test_where_they_are_many_the_trial_is_named(train: Install, into: str) -> None:
    train()
    many = ",".join(map(str, range(1, 99)))
    with pytest.raises(UserError, match=r"search: trial \d+ \(.*through_time.*fixed_target .*\): trainer.gradient: "):
        search.main([*LRA, *APART, f"trainer.K=choice({many})", into])
