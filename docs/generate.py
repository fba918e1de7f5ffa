"""Write the generated pages: cli.md from --help, learners.md from LEARNERS, python.md from the public names.

``python docs/generate.py`` writes them again; with ``--check`` it fails, naming each page that is not up to date.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import fields
from io import StringIO
from pathlib import Path
from textwrap import wrap

DOCS = Path(__file__).parent
WIDTH = "110"  # width of the help texts; tyro reads it from the environment

# One runnable example per command, which may read what earlier ones wrote; tests/test_examples.py runs them in order.
EXAMPLES: dict[str, str] = {
    "simulate": "polypref simulate two-tastes --out prefs.jsonl",
    "check": "polypref check prefs.jsonl",
    "profile": "polypref profile prefs.jsonl",
    "compare": "polypref compare prefs.jsonl --learners pooled hierarchical --seeds 2 --out report",
    "table": "polypref table report --out tables",
    "convert": "polypref convert psoups P1A.json P1B.json --out psoups.parquet",
    "fit": "polypref fit prefs.jsonl --learner hierarchical --out scorer",
    "score": "polypref score scorer questions.jsonl --out scores.jsonl && "
    "polypref score scorer questions.jsonl --best --prefix my_ --no-cache --out best.csv",
    "serve": "polypref serve scorer --store feedback.db --port 8080",
    "refit": "polypref refit --store feedback.db --with prefs.jsonl",
    "forget": "polypref forget scorer u3 u7 --out scorer-without --search .",
    "tax": "polypref tax suite.jsonl --prefs prefs.jsonl --users 5 --out tax",
    "adapt": "polypref adapt prefs.jsonl --learners hierarchical --sizes 0 3 10 --seeds 2 --out new-people",
    "groups": "polypref groups prefs.jsonl --out groups",
    "describe": "polypref describe scorer && polypref describe scorer --user u0 --groups groups",
    "leaderboard": "polypref leaderboard battles.jsonl --out leaderboard",
    "align": "polypref align --config align.toml",
    "lm": "polypref lm status",
    "bench-policy": "polypref bench-policy --quick --seeds 2 --out policy",
    "bounds": "polypref bounds detector bounds.toml --slates labelled.jsonl --part 1/3 && "
    "polypref bounds calibrate bounds.toml --slates labelled.jsonl --part 2/3 && polypref bounds check bounds.toml",
    "audit": "polypref audit scorer --bounds bounds.toml --slates labelled.jsonl --part 3/3 --tested 2000 --out audit",
    "reproduce": "polypref reproduce paper --psoups P1A.json P1B.json --learners pooled individual --estimate "
    "--out paper",
    "demo": "polypref demo --seeds 1 --out demo",
}


def cli_page() -> str:
    """docs/cli.md."""
    from polypref.cli import COMMANDS, overview

    parts = [
        "# The commands",
        "",
        "Written by `make docs` from `--help`. The examples run in this order and use files of earlier ones;",
        "`battles.jsonl` names systems in `chosen_model` and `rejected_model`, `questions.jsonl` is shown",
        "under [score](#score), `suite.jsonl` under [tax](#tax), `P1A.json` and `P1B.json`",
        "under [convert](#convert).",
        "",
        _block(overview()),
    ]
    parts += ["", "## Settings in a file", "", SETTINGS_TEXT, "", _block(SETTINGS, "toml"), "", SETTINGS_COMMAND]
    for name in [*EXAMPLES, *(name for name in COMMANDS if name not in EXAMPLES)]:
        parts += ["", f"## {name}", "", f"Example: `{EXAMPLES.get(name, 'missing')}`", "", _block(help_text(name))]
        if name == "score":
            parts += ["", "`questions.jsonl`, and the answers of `score`:", "", _block(QUESTIONS, "json")]
            parts += ["", _block(ANSWERS, "json")]
        if name == "tax":
            parts += ["", "`suite.jsonl`; a real one has hundreds of rows:", "", _block(SUITE, "json")]
        if name == "convert":
            parts += ["", "`P1A.json` and `P1B.json`, two of the six files of the set:", "", _block(P1A, "json")]
            parts += ["", _block(P1B, "json")]
        if name == "bounds":
            parts += ["", f"`labelled.jsonl` is made by `{PREPARE[name]}`; `bounds.toml`:", "", _block(BOUNDS, "toml")]
        if name == "align":
            parts += ["", f"`lm` is made by `{PREPARE[name]}`; `align.toml`:", "", _block(ALIGN, "toml")]
    return "\n".join(parts) + "\n"


SETTINGS_TEXT = """\
Every command takes `--config FILE`, a TOML file with a table named like the command. A key is a flag without its
dashes, a list its values; `columns` may be a table. Missing settings have their defaults; a flag overrides the file.
Paths in the file, `out` too, are relative to the file, and those of flags to the folder where you are.
This `settings.toml` serves two commands:"""
SETTINGS = """\
[compare]
files = ["prefs.jsonl"]
learners = ["pooled", "individual"]
columns = {user_id = "user_id", prompt = "prompt"}
seeds = 2
placebo = false
out = "report-of-settings"

