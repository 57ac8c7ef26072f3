"""Locks that keep two processes apart, and the folders below outputs."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import make_spec
from run_files import snapshot

from tprnn.config import RunSpec
from tprnn.errors import RunLocked, UserError
from tprnn.store import RunFolder, Store

# ---- locks


def test_a_second_process_is_kept_out_until_the_first_ends(run: RunFolder) -> None:
    hold = """
        import sys
        from pathlib import Path
        from tprnn.store import RunFolder
        with RunFolder(Path(sys.argv[1])).lock():
            print("locked", flush=True)
            sys.stdin.read()
        """
    command = [sys.executable, "-c", textwrap.dedent(hold), str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        assert run.is_locked()
        with pytest.raises(RunLocked, match=run.name), run.lock():
            pytest.fail("two processes in one run folder")
        holder.kill()  # SIGKILL: the system itself gives the lock back
    assert not run.is_locked()
    with run.lock():
        assert run.is_locked()
    assert not run.is_locked()


def test_one_process_does_not_lock_a_run_twice(run: RunFolder) -> None:
    with run.lock(), pytest.raises(RunLocked), RunFolder(run.path).lock():
        pytest.fail("locked twice")


def test_lock_makes_the_folder_but_no_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.folder(make_spec()).lock():
        pass
    assert store.folders() == []


def test_asking_whether_a_run_is_locked_writes_nothing(run: RunFolder) -> None:
    before = snapshot(run.path)
    assert not run.is_locked()
    assert snapshot(run.path) == before


# ---- the outputs folder


def test_folders_are_those_with_files_of_a_run_by_name(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.folders() == []
    specs = [make_spec({"seed": seed}) for seed in (2, 0, 1)]
    for spec in specs:
        store.folder(spec).open(spec)
    (store.runs / "empty").mkdir()
    (store.runs / "note.txt").write_text("")
    assert [folder.name for folder in store.folders()] == sorted(spec.folder_name for spec in specs)


def test_one_run_under_two_names_has_one_folder(tmp_path: Path) -> None:
    hx = make_spec(trainer="tptt_hx")
    same = {key: hx.config["trainer"][key] for key in ("alpha_i", "alpha_f", "alpha_g", "wxh")}
    local = make_spec({f"trainer.{key}": value for key, value in same.items()}, trainer="tptt")
    assert local.signature == hx.signature
    assert local.folder_name != hx.folder_name
    store = Store(tmp_path)
    assert store.folder(local).name == local.folder_name
    store.folder(hx).open(hx)
    assert store.folder(local) == store.folder(hx)


def test_runs_are_found_by_path_name_signature_and_pattern(tmp_path: Path) -> None:
    store = Store(tmp_path)
    specs: list[RunSpec] = [make_spec({"seed": seed}) for seed in range(3)]
    for spec in specs:
        store.folder(spec).open(spec)
    one = store.folder(specs[1])
    assert store.find(str(one.path) + "/") == [RunFolder(one.path)]
    assert store.find(one.name) == store.find(specs[1].signature) == [one]
    assert (
        store.find("*-s[02]-*")
        == store.find(str(store.runs / "*-s[02]-*"))
        == [
            store.folder(specs[0]),
            store.folder(specs[2]),
        ]
    )
    with pytest.raises(UserError, match=f"nearest: .*{specs[1].signature}"):
        store.find(one.name.replace("-s1-", "-s7-"))


@pytest.fixture
def forbidden(tmp_path: Path) -> Iterator[Path]:
    """A folder in which this process may not write, also where it is root's."""
    folder = tmp_path / "forbidden"
    folder.mkdir(mode=0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)


def test_outputs_that_cannot_be_written_are_told_before_anything_is_made(forbidden: Path) -> None:
    for outputs in (forbidden, forbidden / "new" / "outputs"):
        with pytest.raises(UserError, match=r"outputs: cannot write to '.*forbidden.*outputs=DIR"):
            Store(outputs).check_writable()
        with pytest.raises(UserError, match="cannot write"), Store(outputs).folder(make_spec()).lock():
            pytest.fail("locked")


def test_outputs_that_are_a_file_are_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "outputs").write_text("mine")
    with pytest.raises(UserError, match="outputs: cannot write"):
        Store(tmp_path / "outputs").check_writable()
    with pytest.raises(UserError, match="cannot list"):
        Store(tmp_path / "outputs").folders()
    assert (tmp_path / "outputs").read_text() == "mine"


def test_writable_outputs_pass_and_hold_no_run_afterwards(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "outputs")
    store.check_writable()
    assert list(store.runs.iterdir()) == []
