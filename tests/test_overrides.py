"""Override lines as people write them: text is quoted where that is plain, and else it is said how to."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from tprnn import compose
from tprnn.cli import main
from tprnn.errors import UserError
from tprnn.override_errors import quoted, unreadable
from tprnn.overrides import for_hydra

BASE = ["task=adding", "trainer=tptt"]


@pytest.mark.parametrize(
    "text",
    [
        "a b/ü",
        "ä",
        "~",
        "😀",
        "#1",
        "a&b;c",
        "<x>",
        "50 % ü",
        "C:ü",
        "a\nb",
        "\x01",
        "!",
        "ü?*",
        "ü=1",
        "null~",
        "ü 1e-3",
    ],
)
def test_plain_text_is_taken_without_quotes(text: str) -> None:
    assert compose.compose([*BASE, f"outputs={text}"]).execution["outputs"] == text
    assert compose.compose([*BASE, f"outputs= {text}\t"]).execution["outputs"] == text  # as Hydra trims what it reads


@pytest.mark.parametrize("text", ["ä", "a b/ü", "~", "1#"])
@pytest.mark.parametrize("written", ["outputs={}", "outputs='{}'", "outputs='{}',x", "outputs=choice('{}')"])
def test_text_keeps_its_quotes_in_a_sweep(text: str, written: str) -> None:
    first = compose.points([*BASE, written.format(text)])[0]
    assert first.execution["outputs"] == text


def test_text_keeps_its_quotes_in_a_multirun(capsys: pytest.CaptureFixture[str]) -> None:
    for line in ("model.activation=ä", "model.activation=ä b", "model.activation='ä','b'", "trainer.freeze=['ä']"):
        assert main(["train", "-m", *BASE, line]) == 2
        err = capsys.readouterr().err
        assert "'ä" in err
        assert "cannot read" not in err


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        ("outputs='a b/ü'", "outputs", "a b/ü"),
        ('outputs="a b/ü"', "outputs", "a b/ü"),
        ("outputs=a b", "outputs", "a b"),
        ("train.max_iterations=1_000", "train.max_iterations", 1000),
        ("quiet=true", "quiet", True),
        ("data=null", "data", None),
        ("checkpoint_seconds=1e1", "checkpoint_seconds", 10.0),
        ("outputs=${task.name}/x", "outputs", "adding/x"),
        ("trainer.freeze=[W_hh, b_h]", "trainer.freeze", ["W_hh", "b_h"]),
    ],
)
def test_what_hydra_reads_is_left_to_it(line: str, key: str, value: Any) -> None:
    assert quoted(line) == line
    found: Any = compose.compose([*BASE, line]).as_dict()
    for part in key.split("."):
        found = found[part]
    assert found == value


@pytest.mark.parametrize(
    "line", ["seed=ü,ö", "seed=[ü]", "seed={ü:1}", "seed=f(ü)", "seed='ü", "seed=${ü}", "seed=ü\\", "ü", "~ü"]
)
def test_what_may_mean_something_to_hydra_is_not_quoted(line: str) -> None:
    assert quoted(line) == line


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("garbage", "expected key=value"),
        ("task..T=1", "'task..T' cannot be a key; expected key=value"),
        ("=1", "'' cannot be a key"),
        ("ü=1", "'ü' cannot be a key"),
        ("hydra/😀=x", "'hydra/😀' cannot be a key"),
        ("~task='", "a quote is not closed"),
        ('seed="1', "a quote is not closed"),
        ("seed='a'b'", "a quote is not closed"),
        ("seed=[1", "its brackets do not match"),
        ("seed=(1]", "its brackets do not match"),
        ("seed='[' ]", "its brackets do not match"),
        ("seed=${}", "expected ${KEY} or ${oc.env:NAME}"),
        ("seed=f(1)", "no function 'f'; choices: bool, choice"),
        ("seed=rnge(1)", "no function 'rnge'; nearest: range"),
        ("seed=range(a)", "expected range(STOP), range(START,STOP) or range(START,STOP,STEP)"),
        ("seed=choice()", "expected choice(VALUE,VALUE,...)"),
        ("seed=1,,2", "a value is missing before or after a comma"),
        ("trainer.rate_factors.😀=1", "'trainer.rate_factors.😀' cannot be a key"),
    ],
)
def test_a_line_that_cannot_be_read_says_why(line: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        compose.compose([*BASE, line])
    assert str(caught.value).startswith(f"cannot read '{line}': {reason}")


@pytest.mark.parametrize("text", ["ü,ö", "a=b", "(1)", "{a}", "b'a'", "'a'b", "a'b'c ü", "$x ü\\,b", '"ü" x', "`ü,`"])
def test_the_advice_can_be_pasted_into_a_shell(text: str) -> None:
    told = unreadable(f"outputs={text}")
    shell = ["sh", "-c", f"printf %s {told.partition(' in quotes: ')[2]}"]
    word = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
    assert compose.compose([*BASE, word]).execution["outputs"] == text


def test_the_advice_for_a_list_keeps_its_brackets() -> None:
    assert unreadable("trainer.freeze=[😀,b_h]").endswith("""in quotes: "trainer.freeze=['😀',b_h]\"""")


def test_bytes_that_are_no_text_are_refused() -> None:
    with pytest.raises(UserError, match="expected text in UTF-8"):
        for_hydra(["outputs=\udcff"])
