"""Members that are not ours: where they are found, what is refused, and what makes them another rule."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from cluster_settings import settings

import tprnn
from tprnn import cli, compose, members, plugins
from tprnn.config import MEMBER_KINDS, RunSpec
from tprnn.errors import UserError
from tprnn.fingerprint import of_texts
from tprnn.protocols.evaluate import load
from tprnn.store import Store
from tprnn.sweep.codes import settled
from tprnn.sweep.executors import jobs
from tprnn.sweep.run import run_all
from tprnn.trainers.bptt import BPTT

RULE = """
from tprnn.trainers.bptt import BPTT


class {name}(BPTT):
    '''A rule.'''
"""
YAML = "# Mine.\nname: {name}\nrule: {rule}\nalpha: 0.01\nomega: 0.0\nclip_norm: null\nfreeze: []\nrate_factors: {{}}\n"
QUICK = ["model.H=5", "train.validation_size=20", "train.check_every=5", "train.max_iterations=10", "quiet=true"]
LINE = ["task=adding", "trainer=mine", "task.T=10", "workers=1", *QUICK]


@pytest.fixture(autouse=True)
def ours_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is asked for before or after a test; it works in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(plugins.ENVIRONMENT, raising=False)
    yield
    members._registered.clear()
    plugins.ask(anew=True)


@pytest.fixture
def mine(tmp_path: Path) -> Callable[..., Path]:
    """Writes a rule into a file and its YAML into ./conf, and asks for both."""

    def write(text: str = RULE.format(name="Mine"), rule: str = "mine") -> Path:
        file = tmp_path / "mine.py"
        file.write_text(text)
        (tmp_path / "conf" / "trainer").mkdir(parents=True, exist_ok=True)
        (tmp_path / "conf" / "trainer" / "mine.yaml").write_text(YAML.format(name="mine", rule=rule))
        plugins.ask(plugins=["mine.py"], folders=["conf"], anew=True)
        return file

    return write


def mine_again(file: Path, text: str) -> None:
    """Edit a file that was asked for."""
    file.write_text(text)
    plugins.ask([str(file)], ["conf"], anew=True)


# ---- finding


def test_a_file_is_a_member_and_its_path_absolute(mine: Callable[..., Path]) -> None:
    file = mine()
    spec = compose.compose(LINE)
    assert spec.member("trainer").__name__ == "Mine"
    assert spec.execution["plugins"] == [str(file)]
    assert spec.execution["rates"] == spec.rates == ["trainer.alpha"]
    assert spec.sources["trainer"].file == str(file)


def test_the_environment_and_a_line_name_plugins_too(
    mine: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    mine()
    for asked in ({plugins.ENVIRONMENT: "mine.py, "}, {}):
        plugins.ask([], ["conf"], anew=True)
        for key, value in asked.items():
            monkeypatch.setenv(key, value)
        assert compose.compose([*LINE, *([] if asked else ["plugins=[mine.py]"])]).config["trainer"]["rule"] == "mine"
        monkeypatch.delenv(plugins.ENVIRONMENT, raising=False)


def test_a_plugin_of_one_command_is_none_of_the_next(
    mine: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    mine()
    for places, code in ((["--plugin=mine.py", "--config-dir", "conf"], 0), ([], 2)):
        assert cli.main(["train", *LINE, "--cfg", "job", *places]) == code
    assert "trainer: no 'mine'" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["train", "depth", "search"])
def test_every_command_takes_both(mine: Callable[..., Path], capsys: pytest.CaptureFixture[str], command: str) -> None:
    """Up to the refusal of a setting that the rule checks."""
    mine()
    line = [word for word in LINE if command != "depth" or not word.startswith("task.T=")]
    places = ["--plugin", "mine.py", "--config-dir=conf"]
    assert cli.main([command, *places, *line, "trainer.alpha=-1", "trainer.omega=0"]) == 2
    assert "trainer.alpha: expected a number above 0" in capsys.readouterr().err


def test_the_name_of_a_rule() -> None:
    names = [("SignDescent", "sign_descent"), ("TPTTFixed", "tptt_fixed"), ("BPTT", "bptt"), ("Rule2B", "rule2_b")]
    assert [members.snake_case(name) for name, _ in names] == [rule for _, rule in names]


def test_the_attribute_rule_names_a_class_but_no_class_derived_from_it(mine: Callable[..., Path]) -> None:
    text = RULE.format(name="First") + "    rule = 'mine'\n\nclass Second(First):\n    pass\n"
    mine(text)
    assert [members.find("trainer", rule).cls.__name__ for rule in ("mine", "second")] == ["First", "Second"]


@pytest.mark.parametrize("kind", MEMBER_KINDS)
def test_a_class_is_of_the_kind_of_its_base(kind: str) -> None:
    rule = members.own_rules(kind)[0]
    assert members.kind_of(members.member_class(kind, rule)) == kind
    assert members.kind_of(dict) is None


def test_yamls_of_others_are_listed_with_where_they_come_from(
    mine: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    mine()
    assert cli.main(["list", "trainers", "tasks", "--config-dir", "conf"]) == 0
    trainers, tasks = capsys.readouterr().out.split("\n\n")
    assert "  mine          conf/trainer/mine.yaml  Mine.\n" in f"{trainers}\n"
    assert "  bptt          tprnn " in trainers
    assert "tprnn " not in tasks.partition("\n")[2]  # all ours: no column


def test_settings_of_a_cluster_lie_in_a_folder_of_ones_own(
    mine: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    mine()
    Path("conf/hydra/launcher").mkdir(parents=True)
    Path("conf/hydra/launcher/lab.yaml").write_text("defaults: [stack]\nexecutor: slurm\nnotice: 90000\n")
    line = ["--plugin", "mine.py", "--config-dir", "conf", "-m", *LINE, "hydra/launcher=lab"]
    assert cli.main(["train", *line]) == 2
    assert "hydra.launcher.notice: expected less than" in capsys.readouterr().err


def write_recipe() -> list[str]:
    """A recipe with one run of the rule; the words that it is found by."""
    Path("conf/paper/lab").mkdir(parents=True)
    Path("conf/paper/lab/first.yaml").write_text(
        "title: Mine\nmetric: accuracy_pct\nbudgets: {paper: {seeds: 1, max_iterations: 10}}\n"
        f"overrides: [{', '.join(QUICK[:3])}]\nrows: [{{task: adding, T: 10}}]\n"
        "columns: [{key: mine, label: mine, overrides: [trainer=mine], parameters: {default: {}}}]\n"
    )
    return ["--plugin", "mine.py", "--config-dir", "conf"]


def test_a_recipe_of_ones_own_is_reproduced_and_reported(
    mine: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    mine()
    places = write_recipe()
    assert cli.main(["report", "--paper", "lab/first", *places]) == 0
    assert "budget=paper" in capsys.readouterr().out  # how to make what is not run
    assert cli.main(["reproduce", "lab/first", *places, "budget=paper", "quiet=true", "workers=1"]) == 0
    assert "--plugin mine.py --config-dir conf --paper lab/first" in capsys.readouterr().out
    assert cli.main(["report", "--paper", "lab/first", *places]) == 0
    assert "n = 1" in capsys.readouterr().out


# ---- refused


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--plugin no.py", "--plugin: no file '"),
        ("--plugin no_such_module", "--plugin: no module 'no_such_module' can be imported"),
        ("--plugin mine", "; the file there is given as --plugin mine.py"),
        ("--plugin ..", "--plugin: no module '..'"),
        ("--plugin", "--plugin: expected a module or a FILE.py"),
        ("--config-dir", "--config-dir: expected a folder"),
        ("--config-dir no", "--config-dir: no folder 'no'"),
        ("--plugin empty.py", "plugin {here}/empty.py: no class there derives from a base of tprnn"),
        ("--plugin torn.py", "plugin {here}/torn.py: cannot be imported (SyntaxError: "),
        ("--plugin broken.py", "plugin {here}/broken.py: cannot be imported (ZeroDivisionError: "),
        ("--plugin taken.py", "{here}/taken.py: tprnn has the trainer 'bptt' too; name one by its attribute `rule`"),
        ("--plugin mine.py --plugin twin.py", "{here}/twin.py: {here}/mine.py has the trainer 'mine' too"),
        ("--plugin reserved.py", "reserved.Odd: a setting cannot be named 'code'"),
        ("--plugin plain.py", "plain.Odd: its Settings is no dataclass"),
        ("--config-dir clash", "{here}/clash/trainer/bptt.yaml: "),
        ("--config-dir conf --config-dir other", "{here}/other/trainer/mine.yaml: {here}/conf/trainer/mine.yaml has"),
        ("--plugin mine.py trainer.code=x", "unknown key 'trainer.code'"),
        ("--plugin mine.py code=other", "code: 'other' is not a choice"),
    ],
)
def test_what_cannot_be_is_one_line(
    mine: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], words: str, says: str
) -> None:
    mine()
    field = "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass S(BPTT.Settings):\n    code: int = 0\n"
    odd = "from tprnn.trainers.bptt import BPTT\n{}\nclass Odd(BPTT):\n    Settings = {}\n"
    texts = {
        "empty": "x = 1",
        "torn": "def",
        "broken": "1 / 0",
        "taken": RULE.format(name="BPTT2") + "    rule = 'bptt'",
    }
    texts |= {"twin": RULE.format(name="Mine"), "reserved": odd.format(field, "S"), "plain": odd.format("", "dict")}
    for name, text in texts.items():
        Path(f"{name}.py").write_text(text)
    for folder, name in (("clash", "bptt"), ("other", "mine")):
        Path(folder, "trainer").mkdir(parents=True)
        Path(folder, "trainer", f"{name}.yaml").write_text(YAML.format(name=name, rule="bptt"))
    place = [] if "--config-dir" in words else ["--config-dir", "conf"]
    assert cli.main(["train", *LINE, *place, *words.split()]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert says.format(here=tmp_path) in err
    assert not Path("outputs").exists()


def test_a_broken_package_is_told_of_where_its_rule_may_be_meant(
    mine: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps nobody from anything else."""
    info = tmp_path / "site" / "broken-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tprnn.members]\nbroken = broken_rule\n")
    (tmp_path / "site" / "broken_rule.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert [entry.value for entry in metadata.entry_points(group=plugins.GROUP)] == ["broken_rule"]
    mine()
    assert compose.compose(LINE).config["trainer"]["name"] == "mine"
    with pytest.raises(UserError, match=r"no trainer 'other'.*plugin broken_rule: cannot be imported \(ZeroDivision"):
        members.find("trainer", "other")


# ---- registered


def test_a_class_of_this_process_is_registered(mine: Callable[..., Path]) -> None:
    mine()
    plugins.ask([], ["conf"], anew=True)

    @tprnn.register
    class Mine(BPTT):
        """A rule."""

    assert compose.compose(LINE).member("trainer") is Mine
    with pytest.raises(UserError, match="derives from no base of tprnn"):
        tprnn.register(dict)


def test_a_class_of_a_notebook_is_known_by_its_own_source(monkeypatch: pytest.MonkeyPatch) -> None:
    import linecache

    codes = []
    for number, rate in enumerate(("1", "2", "1  # as before")):
        text = f"{RULE.format(name='Cell')}\n    def factor(self):\n        return {rate}\n\n\nx = {number}\n"
        file = f"<cell {number}>"
        monkeypatch.setitem(linecache.cache, file, (len(text), None, text.splitlines(keepends=True), file))
        scope = {"__name__": "__main__"}
        exec(compile(text, file, "exec"), scope)
        tprnn.register(scope["Cell"])  # type: ignore[arg-type]
        source = members.find("trainer", "cell").source
        assert source is not None
        assert source.file is None
        codes.append(source.hash)
    assert codes[0] == codes[2] != codes[1]


# ---- which code


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('"""Other words."""\nx = 1\n\n\ndef f():\n    """And here."""\n    return   x', True),
        ("x = 1  # one\ndef f(): return (x)", True),
        ("x = 1\ndef f(): return -x", False),
        ("x = 1\ndef f(): return x\ny = 'text'", False),
    ],
)
def test_comments_docstrings_and_layout_are_no_part_of_the_code(text: str, same: bool) -> None:
    assert (of_texts({"a.py": text}) == of_texts({"a.py": "x = 1\ndef f():\n    return x\n"})) is same
    assert of_texts({"a.py": text}) != of_texts({"b.py": text})


