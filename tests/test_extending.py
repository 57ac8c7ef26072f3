"""docs/extending.md: what it shows is what examples/my_rule holds, and works from a file and from a package."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "my_rule"
BLOCKS = dict(re.findall(r"\*\*`(.+?)`\*\*\n\n```\w+\n(.*?)```", (ROOT / "docs/extending.md").read_text(), re.DOTALL))
LINE = [
    *("task=temporal_order", "task.T=10", "trainer=manhattan,bptt", "model.H=10"),
    *("train.max_iterations=100", "train.validation_size=200"),
]
COMMANDS = """
import json, sys
from tprnn.cli import main
for words, code in json.loads(sys.argv[1]):
    assert main(words) == code, words
"""


def tprnn(place: Path, *lines: list[str], code: int = 0, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Commands, one after the other in a process of their own, which end with 0, the last with `code`.

    `path` holds an installed package.
    """
    environment = os.environ | {"PYTHONPATH": "" if path is None else str(path)}
    codes = [0] * (len(lines) - 1) + [code]
    command = [sys.executable, "-c", COMMANDS, json.dumps(list(zip(lines, codes, strict=True)))]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def install(source: Path, into: Path) -> None:
    """Build a wheel and install it into a folder, as pip would into site-packages."""
    pip = [sys.executable, "-m", "pip", "-qq"]
    wheels = into.parent / "wheels"
    subprocess.run([*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", wheels, source], check=True)
    shutil.rmtree(into, ignore_errors=True)
    subprocess.run([*pip, "install", "--no-deps", "--target", into, *wheels.glob("*.whl")], check=True)


def results(place: Path, trainer: str) -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(place.glob(f"outputs/runs/*-{trainer}-*/result.json"))]


def test_the_page_shows_the_files_of_the_example() -> None:
    assert BLOCKS == {
        name: (EXAMPLE / file).read_text()
        for name, file in {
            "manhattan.py": "my_rule/manhattan.py",
            "conf/trainer/manhattan.yaml": "my_rule/conf/trainer/manhattan.yaml",
            "pyproject.toml": "pyproject.toml",
            "my_rule/__init__.py": "my_rule/__init__.py",
        }.items()
    }


def test_a_file_and_a_folder_of_yamls_make_a_rule(tmp_path: Path) -> None:
    """Also in worker processes, which get the file's absolute path."""
    (tmp_path / "conf" / "trainer").mkdir(parents=True)
    for name in ("manhattan.py", "conf/trainer/manhattan.yaml"):
        (tmp_path / name).write_text(BLOCKS[name])
    places = ["--plugin", "manhattan.py", "--config-dir", "conf"]
    line = ["train", *places, "-m", *LINE, "seed=0,1", "workers=2"]
    done = tprnn(tmp_path, ["list", "trainers", *places], line, ["report"])  # the report without the rule
    assert re.search(r"^  manhattan +conf/trainer/manhattan.yaml +Manhattan", done.stdout, re.MULTILINE)
    first, second = results(tmp_path, "manhattan")
    assert first["status"] == second["status"] == "solved"
    code = {"module": "manhattan", "file": str(tmp_path / "manhattan.py"), "package": None}
    assert {**first["code"]["trainer"], **code} == first["code"]["trainer"]  # type: ignore[index, dict-item]
    assert re.search(r"^\| manhattan .* 2/2 ", done.stdout, re.MULTILINE)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A copy of the example, and where it is installed."""
    folder = tmp_path_factory.mktemp("package")
    shutil.copytree(EXAMPLE, folder / "source", ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    install(folder / "source", folder / "site")
    return folder / "source", folder / "site"


def test_a_package_is_listed_trained_reported_and_another_rule_once_edited(
    package: tuple[Path, Path], tmp_path: Path
) -> None:
    source, site = package
    first = tprnn(tmp_path, ["list", "trainers"], ["train", "-m", *LINE, "workers=1"], path=site).stdout
    assert re.search(r"^  bptt +tprnn +Back", first, re.MULTILINE)
    assert re.search(r"^  manhattan +my-rule 0\.1\.0 +Manhattan rule", first, re.MULTILINE)
    (result,) = results(tmp_path, "manhattan")
    assert result["status"] == "solved"
    assert result["code"]["trainer"]["package"] == "my-rule 0.1.0"  # type: ignore[index]

    rule = source / "my_rule" / "manhattan.py"
    whole = rule.read_text()
    try:
        rule.write_text(whole.replace("g.sign_()", "-g.sign_()"))
        install(source, site)
        line = ["train", "-m", *LINE, "workers=1"]
        edited = tprnn(tmp_path, [*line, "code=any"], line, path=site)
    finally:
        rule.write_text(whole)
        install(source, site)
    assert re.findall(r"\((\d) finished before\)", edited.stdout) == ["2", "1"]
    taken, aside = [line for line in edited.stderr.splitlines() if line.startswith(f"{site}/my_rule/manhattan.py: ")]
    assert "1 run of other code taken for runs of this one (code=any)" in taken
    assert "1 run with the same settings left aside" in aside
    assert sorted(str(one["status"]) for one in results(tmp_path, "manhattan")) == ["not_solved", "solved"]

    run = next(tmp_path.glob("outputs/runs/*-manhattan-*"))
    without = tprnn(tmp_path, ["report"], ["evaluate", str(run)], code=2)
    assert len(re.findall(r"^\| manhattan ", without.stdout, re.MULTILINE)) == 2
    told = f"{run}: no trainer 'manhattan' here (module my_rule.manhattan of my-rule 0.1.0): pip install my-rule"
    assert told in without.stderr


@pytest.mark.slow
def test_a_rule_of_ones_own_stands_beside_all_others(package: tuple[Path, Path], tmp_path: Path) -> None:
    line = ["beyond/rules", "trainers=manhattan", "budget=smoke", "max_iterations=100", "T_max=50"]
    columns = "columns=bptt,manhattan,manhattan_frozen"
    report = ["report", "--paper", "beyond/rules", "--trainers", "manhattan"]
    shown = tprnn(tmp_path, ["reproduce", *line, columns], report, path=package[1]).stdout
    assert f"tprnn {' '.join(report)}\n" in shown
    row = next(line for line in shown.splitlines() if re.match(r"\| temporal_order +\| +50 ", line))
    assert row.count("n = 1") == 3


@pytest.mark.slow
def test_the_tests_of_the_example_pass(package: tuple[Path, Path]) -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests"]
    subprocess.run(command, cwd=package[0], env=os.environ | {"PYTHONPATH": str(package[1])}, check=True)
