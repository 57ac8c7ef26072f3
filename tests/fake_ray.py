"""Stands for the module `ray`."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any


class FakeRay:
    """Runs nothing: each task gives the next of `ends`, an exception is raised."""

    class exceptions:
        RayError = type("RayError", (Exception,), {})
        RayTaskError = type("RayTaskError", (RayError,), {})
        LocalRayletDiedError = type("LocalRayletDiedError", (RayError,), {})

    def __init__(self, ends: list[Any]) -> None:
        self.ends = ends
        self.started: list[tuple[Any, ...]] = []
        self.machines = [(True, 1.0), (False, 8.0)]

    def init(self, **_: Any) -> None: ...

    def remote(self, **_: Any) -> Callable[[Any], Any]:
        return lambda function: SimpleNamespace(remote=self.start)

    def start(self, configs: Any, again: bool) -> int:
        self.started.append(([config["seed"] for config in configs], again))
        return len(self.started) - 1

    def shutdown(self) -> None: ...

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": alive, "Resources": {"CPU": cpus}} for alive, cpus in self.machines]

    def wait(self, tasks: list[int], timeout: float) -> tuple[list[int], list[int]]:
        return ([], tasks) if self.ends[tasks[0]] == "at work" else (tasks, [])

    def get(self, task: int) -> str | None:
        if isinstance(self.ends[task], Exception):
            raise self.ends[task]
        return self.ends[task]


class RayInThisProcess(FakeRay):
    """Runs each task at once."""

    def __init__(self) -> None:
        super().__init__([])

    def remote(self, **_: Any) -> Callable[[Any], Any]:
        def run(function: Callable[..., Any], *arguments: Any) -> int:
            self.ends.append(function(*arguments))
            return len(self.ends) - 1

        return lambda function: SimpleNamespace(remote=lambda *arguments: run(function, *arguments))
