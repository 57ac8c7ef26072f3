"""Override lines: reading them and writing them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tprnn.config import MEMBER_KINDS
from tprnn.errors import UserError, nearest
from tprnn.listing import files
from tprnn.members import registered
from tprnn.override_errors import as_text, quoted
from tprnn.plugins import while_unchanged


def is_hydra_line(line: str) -> bool:
    """Whether an override is about Hydra itself (hydra.verbose=true, hydra/launcher=basic)."""
    return line.lstrip("+~").startswith(("hydra.", "hydra/"))


def for_hydra(overrides: Iterable[str]) -> list[str]:
    """Override lines as Hydra takes them: plain text in quotes (`quoted`), and `++` before keys of free mappings.

    Free mappings have the YAML value `{}`, as trainer.rate_factors. Hydra closes every mapping: without the added `++`
    it would refuse ``trainer.rate_factors={W_hh: 0.01}``. Raises UserError for bytes that are no text.
    """
    lines = []
    for line in overrides:
        if any(0xD800 <= ord(character) <= 0xDFFF for character in line):  # bytes of the command line that are no UTF-8
            raise UserError(f"cannot read '{line}': expected text in UTF-8")
        lines.append(f"++{quoted(line)}" if _is_free(line) else quoted(line))
    return lines


def as_given(line: str) -> str:
    """A line without what `for_hydra` put before it."""
    bare = line.removeprefix("++")
    return bare if _is_free(bare) else line


def _is_free(line: str) -> bool:
    key = line.partition("=")[0]
    return any(key == name or key.startswith(f"{name}.") for name in free_mappings())


@while_unchanged
def free_mappings() -> frozenset[str]:
    """Dotted keys of the settings that are free mappings: written `{}` in a member's YAML, or in the launcher's."""
    found = {"hydra.launcher.sbatch"}
    for kind in MEMBER_KINDS:
        for path in files(kind).values():
            for name in re.findall(r"^(\w+): *\{\} *$", path.read_text(encoding="utf-8"), re.MULTILINE):
                found.add(f"{kind}.{name}")
    for member in registered():
        found |= {f"{member.kind}.{name}" for name, value in (member.values or {}).items() if value == {}}
    return frozenset(found)


def as_override(value: Any) -> str:
    """A YAML value as the right side of an override line that Hydra reads as the same value."""
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, list):
        return "[" + ",".join(map(as_override, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{as_override(entry)}" for key, entry in value.items()) + "}"
    return "null" if value is None else str(value)


def own_keys(words: Iterable[str], prefix: str, names: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """The own settings `prefix.NAME=TEXT` of the command `prefix` by name, and the override lines beside them.

    Raises UserError for unknown names and for options.
    """
    own: dict[str, str] = {}
    others = []
    for word in words:
        key, _, text = word.partition("=")
        if word.startswith("-"):
            raise UserError(f"unknown option '{word}'; see tprnn {prefix} --help")
        if not key.startswith(f"{prefix}."):
            others.append(word)
            continue
        name = key.removeprefix(f"{prefix}.")
        if name not in names:
            raise UserError(f"unknown key '{key}'; {nearest(key, [f'{prefix}.{entry}' for entry in names])}")
        own[name] = text
    return own, others


def choice(key: str, text: str, choices: Sequence[str]) -> str:
    """`text`, one of `choices`. Raises UserError."""
    if text not in choices:
        raise UserError(f"{key}: '{text}' is not a choice; {nearest(text, choices)}")
    return text
