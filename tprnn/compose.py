"""From override lines to runs: Hydra's composition, fast enough for grids of hundreds of points.

Hydra composes one config in about 100 ms. What costs is the choice of group members (task=..., trainer=...); so each
set of choices is composed once, and the values of a point (trainer.alpha=0.1) are put on a copy by the very function
that Hydra itself uses for them: the result is that of a full composition.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from tprnn.config import MEMBER_KINDS, RunSpec, flatten
from tprnn.errors import UnknownKey, UserError, nearest
from tprnn.members import registered, without_yaml
from tprnn.override_errors import COMPOSITION_ERRORS, one_line, strictly, unreadable, unreadable_yaml
from tprnn.overrides import as_given, as_override, for_hydra, is_hydra_line
from tprnn.plugins import folders, while_unchanged
from tprnn.points import POINTS, Member, Point, Sweep

CONFIG_MODULE = "tprnn.conf"
CONFIG_NAME = "config"


def compose(overrides: Sequence[str]) -> RunSpec:
    """The one run that override lines in Hydra's syntax describe, e.g. ``["task=adding", "trainer=tptt"]``.

    Raises UserError: unknown key or member, wrong value, or lines that stand for several runs.
    """
    composer, lines = composer_for(overrides)
    return composer.one(lines)


def points(overrides: Sequence[str]) -> list[RunSpec]:
    """All runs of override lines with axes (``a,b``, ``range()``, ``choice()``, ``glob()``) and `grid=NAME`.

    The last axis changes fastest, the axes of the grid after those of the lines. Raises UserError as `compose`, and
    for a grid without points.
    """
    return [spec for _, spec in sweep(overrides)]


def sweep(overrides: Sequence[str]) -> list[tuple[Point, RunSpec]]:
    """The same, each with the lines that make it. Raises UserError."""
    composer, lines = composer_for(overrides)
    return [(point, composer.spec(point)) for point in composer.expand(lines)]


def for_one(overrides: Sequence[str]) -> list[str]:
    """Lines of a single run as Hydra knows them: `trainer.tptt.alpha_i=1` becomes `trainer.alpha_i=1`.

    Raises UserError for a value that is meant for a member which is not chosen.
    """
    own = list(filter(is_hydra_line, overrides))
    lines = [line for line in overrides if line not in own]
    named = any(line.partition("=")[0].count(".") > 1 for line in lines)  # else there is nothing to look up
    return [*own, *_composer(tuple(own)).alone(lines)] if named else list(overrides)


def version_base() -> dict[str, str]:
    """The argument for hydra.main: Hydra 1.3 warns where it is missing, 1.4 where it is given."""
    major, minor = hydra.__version__.split(".")[:2]
    return {"version_base": "1.3"} if (int(major), int(minor)) < (1, 4) else {}


def plugins() -> Plugins:
    """Hydra's plugins, those that its scan can see. (A plugin that was imported before the scan would exist twice.)"""
    with warnings.catch_warnings():  # Hydra 1.4 says at every start that it does not see into editable installs
        warnings.filterwarnings("ignore", message="Hydra could not discover plugins in an editable")
        found = Plugins.instance()
    found.register(FoldersOfMembers)
    return found


class FoldersOfMembers(SearchPathPlugin):
    """Has Hydra see the YAMLs of members that are not ours, those of --config-dir too."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Add their folders after ours."""
        for folder in folders():
            search_path.append(f"tprnn: {folder.package or folder.path}", f"file://{folder.path}")


@while_unchanged
def config_loader() -> ConfigLoader:
    """Hydra's loader of tprnn's own config tree, for use outside of hydra.main."""
    plugins()
    for member in registered():
        ConfigStore.instance().repo.get(member.kind, {}).pop(f"{member.rule}.yaml", None)  # of a class of before
        if member.values is not None:
            ConfigStore.instance().store(member.rule, dict(member.values), group=member.kind)
    with hydra.initialize_config_module(config_module=CONFIG_MODULE, job_name="train", **version_base()):
        return GlobalHydra.instance().config_loader()


