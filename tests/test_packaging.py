"""What is installed: every package, every YAML, the versions; and a wheel that works in an empty folder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import tprnn

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEPENDENCIES = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
DEV = [Requirement(line) for line in PROJECT["project"]["optional-dependencies"]["dev"]]


def locked() -> dict[str, Version]:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in (line.split("==") for line in lines)}


def test_every_data_file_beside_the_modules_matches_a_package_data_pattern() -> None:
    covered = {
        path
        for package, patterns in PROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace("tprnn.conf", "conf").replace(".", "/")).glob(pattern)
    }
    data = {path for folder in ("conf", "tprnn", "hydra_plugins") for path in (ROOT / folder).rglob("*.yaml")}
    assert data
    assert not data - covered


def test_every_folder_with_modules_is_a_package_that_is_found() -> None:
    folders = {path.parent for path in (ROOT / "tprnn").rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]
    assert (ROOT / "conf" / "__init__.py").exists()
    assert not (ROOT / "hydra_plugins" / "__init__.py").exists()  # a namespace shared with other Hydra plugins


def test_the_lock_meets_the_ranges_and_holds_all_that_is_asked_for_but_torch() -> None:
    versions = locked()
    for requirement in (*DEPENDENCIES, *DEV):
        name = canonicalize_name(requirement.name)
        if name != "torch":
            assert requirement.specifier.contains(versions[name]), requirement
    assert not [name for name in versions if name.startswith(("torch", "nvidia", "triton"))]


def test_set_up_installs_a_torch_in_range() -> None:
    pinned = re.findall(r"install torch==(\S+)", (ROOT / "Makefile").read_text())
    (torch,) = [requirement for requirement in DEPENDENCIES if requirement.name == "torch"]
    assert pinned
    assert all(torch.specifier.contains(version) for version in pinned)


def test_version_and_licence_are_told_alike_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == tprnn.__version__
    assert f"\n## {tprnn.__version__}\n" in (ROOT / "CHANGELOG.md").read_text()
    assert citation["license"] == PROJECT["project"]["license"] == "Apache-2.0"
    assert "Apache License\n" in (ROOT / "LICENSE").read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment that holds the wheel, and sees this one's other packages."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    for name in ("tprnn", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "-qq"]
    here = Version(metadata.version("setuptools")) >= Version("77")
    isolation = ["--no-build-isolation"] if here else []
    subprocess.run([*pip, "wheel", "--no-deps", *isolation, "-w", place, source], check=True)
    (wheel,) = place.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", place / "venv"], check=True)
    environment = {"base": str(place / "venv"), "platbase": str(place / "venv")}
    own = Path(sysconfig.get_path("purelib", "venv", environment))
    subprocess.run([*pip, "--python", place / "venv", "install", "--no-deps", wheel], check=True)
    # a path file adds the folder only: path files in it, such as that of an editable install, stay unread
    paths = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    (own / "others.pth").write_text("\n".join(paths))
    return Path(sysconfig.get_path("scripts", "venv", environment))


@pytest.mark.slow
def test_the_wheel_holds_the_config_tree_and_its_own_modules(installed: Path, tmp_path: Path) -> None:
    code = "import tprnn, tprnn.conf; print(tprnn.__file__); print(list(tprnn.conf.__path__)[0])"
    run = subprocess.run([installed / "python", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    module, conf = map(Path, run.stdout.split())
    assert ROOT not in module.parents
    inside = {path.relative_to(conf) for path in conf.rglob("*.yaml")}
    assert inside == {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}


@pytest.mark.slow
def test_the_wheel_lists_and_trains_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    listed = subprocess.run([installed / "tprnn", "list"], cwd=tmp_path, capture_output=True, text=True, check=True)
    for name in ("temporal_order", "tptt", "nesterov", "manchev2020/table1"):
        assert name in listed.stdout
    words = ["train", "task=temporal_order", "trainer=bptt", "task.T=10", "train.max_iterations=100"]
    subprocess.run([installed / "tprnn", *words], cwd=tmp_path, check=True)
    (result,) = (tmp_path / "outputs" / "runs").glob("*/result.json")
    assert '"iterations": 100' in result.read_text()
    words = ["reproduce", "manchev2020/table1", "budget=smoke", "--dry-run"]
    subprocess.run([installed / "tprnn", *words], cwd=tmp_path, check=True)
