"""Where a run has a default that is not what its rule's own paper trains with: it is said in the first lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tprnn.config import RunSpec, flatten, member_class
from tprnn.listing import default
from tprnn.overrides import as_override


def departures(specs: Sequence[RunSpec]) -> list[str]:
    """A line for each trainer whose runs have defaults that its paper (`Trainer.paper_settings`) has not.

    `lra's paper (manchev2025) has optimizer=sgd; the default here is optimizer=nesterov`. What is not at its default
    was chosen by whoever made the config, and needs no telling.
    """
    found: dict[str, dict[str, tuple[str, str]]] = {}
    papers: dict[str, str] = {}
    for spec in {(one.stack_key, one.config["trainer"]["name"]): one for one in specs}.values():
        name = spec.config["trainer"]["name"]
        own = vars(member_class("trainer", spec.config["trainer"]["rule"]))  # not what another rule's paper states
        papers[name] = own.get("paper", "")
        for key, pair in _of(spec, own.get("paper_settings", {})).items():
            found.setdefault(name, {})[key] = pair
    return [
        f"{name}'s paper ({papers[name]}) has {' '.join(theirs for theirs, _ in pairs.values())}; "
        f"the default here is {' '.join(ours for _, ours in pairs.values())}"
        for name, pairs in found.items()
    ]


def _of(spec: RunSpec, stated: Mapping[str, Sequence[object]]) -> dict[str, tuple[str, str]]:
    """{key: (what the paper has, what the run has)}."""
    flat, found = flatten(spec.config), dict[str, tuple[str, str]]()
    for key, theirs in stated.items():
        group, _, setting = key.partition(".")
        # another optimizer's momentum is no departure beside that it is another optimizer
        name = f"{group}.name"
        other = setting != "name" and name in stated and flat[name] not in stated[name]
        if other or flat[key] in theirs or flat[key] != default(flat, key):
            continue
        said = group if setting == "name" else key
        found[key] = f"{said}={'|'.join(map(_shown, theirs))}", f"{said}={_shown(flat[key])}"
    return found


def _shown(value: object) -> str:
    return value if isinstance(value, str) else as_override(value)