@while_unchanged
def _composer(hydra_lines: tuple[str, ...]) -> Composer:
    return Composer(config_loader(), fixed=hydra_lines)


def composer_for(overrides: Sequence[str]) -> tuple[Composer, list[str]]:
    """The composer for override lines, and those of them that are not about Hydra itself. Raises UserError."""
    lines = for_hydra(overrides)
    fixed = tuple(line for line in lines if is_hydra_line(line))
    return _composer(fixed), [line for line in lines if line not in fixed]


def explain(error: Exception, overrides: Sequence[str], *, multirun: bool) -> UserError | None:
    """What is wrong with override lines that Hydra refused with `error`; None where nothing is (a bug of ours)."""
    about_hydra = [*filter(is_hydra_line, overrides)]
    lines = [line for line in overrides if not is_hydra_line(line)]
    try:
        composer = _composer(tuple(about_hydra))
        if multirun:
            for point in composer.expand(lines):
                composer.spec(point)
        else:
            composer.one(lines)
    except UserError as found:
        return found
    foreign = any(line.startswith("hydra/sweeper=") for line in about_hydra)
    for line in lines if foreign else ():  # sound lines, but not those of a sweeper that is not ours
        if member := composer.member_of(composer.parse(for_hydra([line])[0]).key_or_group):
            told = f"a value for {member[0]}={member[1]} alone is known to tprnn's own sweeper; leave hydra/sweeper out"
            return UserError(f"'{as_given(line)}': {told}, or search with tprnn search")
    if isinstance(error, (HydraException, OmegaConfBaseException, UserWarning)):
        return UserError(one_line(error, " ".join(about_hydra)))
    return None


