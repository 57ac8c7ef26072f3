"""Random command lines, half of them valid: overrides, flags and values of every kind.

What could be long is small: no length, count or grid that takes more than a moment even to plan. Nothing asks Hydra to
write files of its own (hydra.output_subdir, its loggers) or a cluster to do work.
"""

from __future__ import annotations

import random

COMMANDS = ("train", "depth", "search", "evaluate", "reproduce", "report", "plot", "list")

PLAIN = (
    "1",
    "0",
    "-1",
    "2.5",
    "1e-3",
    "nan",
    "inf",
    "null",
    "true",
    "x",
    "10",
    "12",
    "[]",
    "[1,2]",
    "{a:1}",
    "'a b'",
    '""',
)
ODD = (
    *(
        "",
        " ",
        "ä",
        "😀",
        "a b",
        "a b/ü",
        "~",
        "!",
        "#",
        "'",
        '"',
        "`",
        "^",
        "&",
        ";",
        "<x>",
        "%s",
        "@",
        "*",
        "$",
        "\\",
        "\\\\",
    ),
    *(
        "[",
        "]",
        "[1",
        "{",
        "}",
        "{a",
        "{a}",
        "(",
        ")",
        "(1)",
        "[😀]",
        "{😀:1}",
        "ü,ö",
        "a=b",
        "=",
        "a:b",
        "'a'b",
        "b'a'",
        "???",
    ),
    *(
        "1,2",
        ",",
        "1,",
        "1,,2",
        "[1,]",
        "range(2)",
        "range(a)",
        "range(0,2,0)",
        "range(2,2)",
        "choice()",
        "choice(1,2)",
        "f(1)",
    ),
    *(
        "interval(0,1)",
        "glob(a*)",
        "glob()",
        "int(x)",
        "float(x)",
        "bool(3)",
        "sort(1,a)",
        "shuffle(2)",
        "tag(1)",
        "str([1])",
    ),
    *("${x}", "${seed}", "${", "${}", "${.}", "${oc.env:NOPE}", "${oc.env:}", "${no:1}", "${seed}/${task.T}"),
    *(
        "\x01",
        "\x1b[31m",
        "a\nb",
        "a\tb",
        "\x7f",
        "\u2028",
        "\udcff",
        "../x",
        "a/b",
        "-",
        "--",
        "true,",
        "1_0",
        "0x10",
        "9" * 30,
    ),
)
KEYS = (
    *("seed", "dtype", "device", "data", "quiet", "force", "workers", "threads", "stack_size", "checkpoint_seconds"),
    *("task", "task.T", "task.reading", "trainer", "trainer.alpha_i", "trainer.freeze", "trainer.rate_factors"),
    *(
        "trainer.rate_factors.W_hh",
        "trainer.freeze.0",
        "model",
        "model.H",
        "model.activation",
        "optimizer",
        "optimizer.momentum",
    ),
    *(
        "train",
        "train.batch_size",
        "train.patience",
        "train.validation",
        "probe",
        "probe.layers",
        "grid",
        "grid.axes",
        "outputs",
    ),
    *(
        "hydra.verbose",
        "hydra.searchpath",
        "hydra.mode",
        "hydra.job.name",
        "hydra.job.chdir",
        "hydra.job.env_copy",
        "hydra.help",
    ),
    *(
        "hydra.launcher",
        "hydra.launcher.executor",
        "hydra.launcher.time",
        "hydra.launcher.sbatch",
        "hydra.launcher.sbatch.x",
    ),
    *(
        "hydra.sweeper",
        "hydra.sweeper.max_batch_size",
        "hydra.sweeper.params",
        "hydra/launcher",
        "hydra.callbacks",
        "hydra",
    ),
)
ODD_KEYS = (
    "",
    ".",
    "task..T",
    "seed.",
    ".seed",
    "ü",
    "😀",
    "0",
    "-x",
    "a b",
    "task@x",
    "task/x",
    "hydra.",
    "hydra/",
    "hydra.foo",
    "T",
    "sede",
)
MEMBERS = {
    "task": ("adding", "copy_memory", "ading", "adding,copy_memory", "[adding]", "glob(a*)"),
    "trainer": ("tptt", "bptt", "tppt", "tptt,bptt", "glob(bp*)"),
    "model": ("srn", "lstm", "lstn"),
    "optimizer": ("adam", "sgd", "adamm"),
    "grid": ("none", "wide", "manchev"),
    "hydra/launcher": ("stack", "basic", "stak"),
    "dtype": ("float32", "float64", "float16"),
    "model.activation": ("tanh", "relu", "tanhh"),
    "hydra.mode": ("RUN", "MULTIRUN"),
}
FLAGS = ("--help", "--quiet", "--force", "--dry-run", "--cfg=job", "--x", "-x", "--😀", "--", "-", "---", "-m", "--x=ä")
# Words and flags of each command beside overrides: good ones, and odd ones. `out` is the folder of runs.
OWN = {
    "train": (
        (
            "-m",
            "-m",
            "-m",
            "--multirun",
            "--cfg job",
            "--cfg=job --resolve",
            "-c job -p task",
            "--info",
            "--hydra-help",
        ),
        (
            *("--run", "--cfg=😀", "--cfg", "-p 😀", "--resolve", "--info=searchpath", "--info 😀", "--version"),
            *("--config-dir no", "--config-dir .", "--config-path no", "--config-name no", "--experimental-rerun x"),
            *("--shell-completion", "-sc install=bash", "--package=ä"),
        ),
    ),
    "depth": (
        ("depth.start=10", "depth.max=20", "depth.rung=all", "depth.step=5", "--dry-run"),
        ("depth.step=0", "depth.rung=ä", "depth.x=1", "depth.=1", "task.T=10", "depth.max='"),
    ),
    "search": (
        ("search.trials=2", "search.batch=1", "search.sampler=random", "search.high=0.1", "search.confirm=1"),
        ("search.batch=😀", "search.sampler=ä", "search.low='", "search.x=1", "search.high=nan", "search.seeds=ä"),
    ),
    "evaluate": (
        ("--sequences 5", "--sequences=7", "task.T=10,12", "task.T=20", "task.reading=paper"),
        ("--sequences=0", "--sequences ä", "task.T=[", "task.T={", "task.T=x", "task.T=", "task.reading=ä", "task..=1"),
    ),
    "reproduce": (
        (
            "columns=TPTT",
            "seeds=1",
            "seeds=[0,1]",
            "T_max=10",
            "max_iterations=1",
            "--dry-run",
            "workers=1",
            "quiet=true",
        ),
        (
            *("manchev2020/tabel1", "manchev2025/fig2", "😀", "budget=ä", "rows='", "columns=[", "seeds=ä", "seeds=-1"),
            *("T_max=ä", "workers=ä", "data=ü,ö", "device=😀", "threads='", "task=adding"),
        ),
    ),
    "report": (
        *[
            (
                "--where seed=0",
                "--where T=10 trainer=bptt",
                "--paper manchev2020/table1",
                "--format csv",
                "--into out/a.md",
            )
        ],
        (
            *(
                "--where ä",
                "--where seed='",
                "--where 😀=1",
                "--where =1",
                "--where",
                "--paper 😀",
                "--paper",
                "--format=ä",
            ),
            *("out", "no/such", "--where T=10 no/such", "seed=1"),
        ),
    ),
    "plot": (
        ("--where seed=0", "--output out/a.svg", "adding-*", "--where T=10 adding-*", "--output out/a.pdf"),
        (
            *("--where ä", "--where [=1", "--output out/a.ä", "--into out/a.md", "out", "manchev2025/fig2", "[", "😀"),
            *("manchev2025/fig😀", "budget=smoke", "budget=ä", "--outputs no"),
        ),
    ),
    "list": (("tasks", "grids", "budgets", "papers"), ("task", "😀", "'", "--all", "seed=1", "outputs=out")),
}


