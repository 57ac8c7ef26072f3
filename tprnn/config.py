"""What a run is: the typed schema of its config, the checks, and `RunSpec` with its signature.

No torch here: the command line checks configs before anything heavy is imported.

A member (task, model, trainer, optimizer) is a class with a dataclass ``Settings`` (tprnn/members.py finds it), and a
YAML ``<kind>/<name>.yaml`` that gives every setting its value. Two YAMLs may share one class (``tptt`` and
``tptt_hx``): `rule` names the class, `name` the YAML. Of a member that is not ours the hash of its code is part of the
run, as `code` beside its settings.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tprnn import members, plugins
from tprnn.budgets import Budget
from tprnn.errors import UserError, nearest
from tprnn.listing import defaults
from tprnn.members import member_class
from tprnn.scores import Score
from tprnn.settings import as_before, check, check_settings, convert, setting

MEMBER_KINDS = ("task", "model", "trainer", "optimizer")
NO_OPTIMIZER = "none"
"""The optimizer of a rule that changes parameters by itself; no part of a run's identity."""

# `seed` sets both of the others; where all three agree a run is that of the seed alone.
SEED_KEYS = ("seed", "init_seed", "data_seed")

# Keys that say how a run is executed, not what it is: they are no part of the signature.
EXECUTION_KEYS = frozenset(
    {"outputs", "data", "device", "threads", "workers", "stack_size", "checkpoint_seconds"}
    | {"quiet", "force", "fail_fast", "locked", "grid", "depth", "budget", "hydra", "unsigned"}
    | {"plugins", "code", "rates"}
)

# Keys of `train` that only say where a run is cut: a run with more goes on, so they are no part of the signature.
BUDGET_KEYS = ("max_iterations", "max_seconds")
SIGNATURE_DIGITS, OLD_SIGNATURE_DIGITS = 12, 10


@dataclass(frozen=True)
class TrainSettings:
    """How long a run goes and how it is judged (conf/config.yaml holds the values)."""

    max_iterations: int = setting(low=1)
    batch_size: int = setting(low=1)
    check_every: int = setting(low=1)
    validation_size: int = setting(low=1)
    validation: str = setting(choices=("fresh", "fixed", "train"))
    full_check_every: int = setting(low=1)
    success_error: float | None = setting(above=0.0, high=1.0)
    patience: int | None = setting(low=1)
    spectral_radius_limit: float | None = setting(above=0.0)
    max_seconds: float | None = setting(above=0.0)

    @property
    def budget(self) -> Budget:
        return Budget(self.max_iterations, self.max_seconds)


@dataclass(frozen=True)
class ProbeSettings:
    """What is measured beside the training (conf/probe/*.yaml); never changes a run's numbers."""

    name: str = setting()
    spectral_radius: bool = setting()
    update_norms: bool = setting()
    layers: bool | None = setting()


@dataclass(frozen=True)
class ExecutionSettings:
    """How runs are carried out; no part of a run's identity."""

    outputs: str = setting()
    data: str | None = setting()
    device: str = setting()
    threads: int = setting(low=1, high=1024)
    workers: int | None = setting(low=1)
    stack_size: int = setting(low=1)
    checkpoint_seconds: float = setting(low=0.0)
    quiet: bool = setting()
    force: bool = setting()
    fail_fast: bool = setting(before=False)
    locked: str = setting(choices=("wait", "leave"), before="wait")
    plugins: list[str] = setting(before=())
    code: str = setting(choices=("same", "any"), before="same")


def networks_with(traits: frozenset[str]) -> list[str]:
    """The networks of this package that have all of these traits."""
    return [rule for rule in members.own_rules("model") if traits <= member_class("model", rule).traits]


def readout_name(config: Mapping[str, Any]) -> str:
    """The read-out of a whole checked config: the model's own, or the task's."""
    chosen = config["model"].get("readout")
    return str(chosen["name"] if chosen else member_class("task", config["task"]["rule"]).readout)