class Composer:
    """Composes the points of one config tree. `fixed` are override lines (of Hydra's own) that every point has.

    Raises UserError for `fixed` lines that cannot be read.
    """

    def __init__(self, loader: ConfigLoader, config_name: str | None = CONFIG_NAME, fixed: Sequence[str] = ()) -> None:
        self.loader, self.config_name, self.fixed = loader, config_name, list(fixed)
        self._parser = OverridesParser.create(config_loader=loader)
        self._parsed: dict[str, Override] = {}
        self._members: dict[str, list[str]] = {}
        self._bases: dict[tuple[str, ...], DictConfig] = {}
        self._chosen: dict[tuple[str, ...], dict[str, str]] = {}
        for line in self.fixed:
            self.parse(line)

    @classmethod
    def of_sweep(cls, loader: ConfigLoader, config: DictConfig) -> Composer:
        """The composer for the jobs of the sweep whose master config is `config`."""
        return cls(loader, config.hydra.job.config_name, list(config.hydra.overrides.hydra))

    def one(self, lines: Sequence[str]) -> RunSpec:
        """The run of lines without axes, points and grid. Raises UserError."""
        config = self.config(self.alone(lines))
        refuse_grid(config)
        return RunSpec.from_config(config)

    def alone(self, lines: Sequence[str]) -> Point:
        """The one point of lines without axes and points (of a grid, its first). Raises UserError."""
        for override in map(self.parse, lines):
            if override.is_sweep_override():
                raise UserError(
                    f"'{override.input_line}' holds several values: add -m for a run of each, or write [...] for a list"
                )
            if override.key_or_group == POINTS:
                raise UserError(f"'{override.input_line}' stands for many runs: add -m to run them")
        return self.expand(lines)[0]

    def expand(self, lines: Sequence[str]) -> list[Point]:
        """The points of lines with axes, points and a grid, each as lines without. Raises UserError.

        Every combination of members is composed once, so that a setting which one of them lacks is told here.
        """
        return Sweep(self, lines).points()

    def spec(self, lines: Sequence[str]) -> RunSpec:
        """The checked run of one point. Raises UserError."""
        with _named(lines):
            return RunSpec.from_config(self._config(lines))

    def config(self, lines: Sequence[str]) -> dict[str, Any]:
        """The resolved config of one point, as plain containers without Hydra's own part. Raises UserError."""
        with _named(lines):
            return self._config(lines)

    def _config(self, lines: Sequence[str]) -> dict[str, Any]:
        choices = self.choices(lines)
        config = copy.deepcopy(self.base(choices))
        values = [override for override in map(self.parse, lines) if not self.is_choice(override)]
        for kind in MEMBER_KINDS:
            if kind not in config and (members := self.members_of(kind)):
                self._refuse_unknown(values, [*config, *MEMBER_KINDS])
                raise UserError(f"{kind}: missing; give {kind}=NAME ({', '.join(members)})")
        for override in values:
            self._apply(override, config, self.chosen(choices))
        return plain(config)

    def parse(self, line: str) -> Override:
        """An override line, read. Raises UserError."""
        if line not in self._parsed:
            try:
                (override,) = self._parser.parse_overrides([line])
            except COMPOSITION_ERRORS as error:
                raise UserError(unreadable(as_given(line))) from error
            if not override.key_or_group:
                raise UserError(unreadable(line))
            self._parsed[line] = override
        return self._parsed[line]

    def members_of(self, group: str) -> list[str]:
        """The names of a group; none for what is no group."""
        if group not in self._members:
            try:
                with strictly():
                    found = self.loader.get_group_options(group, config_name=self.config_name, overrides=self.fixed)
            except COMPOSITION_ERRORS as error:
                raise UserError(one_line(error, " ".join(self.fixed))) from error
            self._members[group] = found
        return self._members[group]

    def member_of(self, key: str) -> Member | None:
        """Whom ``trainer.tptt.alpha_i`` is meant for: ("trainer", "tptt")."""
        kind, _, rest = key.partition(".")
        name, _, setting = rest.partition(".")
        meant = kind in MEMBER_KINDS and setting and name in self.members_of(kind)
        return (kind, name) if meant else None

    def is_choice(self, override: Override) -> bool:
        """Whether a line chooses a member of a group (Hydra's rule), not a value."""
        if isinstance(override.value(), dict) or "." in override.key_or_group:
            return False
        return bool(self.members_of(override.key_or_group))

    def choices(self, lines: Iterable[str]) -> tuple[str, ...]:
        """Those of the lines that choose members."""
        return tuple(line for line in lines if self.is_choice(self.parse(line)))

    def chosen(self, choices: tuple[str, ...]) -> dict[str, str]:
        """Group -> member of a set of choices, defaults included. Raises UserError."""
        self.base(choices)
        return self._chosen[choices]

    def has(self, choices: tuple[str, ...], key: str) -> bool:
        """Whether a set of choices has the setting `key`."""
        return key in _dotted(_container(self.base(choices), resolve=False))

    def base(self, choices: tuple[str, ...]) -> DictConfig:
        """The config of a set of choices before any value is put on it."""
        if choices not in self._bases:
            try:
                with strictly():
                    config = self.loader.load_configuration(
                        self.config_name, [*self.fixed, *choices], run_mode=RunMode.MULTIRUN
                    )
            except COMPOSITION_ERRORS as error:
                self.check_choices([*(line for line in self.fixed if "." not in line), *choices])
                raise UserError(one_line(error, " ".join([*self.fixed, *choices]))) from error
            except MarkedYAMLError as error:
                raise UserError(unreadable_yaml(error)) from error
            self._chosen[choices] = _container(config.hydra.runtime.choices, resolve=False)
            OmegaConf.set_struct(config, False)
            config.pop("hydra", None)
            OmegaConf.set_struct(config, True)
            self._bases[choices] = config
        return self._bases[choices]

    def check_choices(self, choices: Iterable[str]) -> None:
        """Raise UserError for the first choice that is no member of its group."""
        for override in map(self.parse, choices):
            group, value = override.key_or_group, override.value()
            for name in value if isinstance(value, list) else [value]:
                if name not in self.members_of(group) and not override.is_delete():
                    shown = as_override(name).strip("'")
                    advice = without_yaml(group, shown) or nearest(shown, self.members_of(group))
                    raise UserError(f"{group}: no '{shown}'; {advice}")

    def _refuse_unknown(self, values: Iterable[Override], known: Sequence[Any]) -> None:
        """Raise UserError for a value whose key is below none of the `known` ones."""
        for override in values:
            if override.key_or_group.partition(".")[0] not in known:
                raise UserError(f"unknown key '{override.key_or_group}'; {nearest(override.key_or_group, known)}")

    def _apply(self, override: Override, config: DictConfig, chosen: Mapping[str, str]) -> None:
        try:
            ConfigLoaderImpl._apply_overrides_to_config([override], config)
        except COMPOSITION_ERRORS as error:
            key = override.key_or_group
            names = {*_dotted(_container(config, resolve=False)), *MEMBER_KINDS}
            if key not in names and not override.is_add():
                alike = {name for name in names if ("." in name) == ("." in key)}
                kind = key.partition(".")[0]
                of_member = f" of {kind}={chosen[kind]}" if kind in MEMBER_KINDS else ""
                if key.count(".") > 1:
                    setting = key.split(".", 2)[2]
                    alike |= {f"{kind}.{name}.{setting}" for name in self.members_of(kind)}
                raise UnknownKey(f"unknown key '{key}'{of_member}; {nearest(key, alike)}", key) from error
            raise UserError(one_line(error, str(override.input_line))) from error

    def grid_axes(self, choices: tuple[str, ...], given: set[str]) -> dict[str, list[str]]:
        """Key -> override lines of each axis of the chosen grid that the config has and nobody gave."""
        config = plain(self.base(choices))
        grid = config.get("grid") or {}
        axes, known = grid.get("axes") or {}, flatten(config)
        if axes and not any(key in known for key in axes):
            raise UserError(f"grid={grid['name']}: none of its axes is a key of this config ({', '.join(axes)})")
        found = {}
        for key, entries in axes.items():
            if not isinstance(entries, list):
                raise UserError(f"grid={grid['name']}: {key}: expected a list of values, got {entries!r}")
            if not entries:
                raise UserError(f"the grid has no points: {key} of grid={grid['name']} has no values")
            if key in known and not any(key == name or key.startswith(f"{name}.") for name in given):
                found[key] = [f"{key}={as_override(entry)}" for entry in entries]
        return found


@contextlib.contextmanager
def _named(lines: Sequence[str]) -> Iterator[None]:
    """Errors in the block name the set of `points` that the lines hold."""
    try:
        yield
    except UserError as error:
        if not isinstance(lines, Point) or not lines.entry:
            raise
        message = f"{lines.entry}: {error}"
        raise UnknownKey(message, error.key) if isinstance(error, UnknownKey) else UserError(message) from error


def plain(config: DictConfig) -> dict[str, Any]:
    """A composed config as plain containers, interpolations resolved. Raises UserError where one cannot be."""
    try:
        return _container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(one_line(error)) from error


def _container(config: DictConfig, *, resolve: bool) -> dict[str, Any]:
    container = OmegaConf.to_container(config, resolve=resolve)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _dotted(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of all settings and groups."""
    for key, value in config.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")


def refuse_grid(config: Mapping[str, Any]) -> None:
    """Raise UserError where a config that is to be one run has a grid or points."""
    grid = config.get("grid") or {}
    if grid.get("axes"):
        raise UserError(f"grid={grid['name']} stands for many runs: add -m to run them")
    if points := config.get(POINTS):
        raise UserError(f"{POINTS}={points['name']} stands for many runs: add -m to run them")
