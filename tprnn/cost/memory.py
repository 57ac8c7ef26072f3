"""Which runs need more memory than there is, before anything of them is begun."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import torch

from tprnn.config import RunSpec, flatten
from tprnn.cost.modelled import stack_bytes
from tprnn.engine.memory import ran_out, size
from tprnn.engine.runs import REFUSED, Outcome
from tprnn.errors import TooLarge, UserError

# ---- what is free


def free_bytes(device: str) -> int:
    """What a process may still take on a device: the machine's, or less by a control group or a limit of the shell."""
    if torch.device(device).type == "cuda":
        # blocks that PyTorch keeps for its next tensors are free to us
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    machine = psutil.virtual_memory().available + psutil.swap_memory().free
    return min([machine, *control_groups(), *_address_space()])


def control_groups(process: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> Iterator[int]:
    """What is left of each limit on the process's control group and those around it (Linux, versions 1 and 2)."""
    for line in _read(process).splitlines():
        _, controllers, name = line.split(":", 2)
        if not controllers:
            found = ("memory.max", "memory.current", "")
            root = next((root for root in (mount, mount / "unified") if (root / "cgroup.controllers").exists()), mount)
        elif "memory" in controllers.split(","):
            found = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            root = mount / "memory"
        else:
            continue
        limit, used, prefix = found
        inner = root / name.lstrip("/")  # in a container it may be the name that the host knows
        for group in {root, inner, *(parent for parent in inner.parents if root in parent.parents)}:
            try:
                most, taken = int(_read(group / limit)), int(_read(group / used))
            except ValueError:  # "max", or no such file
                continue
            pages = dict(line.split() for line in _read(group / "memory.stat").splitlines())
            cached = sum(int(pages.get(f"{prefix}{kind}_file", 0)) for kind in ("inactive", "active"))
            yield max(0, most - taken + cached)  # files in memory make way


def _address_space() -> Iterator[int]:
    """What is left of `ulimit -v`."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    if most != resource.RLIM_INFINITY:
        yield max(0, most - psutil.Process().memory_info().vms)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


# ---- what is too large for it


def refused(specs: Sequence[RunSpec], others: bool = False) -> list[Outcome]:
    """Outcomes for the runs of which each, even alone, needs more memory than is free; their errors say what to lower.

    Raises TooLarge where that is all of them and there are no `others`. Costs one estimate for each shape.
    """
    needs: dict[str, float] = {}
    for spec in specs:
        if spec.stack_key not in needs:
            needs[spec.stack_key] = _need(spec)
    free = {device: free_bytes(device) for device in {spec.execution["device"] for spec in specs}}
    lines: dict[str, str] = {}
    found = []
    for spec in specs:
        need, there = needs[spec.stack_key], free[spec.execution["device"]]
        if need > there:
            key = spec.stack_key
            lines[key] = lines.get(key) or _line(spec, need, there)
            found.append(Outcome(spec, REFUSED, error=lines[key]))
    if found and len(found) == len(specs) and not others:
        count = "" if len(found) == 1 else f"none of {len(found)} runs fits: "
        least = min(found, key=lambda outcome: needs[outcome.spec.stack_key])
        raise TooLarge(f"{count}{least.spec.short_name} {least.error}")
    return found


def _need(spec: RunSpec) -> float:
    """Bytes of a run alone, from below; infinite for sizes that no machine can address."""
    try:
        return stack_bytes(spec, 1)
    except UserError:
        raise
    except Exception as error:  # a rule of a user's may fail here: the engine says so in the run's folder
        return math.inf if ran_out(error) else 0.0


def _line(spec: RunSpec, need: float, free: int) -> str:
    amount = "more memory than can be addressed" if need == math.inf else f"at least {size(need)} of memory"
    key, value = _to_lower(spec, need)
    return f"needs {amount}, {size(free)} are free; lower {key}={value}"


def _to_lower(spec: RunSpec, need: float) -> tuple[str, int]:
    """Of the whole numbers of a run that, halved, save about as much as any of them does: the largest."""
    whole = {
        key: value
        for key, value in flatten(spec.config).items()
        if type(value) is int and value > 1 and key.partition(".")[0] in ("task", "model", "train")
    }
    halved: dict[str, float] = {}
    for key, value in whole.items():
        try:
            halved[key] = _need(spec.replace({key: value // 2}))
        except UserError:  # it cannot be halved
            continue
    least = min(halved.values())
    enough = need if least == need else least + 0.2 * (need - least)  # infinite still, or near the best
    return max(((key, whole[key]) for key in halved if halved[key] <= enough), key=lambda item: item[1])