def _readout(config: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """`model.readout` checked, with all settings of the read-out; None: the task's, which has none.

    A name alone, or a task's own read-out, has the settings of its YAML. Raises UserError.
    """
    key, own = "model.readout", member_class("task", config["task"]["rule"]).readout
    chosen = {"name": own} if given is None else given
    if not isinstance(chosen.get("name"), str):
        raise UserError(f"{key}: expected a name of tprnn list readouts, or {{name: NAME, ...}}, got {given!r}")
    name = chosen["name"]
    try:
        found = members.find("readout", name)
    except UserError as error:
        raise UserError(f"{key}{str(error).removeprefix('readout.rule')}") from error
    reads = member_class("readout", own).targets
    member: Any = found.cls
    if member.targets != reads:
        alike = [other for other in members.own_rules("readout") if member_class("readout", other).targets == reads]
        task = config["task"]["name"]
        raise UserError(f"{key}: {name} reads {member.targets}, task={task} has {reads}; choices: {', '.join(alike)}")
    given_and_others = {**defaults("readout", name), **chosen}
    settings = check_settings(key, given_and_others, member.Settings, ignore=("name", "rule", "code"))
    code = {"code": found.source.hash} if found.source else {}
    return {"name": name, **code, **settings} if given is not None or settings or code else None


def _check_sizes(spec: RunSpec, sizes: Mapping[str, int]) -> None:
    """Raise UserError where a run would validate on more sequences than the split has."""
    name, asked = spec.config["task"]["name"], spec.train.validation_size
    on_train = spec.train.validation == "train"
    if on_train and "train" not in sizes:
        raise UserError(f"train.validation: 'train' needs a set of training sequences, which task={name} draws anew")
    there = sizes.get("train" if on_train else "validation", asked)
    if there < asked:
        raise UserError(
            f"train.validation_size: expected at most the {there:,} sequences that task={name} has for it, "
            f"got {asked:,}"
        )


def _hash(value: Any, digits: int = SIGNATURE_DIGITS) -> str:
    return hashlib.sha256(_canonical(value).encode()).hexdigest()[:digits]


def seeds_of(config: Mapping[str, Any]) -> tuple[int, int]:
    """(init_seed, data_seed) of a run: what its initial weights and what all its other draws are functions of.

    Either is the seed where it is null, or not there (runs recorded before there were two).
    """
    init, data = (config["seed"] if config.get(key) is None else config[key] for key in SEED_KEYS[1:])
    return init, data


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _code(kind: str, group: Mapping[str, Any], rule: str, which: str) -> dict[str, str]:
    """{"code": hash} of a member that is not ours: what a config says it was, else what it is; {} for one of ours.

    Raises UserError where the two differ, but with `which` = "any".
    """
    source = members.find(kind, rule).source
    if source is None:
        return {}
    told = convert(f"{kind}.code", group.get("code", source.hash), str)
    if told != source.hash and which != "any":
        raise UserError(
            f"{kind}={group['name']}: {source.place} is not the code of this run any more; code=any takes it"
        )
    return {"code": told}


@dataclass(frozen=True)
class RunSpec:
    """One run: its whole checked config (plain dicts), and names derived from it."""

    config: Mapping[str, Any]
    execution: Mapping[str, Any]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> RunSpec:
        """Check a resolved config (plain containers) and make a spec of it. Raises UserError."""
        top = {"seed", "dtype", "train", "probe", *MEMBER_KINDS}
        for key in config:
            if key not in top and key not in SEED_KEYS and key not in EXECUTION_KEYS:
                raise UserError(f"unknown key '{key}'; {nearest(str(key), {*top, *SEED_KEYS, *EXECUTION_KEYS})}")
        for key in sorted(top):
            if config.get(key) is None or config[key] == "???":
                raise UserError(f"{key}: missing" + (f"; give {key}=NAME" if key in MEMBER_KINDS else ""))
        seeds = {key: convert(key, config.get(key), int if key == "seed" else int | None) for key in SEED_KEYS}
        for key, seed in seeds.items():
            check(key, seed, {"low": 0, "high": 2**63 - 1})
        dtype = convert("dtype", config["dtype"], str)
        check("dtype", dtype, {"choices": ("float32", "float64")})
        fields = dataclasses.fields(ExecutionSettings)
        given = {entry.name: config[entry.name] for entry in fields if entry.name in config}
        execution = check_settings("", given, ExecutionSettings)
        plugins.ask(execution["plugins"])
        members.load_asked()
        execution["plugins"] = plugins.asked()
        checked: dict[str, Any] = {**seeds, "dtype": dtype}
        unsigned = []
        for kind in MEMBER_KINDS:
            group = config[kind]
            if not isinstance(group, Mapping) or "name" not in group:
                raise UserError(f"{kind}: expected a member of the group {kind}, got {group!r}; see tprnn list")
            rule = convert(f"{kind}.rule", group.get("rule", group["name"]), str)
            member = member_class(kind, rule)
            if isinstance(group.get("readout"), str) and kind == "model":  # a name alone
                group = {**group, "readout": {"name": group["readout"]}}
            code = _code(kind, group, rule, execution["code"])
            settings = check_settings(kind, group, member.Settings, ignore=("name", "rule", *code))
            checked[kind] = {"name": str(group["name"]), "rule": rule, **code, **settings}
        if "readout" in checked["model"]:
            checked["model"]["readout"] = _readout(checked, checked["model"]["readout"])
        trainer = member_class("trainer", checked["trainer"]["rule"])
        if not trainer.optimizes:
            checked["optimizer"] = {"name": NO_OPTIMIZER, "rule": NO_OPTIMIZER}
        elif checked["optimizer"]["rule"] == NO_OPTIMIZER:
            raise UserError(f"optimizer: {checked['trainer']['name']} needs one; give optimizer=NAME (tprnn list)")
        train = dict(config["train"])
        shown = convert("train.max_sequences", train.pop("max_sequences", None), int | None)
        checked["train"] = check_settings("train", train, TrainSettings)
        if shown is not None:
            check("train.max_sequences", shown, {"low": 1})
            checked["train"]["max_iterations"] = -(-shown // trainer.sequences(checked))
        if not member_class("task", checked["task"]["rule"]).score.counted:  # nothing to be below: no part of its runs
            checked["train"]["success_error"] = None
        for kind in MEMBER_KINDS:
            member = member_class(kind, checked[kind]["rule"])
            unsigned += [f"{kind}.{name}" for name in as_before(member.Settings, checked[kind])]
        checked["probe"] = check_settings("probe", config["probe"], ProbeSettings)
        spec = cls(checked, execution | ({"unsigned": unsigned} if unsigned else {}))
        if "code" in checked["trainer"]:  # for reports, which know a rule of ours by its source and import no other
            spec = cls(checked, {**spec.execution, "rates": spec.rates})
        if not spec.execution["outputs"]:
            raise UserError("outputs: expected a folder, got ''")
        spec.member("trainer").check(spec.config)
        task = spec.member("task")
        task.check(spec.config["task"])
        _check_sizes(spec, task.sizes(spec.config["task"]))
        return spec

    def member(self, kind: str) -> Any:
        """The class of a member. Raises UserError where it is not here, or its code is not that of this run."""
        plugins.ask(self.execution.get("plugins") or ())
        group = self.config[kind]
        _code(kind, group, group["rule"], self.execution.get("code", "same"))
        return member_class(kind, group["rule"])

    @property
    def sources(self) -> dict[str, members.Source]:
        """Where the members that are not ours come from, by kind."""
        found = {kind: members.find(kind, self.config[kind]["rule"]).source for kind in MEMBER_KINDS}
        return {kind: source for kind, source in found.items() if source is not None}

    @cached_property
    def identity_with_budget(self) -> dict[str, Any]:
        """The config but for shown names (`tptt_hx` IS `tptt` with wxh=local), and what is as before it was a setting.

        Of the seeds, those that something is drawn from: one `seed` where all is drawn from the same. Which settings
        are `unsigned` is stored with a run, so that its signature follows from its files alone.
        """
        identity = {key: value for key, value in self.config.items() if key not in SEED_KEYS}
        unsigned = self.execution.get("unsigned") or ()
        init, data = seeds_of(self.config)
        identity |= {"seed": init} if init == data else {"init_seed": init, "data_seed": data}
        if identity["optimizer"].get("rule") == NO_OPTIMIZER:
            del identity["optimizer"]
        for kind in (kind for kind in (*MEMBER_KINDS, "probe") if kind in identity):
            hidden = {"name", *(key.partition(".")[2] for key in unsigned if key.startswith(f"{kind}."))}
            identity[kind] = {key: value for key, value in identity[kind].items() if key not in hidden}
        # a probe that came later and is not asked for makes no new runs of old ones
        identity["probe"] = {key: value for key, value in identity["probe"].items() if value is not None}
        return identity

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the signature hashes: all that makes the run's trajectory, so not its budget."""
        train = {key: value for key, value in self.config["train"].items() if key not in BUDGET_KEYS}
        return self.identity_with_budget | {"train": train}

    @cached_property
    def signature(self) -> str:
        """Twelve hex digits of the SHA-256 of the identity."""
        return _hash(self.identity)

    @property
    def old_signature(self) -> str:
        """The signature when it hashed the budget too: ten digits, in the names of folders of that time."""
        return _hash(self.identity_with_budget, OLD_SIGNATURE_DIGITS)

    @cached_property
    def family(self) -> str:
        """A signature blind to seed and length as well: runs that answer the same question.

        A run that starts from one seed and draws its data from another is of a family of its own.
        """
        identity = self.identity | {"task": dict(self.identity["task"])}
        identity.pop("seed", None)
        identity["task"].pop("T", None)
        return _hash(identity)

    @cached_property
    def stack_key(self) -> str:
        """Runs with the same key may share a stack: they differ in seeds, budget and per-run settings only."""
        identity = {key: value for key, value in self.identity.items() if key not in SEED_KEYS}
        for kind in (kind for kind in MEMBER_KINDS if kind in identity):
            identity[kind] = dict(identity[kind])
            for entry in dataclasses.fields(self.member(kind).Settings):
                if entry.metadata.get("per_run"):
                    identity[kind].pop(entry.name, None)
        return _canonical([identity, self.execution["device"]])

    @property
    def folder_name(self) -> str:
        """`<task>-T<T>-<trainer>-s<seed>-<signature>`; `i<init_seed>d<data_seed>` where the two differ."""
        return f"{self.short_name}-{self.signature}"

    @property
    def short_name(self) -> str:
        c = self.config
        length = f"-T{c['task']['T']}" if "T" in c["task"] else ""
        init, data = seeds_of(c)
        seed = f"s{init}" if init == data else f"i{init}d{data}"
        return f"{c['task']['name']}{length}-{c['trainer']['name']}-{seed}"

    def settings(self, kind: str) -> Any:
        """The member's Settings object."""
        group = self.config[kind]
        schema = self.member(kind).Settings
        return schema(**{entry.name: group[entry.name] for entry in dataclasses.fields(schema)})

    @property
    def score(self) -> Score:
        """What the task measures of each sequence."""
        found: Score = self.member("task").score
        return found

    @property
    def rates(self) -> list[str]:
        """Dotted keys of the trainer's learning rates."""
        fields = dataclasses.fields(self.member("trainer").Settings)
        return [f"trainer.{entry.name}" for entry in fields if entry.metadata.get("searched")]

    @property
    def train(self) -> TrainSettings:
        return TrainSettings(**self.config["train"])

    @property
    def probe(self) -> ProbeSettings:
        return ProbeSettings(**self.config["probe"])

    def as_dict(self) -> dict[str, Any]:
        """The config with its execution keys, as written to config.yaml."""
        return copy.deepcopy({**self.config, **self.execution})

    def replace(self, changes: Mapping[str, Any]) -> RunSpec:
        """A checked copy with dotted keys changed, e.g. ``{"task.T": 200}``. Raises UserError."""
        config = {**self.config, **self.execution}
        for key, value in changes.items():
            set_dotted(config, key, value)
        return RunSpec.from_config(config)


def set_dotted(config: dict[str, Any], key: str, value: Any) -> None:
    """Set `config["a"]["b"]` for key "a.b", in copies of the groups on the way. Raises UserError for an unknown one."""
    *parents, last = key.split(".")
    node: Any = config
    for part in parents:
        group = node.get(part) if isinstance(node, dict) else None
        if isinstance(group, dict):
            group = node[part] = dict(group)
        node = group
    # free mappings (rate_factors) take new keys; settings do not
    if not isinstance(node, dict) or (last not in node and "name" in node) or (not parents and last not in node):
        raise UserError(f"unknown key '{key}'; {nearest(key, flatten(config))}")
    node[last] = value


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as dotted keys; lists and empty mappings stay values."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
