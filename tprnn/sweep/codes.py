"""Runs of a member that is not ours and was edited since: another rule, unless `code=any` says that it is the same."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from tprnn.config import MEMBER_KINDS, RunSpec
from tprnn.errors import DamagedFile
from tprnn.members import find
from tprnn.store import RunFolder, Store


def settled(specs: Sequence[RunSpec], store: Store) -> tuple[list[RunSpec], list[str]]:
    """The runs that are meant, in the order of `specs`, and lines about runs of other code that are in the store.

    A run that is there with today's code is that one. Of others, which differ from it in the code of members alone,
    `code=any` takes the furthest: its signature, finished or to go on with. With `code=same` they are left aside.
    """
    if not any(map(_codes, specs)):
        return list(specs), []
    folders: dict[str, list[RunFolder]] = defaultdict(list)
    for folder in store.folders():
        folders[folder.name.rpartition("-")[0]].append(folder)
    codes: dict[str, dict[str, str]] = {}
    taken, aside = Counter[str](), Counter[str]()
    for spec in map(_of_today, specs):
        if spec.signature in codes:
            continue
        codes[spec.signature] = {}
        others = [] if store.folder(spec).path.exists() else _others(spec, folders[spec.short_name])
        if others and spec.execution["code"] == "any":
            best = max(others, key=lambda folder: folder.usefulness(spec.train)).read_spec()
            codes[spec.signature] = _codes(best)
            taken.update(_edited(spec, best))
        else:
            for folder in others:
                aside.update(_edited(spec, folder.read_spec()))
    lines = [f"{place}: {_runs(n)} of other code taken for runs of this one (code=any)" for place, n in taken.items()]
    lines += [
        f"{place}: {_runs(n)} with the same settings left aside, made by other code (code=any takes them)"
        for place, n in aside.items()
    ]
    return [_with_code(today, codes[today.signature]) for today in map(_of_today, specs)], lines


def _codes(spec: RunSpec) -> dict[str, str]:
    """The code of each member that is not ours, as the run has it."""
    return {kind: spec.config[kind]["code"] for kind in MEMBER_KINDS if "code" in spec.config[kind]}


def _with_code(spec: RunSpec, codes: dict[str, str]) -> RunSpec:
    if codes.items() <= _codes(spec).items():
        return spec
    return RunSpec(
        {**spec.config, **{kind: {**spec.config[kind], "code": codes[kind]} for kind in codes}}, spec.execution
    )


def _of_today(spec: RunSpec) -> RunSpec:
    """The run with the code that its members have now."""
    now = {kind: find(kind, spec.config[kind]["rule"]).source for kind in _codes(spec)}
    return _with_code(spec, {kind: source.hash for kind, source in now.items() if source})


def _others(spec: RunSpec, folders: Sequence[RunFolder]) -> list[RunFolder]:
    """Those of the folders that hold the run `spec` but for the code of its members."""
    found = []
    for folder in folders:
        try:
            stored = folder.read_spec()
        except DamagedFile:  # `tprnn report` names it
            continue
        same = _codes(stored).keys() == _codes(spec).keys()
        if same and _with_code(spec, _codes(stored)).signature == stored.signature:
            found.append(folder)
    return found


def _edited(spec: RunSpec, stored: RunSpec) -> set[str]:
    """The places of the members whose code is not that of the stored run."""
    sources = spec.sources
    return {sources[kind].place for kind, code in _codes(stored).items() if code != sources[kind].hash}


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count != 1)}"
