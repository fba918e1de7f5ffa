"""One setting has one name, one help text and one type over all commands; and quiet is quiet."""

from __future__ import annotations

import re
import threading
import warnings
from functools import cache

import pytest
import tyro

from polypref.cli import COMMANDS
from polypref.cli.settings import command_class
from polypref.progress import Progress
from polypref.runs.settings import Quiet
from polypref.terminal import fail, say, silent, visible_warnings

# Names that mean something of its own in each of these commands. All else that has one name is one setting.
OWN = {
    "out": {"*"},  # each writes something else
    "force": {"convert", "refit", "score", "simulate"},  # one file; a scorer that is worse
    "files": {"convert"},  # the set's own files
    "workers": {"convert", "serve"},  # people who judged; processes that answer
    "seed": {"convert"},
    "encoder": {"describe", "score", "serve"},  # none: the one of the fit
    "scorer": {"adapt", "align", "forget", "tax"},  # what it is for
    "action": {"bounds", "lm"},
    "file": {"bounds"},
    "slates": {"audit"},  # one file
    "learners": {"adapt", "compare", "bench-policy", "reproduce"},
    "sizes": {"adapt", "compare"},
    "seeds": {"bench-policy"},
    "groups": {"align", "describe", "groups", "leaderboard", "serve"},
    "users": {"simulate", "tax"},
    "suite": {"reproduce"},  # of its three sets, and may be left out
    "user": {"adapt"},  # the id of one new person
    "pairs": {"convert", "profile"},
    "learner": {"refit"},  # none: that of the scorer in force
    "held_out": {"refit"},  # a share; audit's are files
    "store": {"forget", "refit", "serve"},  # none, read, or made
    "scorers": {"refit", "serve"},
    "questions": {"serve"},  # to ask people, not about texts
}


@cache
def told() -> dict[str, dict[str, tuple[str, str]]]:
    """Setting -> command -> its type and its help, without the default."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        for name in COMMANDS:
            for action in tyro.extras.get_parser(command_class(name))._actions:
                text = re.sub(r"\([^()]*\)$", "", action.help or "").strip()
                kind = str(action.metavar or (action.option_strings and "flag"))
                found.setdefault(action.dest.replace("-", "_"), {})[name] = (kind, text)
    return found


def test_one_name_is_one_setting():
    shared = 0
    for setting, by_command in told().items():
        own = OWN.get(setting, set())
        one = {command: said for command, said in by_command.items() if not own & {command, "*"}}
        assert len(set(one.values())) <= 1, (setting, one)
        shared += len(one) > 1
    assert shared >= 10


def test_settings_of_their_own_do_differ():
    for setting, commands in OWN.items():
        assert len(set(told()[setting].values())) > 1, f"{setting} is one setting everywhere: take it from the list"
        assert commands <= {"*", *told()[setting]}


def test_one_help_text_is_one_setting():
    """A setting under two names would have the same help, or a default that another has."""
    names: dict[str, set[str]] = {}
    for setting, by_command in told().items():
        for _, text in by_command.values():
            names.setdefault(text, set()).add(setting)
    assert {text: found for text, found in names.items() if len(found) > 1} == {}
    assert "least" not in told()


def test_every_command_can_be_quiet():
    assert all(issubclass(command_class(name), Quiet) for name in COMMANDS)
    assert len(told()["quiet"]) == len(COMMANDS)


def test_quiet_leaves_failures_alone(capsys):
    def work() -> None:
        say("half of it is done")
        with Progress("", 3, "cells", stored=0) as progress:
            progress.tell("a")
            progress.tell("b", "it broke")

    with silent():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        with silent(False):
            say("still not")
        fail("error: all is lost")
    said = capsys.readouterr()
    assert said.out == ""
    assert [line for line in said.err.splitlines() if line.startswith("polypref")] == [
        "polypref: failed: b: it broke",
        "polypref: error: all is lost",
    ]
    work()
    assert "half of it is done" in capsys.readouterr().err


@pytest.mark.parametrize("quiet", [True, False])
def test_pythons_own_warnings_are_as_quiet(quiet):
    with visible_warnings(), silent(quiet):
        text = warnings.formatwarning(UserWarning("beware"), UserWarning, "x.py", 1)
    assert text == ("" if quiet else "polypref: warning: beware (UserWarning)\n")


@pytest.mark.parametrize("quiet", [True, False])
def test_a_command_is_run_in_silence_where_that_is_wanted(quiet, monkeypatch, capsys):
    from polypref.cli import main, settings

    class Loud(Quiet):
        """Say something."""

        def run(self) -> int:
            say("busy")
            return 0

    monkeypatch.setattr(settings, "command_class", lambda name: Loud)
    assert main(["check", *(["--quiet"] if quiet else [])]) == 0
    assert capsys.readouterr().err == ("" if quiet else "polypref: busy\n")
