"""Where compiled code is kept: in a folder that is ours and can be written; troubles cost a compilation and no run."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tprnn.core import code_cache

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="users and modes of POSIX")

COMPILE = """
import numpy as np
from tprnn.core import compiled
z = np.ones((2, 3), np.float32)
compiled.blank(z, np.array([1, 0]), 0)
assert z.tolist() == [[0, 0, 0], [1, 1, 1]]
print(sum(compiled.blank.stats.cache_hits.values()))
"""
FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a folder for temporary files of our own, and nothing decided yet."""
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", code_cache.CHOSEN):
        monkeypatch.delenv(name, raising=False)
    for name, key in (("home", "HOME"), ("tmp", "TMPDIR")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(key, str(tmp_path / name))
    monkeypatch.setattr(tempfile, "tempdir", None)
    os.chmod(tmp_path / "tmp", 0o1777)
    (tmp_path / "file").touch()
    return tmp_path


def choose() -> Path | None:
    return code_cache.choose.__wrapped__()


def python(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)


def test_code_is_kept_in_the_users_cache_folder(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = place / "home" / ".cache" / "tprnn" / code_cache.state()
    assert choose() == folder
    assert os.listdir(folder) == []
    assert capsys.readouterr().err == ""
    assert code_cache.CHOSEN not in os.environ


@pytest.mark.parametrize("key", ["NUMBA_CACHE_DIR", "XDG_CACHE_HOME"])
def test_a_named_folder_comes_first(place: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(key, str(place / "named"))
    assert choose() == place / "named" / "tprnn" / code_cache.state()


def no_home(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    def unknown(uid: int) -> Any:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def home_below_a_file(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setenv("HOME", str(place / "file" / "home"))


def home_nowhere(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setenv("HOME", "/proc/no/home")


def a_file_in_the_place(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(place / "file"))


def folder_of_another(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    folder, lstat = place / "home" / ".cache" / "tprnn" / code_cache.state(), os.lstat

    def of_another(path: Any) -> os.stat_result:
        found = list(lstat(path))
        found[4] += path == folder  # st_uid
        return os.stat_result(found)

    monkeypatch.setattr(os, "lstat", of_another)


TROUBLES = [no_home, home_below_a_file, home_nowhere, a_file_in_the_place, folder_of_another]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_folder_that_will_not_do_is_said_in_one_line_and_replaced(
    trouble: Callable[..., None], place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trouble(monkeypatch, place)
    home = place / "tmp" / f"tprnn-{os.geteuid()}"
    assert choose() == home / code_cache.state()
    assert home.stat().st_mode & 0o777 == 0o700
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tprnn: warning: compiled code cannot be kept ")
    assert f"it goes to {home};" in line
    assert choose() == home / code_cache.state()
    assert capsys.readouterr().err == "", "said twice"


def test_no_folder_at_all_leaves_code_unkept(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home_below_a_file(monkeypatch, place)
    monkeypatch.setattr(code_cache.tempfile, "gettempdir", lambda: str(place / "file"))
    assert choose() is None
    assert "every process compiles anew" in capsys.readouterr().err


# ---- temporary folders: what lies there is run


def link_to_elsewhere(home: Path) -> None:
    target = home.parent.parent / "elsewhere"
    target.mkdir(mode=0o700)
    home.symlink_to(target)


def open_to_others(home: Path) -> None:
    home.mkdir()
    home.chmod(0o755)


def owned_by_another(home: Path) -> None:
    home.mkdir(mode=0o700)
    try:
        os.chown(home, os.geteuid() + 1, -1)
    except PermissionError:
        pytest.skip("only root can give a folder away")


@pytest.mark.parametrize("prepare", [link_to_elsewhere, open_to_others, owned_by_another])
def test_a_temporary_folder_that_others_could_have_filled_is_not_used(
    prepare: Callable[[Path], None], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home_below_a_file(monkeypatch, place)
    predictable = place / "tmp" / f"tprnn-{os.geteuid()}"
    prepare(predictable)
    first = choose()
    assert first is not None
    assert first.parent.parent == place / "tmp"
    assert first.parent != predictable
    assert first.parent.stat().st_mode & 0o777 == 0o700
    assert os.listdir(predictable) == []
    assert choose() == first, "a process that this one starts takes another"


def test_nothing_is_put_where_others_may_rename_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home_below_a_file(monkeypatch, place)
    (place / "tmp").chmod(0o777)  # without the sticky bit
    assert choose() is None
    assert os.listdir(place / "tmp") == []


def test_processes_that_are_started_take_the_same_folder_and_keep_quiet(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home_below_a_file(monkeypatch, place)
    open_to_others(place / "tmp" / f"tprnn-{os.geteuid()}")  # so that a fresh one is needed
    show = "from tprnn.core import code_cache; print(code_cache.choose(), flush=True)"
    done = python(f"{show}; import subprocess, sys; subprocess.run([sys.executable, '-c', '''{show}'''], check=True)")
    parents, childs = done.stdout.split()
    assert parents == childs != "None"
    assert done.stderr.count("warning") == 1
    assert not Path(parents).parent.exists(), "a folder for one command stays behind"


# ---- disks


def test_a_full_disk_is_found_before_anything_is_compiled(place: Path) -> None:
    """On a real file system of 64 KiB, in a namespace of its own."""
    mount = f"mount -t tmpfs -o size=64k none {place / 'home'} && "
    show = f"exec {sys.executable} -c 'from tprnn.core import code_cache; print(code_cache.choose())'"
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*namespace, f"{mount} true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    done = subprocess.run([*namespace, mount + show], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{place}/tmp/tprnn-")
    assert "(No space left on device)" in done.stderr


@pytest.mark.parametrize("when", ["before", "after"])
def test_code_that_cannot_be_written_is_compiled_and_run(place: Path, when: str) -> None:
    """No file may grow beyond 1000 bytes: from the start, or once the folder was found good."""
    chosen = (
        "from tprnn.core import code_cache; assert (code_cache.choose() is None) == " + str(when == "before") + "\n"
    )
    done = python((FULL + chosen if when == "before" else chosen + FULL) + COMPILE)
    assert done.stdout == "0\n"
    assert done.stderr.count("warning") == (when == "before")


@pytest.mark.parametrize(("kind", "length"), [("nbi", 0), ("nbi", 40), ("nbc", 100)])
def test_a_torn_file_is_compiled_and_written_anew(place: Path, kind: str, length: int) -> None:
    python(COMPILE)
    files = list((place / "home").rglob(f"*blank*.{kind}"))
    assert files
    for file in files:
        os.truncate(file, length)
    assert [python(COMPILE).stdout for _ in range(2)] == ["0\n", "1\n"]


@pytest.mark.slow
def test_a_sweep_says_it_once_for_all_its_processes(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home_below_a_file(monkeypatch, place)
    small = "model.H=10 train.max_iterations=20 train.check_every=10 train.validation_size=100 seed=range(4) workers=2"
    words = f"train -m task=adding trainer=bptt {small} outputs={place}/outputs".split()
    done = subprocess.run([sys.executable, "-m", "tprnn", *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("compiled code cannot be kept") == 1
    assert len(list((place / "outputs").rglob("result.json"))) == 4
    assert list((place / "tmp").rglob("*.nbc"))
