"""Bad input to `tprnn train`: one clear line on stderr, exit code 2, nothing written."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tprnn import cli

TPTT = "task=adding trainer=tptt"

# (arguments, what the line must say)
BAD = [
    (f"{TPTT} trainer.foo=1", ["unknown key 'trainer.foo'", "nearest: trainer."]),
    (f"{TPTT} +trainer.foo=1", ["unknown key 'trainer.foo'", "nearest: trainer."]),
    (f"{TPTT} ++trainer.foo=1", ["unknown key 'trainer.foo'"]),
    (f"{TPTT} trainer.alpha=1", ["unknown key 'trainer.alpha'", "trainer.alpha_i"]),
    (f"{TPTT} trainer.alpha_f.x=1", ["unknown key 'trainer.alpha_f.x'", "trainer.alpha_f"]),
    (f"{TPTT} sede=1", ["unknown key 'sede'", "nearest: seed"]),
    ("tsk=adding trainer=tptt", ["unknown key 'tsk'", "nearest: task"]),
    ("task=adding trainer=tppt", ["trainer: no 'tppt'", "nearest: tptt"]),
    ("task=ading trainer=tptt", ["task: no 'ading'", "nearest: adding"]),
    (f"{TPTT} model=lstn", ["model: no 'lstn'", "nearest: lstm"]),
    (f"{TPTT} grid=manchev", ["grid: no 'manchev'", "nearest: manchev2020"]),
    (f"{TPTT} hydra/launcher=stak", ["hydra/launcher: no 'stak'", "nearest: stack"]),
    ("task=3 trainer=tptt", ["task: no '3'"]),
    ("trainer=tptt", ["task: missing", "task=NAME", "adding"]),
    ("task=adding", ["trainer: missing", "trainer=NAME", "bptt"]),
    ("task=adding trainer=null", ["trainer"]),
    (f"{TPTT} model.H=many", ["model.H: expected a whole number, got 'many'"]),
    (f"{TPTT} model.H=2.5", ["model.H: expected a whole number, got 2.5"]),
    (f"{TPTT} model.H=null", ["model.H: missing"]),
    (f"{TPTT} train.batch_size=[1]", ["train.batch_size: expected a whole number"]),
    (f"{TPTT} dtype=float16", ["dtype: 'float16'", "float32"]),
    (f"{TPTT} seed=-1", ["seed: expected at least 0, got -1"]),
    (f"{TPTT} model.activation=tanhh", ["model.activation: 'tanhh'", "nearest: tanh"]),
    (f"{TPTT} task.T=1", ["task.T", "at least", "got 1"]),
    ("task=temporal_order trainer=tptt task.T=3", ["task.T", "at least", "got 3"]),
    (f"{TPTT} trainer.alpha_f=-0.1", ["trainer.alpha_f: expected a number above 0, got -0.1"]),
    (f"{TPTT} trainer.alpha_f=0", ["trainer.alpha_f: expected a number above 0, got 0"]),
    (f"{TPTT} trainer.alpha_f=nan", ["trainer.alpha_f: expected a number, got nan"]),
    (f"{TPTT} trainer.alpha_f=inf", ["trainer.alpha_f: expected a finite number, got inf"]),
    (f"{TPTT} trainer.alpha_i=null", ["trainer.alpha_i: missing"]),
    (f"{TPTT} '~trainer.alpha_i'", ["trainer.alpha_i: missing"]),
    (f"{TPTT} trainer.alpha_i=???", ["trainer.alpha_i: missing"]),
    (f"{TPTT} trainer.freeze=[W_xx]", ["trainer.freeze: no parameter 'W_xx'"]),
    (f"{TPTT} trainer.rate_factors.W_xx=1", ["trainer.rate_factors: no parameter 'W_xx'"]),
    (f"{TPTT} 'trainer.alpha_f=${{nothing}}'", ["nothing"]),
    (f"{TPTT} '+trainer.alpha_f=1'", ["trainer.alpha_f"]),
    (f"{TPTT} '~trainer.foo'", ["trainer.foo"]),
    (f"{TPTT} 'trainer.freeze=[W_hh'", ["cannot read 'trainer.freeze=[W_hh'"]),
    (f"{TPTT} garbage", ["cannot read 'garbage'", "key=value"]),
    (f"{TPTT} dtype=ä", ["dtype: 'ä' is not a choice"]),
    (f"{TPTT} model.activation=~", ["model.activation: '~' is not a choice"]),
    (f"{TPTT} task..T=1", ["cannot read 'task..T=1': 'task..T' cannot be a key"]),
    (f"{TPTT} ~task=\\'", ["cannot read '~task='': a quote is not closed"]),
    (f"{TPTT} 'outputs=ü,ö'", ["\"outputs='ü,ö'\""]),
    (f"{TPTT} hydra.foo=1", ["hydra.foo", "no key 'foo'"]),
    (f"{TPTT} hydra.verbose=3", ["hydra.verbose=3: Hydra cannot be set like that"]),
    (f"{TPTT} hydra.job.env_copy=[NO_SUCH_NAME]", ["hydra.job.env_copy=[NO_SUCH_NAME]"]),
    (f"{TPTT} hydra.run.dir=null", ["hydra.run.dir cannot be null"]),
    (f"{TPTT} hydra.job.chdir=x", ["hydra.job.chdir=x: expected true or false, got 'x'"]),
    (f"{TPTT} hydra.searchpath=[no]", ["path=no is not available"]),
    (f"{TPTT} hydra.searchpath=3", ["hydra.searchpath must be a list"]),
    (f"{TPTT} hydra/😀=x", ["cannot read 'hydra/😀=x'"]),
    (f"{TPTT} --gird", ["unrecognized arguments: --gird"]),
    (f"{TPTT} --config-dir no/such/folder", ["no folder 'no/such/folder'"]),
    (f"{TPTT} --experimental-rerun x.pickle", ["--experimental-rerun is not supported"]),
    (f"{TPTT} -m --cfg job", ["--multirun and --cfg exclude each other"]),
    (f"{TPTT} outputs=taken", ["taken"]),
    (f"{TPTT} outputs=", ["outputs: expected a folder, got ''"]),
    (f"{TPTT} threads={10**30}", ["threads: expected at most 1024"]),
]
BAD_ONLY_ALONE = [
    (f"{TPTT} grid=manchev2020", ["grid=manchev2020", "add -m"]),
    (f"{TPTT} seed=1,2", ["'seed=1,2'", "add -m"]),
    (f"{TPTT} 'seed=range(3)'", ["'seed=range(3)'", "add -m"]),
]
BAD_GRIDS = [
    (f"{TPTT} 'seed=range(2,2)'", ["the grid has no points", "seed=range(2,2)"]),
    ("'task=glob(zz*)' trainer=tptt", ["the grid has no points", "task=glob(zz*)"]),
    (f"{TPTT} 'seed=choice()'", ["cannot read 'seed=choice()'"]),
    (f"{TPTT} 'seed=interval(0,3)'", ["'seed=interval(0,3)'", "range()"]),
    (f"{TPTT} trainer.alpha_f=0.1,-1", ["trainer.alpha_f: expected a number above 0, got -1"]),
    ("task=adding trainer=tptt,tppt", ["trainer: no 'tppt'", "nearest: tptt"]),
    ("task=adding trainer=bptt,tptt trainer.alpha=1,2", ["unknown key 'trainer.alpha'"]),
    (f"{TPTT} task.T=10,1", ["task.T", "at least", "got 1"]),
    (f"{TPTT} hydra.verbose=true,false", ["hydra.verbose"]),
    (f"{TPTT} hydra.sweeper.max_batch_size=0", ["hydra.sweeper.max_batch_size: expected a whole number of at least 1"]),
    (f"{TPTT} hydra.sweeper.max_batch_size=x", ["hydra.sweeper.max_batch_size: expected a whole number of at least 1"]),
    (f"{TPTT} hydra.sweeper.params=3", ["hydra.sweeper.params: expected a mapping"]),
    (f"{TPTT} hydra.launcher=3", ["hydra.launcher=3", "Hydra cannot be set like that"]),
    (f"{TPTT} hydra.mode=RUN", ["-m and hydra.mode=RUN exclude each other"]),
]
CASES = [
    *BAD,
    *BAD_ONLY_ALONE,
    *((f"-m {line}", says) for line, says in BAD if "-m" not in line),
    *((f"-m {line}", says) for line, says in BAD_GRIDS),
    *((f"-m {line} hydra/launcher=basic", says) for line, says in BAD_GRIDS[::2]),
]


def check_line(code: int, out: str, err: str, says: list[str]) -> None:
    """Exit code 2, nothing on stdout, one line on stderr that says what it should."""
    assert (code, out) == (2, ""), err
    assert err.startswith("tprnn train: error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1, err
    for part in says:
        assert part in err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that holds one file, `taken`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TPRNN_DEBUG", raising=False)
    (tmp_path / "taken").touch()
    return tmp_path


@pytest.mark.parametrize(("line", "says"), CASES, ids=[line for line, _ in CASES])
def test_bad_input_gives_one_clear_line_and_writes_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str], line: str, says: list[str]
) -> None:
    code = cli.main(["train", *shlex.split(line)])
    check_line(code, *capsys.readouterr(), says)
    assert [path.name for path in folder.rglob("*")] == ["taken"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("options", ["", "-m seed=0,1", "-m seed=0,1 hydra/launcher=basic"])
def test_a_device_that_is_not_there_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], options: str) -> None:
    code = cli.main(["train", *TPTT.split(), "device=cuda", *options.split()])
    check_line(code, *capsys.readouterr(), ["device", "cuda", "cpu"])
    assert [path.name for path in folder.rglob("*")] == ["taken"]


@pytest.mark.parametrize("options", [[], ["-m"]], ids=str)
def test_the_real_command_says_one_line(folder: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "tprnn", "train", *options, *TPTT.split(), "trainer.alpha_i=null"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    check_line(done.returncode, done.stdout, done.stderr, ["trainer.alpha_i: missing"])
    assert [path.name for path in folder.rglob("*")] == ["taken"]
