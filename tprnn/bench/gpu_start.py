"""`make gpu` and `make gpu-wheels`: from a machine's own Python to `python -m tprnn.bench.gpu`, without a registry.

Run as a file, by any Python: it knows no package but Python's own. It takes the Python that has PyTorch (and CUDA),
makes .venv-gpu on top of it, and installs there what is missing from the folder wheels/, which --fetch fills elsewhere.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv-gpu"
CANDIDATES = (
    "python3",
    "python3.14",
    "python3.13",
    "python3.12",
    "python3.11",
    "python",
    str(ROOT / ".venv/bin/python"),
)
USUAL = ("hydra-core", "omegaconf", "antlr4-python3-runtime", "setuptools")
"""What machines with PyTorch mostly lack; setuptools is often older than ours wants it."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any")

PROBE = "import sys, torch; print(sys.version_info >= (3, 11) and (sys.argv[1] == 'cpu' or torch.cuda.is_available()))"
SITES = "import sys; print(*(p for p in sys.path if p.endswith(('site-packages', 'dist-packages'))), sep='\\n')"
# what pyproject.toml asks for and is not there, one a line; what those need in turn shows once they are there
MISSING = """
import tomllib
from importlib import metadata
try:
    from packaging.requirements import Requirement
except ImportError:
    from pip._vendor.packaging.requirements import Requirement
project = tomllib.load(open("pyproject.toml", "rb"))
lines = project["project"]["dependencies"] + project["build-system"]["requires"] + ["pytest"]
asked = [Requirement(line) for line in lines]
seen, missing = set(), []
while asked:
    one = asked.pop()
    if one.name in seen or one.marker and not one.marker.evaluate({"extra": ""}):
        continue
    seen.add(one.name)
    try:
        found = metadata.version(one.name)
    except metadata.PackageNotFoundError:
        missing.append(one.name)
        continue
    if not one.specifier.contains(found, prereleases=True):
        missing.append(one.name)
    elif one.name != "torch":  # whose own needs are the machine's business
        asked += [Requirement(line) for line in metadata.requires(one.name) or ()]
print(*sorted(missing), sep="\\n")
"""


_LAST = 10.0  # seconds that the last part may take to end, beyond its time


class Refused(Exception):
    """A line for a person."""


def output(*words: str) -> str:
    """What a command prints; empty where it fails."""
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() if done.returncode == 0 else ""


def python_for(device: str, named: str) -> str:
    """The first Python that has what is needed. Raises Refused."""
    wanted = "PyTorch" if device == "cpu" else "PyTorch that sees a GPU"
    for name in [named] if named else CANDIDATES:
        path = shutil.which(name)
        if path and output(path, "-c", PROBE, device) == "True":
            return path
    tried = named or ", ".join(CANDIDATES)
    raise Refused(f"no Python 3.11 or newer with {wanted} (tried {tried}); name it by PYTHON=/path/to/python")


def environment(python: str) -> str:
    """The Python of .venv-gpu, which sees all that `python` has, also where that is a venv itself."""
    stamp, inside = VENV / ".made-by", VENV / "bin" / "python"
    if not stamp.exists() or stamp.read_text() != f"{python} {ROOT}":
        shutil.rmtree(VENV, ignore_errors=True)
        # without pip of its own: Debian's Python cannot install it, and the one below is seen
        subprocess.run([python, "-m", "venv", "--system-site-packages", "--without-pip", str(VENV)], check=True)
        (site,) = VENV.glob("lib/python*/site-packages")
        lines = [f"import site; site.addsitedir({folder!r})" for folder in output(python, "-c", SITES).splitlines()]
        (site / "below.pth").write_text("\n".join(lines) + "\n")
        stamp.write_text(f"{python} {ROOT}")
    return str(inside)


def missing(python: str) -> list[str]:
    """Packages that are asked for and not there, or too old. Raises Refused."""
    done = subprocess.run([python, "-c", MISSING], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise Refused(f"{python} has neither pip nor packaging: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.split()


def install(python: str, wheels: Path) -> None:
    """What is missing, from a folder of wheels, and tprnn itself from here. Raises Refused."""
    pip = [python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--disable-pip-version-check"]
    before: list[str] = []
    while (lacking := missing(python)) and lacking != before:
        before = lacking
        there = [name for name in lacking if any(wheels.glob(f"{re.sub('[-_.]+', '_', name)}-*.whl"))]
        if there:
            subprocess.run([*pip, "--upgrade", "--find-links", str(wheels), *there], check=True)
    if lacking:
        raise Refused(
            f"{python} lacks {', '.join(lacking)}, and {wheels}/ has no wheels of them: where there is a registry, "
            f'make gpu-wheels WHEELS="{" ".join(lacking)}", and bring {wheels.name}/ here'
        )
    if not output(python, "-c", "import tprnn.conf, tprnn; print(tprnn.__file__)").startswith(str(ROOT)):
        subprocess.run([*pip, "--no-build-isolation", "-e", str(ROOT)], check=True)


def fetch(names: Sequence[str], wheels: Path, version: str) -> None:
    """Wheels for another machine's Python, at the versions of requirements.lock. Raises Refused."""
    locked = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().split() if "==" in line)
    by_name = {re.sub("[-_.]+", "-", name).lower(): number for name, number in locked.items()}
    wheels.mkdir(exist_ok=True)
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    for name in names:
        number = by_name.get(re.sub("[-_.]+", "-", name).lower())
        wanted = name if number is None else f"{name}=={number}"
        pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
        there = [*pip, "download", "--no-deps", "--only-binary=:all:", "--python-version", version, *platforms]
        # a package that has no wheel there, made into one here, where it holds no compiled code
        for words in ([*there, "-d", str(wheels), wanted], [*pip, "wheel", "--no-deps", "-w", str(wheels), wanted]):
            if subprocess.run(words, capture_output=True).returncode == 0:
                print(f"gpu-wheels: {wanted}")
                break
        else:
            raise Refused(f"{wanted}: no wheel for Python {version}, and none could be made")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; where the bench begins, this process becomes it."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--python", default="", help="default: the first that has PyTorch")
    parser.add_argument("--seconds", type=float, default=480.0, help="for all, what is done here included")
    parser.add_argument("--wheels", type=Path, default=ROOT / "wheels")
    parser.add_argument("--fetch", nargs="*", metavar="PACKAGE", help="fill the folder of wheels instead")
    parser.add_argument("--for-python", default="3.12", help="the Python that --fetch is for")
    args, rest = parser.parse_known_args(argv)
    try:
        if args.fetch is not None:
            fetch(args.fetch or USUAL, args.wheels, args.for_python)
            return 0
        inside = environment(python_for(args.device, args.python))
        install(inside, args.wheels)
    except Refused as refusal:
        print(f"gpu: {refusal}", file=sys.stderr)
        return 2
    spent = time.monotonic() - began
    print(f"gpu: ready after {spent:.0f} s", flush=True)
    os.chdir(ROOT)
    seconds = f"{args.seconds - spent - _LAST:.0f}"
    return os.execv(inside, [inside, "-m", "tprnn.bench.gpu", "--device", args.device, "--seconds", seconds, *rest])


if __name__ == "__main__":
    sys.exit(main())
