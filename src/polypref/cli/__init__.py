"""The ``polypref`` command: finds a command's module, parses its settings, turns errors into one line and exit code.

Each command is one small file here: a frozen dataclass of settings, named like the command, whose ``run`` returns the
exit code. Only the chosen command's module is imported, so ``polypref --help`` answers at once.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from polypref.errors import PolyprefError, unknown_name
from polypref.files import FORBIDDEN, FULL, OTHER_OUT, cannot_write, held_for_run, owned
from polypref.terminal import block, fail, out, silent, visible_warnings

COMMANDS: dict[str, tuple[str, str]] = {
    "check": ("polypref.cli.check", "lint preference files: find faulty rows and say what happens to them"),
    "profile": ("polypref.cli.profile", "profile the data before any learner: disagreement, consistency, minorities"),
    "compare": ("polypref.cli.compare", "who gains from personalization, with which learner, and how certain that is"),
    "adapt": ("polypref.cli.adapt", "which method serves new people best; or add new people to a saved scorer"),
    "convert": ("polypref.cli.convert", "write a published preference set as a preference file"),
    "simulate": ("polypref.cli.simulate", "write a simulated world with known truth as a preference file"),
    "fit": ("polypref.cli.fit", "fit one learner on all judgements and save the scorer"),
    "score": ("polypref.cli.score", "score responses for users with a saved scorer"),
    "describe": ("polypref.cli.describe", "say in words what a person's, a group's or everybody's reward likes"),
    "serve": ("polypref.cli.serve", "answer rerank clients for the person who asks, and learn from use"),
    "refit": ("polypref.cli.refit", "fit a server's scorer anew from its judgements; swap, roll back"),
    "forget": ("polypref.cli.forget", "take people out of a saved scorer, and find files that still name them"),
    "table": ("polypref.cli.table", "the evaluation paper's tables from result folders, with published figures"),
    "reproduce": ("polypref.cli.reproduce", "the evaluation paper's whole protocol on its three sets, or their cost"),
    "tax": ("polypref.cli.tax", "what general ability personalization costs on RewardBench, apart from forgetting"),
    "groups": ("polypref.cli.groups", "group users by an attribute or by how they judge, for P-GRPO"),
    "leaderboard": ("polypref.cli.leaderboard", "rank language models for the population, each group and each person"),
    "align": ("polypref.cli.align", "train a language model with P-GRPO on a saved scorer's rewards, for every group"),
    "lm": ("polypref.cli.lm", "fetch the embedded language model smollm2, or say whether it is there"),
    "bench-policy": (
        "polypref.cli.bench_policy",
        "when P-GRPO beats GRPO: bandits with known truth, with controls",
    ),
    "bounds": (
        "polypref.cli.bounds",
        "bounds that no user can move: detector, calibration, certificates, explanations",
    ),
    "audit": ("polypref.cli.audit", "attack a scorer's bounds, and measure what the bounds cost"),
    "demo": ("polypref.cli.demo", "simulate a world and compare the learners on it"),
}

INTERRUPTED, BROKEN_PIPE = 130, 141  # what a shell reports for a process stopped by SIGINT, SIGPIPE
IMPOSSIBLE = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)  # paths at which no file can be
GO_ON = ("compare", "reproduce", "adapt", "align", "bench-policy", "demo", "refit")  # commands that keep finished work


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 2 an error that the user can fix, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with visible_warnings():
            code = _dispatch(arguments)
        if sys.stdout is not None:  # closed by the parent process: print then does nothing
            sys.stdout.flush()
    except PolyprefError as error:
        fail(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        fail("interrupted; run the same command again to resume." if arguments[0] in GO_ON else "interrupted.")
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output closed it, as `head` does; the flush at exit must not fail again
        _drop_output()
        return BROKEN_PIPE
    except OSError as error:
        if error.filename is not None and error.errno in IMPOSSIBLE:
            fail(f"error: {str(error.filename)[:200]} cannot be used: {error.strerror}. Give another path.")
            return 2
        # Errors of files have a name from ``files``; an error without a name is from standard output.
        if error.errno not in FULL and not (error.filename and error.errno in FORBIDDEN):
            raise
        if error.filename is None:
            _drop_output()
        fail(f"error: {cannot_write(error.filename or 'standard output', error, 'write elsewhere')}")
        return 2
    return code


def _drop_output() -> None:
    """Discard buffered output, so that the flush at exit does not fail as well."""
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
    from polypref.cli.shared import WritesFolder

    command = parse(command_class(name), name, rest)
    if command is None:
        return 0
    folder, names = (command.out, command.writes()) if isinstance(command, WritesFolder) else (None, ())
    caching = _caching(getattr(command, "cache", True))
    if name == "align":
        from polypref.align import processes

        if not processes.is_main():  # the main one locks and writes
            with caching, silent():
                return command.run()
    with caching, silent(command.quiet), held_for_run(folder, elsewhere=OTHER_OUT), owned(folder, names):
        if not isinstance(command, WritesFolder):
            return command.run()
        from polypref.cli.finished import once

        with once(command, name, shlex.join(["polypref", name, *rest])):
            return command.run()


def _caching(on_disk: bool) -> AbstractContextManager[None]:
    """Where features are kept within the block."""
    if on_disk:
        return nullcontext()
    from polypref.features.encode_missing import caching_in

    return caching_in("memory")


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
            "polypref COMMAND --help shows a command's settings. They can also be kept in a TOML file, in a table",
            "named like the command: polypref COMMAND --config FILE. Paths in the file are relative to it; a flag",
            "overrides it.",
        )
    )