def test_the_code_is_part_of_what_a_run_is(mine: Callable[..., Path]) -> None:
    file = mine()
    first = compose.compose(LINE)
    names = {first.signature, first.family, first.stack_key}
    mine_again(file, file.read_text().replace("A rule.", "The same rule."))
    assert compose.compose(LINE).signature == first.signature
    mine_again(file, file.read_text() + "    other = 1\n")
    second = compose.compose(LINE)
    assert not names & {second.signature, second.family, second.stack_key}
    assert second.config["trainer"]["code"] != first.config["trainer"]["code"]
    ours = compose.compose(["task=adding", "trainer=bptt"])
    assert "code" not in ours.config["trainer"]
    assert "rates" not in ours.execution
    with pytest.raises(UserError, match=r"mine\.py is not the code of this run any more; code=any takes it"):
        first.settings("trainer")  # as in a process that began after the edit
    with pytest.raises(UserError, match="code=any takes it"):
        RunSpec.from_config(first.as_dict())


def test_a_cut_run_of_other_code_goes_on_with_code_any(mine: Callable[..., Path]) -> None:
    file = mine()
    (first,) = run_all([compose.compose(LINE)])
    mine_again(file, file.read_text() + "    other = 1\n")
    longer = compose.compose([*LINE, "train.max_iterations=20", "code=any"])
    (taken,) = run_all([longer])
    assert taken.result is not None
    assert (taken.spec.signature, taken.result["iterations"]) == (first.spec.signature, 20)
    assert taken.result["code"]["trainer"]["hash"] == longer.config["trainer"]["code"]  # what it was trained by last
    assert len(Store("outputs").folders()) == 1
    assert [outcome.skipped for outcome in run_all([longer, compose.compose([*LINE, "code=any"])])] == [True, True]
    (beside,) = run_all([taken.spec.replace({"seed": 1})])  # no run of before: it is of today's code
    assert beside.spec.config["trainer"]["code"] == longer.config["trainer"]["code"]


