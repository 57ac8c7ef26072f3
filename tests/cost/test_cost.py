"""The cost model: its arithmetic by hand, and what commands make of it (test_counted.py: what it counts)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from conftest import Make, make_spec

from tprnn.bench import calibrate, packing, scaling
from tprnn.bench.pages import replaced
from tprnn.bench.papers import Job, jobs
from tprnn.cost import modelled as cost
from tprnn.cost.estimate import Estimate, Part, describe, duration, estimate, size
from tprnn.cost.modelled import Machine, Shape, machines, terms
from tprnn.cost.recorded import History
from tprnn.engine import ensemble
from tprnn.errors import UserError
from tprnn.protocols import reproduce
from tprnn.store import Store
from tprnn.trainers.base import Costs

ROUND = Machine(
    title="a round machine",
    measured=True,
    source="",
    iteration=1.0,
    step=0.5,
    dependent=100.0,
    batched=1000.0,
    elements=10.0,
    memory=2.0,
    cache=160.0,
    parameters=4.0,
    validation=2.0,
    resident=0.0,
)

# ---- what is counted beside passes


def test_validation_is_counted_as_the_engine_does_it() -> None:
    assert (cost.ROWS, cost.CHUNK, cost.DRAWN) == (ensemble._ROWS, ensemble._CHUNK, ensemble._DRAWN_AT_ONCE)


def test_a_shape_is_what_config_and_task_say() -> None:
    spec = make_spec({"task.T": 30, "model.H": 50, "dtype": "float64"}, trainer="tptt")
    shape = cost.shape_of(spec)
    assert (shape.T, shape.B, shape.H, shape.bytes, shape.slots) == (30, 20, 50, 8, 1)
    I, O = 6, 4
    assert shape.parameters == I * 50 + 2 * 50 * 50 + 50 + 50 + 50 * O + O
    assert shape.costs.dependent == 3
    assert cost.shape_of(make_spec(trainer="tptt_hx")).costs.dependent == 2


# ---- the arithmetic


def test_the_terms_of_an_iteration_by_hand() -> None:
    shape = Shape(Costs(dependent=2, rows=1, outer=1, buffers=2), T=5, B=2, H=2, parameters=12)
    # E = 2 x 5 x 2 x 2 = 40 numbers, 2 x 40 x 4 = 320 bytes, twice the cache: half of them do not fit
    found = terms(shape, R=2, cache=160.0)
    assert found == {
        "iteration": 1.0,
        "step": 10.0,
        "dependent": 320.0,
        "batched": 320.0,
        "elements": 160.0,
        "memory": 80.0,
        "parameters": 24.0,
        "validation": 0.0,
    }
    # 1 + 5 + 3.2 + 0.32 + 16 + 40 + 6
    assert cost.seconds(found, ROUND) == pytest.approx(71.52)
    assert terms(shape, R=1, cache=160.0)["memory"] == 0.0
    # three products of weights [2, 2] x [2, 2]: 2 x 2^3 each, for each run
    weights = replace(shape, costs=replace(shape.costs, square=3))
    assert terms(weights, R=2, cache=160.0) == found | {"batched": 320.0 + 3 * 2 * 16.0}
    noisy = replace(shape, costs=replace(shape.costs, normals=1))
    assert terms(noisy, R=2, cache=160.0) == found | {"elements": 160.0 + 2.7 * 40.0}


def test_a_stack_is_computed_ensemble_by_ensemble() -> None:
    shape = Shape(Costs(), T=5, B=2, H=2, parameters=12)
    one, four = (cost.seconds(terms(shape, R, ROUND.cache), ROUND) for R in (1, 4))
    assert cost.iteration_seconds(shape, ROUND, stack=9, ensemble=4) == pytest.approx((2 * four + one) / 9)


def test_checks_look_at_a_thousand_sequences_and_at_the_full_set_every_twentieth_time() -> None:
    assert cost.judged(make_spec().train) == pytest.approx((19 * 1000 + 10_000) / 20 / 100)
    assert cost.judged(make_spec({"train.validation_size": 500}).train) == pytest.approx(5.0)


@pytest.mark.parametrize("change", [{"task.T": 40}, {"model.H": 200}, {"train.batch_size": 80}])
def test_longer_wider_and_larger_batches_cost_more(change: dict[str, Any]) -> None:
    small, large = make_spec({"task.T": 20}), make_spec({"task.T": 20} | change)
    assert cost.run_seconds(large, 8) > cost.run_seconds(small, 8)
    assert cost.stack_bytes(large, 8) > cost.stack_bytes(small, 8)


def test_the_estimate_of_many_runs_is_their_sum_shared_by_the_workers() -> None:
    short = make_spec({"task.T": 10, "train.max_iterations": 1000, "workers": 2})
    long = short.replace({"task.T": 50})
    found = estimate([Part(short, 100), Part(long, 300, expected=6000.0)])
    assert found is not None
    assert (found.runs, found.iterations, found.workers) == (400, 400_000, 2)
    each = [cost.run_seconds(short, 8), cost.run_seconds(long, 8)]  # ensembles of eight
    assert found.seconds == pytest.approx((100_000 * each[0] + 300_000 * each[1]) / 2)
    assert found.expected == pytest.approx((100_000 * each[0] + 6000 * each[1]) / 2)
    assert found.disk == pytest.approx(100 * cost.disk_bytes(short) + 300 * cost.disk_bytes(long))


def test_workers_do_not_share_one_run() -> None:
    alone, shared = make_spec({"workers": 1}), make_spec({"workers": 8})
    one, many = estimate([Part(alone)]), estimate([Part(shared)])
    assert one is not None
    assert many is not None
    assert many.seconds == one.seconds
    assert estimate([]) is None
    assert estimate([Part(alone, 0)]) is None


def test_a_rung_waits_for_the_one_before_it() -> None:
    specs = [make_spec({"task.T": T, "workers": 8}) for T in (10, 20)]
    alone = [estimate([Part(spec)]) for spec in specs]
    together = estimate(*[[Part(spec, expected=1000.0)] for spec in specs])
    assert together is not None
    assert together.seconds == pytest.approx(sum(one.seconds for one in alone if one))
    assert together.expected == pytest.approx(sum(1000.0 * cost.run_seconds(spec, 1) for spec in specs))


def test_no_figure_of_a_gpu_is_called_measured() -> None:
    found = estimate([Part(make_spec({"device": "cuda"}))])
    assert found is not None
    assert not found.machine.measured
    assert "from data sheets, not measured" in describe(found)


def test_an_estimate_is_told_in_words() -> None:
    found = Estimate(ROUND, 2, 3, 1_500_000, 7200.0, None, 3 * 2.0**28, 2.0**31)
    assert describe(found).splitlines() == [
        "at most 1,500,000 run-iterations: 2.0 h with 2 processes",
        "expected: not known, no runs like these are recorded",
        "memory of a process from 768 MiB on, disk at most 2.0 GiB",
        "a model of: a round machine (measured); see docs/scaling.md",
    ]
    told = describe(replace(found, expected=90.0, workers=1))
    assert "with 1 process\nexpected: 1.5 min, from recorded runs like these" in told
    bounded = describe(replace(found, expected=90.0), "what is printed", "climbs to T = 30").splitlines()
    assert bounded[0].endswith("with 2 processes (climbs to T = 30)")
    assert bounded[1] == "expected: 1.5 min, from what is printed"
    assert describe(None) == ""


def test_times_and_sizes_have_two_digits_and_a_fitting_unit() -> None:
    assert [duration(x) for x in (3.14, 89, 600, 86400, 30 * 86400, 1e8)] == [
        *("3.1 s", "89 s", "10 min", "24 h", "30 days", "3.2 years")
    ]
    assert [size(x) for x in (2**20, 2**29, 2**31)] == ["1.0 MiB", "512 MiB", "2.0 GiB"]


# ---- what recorded runs lead to expect


def test_a_climb_is_expected_to_end_as_those_before_it(make: Make, outputs: str) -> None:
    for seed in (0, 1):
        make({"task.T": 10, "seed": seed}, iterations=100 + 200 * seed)
    make({"task.T": 20, "seed": 0}, iterations=600)
    family = make({"task.T": 20, "seed": 1}, iterations=9000, status="not_solved").read_spec().family
    history = History(Store(outputs))
    # T = 10: 200 of all; T = 20: (600 + 5000) / 2, solved by half; T = 30: like 20, reached by half, then by a quarter
    expected = {10: 200.0, 20: 2800.0, 30: 1400.0, 40: 700.0}
    assert history.climb(family, (10, 20, 30, 40), limit=5000) == expected
    assert history.climb("another", (10, 20), limit=5000) == {}


def test_a_run_that_reached_its_limit_would_have_gone_on(make: Make, outputs: str) -> None:
    folder = make({"task.T": 10}, iterations=300, status="not_solved")
    folder.write_result({"status": "not_solved", "stopped_by": "max_iterations", "iterations": 300})
    history = History(Store(outputs))
    assert history.climb(folder.read_spec().family, (10,), limit=5000) == {10: 5000.0}


def test_unfinished_and_damaged_runs_tell_nothing(make: Make, outputs: str) -> None:
    make({"task.T": 10}, status="interrupted")
    (make({"task.T": 20}).path / "config.yaml").write_text("nonsense")
    assert not History(Store(outputs)).records


TABLE = ["manchev2020/table1", "budget=smoke", "rows=temporal_order", "columns=BPTT", "--dry-run"]


def test_a_dry_run_tells_what_the_runs_will_cost(make: Make, outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main([*TABLE, f"outputs={outputs}", "workers=2"]) == 0
    out = capsys.readouterr().out
    assert "at most 40,000 run-iterations" in out
    assert "with 2 processes" in out
    assert "recorded runs" not in out
    assert not Path(outputs).exists()
    (climber,) = reproduce.climbers(reproduce.parse([*TABLE, f"outputs={outputs}"]))
    for T in (10, 20):
        spec = climber.at(T).replace({"seed": 5})
        folder = Store(outputs).folder(spec)
        folder.open(spec)
        folder.write_result({"status": "solved", "iterations": 100 * T})
    words = [*TABLE, f"outputs={outputs}"]
    reproduce.main(words)
    store = Store(outputs)
    rungs, _ = reproduce.rungs(reproduce.parse(words), reproduce.standings([climber], store), store)
    assert [[part.expected for part in rung] for rung in rungs] == [[1000.0], [2000.0]]
    assert "from recorded runs like these\n" in capsys.readouterr().out


def test_nothing_to_do_costs_nothing(outputs: str, capsys: pytest.CaptureFixture[str]) -> None:
    (climber,) = reproduce.climbers(reproduce.parse([*TABLE, f"outputs={outputs}"]))
    folder = Store(outputs).folder(climber.spec)
    folder.open(climber.spec)
    folder.write_result({"status": "not_solved", "iterations": 20_000})
    reproduce.main([*TABLE, f"outputs={outputs}"])
    assert capsys.readouterr().out.endswith("0 runs to do; nothing was trained\n")


def test_bad_names_are_still_refused(outputs: str) -> None:
    with pytest.raises(UserError, match="rows"):
        reproduce.main([*TABLE, "rows=adding2", f"outputs={outputs}"])


# ---- the fit, and the page


def test_the_fit_finds_constants_and_makes_none_negative() -> None:
    generator = numpy.random.default_rng(0)
    x = generator.uniform(0.1, 1.0, (40, 3))
    assert calibrate.non_negative(x, x @ [2.0, 0.0, 0.5]) == pytest.approx([2.0, 0.0, 0.5], abs=1e-6)
    found = calibrate.non_negative(x, x @ [2.0, -1.0, 0.5])
    assert found.min() >= 0.0
    assert found[1] == 0.0


def test_a_machine_is_recovered_from_the_times_it_would_take() -> None:
    points = []
    for T in (20, 50, 100):
        for H in (50, 100, 256):
            for kind in ("bptt", "validation"):
                spec = make_spec({"task.T": T, "model.H": H})
                point = calibrate.Point(kind, T, H, 20, 2, 1.0, (1, 1), spec)
                points.append(replace(point, measured=point.modelled(machines()["cpu"])))
    found = calibrate.fit(points, "", "", 0.0)
    assert calibrate.error(calibrate.ratios(points, found))[1] < 1.01


def test_constants_of_this_machine_leave_the_others_alone(tmp_path: Path) -> None:
    path = tmp_path / "machines.yaml"
    path.write_text(cost.MACHINES.read_text())
    before = path.read_text()
    calibrate.write_cpu(replace(ROUND, iteration=1.23456, memory=float("inf")), path)
    after = path.read_text()
    assert "iteration: 1.23\n" in after
    assert "memory: .inf\n" in after
    assert after[after.index("gpu:") :] == before[before.index("gpu:") :]
    assert after.startswith(before[: before.index("cpu:")])


def test_all_five_papers_are_counted() -> None:
    assert {job.paper for job in jobs()} == {"manchev2020", "manchev2024", "manchev2025", "dai2021", "bengio1993"}
    # table 1, temporal order: BPTT up to 120 and TPTT up to 150, each with its failure
    climbs = [job for job in jobs() if job.table.startswith("1, 2: climbs")]
    assert (max(climbs[0].lengths), climbs[0].runs) == (130, 6)
    assert (max(climbs[1].lengths), climbs[1].runs) == (160, 216)
    assert scaling.run_iterations(climbs[1]) == 16 * 216 * 100_000


def test_jobs_are_spread_over_gpus_until_the_longest_climb_decides() -> None:
    gpu = machines()["gpu"]
    short = Job("", "", Costs(), (100,), 64, 1000)
    long = replace(short, lengths=(100, 200, 300), runs=1, climb=True)
    alone = scaling.job_seconds(long, gpu, 1, 1)
    assert scaling.shortest([long], gpu) == pytest.approx(alone, rel=2e-3)
    assert scaling.shortest([long, short], gpu) == pytest.approx(alone, rel=2e-3)
    last = scaling.job_seconds(replace(long, lengths=(300,)), gpu, 1, 1)
    assert scaling.shortest([replace(long, climb=False)], gpu) == pytest.approx(last, rel=2e-3)
    many = [short] * 640
    on_one = scaling.job_seconds(short, gpu, 64, 64)
    assert scaling.shortest(many, gpu) == pytest.approx(640 * on_one / 64, rel=2e-3)


def test_workers_end_together_where_there_are_many_runs_for_each() -> None:
    specs = packing.grid(1)
    assert len(specs) == 216
    last, ratio = packing.simulate(specs, 2)
    assert last > 0.0
    assert 1.0 <= ratio < 1.05
    assert packing.simulate(specs, 64)[1] > ratio  # one long run is most of a worker's share


def test_the_page_holds_what_the_command_writes() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "scaling.md").read_text()
    assert replaced(page, "cost model: papers", scaling.papers_block()) == page


def test_a_block_of_a_page_is_replaced_and_nothing_else() -> None:
    page = "a\n<!-- one -->\nold\n<!-- end -->\nb\n<!-- two -->\n<!-- end -->\n"
    assert replaced(page, "one", "new") == page.replace("old", "\nnew\n")
    with pytest.raises(ValueError, match="three"):
        replaced(page, "three", "new")
