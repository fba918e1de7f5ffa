"""The ``polypref`` command: finds the command's module, parses its settings, turns errors into one line.

Each command is one small file here: a frozen dataclass of settings, named like the command, whose ``run`` returns the
exit code. Only the chosen command's module is imported, so that ``polypref --help`` answers at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from polypref.errors import PolyprefError, unknown_name
from polypref.files import FORBIDDEN, FULL, cannot_write
from polypref.terminal import block, fail, out, silent, visible_warnings

COMMANDS: dict[str, tuple[str, str]] = {
    "check": ("polypref.cli.check", "lint preference files: what is wrong with them, and what happens to such rows"),
    "profile": ("polypref.cli.profile", "what the data say before any learner: disagreement, consistency, minorities"),
    "compare": ("polypref.cli.compare", "who gains from personalization, with which learner, and how sure that is"),
    "adapt": ("polypref.cli.adapt", "which method serves new people best; or teach a saved scorer new people"),
    "convert": ("polypref.cli.convert", "write a published preference set as a preference file"),
    "simulate": ("polypref.cli.simulate", "write a simulated world, whose truth is known, as a preference file"),
    "fit": ("polypref.cli.fit", "fit one learner on all judgements and save the scorer"),
    "score": ("polypref.cli.score", "score responses for users with a saved scorer"),
    "table": ("polypref.cli.table", "the evaluation paper's tables from result folders, published figures beside ours"),
    "tax": ("polypref.cli.tax", "what general ability personalization costs on RewardBench, forgetting apart"),
    "groups": ("polypref.cli.groups", "who belongs together, by an attribute or by how people judge: for P-GRPO"),
    "align": ("polypref.cli.align", "train a language model with P-GRPO on a saved scorer's rewards, for every group"),
    "bench-policy": (
        "polypref.cli.bench_policy",
        "when P-GRPO beats GRPO: bandits whose truth is known, with controls",
    ),
    "bounds": (
        "polypref.cli.bounds",
        "bounds that no user can move: a detector, its calibration, what is certified, and why",
    ),
    "audit": ("polypref.cli.audit", "adversaries against a scorer's bounds, and what the bounds cost"),
    "demo": ("polypref.cli.demo", "simulate a world and compare the learners on it"),
}

INTERRUPTED, BROKEN_PIPE = 130, 141  # what a shell reports for a process stopped by SIGINT, SIGPIPE
GO_ON = ("compare", "adapt", "align", "bench-policy", "demo")  # commands that keep what they finished


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 a user can mend it, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with visible_warnings():
            code = _dispatch(arguments)
        if sys.stdout is not None:  # closed by whoever started us: print does nothing then
            sys.stdout.flush()
    except PolyprefError as error:
        fail(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        fail("interrupted; the same command goes on where it was." if arguments[0] in GO_ON else "interrupted.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output left, as `head` does; the flush at exit must not complain again
        _drop_output()
        return BROKEN_PIPE
    except OSError as error:
        # Files are written by ``files``, which names them; what is full without a name is where we print.
        if error.errno not in FULL and not (error.filename and error.errno in FORBIDDEN):
            raise
        if error.filename is None:
            _drop_output()
        fail(f"error: {cannot_write(error.filename or 'standard output', error, 'write elsewhere')}")
        return 2
    return code


def _drop_output() -> None:
    """What still waits to be written goes nowhere, so that the flush at exit does not fail as well."""
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _dispatch(arguments: list[str]) -> int:
    if not arguments:
        block(overview(), sys.stderr)
        return 2
    name, *rest = arguments
    if name in ("-h", "--help", "help"):
        block(overview())
        return 0
    if name in ("-V", "--version"):
        from importlib.metadata import version

        out(f"polypref {version('polypref')}")
        return 0
    if name not in COMMANDS:
        raise unknown_name("command", name, COMMANDS)
    from polypref.cli.settings import command_class, parse

    command = parse(command_class(name), name, rest)
    if command is None:
        return 0
    with silent(command.quiet):
        return command.run()


def overview() -> str:
    """The text of ``polypref --help``."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {line}" for name, (_, line) in COMMANDS.items()]
    return "\n".join(
        (
            "usage: polypref COMMAND [OPTIONS]",
            "",
            "Learn, measure and serve the preferences of many different people instead of one average person.",
            "",
            *lines,
            "",
            "polypref COMMAND --help shows a command's settings. Each of them can also be kept in a TOML file, in a",
            "table named like the command: polypref COMMAND --config FILE. A flag wins over the file.",
        )
    )
