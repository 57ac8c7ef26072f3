"""What is wrong with an override line, in words of ours: Hydra and OmegaConf speak of their classes and tokens."""

from __future__ import annotations

import contextlib
import itertools
import re
import warnings
from collections.abc import Iterator

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError

from tprnn.errors import nearest

# What Hydra, OmegaConf and (for odd values) plain Python raise for override lines that make no config; warnings are
# those that `strictly` makes errors.
COMPOSITION_ERRORS = (HydraException, OmegaConfBaseException, ValueError, KeyError, UserWarning)

# The functions of Hydra's grammar, as they are called.
_FUNCTIONS = {
    "bool": "bool(VALUE)",
    "choice": "choice(VALUE,VALUE,...)",
    "float": "float(VALUE)",
    "glob": "glob(PATTERN)",
    "int": "int(VALUE)",
    "interval": "interval(START,END)",
    "range": "range(STOP), range(START,STOP) or range(START,STOP,STEP)",
    "shuffle": "shuffle(VALUE,VALUE,...)",
    "sort": "sort(VALUE,VALUE,...)",
    "str": "str(VALUE)",
    "tag": "tag(NAME,VALUE)",
}
_NAME = r"[A-Za-z_$][\w$-]*"
_KEY = re.compile(rf"(?:\+{{0,2}}|~){_NAME}(?:[./](?:{_NAME}|\d+))*(?:@{_NAME}(?:\.{_NAME})*)?", re.ASCII)
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"", re.DOTALL)
# characters that Hydra reads outside of quotes
_READABLE = re.compile(r"[\w \t/\\+.$%*@?|:=,()\[\]{}-]*", re.ASCII)
_SYNTAX = re.compile(r"['\"\\,()\[\]{}$]")

_POINTERS = re.compile(r"\n\s*(?:See http|Search path|Config search path|full_key|object_type|reference_type|\^)")
_PREFIXES = re.compile(r"^Error (?:parsing|merging) override '?|\w+ (?:while evaluating '.*?'|raised while \w+ \w+): ")
_CLASS = re.compile(r"\b[A-Z]+[a-z]\w*[A-Z]\w*|\b\w*(?:Error|Exception)\b|<class|\b(?:Union|List|Dict|Optional)\[")
# What the libraries say -> our words
_OURS = (
    (r"Value (.*?)(?: of type '\w+')? could not be converted to Integer", r"expected a whole number, got \1"),
    (r"Value (.*?)(?: of type '\w+')? could not be converted to Float", r"expected a number, got \1"),
    (r"Value (.*?) is not a valid bool \(type \w+\)", r"expected true or false, got \1"),
    (r"Cannot convert '\w+' to string: ", "expected text, got "),
    (r"field '(.*?)' is not Optional", r"\1 cannot be null"),
    (r"Key '(.*?)' (?:is not in struct|not in '\w+')", r"no key '\1'"),
    (r"\.? To append to your config use .*?(?=: |$)", ""),
    (r"Invalid type assigned.*", "that does not fit there"),
    (r"\w+\(\) (?:missing \d|takes ).*", "an interpolation has too few arguments or too many"),
    (r"Running Hydra app with --multirun.*", "-m and hydra.mode=RUN exclude each other"),
)


@contextlib.contextmanager
def strictly() -> Iterator[None]:
    """Hydra's warnings about override lines are errors."""
    with warnings.catch_warnings():
        for message in (r"provider=hydra\.searchpath", r"\s*Running Hydra app with --multirun"):
            warnings.filterwarnings("error", message=message)
        yield


def one_line(error: BaseException, about: str = "") -> str:
    """What Hydra or OmegaConf says, without pointers to web pages and search paths, and without names of classes.

    `about` names what is refused, for errors that tell nothing else.
    """
    parts: list[str] = []
    for e in (error, error.__cause__):
        if isinstance(e, COMPOSITION_ERRORS) and type(e) is not KeyError:  # which holds a key alone
            text = _PREFIXES.sub("", " ".join(_POINTERS.split(str(e))[0].split()))
            text = re.split(r",? expecting [{<A-Z']", text)[0].strip('"')
            for theirs, ours in _OURS:
                text = re.sub(theirs, ours, text)
            parts += [part for part in text.split(": ") if part not in parts]
    known = list(itertools.takewhile(lambda part: not _CLASS.search(part), parts))
    return ": ".join(known if known and known == parts else [*(known or [about]), "that does not fit there"])


