"""What is not ours and is to be found in this process: plugins, which hold members, and folders of YAMLs.

A plugin is a module or a package. It is named by an entry point of the group ``tprnn.members`` of an installed package,
by ``--plugin`` (a module or a FILE.py), or by the environment variable ``TPRNN_PLUGINS``. YAMLs lie in the folder
``conf`` of a plugin that is a package, and in those given by ``--config-dir``. Nothing is imported here
(tprnn/members.py imports a plugin when one of its members may be needed).
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any, TypeVar

from tprnn.errors import UserError

GROUP, ENVIRONMENT = "tprnn.members", "TPRNN_PLUGINS"
PLACES = """\
  --plugin NAME      members of one's own: an importable module or package, or a FILE.py; any number of times
                     (also TPRNN_PLUGINS=NAME,FILE.py, and by entry points of installed packages: docs/extending.md)
  --config-dir DIR   YAMLs of one's own: DIR/trainer/NAME.yaml, DIR/grid/NAME.yaml, DIR/paper/PAPER/TABLE.yaml, ..."""
"""What a command's help says of them."""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Folder:
    """A config tree beside ours."""

    path: Path
    package: str | None = None

    def origin(self, file: Path) -> str:
        """Where a YAML of it comes from, in words."""
        return self.package or os.path.relpath(file)


@dataclass(frozen=True)
class Plugin:
    """A module or package that holds members."""

    name: str
    """A module's name, or the absolute path of a file."""
    package: str | None = None
    """Name and version of the installed package whose entry point it is."""

    @property
    def is_file(self) -> bool:
        return self.name.endswith(".py")


# ---- what is asked for in this process

_plugins: tuple[str, ...] = ()
_folders: tuple[str, ...] = ()
_caches: list[Any] = []


def while_unchanged(function: F) -> F:
    """functools.cache for what depends on which members are there: forgotten when others are asked for."""
    cached = functools.cache(function)
    _caches.append(cached)
    return cached  # type: ignore[return-value]


def ask(plugins: Iterable[str] = (), folders: Iterable[str] = (), anew: bool = False) -> None:
    """Ask for plugins (names of modules, paths of files) and folders of YAMLs, beside those asked for before.

    With `anew` those of before are forgotten. Nothing is imported. Raises UserError for what is not there.
    """
    global _plugins, _folders
    known: tuple[tuple[str, ...], tuple[str, ...]] = ((), ()) if anew else (_plugins, _folders)
    named = tuple(dict.fromkeys([*known[0], *map(_absolute, plugins)]))
    wanted = tuple(dict.fromkeys([*known[1], *map(os.path.abspath, folders)]))
    for name in set(named) - set(_plugins):
        _check_there(name)
    if anew or (named, wanted) != (_plugins, _folders):
        _plugins, _folders = named, wanted
        changed()


def changed() -> None:
    """Forget what `while_unchanged` has kept."""
    for cached in _caches:
        cached.cache_clear()


def asked() -> list[str]:
    """The plugins that this process was asked to use, those of the environment among them; not those installed."""
    given = filter(None, (word.strip() for word in os.environ.get(ENVIRONMENT, "").split(",")))
    return list(dict.fromkeys([*_plugins, *map(_absolute, given)]))


def take_places(words: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The plugins and the folders that `--plugin` and `--config-dir` name, and the other words. Raises UserError."""
    found: dict[str, list[str]] = {"--plugin": [], "--config-dir": []}
    rest, waiting = [], ""
    for word in words:
        option, equals, value = word.partition("=")
        option = "--config-dir" if option == "-cd" else option
        if waiting:
            found[waiting].append(word)
            waiting = ""
        elif option in found and equals:
            found[option].append(value)
        elif option in found:
            waiting = option
        else:
            rest.append(word)
    if waiting:
        raise UserError(f"{waiting}: expected {'a module or a FILE.py' if waiting == '--plugin' else 'a folder'}")
    for folder in found["--config-dir"]:
        if not os.path.isdir(folder):
            raise UserError(f"--config-dir: no folder '{folder}'")
    return found["--plugin"], found["--config-dir"], rest


def as_words() -> list[str]:
    """The words of a command line that ask for the same plugins and folders."""
    named = [("--plugin", name) for name in _plugins] + [("--config-dir", folder) for folder in _folders]
    return [word for option, place in named for word in (option, os.path.relpath(place) if os.sep in place else place)]


def _absolute(name: str) -> str:
    return os.path.abspath(name) if name.endswith(".py") else name


def _check_there(name: str) -> None:
    """Raise UserError for a plugin that cannot be found; nothing but the packages around it is imported."""
    if name.endswith(".py"):
        if not os.path.isfile(name):
            raise UserError(f"--plugin: no file '{name}'")
        return
    try:
        found = importlib.util.find_spec(name) if name and not name.startswith(".") else None
    except (ImportError, ValueError):
        found = None
    if found is None:
        advice = f"; the file there is given as --plugin {name}.py" if os.path.isfile(f"{name}.py") else ""
        raise UserError(f"--plugin: no module '{name}' can be imported{advice}")


def _every_plugin() -> Iterator[Plugin]:
    """Those that were asked for, then those that are installed."""
    yield from map(Plugin, asked())
    yield from installed()


@while_unchanged
def installed() -> tuple[Plugin, ...]:
    entries = sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.value)
    return tuple(Plugin(entry.module, f"{entry.dist.name} {entry.dist.version}") for entry in entries if entry.dist)


# ---- folders of YAMLs


def conf_folder() -> Path:
    """The folder of our config tree: conf/ of a checkout, tprnn/conf/ of an installed wheel."""
    return Path(str(resources.files("tprnn.conf")))


@while_unchanged
def folders() -> tuple[Folder, ...]:
    """The config trees beside ours. Raises UserError where two have a file of one name, which would hide another."""
    found: dict[Path, Folder] = {}
    for plugin in _every_plugin():
        if path := None if plugin.is_file else _conf_of(plugin.name):
            found.setdefault(path, Folder(path, plugin.package or package_of(plugin.name)))
    for name in _folders:
        found.setdefault(Path(name), Folder(Path(name)))
    seen = dict(_yamls(conf_folder()))
    for folder in found.values():
        for name, path in _yamls(folder.path):
            if name in seen:
                raise UserError(f"{path}: {seen[name]} has that name too; give one of them another")
            seen[name] = path
    return tuple(found.values())


def _yamls(root: Path) -> Iterator[tuple[str, Path]]:
    """The YAMLs of a config tree, of the groups that ours has, by their paths in it."""
    groups = sorted(path.name for path in conf_folder().iterdir() if path.is_dir() and path.name != "hydra")
    for group in groups:
        for path in sorted((root / group).glob("*/*.yaml" if group == "paper" else "**/*.yaml")):
            yield path.relative_to(root).as_posix(), path


def _conf_of(module: str) -> Path | None:
    """The folder conf/ of the innermost package that a module is or lies in; nothing of it is imported."""
    first, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):
        return None
    for root in (spec.submodule_search_locations or ()) if spec else ():
        for count in range(len(rest), -1, -1):
            if (path := Path(root, *rest[:count], "conf")).is_dir():
                return path
    return None


def package_of(module: str) -> str | None:
    """Name and version of the installed package that has a module; None for one that lies on the path alone."""
    for name in metadata.packages_distributions().get(module.partition(".")[0], ()):
        return f"{name} {metadata.version(name)}"
    return None