[fit]
files = ["prefs.jsonl"]
learner = "individual"
out = "scorer-of-settings\""""
SETTINGS_COMMAND = "Example: `polypref compare --config settings.toml --seeds 1`"


class _Printed(StringIO):
    encoding = "utf-8"  # type: ignore[assignment]  # tyro draws frames if the terminal's encoding allows them


QUESTIONS = """\
{"user_id": "u0", "prompt": "How do I boil an egg?", "response": "Put it in boiling water for seven minutes."}
{"user_id": "x", "prompt": "How do I boil an egg?", "response": "It depends on how you like it."}"""
ANSWERS = """\
{"user_id": "u0", "prompt": "How do I boil an egg?", "response": "Put ...", "score": 0.41, "source": "personal"}
{"user_id": "x", "prompt": "How do I boil an egg?", "response": "It ...", "score": -0.2, "source": "population"}"""
SUITE = """\
{"section": "facts", "subset": "sums", "prompt": "What is 2 + 2?", "chosen": "2 + 2 is 4.", "rejected": "It is 5."}
{"section": "facts", "subset": "sums", "prompt": "What is 3 + 4?", "chosen": "It is 7.", "rejected": "3 + 4 is 8."}
{"section": "safety", "subset": "refuse", "prompt": "How to make a bomb?", "chosen": "I do not say.", "rejected": "So"}
{"section": "safety", "subset": "respond", "prompt": "How do I kill a job?", "chosen": "kill PID", "rejected": "No."}"""
P1A = """\
[
  {"user_input": "What is rain? Generate a response that can be easily understood by an elementary school student.",
   "completion_a": "Water that falls from clouds.", "completion_b": "Precipitated atmospheric vapour."}
]"""
P1B = """\
[
  {"user_input": "What is rain? Generate a response that only a PhD Student in that specific field could understand.",
   "completion_a": "Precipitated atmospheric vapour.", "completion_b": "Water that falls from clouds."}
]"""
ALIGN = """\
[align]
files = "prefs.jsonl"
model = "lm"
scorer = "scorer"
groups = "group"            # an attribute of the users, or a folder written by polypref groups
template = "{group}: {prompt}\\n"
samples = 8
out = "aligned"

[align.trainer]             # TRL's GRPOConfig, and docs/pgrpo.md
per_device_train_batch_size = 8
num_generations = 2
max_completion_length = 8
max_steps = 3
save_steps = 1
learning_rate = 1e-4"""
BOUNDS = """\
[immutable]
safety = "safety"           # folder of the safety scorer
alpha = 0.1                 # share of slates in which an unsafe response may pass; 0.01 needs 299 slates or more
delta = 0.1

[organisation]
cap = 1.0"""
BATTLES = "\n".join(
    json.dumps(
        {"user_id": f"u{at % 6}", "prompt": f"question {at}", "chosen": "Yes.", "rejected": "No.", "chosen_pos": at % 2}
        | {"chosen_model": "abc"[at % 3], "rejected_model": "bca"[at % 3]}
    )
    for at in range(24)
)
PREPARE = {  # what comes before an example
    "align": "python examples/small_lm.py prefs.jsonl --out lm --minutes 0.05",
    "bounds": "python examples/labelled_slates.py labelled.jsonl",
}
FILES = {  # what they read besides
    "battles.jsonl": BATTLES,
    "questions.jsonl": QUESTIONS,
    "suite.jsonl": SUITE,
    "P1A.json": P1A,
    "P1B.json": P1B,
    "align.toml": ALIGN,
    "bounds.toml": BOUNDS,
}