def quoted(line: str) -> str:
    """An override line with its value in quotes where Hydra would not read it though the meaning is plain.

    That is text with characters beyond Hydra's own (`outputs=a b/ü`) and without any that mean something to it.
    """
    key, equals, value = line.partition("=")
    text = value.strip(" \t")
    if not equals or _READABLE.fullmatch(text) or _SYNTAX.search(text):
        return line
    return f"{key}={as_text(text)}"


def is_readable(text: str) -> bool:
    """Whether all characters of a value's text are such as Hydra reads, but for those in quotes."""
    return bool(_READABLE.fullmatch(_QUOTED.sub("", text)))


def unreadable(line: str) -> str:
    """`cannot read ...` for a line that Hydra's grammar refuses: why, and how to write what may be meant."""
    key, equals, value = line.partition("=")
    bare = _QUOTED.sub("''", value)
    if not equals:
        reason = "expected key=value"
    elif not _KEY.fullmatch(key):
        reason = f"'{key}' cannot be a key; expected key=value, e.g. task.T=20"
    elif re.search(r"['\"]", bare.replace("''", "")):
        reason = "a quote is not closed"
    elif not _matched(bare):
        reason = "its brackets do not match"
    elif "${" in bare:
        reason = "expected ${KEY} or ${oc.env:NAME}"
    elif called := re.findall(rf"({_NAME})\s*\(", bare):
        unknown = next((name for name in called if name not in _FUNCTIONS), None)
        reason = f"no function '{unknown}'; {nearest(unknown, _FUNCTIONS)}" if unknown else _misused(called[0], bare)
    elif re.search(r"(?:^|[,(\[{])\s*(?:,|$)|,\s*[)\]}]", bare):
        reason = "a value is missing before or after a comma"
    else:
        reason = f"write text with such characters in quotes: {_in_shell(f'{key}={_with_quotes(value)}')}"
    return f"cannot read '{line}': {reason}"


def _misused(function: str, text: str) -> str:
    """What is wrong with a call of one of Hydra's functions."""
    if re.search(r"[(,]\s*null\s*[,)]", text, re.IGNORECASE):
        return "Hydra knows no null within a function: write '${oc.decode:null}' for it"
    return f"expected {_FUNCTIONS[function]}"


def unreadable_yaml(error: MarkedYAMLError) -> str:
    """`cannot read FILE, line N: ...` for a file of --config-dir that is no YAML."""
    mark = error.problem_mark
    place = f"{mark.name}, line {mark.line + 1}" if mark else "a YAML"
    return f"cannot read {place}: {error.problem or error.context or 'no YAML'}"


def _with_quotes(value: str) -> str:
    """A value with its text in quotes: within its brackets where it has some, else as a whole."""

    def piece(found: re.Match[str]) -> str:
        return found[0] if _READABLE.fullmatch(found[0]) else as_text(found[0])

    within = re.sub(r"[^,()\[\]{}:='\"]+", piece, value)
    return within if value[0] in "[{" and within != value else as_text(value)


def as_text(value: str) -> str:
    """`value` in single quotes, as Hydra reads text back unchanged."""
    return QuotedString(value, Quote.single).with_quotes()


def _matched(text: str) -> bool:
    """Whether every bracket is closed by one of its kind."""
    rest = re.sub(r"\\.|[^()\[\]{}]", "", text)
    while (less := re.sub(r"\(\)|\[\]|\{\}", "", rest)) != rest:
        rest = less
    return not rest


def _in_shell(word: str) -> str:
    """A word in double quotes, as a shell takes it."""
    return '"' + re.sub(r'(["$`\\])', r"\\\1", word) + '"'
