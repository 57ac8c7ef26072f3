"""Members: which class implements a rule, where that class comes from, and which code it is.

A member of ours is a module ``tprnn/<kind>s/<rule>.py`` with one class. Others are classes with a dataclass `Settings`
that derive from `Task`, `Model`, `Trainer` or another base of ours, in a plugin (tprnn/plugins.py) or given to
`register`. No plugin is imported before one of its members may be needed; what a run folder names is never imported.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import inspect
import os
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tprnn import fingerprint
from tprnn.errors import UserError, nearest
from tprnn.plugins import (
    ENVIRONMENT,
    Plugin,
    asked,
    changed,
    conf_folder,
    folders,
    installed,
    package_of,
    while_unchanged,
)
from tprnn.settings import check_settings

_RESERVED = ("name", "rule", "code")  # keys of a stored member beside its settings

_registered: dict[tuple[str, str], Member] = {}


@dataclass(frozen=True)
class Source:
    """Where a class that is not ours comes from."""

    module: str
    file: str | None
    """That of the class; None for one of a notebook."""
    hash: str
    """Of all the code beside it (`fingerprint.of_class`)."""
    package: str | None
    """Name and version of what was installed."""

    @property
    def place(self) -> str:
        return self.file or f"class of {self.module}"

    def as_dict(self) -> dict[str, str | None]:
        """Plain values, for result.json."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Member:
    """A class by its kind and rule; `source` is None for ours."""

    kind: str
    rule: str
    cls: type
    source: Source | None = None
    values: Mapping[str, Any] | None = None
    """Those of its settings, of a registered class that has them from there; else they are in a YAML."""


# ---- classes


def own_rules(kind: str) -> list[str]:
    """The members of a kind that this package has: a file each, or a folder."""
    folder = Path(__file__).parent / f"{kind}s"
    names = [*(path.stem for path in folder.glob("*.py")), *(path.parent.name for path in folder.glob("*/__init__.py"))]
    return sorted(name for name in names if not name.startswith("_") and name != "base")


def member_class(kind: str, rule: str) -> Any:
    """The class that implements a rule. Raises UserError for an unknown name."""
    return find(kind, rule).cls


def find(kind: str, rule: str) -> Member:
    """The member of a kind with a rule. Raises UserError for an unknown name."""
    if rule in _own_names(kind):
        return _own(kind, rule)
    found = _foreign()
    if (kind, rule) in found:
        return found[kind, rule]
    known = [*_own_names(kind), *(name for of, name in found if of == kind)]
    broken = "".join(f"; {error}" for error in _load_installed()[1])
    if folders() and not asked():
        broken += "; a class of your own is named by --plugin"
    raise UserError(f"{kind}.rule: no {kind} '{rule}'; {nearest(rule, known)}{broken}")


def load_asked() -> None:
    """Import what was asked for by name, so that it is refused at once where it cannot be. Raises UserError."""
    if asked():
        _foreign()


def register(cls: type, values: Mapping[str, Any] | None = None) -> None:
    """Make a class a member for this process, e.g. one of a notebook. Raises UserError.

    Its kind is that of its base, its rule the class attribute `rule`, else its name: ``SignDescent`` is
    ``sign_descent``. Registered again under the same name, the later class counts. `values` are what its YAML would
    give: all of its settings but lists and mappings, which are empty where nothing is given. None: there is a YAML.
    """
    member = _member_of(cls, package_of(cls.__module__))
    if values is not None:
        member = dataclasses.replace(member, values=_values(member, values))
    known = _foreign().get((member.kind, member.rule))
    if known is not None and (known.cls.__module__, known.cls.__qualname__) != (cls.__module__, cls.__qualname__):
        _refuse_twice(member, known)
    _registered[member.kind, member.rule] = member
    changed()


def registered() -> list[Member]:
    """The members that this process alone knows."""
    return list(_registered.values())