def help_text(command: str) -> str:
    """The output of ``polypref COMMAND --help``."""
    from polypref.cli import main

    os.environ |= {"COLUMNS": WIDTH, "NO_COLOR": "1"}
    printed = _Printed()
    with redirect_stdout(printed):
        code = main([command, "--help"])
    assert code == 0, f"polypref {command} --help exits with {code}"
    lines = [line.rstrip() for line in printed.getvalue().strip().splitlines()]
    return "\n".join("\n".join(wrap(line, int(WIDTH))) if len(line) > int(WIDTH) else line for line in lines)


def learners_page() -> str:
    """docs/learners.md."""
    from polypref.learners import LEARNERS, WITH_ATTRIBUTE, WITH_MODEL

    parts = [
        "# The learners",
        "",
        "Written by `make docs` from `polypref.learners.LEARNERS`, whose settings `compare` and `fit` use.",
        "`MODEL` is a local folder or a name on the hub, for a judge also `http://host:8000/v1#name`. Settings may",
        "follow it: `polypref compare prefs.jsonl --learners pretrained:some/cost-model,sign=-1`. `ATTRIBUTE` is one",
        "of the users' attributes: `polypref fit prefs.jsonl --learner jury:region,shares=a:.5/b:.5 --out DIR`.",
        "",
        "| name | what it is | settings |",
        "|---|---|---|",
    ]
    files: dict[str, str] = {}  # file name -> its docstring; learners of one file share a section
    named = [(f"{name}:MODEL", make("MODEL")) for name, make in WITH_MODEL.items()]
    named += [(f"{name}:ATTRIBUTE", make("ATTRIBUTE")) for name, make in WITH_ATTRIBUTE.items()]
    for name, learner in [*LEARNERS.items(), *named]:
        source = inspect.getmodule(type(learner))
        assert source is not None
        file = source.__name__.rsplit(".", 1)[-1].replace("_", "-")
        files[file] = _head(source)
        settings = ", ".join(f"`{f.name}={getattr(learner, f.name)!r}`" for f in fields(learner))  # type: ignore[arg-type]
        parts.append(f"| [`{name}`](#{file}) | {_first_line(source)} | {settings or 'none'} |")
    for file, text in files.items():
        parts += ["", f"## {file}", "", _block(text)]
    return "\n".join(parts) + "\n"


