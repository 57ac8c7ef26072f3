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
    "model": ("srn", "lstm"),
    "optimizer": ("adam", "sgd", "adamm"),
    "grid": ("none", "wide", "manchev"),
    "hydra/launcher": ("stack", "basic", "stak"),
    "dtype": ("float32", "float64", "float16"),
    "model.activation": ("tanh", "relu", "tanhh"),
    "hydra.mode": ("RUN", "MULTIRUN"),
}
FLAGS = ("--help", "--quiet", "--force", "--dry-run", "--cfg=job", "--x", "-x", "--😀", "--", "-", "---", "-m", "--x=ä")
OWN = {  # flags and words beside overrides; `out` is the folder of runs
    "train": (
        *(
            "-m",
            "-m",
            "-m",
            "-m",
            "--multirun",
            "--run",
            "--cfg job",
            "--cfg=😀",
            "--cfg",
            "-p task",
            "-p 😀",
            "--resolve",
            "--info",
        ),
        *(
            "--info=searchpath",
            "--info 😀",
            "--hydra-help",
            "--version",
            "--config-dir no",
            "--config-dir .",
            "--config-path no",
        ),
        *("--config-name no", "--experimental-rerun x", "--shell-completion", "-sc install=bash", "--package=ä"),
    ),
    "depth": (
        "depth.start=10",
        "depth.max=20",
        "depth.step=0",
        "depth.rung=all",
        "depth.rung=ä",
        "depth.x=1",
        "depth.=1",
    ),
    "search": (
        "search.trials=2",
        "search.batch=😀",
        "search.sampler=random",
        "search.sampler=ä",
        "search.low='",
        "search.x=1",
    ),
    "evaluate": (
        "--sequences 5",
        "--sequences=0",
        "--sequences ä",
        "task.T=10,12",
        "task.T=[",
        "task.T={",
        "task.reading=ä",
        "task..=1",
    ),
    "reproduce": (
        *(
            "manchev2020/table1",
            "manchev2020/tabel1",
            "manchev2025/fig2",
            "😀",
            "budget=smoke",
            "budget=ä",
            "rows=adding",
            "rows='",
        ),
        *(
            "columns=TPTT",
            "columns=[",
            "seeds=1",
            "seeds=[0,1]",
            "seeds=ä",
            "T_max=10",
            "T_max=ä",
            "max_iterations=1",
            "--dry-run",
        ),
    ),
    "report": (
        *(
            "--where seed=0",
            "--where T=10 trainer=bptt",
            "--where ä",
            "--where seed='",
            "--where 😀=1",
            "--where =1",
            "--where",
        ),
        *(
            "--paper manchev2020/table1",
            "--paper 😀",
            "--paper",
            "--format csv",
            "--format=ä",
            "--into out/page.md",
            "out",
            "no/such",
        ),
    ),
    "plot": (
        *(
            "--where seed=0",
            "--where ä",
            "--where [=1",
            "--output out/a.svg",
            "--output out/a.ä",
            "--into out/page.md",
            "out",
            "adding-*",
        ),
        *("manchev2025/fig2", "manchev2025/fig😀", "budget=smoke", "budget=ä", "[", "😀", "--outputs no"),
    ),
    "list": ("tasks", "grids", "budgets", "papers", "task", "😀", "'", "--all", "seed=1"),
}


def odd_line(command: str, seed: int) -> list[str]:
    """The words after `tprnn`: the same for the same command and seed."""
    rng = random.Random(f"{command} {seed}")
    words: list[str] = []
    if command in ("train", "depth", "search"):
        words = [f"task={rng.choice(('adding', 'temporal_order'))}", f"trainer={rng.choice(('tptt', 'bptt'))}"]
        words = [word for word in words if rng.random() < 0.95]
        words += [_override(rng) for _ in range(rng.randint(0, 3))]
    elif command == "reproduce" and rng.random() < 0.5:
        words = ["manchev2020/table1", "budget=smoke", "rows=adding", *(["workers=ä"] if rng.random() < 0.2 else [])]
    elif command == "evaluate":
        words = [rng.choice(("RUN", "RUN", "RUN", "no/such", "😀", "[", ""))]
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        words += rng.choice(OWN[command]).split(" ")
    if rng.random() < 0.25:
        words.append(rng.choice(FLAGS))
    if rng.random() < 0.15:
        words.insert(rng.randint(0, len(words)), rng.choice(ODD))
    return [command, *words]


def _override(rng: random.Random) -> str:
    key = rng.choice(KEYS) if rng.random() < 0.85 else rng.choice(ODD_KEYS)
    value = rng.choice(MEMBERS[key]) if key in MEMBERS and rng.random() < 0.7 else rng.choice((*PLAIN, *ODD))
    sign = rng.choice(("", "", "", "", "", "", "", "+", "++", "~", "~~"))
    return f"{sign}{key}" if sign.startswith("~") and rng.random() < 0.5 else f"{sign}{key}={value}"