def test_a_dry_run_counts_runs_of_other_code_as_the_run_does(
    mine: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    file = mine()
    line = ["reproduce", "lab/first", *write_recipe(), "budget=paper", "quiet=true", "workers=1"]
    assert cli.main(line) == 0
    mine_again(file, file.read_text() + "    other = 1\n")
    for code, to_do in (("same", 1), ("any", 0)):
        capsys.readouterr()
        assert cli.main([*line, f"code={code}", "--dry-run"]) == 0
        assert f"\n{to_do} runs to do" in capsys.readouterr().out
    assert cli.main([*line, "code=any"]) == 0
    assert "1 runs (1 done before)" in capsys.readouterr().out


def test_of_a_store_without_such_runs_nothing_is_said(mine: Callable[..., Path]) -> None:
    file = mine()
    run_all([compose.compose(LINE)])
    mine_again(file, file.read_text() + "    other = 1\n")
    for line in ([*LINE, "seed=1"], [*LINE, "model.H=4"], ["task=adding", "trainer=bptt"]):
        assert settled([compose.compose(line)], Store("outputs"))[1] == []
    assert len(settled([compose.compose(LINE)], Store("outputs"))[1]) == 1


def test_a_job_of_a_cluster_has_the_members_of_the_command(mine: Callable[..., Path]) -> None:
    file = mine()
    spec = compose.compose(LINE)
    config = jobs.config_for_node(spec, settings())
    plugins.ask(anew=True)  # another process, in another folder
    os.chdir("/")
    assert jobs.train([config], again=False) is None
    assert Store(file.parent / "outputs").folder(spec).result() is not None
    mine_again(file, file.read_text() + "    other = 1\n")
    assert "is not the code of this run any more" in str(jobs.train([config], again=False))


# ---- reading


def test_a_run_folder_is_read_without_its_member_and_nothing_of_it_is_imported(
    mine: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = mine()
    (outcome,) = run_all([compose.compose(LINE)])
    folder = Store("outputs").folder(outcome.spec)
    assert load(folder.path).score(10) >= 0.0
    mine_again(file, file.read_text() + "    other = 1\n")
    with pytest.warns(UserWarning, match=r"made by other code than .*mine\.py has now"):
        load(folder.path)
    plugins.ask(anew=True)
    file.write_text("raise SystemExit('imported')")
    assert folder.read_spec().signature == outcome.spec.signature
    assert tprnn.runs("outputs")["trainer.code"].tolist() == [outcome.spec.config["trainer"]["code"]]
    for line in (["report"], ["plot"], ["report", "--where", "trainer=mine"]):
        assert cli.main(line) == 0
    capsys.readouterr()
    assert cli.main(["evaluate", str(folder.path)]) == 2
    told = capsys.readouterr().err
    assert f"{folder.path}: no trainer 'mine' here (module mine): give its module or file by --plugin" in told
    assert f"the run had {file}" in told


@pytest.fixture(autouse=True)
def no_modules_left() -> Iterator[None]:
    """Modules of plugins that a test has imported are forgotten after it."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("tprnn_plugin_", "broken_rule")):
            del sys.modules[name]
