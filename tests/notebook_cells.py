"""Cells of a notebook, run as a kernel runs them: in the namespace of `__main__`, each with its source at hand."""

from __future__ import annotations

import linecache
from collections.abc import Iterator
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore

from tprnn import members, plugins


class Session:
    """The namespace of a notebook."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.count = 0

    def run(self, code: str, place: str = "cell") -> None:
        """Run a cell; `place` names it in tracebacks."""
        self.count += 1
        name = f"<{place} {self.count} {id(self)}>"
        linecache.cache[name] = len(code), None, code.splitlines(keepends=True), name
        exec(compile(code, name, "exec"), self.names)


def new_session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A notebook; what it registers and asks for is forgotten at its end."""
    monkeypatch.setattr(members, "_registered", {})
    yield Session()
    for member in members.registered():
        ConfigStore.instance().repo.get(member.kind, {}).pop(f"{member.rule}.yaml", None)
    monkeypatch.undo()
    plugins.ask(anew=True)