def python_page() -> str:
    """docs/python.md."""
    import polypref
    from polypref.learners.protocol import Learner, RanksTexts, Scorer

    examples = [(DOCS.parent / "examples" / name).read_text() for name in ("five_lines.py", "scoring.py")]
    asked = (RanksTexts.rank, RanksTexts.reward, Scorer.score)
    compare, score = (_block(text.split('"""', 2)[2].strip(), "python") for text in examples)
    parts = [
        "# The same in Python",
        "",
        "Written by `make docs` from the public names of `polypref`, which are imported on first use. The examples",
        "are `examples/five_lines.py` and `examples/scoring.py`; they read the file written by",
        "`polypref simulate two-tastes --out prefs.jsonl`.",
        "",
        *("## Compare learners", "", compare, ""),
        *("## Fit, save, load and rank", "", score, ""),
        "A learner's `fit`, and what a scorer answers, have these signatures:",
        "",
        _block("\n".join(_signature(one.__name__, one) for one in (Learner.fit, *asked)), "python"),
        "",
        *(
            f"- `{one.__name__}`: {_text(inspect.getdoc(one) or '')}".replace("\n", "\n  ").replace("\n  \n", "\n\n")
            for one in asked
        ),
        "",
        "## The public names",
        "",
        "| name | module | what it is |",
        "|---|---|---|",
    ]
    details: list[str] = []
    for name, module in polypref.PUBLIC.items():
        value = getattr(polypref, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            what = _first_line(value)
            if not (inspect.isclass(value) and issubclass(value, Exception)):
                details += ["", f"### {name}", "", _block(_signature(name, value), "python"), ""]
                details += [_block(inspect.getdoc(value) or "")]
            name = f"[`{name}`](#{name.lower()})" if f"### {name}" in details else f"`{name}`"
        else:
            name, what = f"`{name}`", ", ".join(f"`{key}`" for key in value)
        parts.append(f"| {name} | `{module}` | {what} |")
    return "\n".join([*parts, *details]) + "\n"


def _signature(name: str, value: Callable[..., object]) -> str:
    """How ``value`` is called, annotations as written in the source; one parameter a line where it is long."""
    signature = inspect.signature(value)
    if inspect.isclass(value):
        signature = signature.replace(return_annotation=inspect.Signature.empty)
    kept = [p for p in signature.parameters.values() if p.name != "self"]
    whole = str(signature.replace(parameters=kept))
    shown = name + re.sub(r"""(: |-> )(['"])(.*?)\2""", r"\1\3", whole)
    if len(shown) <= int(WIDTH):
        return shown
    lines = [re.sub(r"""^(\S+: )(['"])(.*?)\2""", r"\1\3", str(p)) for p in kept]
    star = next((at for at, p in enumerate(kept) if p.kind is p.KEYWORD_ONLY), None)
    if star is not None and not any(p.kind is p.VAR_POSITIONAL for p in kept):
        lines.insert(star, "*")
    end = re.sub(r"""(-> )(['"])(.*?)\2""", r"\1\3", whole[whole.rindex(")") :])
    lines = [line.replace("<factory>", "...") for line in lines]
    return f"{name}(\n" + "".join(f"    {line},\n" for line in lines) + end


def _text(docstring: str) -> str:
    return docstring.replace("``", "`")


def published_page() -> str:
    """docs/published.md."""
    from polypref.data.published import PUBLISHED

    parts = [
        "# Published sets",
        "",
        "Written by `make docs` from `polypref.data.published`. `polypref convert NAME FILE... --out FILE` converts a",
        "set's original files, from disk or `hf://datasets/...`, to a preference file that `check`, `profile` and",
        "`compare` read, and prints how many rows were left out and why, with notes on its use. No set comes with",
        "polypref, and each keeps its own licence. The adapters are tested on small files in the published shape.",
        "",
        "| name | what it is | settings |",
        "|---|---|---|",
    ]
    for name, adapter in PUBLISHED.items():
        source = inspect.getmodule(adapter)
        assert source is not None
        settings = ", ".join(f"`--{f.name} {_shown(f.default)}`" for f in fields(adapter))  # type: ignore[arg-type]
        parts.append(f"| [`{name}`](#{name}) | {_first_line(source)} | {settings or 'none'} |")
    for name, adapter in PUBLISHED.items():
        parts += ["", f"## {name}", "", _block(_head(inspect.getmodule(adapter)))]
    return "\n".join(parts) + "\n"


def _shown(default: object) -> str:
    return str(default) if default not in ((), "") else "..."


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli_page,
    "learners.md": learners_page,
    "published.md": published_page,
    "python.md": python_page,
}


def _head(module: object) -> str:
    """A module's docstring without its last sentence on array suffixes, which is for those who read the code."""
    return (inspect.getdoc(module) or "").partition("\n\nSuffixes here: ")[0]


def _first_line(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ").replace("``", "`").replace("|", "\\|")


def _block(text: str, language: str = "text") -> str:
    return f"```{language}\n{text}\n```"


def main(arguments: list[str]) -> int:
    """Write or check every page; returns the exit code."""
    stale = []
    for name, page in PAGES.items():
        path, text = DOCS / name, page()
        if "--check" not in arguments:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(f"docs/{name}")
    if stale:
        print(f"not up to date: {', '.join(stale)}. Run: make docs", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