def _values(member: Member, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all settings. Raises UserError where one is missing or wrong, and where a YAML has that name."""
    for folder in (conf_folder(), *(one.path for one in folders())):
        if os.path.exists(path := folder / member.kind / f"{member.rule}.yaml"):
            raise UserError(f"{member.rule}: {path} gives its settings their values; register it without values")
    schema = member.cls.Settings  # type: ignore[attr-defined]
    kinds = {name: typing.get_origin(hint) for name, hint in typing.get_type_hints(schema).items()}
    empty = {name: kind() for name, kind in kinds.items() if kind in (list, dict)}
    checked = check_settings(member.rule, empty | dict(given), schema)
    return {"name": member.rule, **checked}


@functools.cache
def _own_names(kind: str) -> frozenset[str]:
    return frozenset(own_rules(kind))


@functools.cache
def _own(kind: str, rule: str) -> Member:
    module = importlib.import_module(f"tprnn.{kind}s.{rule}")
    found = [value for value in _classes(module) if hasattr(value, "Settings")]
    if len(found) != 1:
        raise TypeError(f"{module.__name__} must define exactly one class with Settings, found {len(found)}")
    return Member(kind, rule, found[0])


def _classes(module: ModuleType) -> list[type]:
    """Classes that a module has a name for, and that are its own or of its sub-modules."""
    inside = f"{module.__name__}."
    found = [value for value in vars(module).values() if isinstance(value, type)]
    return [value for value in dict.fromkeys(found) if f"{value.__module__}.".startswith(inside)]


@while_unchanged
def _foreign() -> dict[tuple[str, str], Member]:
    """All members that are not ours. Raises UserError for a plugin that was asked for and cannot be imported."""
    found = dict(_registered)
    loaded = [member for name in asked() for member in _load(Plugin(name))]
    for member in [*loaded, *_load_installed()[0]]:
        known = found.setdefault((member.kind, member.rule), member)
        if known.cls is not member.cls:
            _refuse_twice(member, known)
    return found


@while_unchanged
def _load_installed() -> tuple[list[Member], list[str]]:
    """Members of installed packages, and what is wrong with those that cannot be imported."""
    found, broken = [], []
    for plugin in installed():
        try:
            found += _load(plugin)
        except UserError as error:
            broken.append(str(error))
    return found, broken


def _refuse_twice(member: Member, known: Member) -> None:
    of = [one.source.place if one.source else "tprnn" for one in (member, known)]
    raise UserError(f"{of[0]}: {of[1]} has the {member.kind} '{member.rule}' too; name one by its attribute `rule`")


def _load(plugin: Plugin) -> list[Member]:
    """The members of a plugin, imported. Raises UserError where that fails, or where it has none."""
    try:
        module = _module_of_file(plugin.name) if plugin.is_file else importlib.import_module(plugin.name)
    except UserError:
        raise
    except Exception as error:
        told = str(error).partition("\n")[0]
        raise UserError(f"plugin {plugin.name}: cannot be imported ({type(error).__name__}: {told})") from error
    package = plugin.package or (None if plugin.is_file else package_of(plugin.name))
    classes = [one for one in _classes(module) if kind_of(one)]
    found = [_member_of(one, package) for one in classes if not _lacks(one)]
    if not found:
        told = "; ".join(f"{one.__name__} has no {', '.join(_lacks(one))}" for one in classes)
        raise UserError(f"plugin {plugin.name}: {told or 'no class there derives from a base of tprnn'}")
    return found


def _lacks(cls: type) -> list[str]:
    """What a class needs to be a member, and does not have; what is only to be derived from lacks something."""
    return sorted(getattr(cls, "__abstractmethods__", ())) + ["Settings"] * (not hasattr(cls, "Settings"))


def _module_of_file(path: str) -> ModuleType:
    """The module of a file, imported anew where its text is another one than before."""
    name = f"tprnn_plugin_{Path(path).stem}_{fingerprint.of_texts({path: Path(path).read_bytes()})}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def kind_of(cls: type) -> str | None:
    """Of which kind a class is: that of the base (``tprnn/<kind>s/base.py``) it derives from."""
    for base in cls.__mro__[1:]:
        found = re.fullmatch(r"tprnn\.(\w+)s\.base", base.__module__)
        if found and base.__name__.lower() == found[1]:
            return found[1]
    return None


def _member_of(cls: type, package: str | None) -> Member:
    """A class as a member. Raises UserError for one that cannot be, and for a name that ours has."""
    kind = kind_of(cls)
    module = re.sub(r"^tprnn_plugin_(.*)_[0-9a-f]+$", r"\1", cls.__module__)
    if kind is None:
        raise UserError(f"{module}.{cls.__name__}: derives from no base of tprnn (Trainer, Task, Model, ...)")
    settings: Any = getattr(cls, "Settings", None)
    if not isinstance(settings, type) or not _is_dataclass(settings):
        raise UserError(f"{module}.{cls.__name__}: its Settings is no dataclass")
    base: Any = getattr(sys.modules[f"tprnn.{kind}s.base"], f"{kind.capitalize()}Settings", object)
    if not issubclass(settings, base):
        raise UserError(f"{module}.{cls.__name__}: its Settings must derive from tprnn.{kind}s.base.{base.__name__}")
    for entry in dataclasses.fields(settings):
        if entry.name in _RESERVED:
            raise UserError(f"{module}.{cls.__name__}: a setting cannot be named '{entry.name}'")
    rule = str(vars(cls).get("rule") or snake_case(cls.__name__))
    try:
        code, place = fingerprint.of_class(cls)
    except (OSError, TypeError) as error:
        raise UserError(f"{module}.{cls.__name__}: its source cannot be read; put it into a file") from error
    member = Member(kind, rule, cls, Source(module, None if place is None else str(place), code, package))
    if rule in _own_names(kind):
        _refuse_twice(member, Member(kind, rule, cls))
    return member


def _is_dataclass(cls: type) -> bool:
    """Whether the fields that a class names are its fields: the decorator is not that of its base alone."""
    decorated = "__dataclass_fields__" in vars(cls) or not inspect.get_annotations(cls)
    return decorated and dataclasses.is_dataclass(cls)


def without_yaml(kind: str, rule: str) -> str | None:
    """What to do about a class of others with this rule that has no YAML; None where there is no such class."""
    found = _foreign().get((kind, rule))
    if found is None or found.source is None:
        return None
    return f"{found.source.place} has its class; give its settings in {kind}/{rule}.yaml of a folder, --config-dir"


def snake_case(name: str) -> str:
    """
    >>> snake_case("SignDescent"), snake_case("TPTTFixed"), snake_case("BPTT")
    ('sign_descent', 'tptt_fixed', 'bptt')
    """
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def missing(kind: str, rule: str, recorded: Mapping[str, Any], plugins: Sequence[str]) -> str:
    """What to do about a member of a run that is not here.

    `recorded`: its `code` in result.json; `plugins`: what its run was asked to use.
    """
    module, package = recorded.get("module"), recorded.get("package")
    of = f" (module {module}{f' of {package}' if package else ''})" if module else ""
    if package:
        advice = f"pip install {str(package).partition(' ')[0]}, or give its module by --plugin"
    elif module and recorded.get("file") is None:
        advice = "define its class again, and give it to tprnn.register"
    else:
        advice = f"give its module or file by --plugin or {ENVIRONMENT}"
        advice += f"; the run had {', '.join(map(str, plugins))}" if plugins else ""
    return f"no {kind} '{rule}' here{of}: {advice}"
