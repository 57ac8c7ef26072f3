"""Composition: the fast path equals Hydra's own, and grids give the points they promise."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import pytest

from tprnn import compose
from tprnn.config import NO_OPTIMIZER
from tprnn.errors import UserError
from tprnn.overrides import as_override, for_hydra

BASE = ["task=adding", "trainer=tptt"]


def hydra_config(overrides: Sequence[str]) -> dict[str, Any]:
    """The config of a full Hydra composition, resolved."""
    compose.plugins()
    with hydra.initialize_config_module("tprnn.conf", **compose.version_base()):
        config = hydra.compose("config", overrides=for_hydra(overrides))
    return compose.plain(config)


def fast_config(overrides: Sequence[str]) -> dict[str, Any]:
    """The config of our composition."""
    return compose.Composer(compose.config_loader()).config(for_hydra(overrides))


HAND_PICKED = [
    [],
    ["seed=3"],
    ["seed=1", "seed=2"],
    ["dtype=float64", "trainer=bptt"],
    ["trainer=bptt", "trainer.clip_norm=1", "model.H=7"],
    ["trainer=tptt_hx", "trainer.alpha_i=1e3", "optimizer=adam", "optimizer.beta1=0.5"],
    ["trainer.alpha_i=1e-3", "trainer.alpha_f=0x10", "trainer.alpha_g=inf"],
    ["trainer.freeze=[W_hh,b_h]"],
    ["trainer.freeze=[]"],
    ["trainer.rate_factors={W_hh:0.01,b_h:1e-4}"],
    ["trainer.rate_factors={W_hh:0.01}", "trainer.rate_factors.b_h=1"],
    ["train.patience=null", "train.max_seconds=3.5"],
    ["train.patience=7", "train={patience:8,batch_size:3}"],
    ["train={patience:8,batch_size:3}", "train.patience=7"],
    ["+task.extra=1"],
    ["++task.extra={a:[1,2],b:null}", "++task.T=77"],
    ["~train.patience"],
    ["+train.deep.er=1"],
    ["outputs='a b, c'", "data=/tmp/x"],
    ["outputs=${task.name}/${seed}", "seed=9"],
    ["trainer.alpha_g=${trainer.alpha_f}", "trainer.alpha_f=0.5"],
    ["workers=${oc.env:NO_SUCH_VARIABLE,3}"],
    ["task.T='30'", "quiet=yes", "force=TRUE"],
    ["task.T=???"],
    ["grid=wide", "probe=all", "model=srn"],
    ["task=temporal_order", "task.reading=paper", "task.T=30"],
]


def random_overrides(rng: random.Random) -> list[str]:
    """A few override lines of all kinds, in random order."""
    trainer = rng.choice(["bptt", "tptt", "tptt_hx"])
    rates = ["alpha"] if trainer == "bptt" else ["alpha_i", "alpha_f", "alpha_g"]
    lines = [
        f"task={rng.choice(['adding', 'temporal_order', 'random_permutation'])}",
        f"trainer={trainer}",
        f"optimizer={rng.choice(['sgd', 'adam', 'nesterov'])}",
        *(f"trainer.{rate}={rng.choice(['1e-3', '0.2', '1', '10.0', 'nan'])}" for rate in rates),
        f"seed={rng.randrange(10**6)}",
        f"task.T={rng.randrange(500)}",
        rng.choice(["train.patience=null", "train.patience=3", "~train.patience", "train={patience:4}"]),
        rng.choice(["trainer.freeze=[W_hh]", "trainer.freeze=[]", "trainer.freeze=[b_h,W_xh,'c_h']"]),
        rng.choice(["trainer.rate_factors={W_hh:1e-2}", "trainer.rate_factors.W_hh=0.3", "+model.note='x=1'"]),
        rng.choice(["outputs=a/b", "outputs='${model.name}'", "++dtype=float64"]),
    ]
    return rng.sample(lines[2:], rng.randrange(1, 8)) + rng.sample(lines[:2], 2)


@pytest.mark.parametrize("overrides", HAND_PICKED, ids=" ".join)
def test_values_on_a_composed_base_equal_a_full_hydra_composition(overrides: list[str]) -> None:
    lines = [line for line in BASE if not any(o.startswith(line.split("=")[0] + "=") for o in overrides)] + overrides
    # as text: nan equals itself, and 1 differs from 1.0
    assert repr(fast_config(lines)) == repr(hydra_config(lines))


def test_random_override_lists_equal_a_full_hydra_composition() -> None:
    rng = random.Random(0)
    composer = compose.Composer(compose.config_loader())  # one composer: no point may change the base of another
    for _ in range(15):
        lines = random_overrides(rng)
        assert repr(composer.config(for_hydra(lines))) == repr(hydra_config(lines)), lines


def test_each_set_of_choices_is_composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    composer = compose.Composer(compose.config_loader())
    composed: list[Sequence[str]] = []
    load = composer.loader.load_configuration

    def counting(name: str | None, overrides: list[str], **options: Any) -> Any:
        composed.append(overrides)
        return load(name, overrides, **options)

    monkeypatch.setattr(composer.loader, "load_configuration", counting)
    found = [composer.spec(point) for point in composer.expand(["task=adding", "trainer=bptt,tptt", "seed=range(20)"])]
    assert len(found) == 40
    assert len(composed) == 2


@pytest.mark.parametrize(
    ("overrides", "count"),
    [
        ([], 1),
        (["grid=none"], 1),
        (["grid=manchev2020"], 216),
        (["grid=wide"], 45),
        (["grid=manchev2020", "trainer.alpha_i=1,2"], 72),
        (["grid=manchev2020", "trainer.alpha_i=5"], 36),
        (["grid=manchev2020", "++trainer.alpha_i=5", "trainer.alpha_f=1", "trainer.alpha_g=1"], 1),
        (["grid=wide", "seed=range(3)"], 135),
        (["seed=0,1", "task.T=choice(10,20,30)"], 6),
        (["optimizer=glob(ad*)"], 2),
    ],
    ids=str,
)
def test_a_grid_has_its_number_of_points(overrides: list[str], count: int) -> None:
    specs = compose.points([*BASE, *overrides])
    assert len({spec.signature for spec in specs}) == len(specs) == count


def test_the_axes_of_a_grid_are_those_that_each_trainer_has() -> None:
    specs = compose.points(["task=adding", "trainer=bptt,tptt", "grid=manchev2020"])
    by_trainer = [spec.config["trainer"]["name"] for spec in specs]
    assert (by_trainer.count("bptt"), by_trainer.count("tptt")) == (6, 216)
    rates = {1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6}
    for name, keys in {"bptt": ["alpha"], "tptt": ["alpha_i", "alpha_f", "alpha_g"]}.items():
        for key in keys:
            assert {s.config["trainer"][key] for s in specs if s.config["trainer"]["name"] == name} == rates


def test_points_come_in_the_order_of_the_line_with_the_grid_fastest() -> None:
    specs = compose.points([*BASE, "seed=1,0", "task.T=20,10", "grid=wide", "trainer.alpha_f=1", "trainer.alpha_g=1"])
    found = [(s.config["seed"], s.config["task"]["T"], s.config["trainer"]["alpha_i"]) for s in specs]
    assert found == [(s, t, a) for s in (1, 0) for t in (20, 10) for a in (0.1, 1.0, 10.0, 100.0, 1000.0)]


def test_compose_gives_the_checked_run() -> None:
    spec = compose.compose([*BASE, "trainer.rate_factors={W_hh: 0.01}", "trainer.freeze=[b_h]", "seed=4"])
    assert spec.config["seed"] == 4
    assert spec.config["trainer"]["rate_factors"] == {"W_hh": 0.01}
    assert spec.config["trainer"]["freeze"] == ["b_h"]


@pytest.mark.parametrize("overrides", [["seed=1,2"], ["seed=range(2)"], ["grid=wide"]])
def test_compose_refuses_lines_that_stand_for_several_runs(overrides: list[str]) -> None:
    with pytest.raises(UserError, match="-m"):
        compose.compose([*BASE, *overrides])


def test_a_search_path_adds_members_and_grids(tmp_path: Path) -> None:
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "mine.yaml").write_text("# Mine.\nname: mine\naxes:\n  model.H: [3, 4]\n  no.such: [1]\n")
    specs = compose.points([*BASE, "grid=mine", f"hydra.searchpath=['file://{tmp_path}']"])
    assert [spec.config["model"]["H"] for spec in specs] == [3, 4]


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ("{model.H: []}", "the grid has no points: model.H"),
        ("{model.Z: [1]}", "none of its axes"),
        ("{model.H: 3}", "expected a list"),
    ],
)
def test_a_grid_that_gives_no_runs_is_refused(tmp_path: Path, axes: str, message: str) -> None:
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "mine.yaml").write_text(f"name: mine\naxes: {axes}\n")
    with pytest.raises(UserError, match=message):
        compose.points([*BASE, "grid=mine", f"hydra.searchpath=['file://{tmp_path}']"])


@pytest.mark.parametrize(
    "value", [1, 0.1, 1e-6, 1e300, True, None, "tanh", "1e-3", "a'b, c=\\", "", "${seed}", [1, "x", None], {"a": [0.5]}]
)
def test_a_grid_value_comes_through_an_override_line_unchanged(value: Any) -> None:
    line = f"+task.note={as_override(value)}"
    parsed = compose.Composer(compose.config_loader()).parse(line).value()
    assert (parsed, type(parsed)) == (value, type(value))


def test_workers_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TPRNN_WORKERS", "3")
    assert compose.compose(BASE).execution["workers"] == 3
    assert compose.compose([*BASE, "workers=2"]).execution["workers"] == 2


def test_every_member_of_every_group_composes() -> None:
    root = Path(compose.__file__).parent.parent / "conf"
    loader = compose.config_loader()
    for group in ("task", "model", "trainer", "optimizer", "probe", "grid"):
        names = loader.get_group_options(group)
        if root.is_dir():
            assert names == sorted(path.stem for path in (root / group).glob("*.yaml"))
        for name in names:
            if (group, name) == ("optimizer", NO_OPTIMIZER):  # of rules without one
                continue
            base = ["task=adding", "trainer=bptt"] if group == "model" else BASE  # which trains every network
            point = compose.points([*(line for line in base if not line.startswith(f"{group}=")), f"{group}={name}"])[0]
            assert group == "grid" or point.config[group]["name"] == name


def test_interpolations_of_a_config_dir_are_resolved_for_each_point(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tied.yaml").write_text(
        "name: tied\nrule: srn\nH: ${task.T}\nactivation: tanh\ninit: orthogonal\n"
    )
    specs = compose.points([*BASE, "model=tied", "task.T=10,20", f"hydra.searchpath=['file://{tmp_path}']"])
    assert [spec.config["model"]["H"] for spec in specs] == [10, 20]