def odd_line(command: str, seed: int) -> list[str]:
    """The words after `tprnn`: the same for the same command and seed."""
    rng = random.Random(f"{command} {seed}")
    words: list[str] = []
    if command in ("train", "depth", "search"):
        words = [f"task={rng.choice(('adding', 'temporal_order'))}", f"trainer={rng.choice(('tptt', 'bptt'))}"]
        words = [word for word in words if rng.random() < 0.95]
        words += [_override(rng) for _ in range(rng.randint(0, 3))]
    elif command == "reproduce" and rng.random() < 0.9:
        words = ["manchev2020/table1", "budget=smoke", "rows=adding"]
    elif command == "evaluate":
        words = [rng.choice((*["RUN"] * 8, "no/such", "😀", "[", ""))]
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        words += rng.choice(OWN[command][rng.random() < 0.3]).split(" ")
    if rng.random() < 0.15:
        words.append(rng.choice(FLAGS))
    if rng.random() < 0.1:
        words.insert(rng.randint(0, len(words)), rng.choice(ODD))
    return [command, *words]


def _override(rng: random.Random) -> str:
    key = rng.choice(KEYS) if rng.random() < 0.9 else rng.choice(ODD_KEYS)
    value = rng.choice(MEMBERS[key]) if key in MEMBERS and rng.random() < 0.7 else rng.choice((*PLAIN, *ODD))
    sign = rng.choice(("", "", "", "", "", "", "", "+", "++", "~", "~~"))
    return f"{sign}{key}" if sign.startswith("~") and rng.random() < 0.5 else f"{sign}{key}={value}"
