"""Characters that a terminal obeys or nobody sees, in every place that takes a text from outside: none is printed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from polypref.cli import main
from polypref.wording import visible

EVIL = "\x1b[2J\x07\x9b31m\u202e\u2066\u200e\u061c\u200b\u2028\u2029\u0085\x7f\u00ad\ufeff"
EVIL += "\U000e0041\ue000[red]</script>|`"
UNSEEN = "".join(c for c in EVIL if c >= " ")
NAME = EVIL.replace("/", "")  # as a file can be called


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (found := tmp_path / f"folder {NAME}").mkdir()
    return found


@pytest.fixture
def prefs(folder: Path) -> Path:
    path = folder / f"prefs{NAME}.jsonl"
    rows = [
        {
            f"who{EVIL}": f"user{user}{EVIL}",
            "prompt": f"prompt {pair}{EVIL}",
            "chosen": f"one{pair}{EVIL}" if (user + pair) % 3 else f"other{pair}{EVIL}",
            "rejected": f"other{pair}{EVIL}" if (user + pair) % 3 else f"one{pair}{EVIL}",
            "attributes": {"group": f"g{user % 2}{UNSEEN}"},
            f"column{EVIL}": EVIL,
        }
        for user in range(4)
        for pair in range(12)
    ]
    rows += [rows[0] | {"chosen": EVIL, "rejected": EVIL}, rows[1] | {f"who{EVIL}": None}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + f"broken {EVIL[:3]}\n", encoding="utf-8")
    return path


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """A command's exit code and what it printed, in which nothing but line breaks and tabs may be invisible."""
    code = main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    for text in (out, err):
        assert visible(text, keep="\n\t") == text, arguments
    assert "Traceback" not in err
    return code, out, err


def who(role: str = "user_id") -> str:
    return f"{role}=who{EVIL}"


def test_check_and_profile_show_names_escaped(prefs, capfd):
    code, out, _ = run(capfd, "check", prefs, "--columns", who())
    assert code == 0 and r"\x1b[2J" in out and "[red]" in out
    code, out, _ = run(capfd, "check", prefs, "--columns", who(), "--json")
    assert code == 0 and json.loads(out)["files"] == [str(prefs)]
    code, out, _ = run(capfd, "profile", prefs, "--columns", who())
    assert code == 0 and r"\x1b" in out
    code, out, _ = run(capfd, "profile", prefs, "--columns", who(), "--json")
    assert code == 0 and json.loads(out)["files"] == [str(prefs)]


def test_on_a_terminal_too(prefs, capfd, monkeypatch):
    """Rich's own escapes are there then; those of the names are not."""
    monkeypatch.setattr("polypref.terminal.interactive", lambda: True)
    monkeypatch.setattr("polypref.cli.check.interactive", lambda: True)
    code, out, _ = run(capfd, "check", prefs, "--columns", who())
    assert code == 0 and "finding" in out


def test_fit_score_adapt_and_groups_show_names_escaped(prefs, folder, capfd):
    out_folder = folder / "scorer"
    code, _, err = run(capfd, "fit", prefs, "--columns", who(), "--learner", "random", "--out", out_folder)
    assert code == 0, err
    rows = folder / f"rows{NAME}.jsonl"
    asked = {"user_id": f"user1{EVIL}", "prompt": EVIL, "response": f"[red]{EVIL}\n\t"}
    rows.write_text(json.dumps(asked) + "\n")
    code, out, err = run(capfd, "score", out_folder, rows)
    assert code == 0, err
    assert {key: json.loads(out)[key] for key in asked} == asked  # shown escaped, and exact
    teach = ("--scorer", out_folder, "--user", f"new{EVIL}", "--out", folder / "taught")
    code, _, err = run(capfd, "adapt", prefs, "--columns", who(), *teach)
    assert code == 2 and r"new\x1b" in err
    manifest = out_folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"kind": EVIL, EVIL: EVIL}))
    code, _, err = run(capfd, "score", out_folder, rows)
    assert code == 2 and err.count("\n") == 1
    code, out, err = run(capfd, "groups", prefs, "--columns", who(), "--attribute", "group", "--out", folder / "groups")
    assert code == 0 and r"\u202e" in out and "g0" in out, err


@pytest.mark.parametrize(
    "arguments",
    [
        (EVIL,),
        ("check",),
        ("check", EVIL),
        ("check", f"--{EVIL}"),
        ("check", "x.jsonl", "--columns", f"user_id={EVIL}"),
        ("check", "x.jsonl", "--columns", f"{EVIL}=a"),
        ("check", "PREFS", "--columns", f"prompt={EVIL}"),
        ("check", "PREFS", "--rating-gap", EVIL),
        ("fit", "PREFS", "--learner", EVIL, "--out", "s"),
        ("fit", "PREFS", "--encoder", EVIL, "--out", "s"),
        ("fit", "PREFS", "--encoder", f"endpoint:http://{EVIL}", "--out", "s"),
        ("score", EVIL, "PREFS"),
        ("table", EVIL),
        ("table", f"{EVIL}=."),
        ("simulate", EVIL, "--out", "x.jsonl"),
        ("simulate", "two-tastes", "--out", f"x.{EVIL}"),
        ("convert", EVIL, "x", "--out", "x.jsonl"),
        ("convert", "psoups", EVIL, "--out", "x.jsonl"),
        ("bounds", "check", EVIL),
        ("audit", EVIL, "--bounds", EVIL, "--slates", EVIL),
        ("tax", EVIL, "--prefs", EVIL),
        ("compare", "PREFS", "--learners", EVIL),
        ("align", "PREFS", "--model", EVIL, "--scorer", EVIL, "--groups", EVIL),
        ("adapt", "PREFS", "--user", EVIL),
    ],
    ids=lambda arguments: " ".join(visible(one)[:20] for one in arguments),
)
def test_no_argument_reaches_the_terminal(arguments, prefs, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capfd, *(prefs if one == "PREFS" else one for one in arguments))
    assert code == 2 and err.startswith("polypref: error: ") and err.count("\n") == 1


@pytest.mark.parametrize("key", [EVIL, "files", "columns"])
def test_no_setting_of_a_file_reaches_the_terminal(key, folder, capfd):
    path = folder / f"settings{NAME}.toml"
    escaped, named = ("".join(f"\\U{ord(c):08x}" for c in text) for text in (EVIL, key))
    path.write_text(f'["{escaped}"]\n"{escaped}" = "{escaped}"\n[check]\n"{named}" = "{escaped}"\n')
    code, _, err = run(capfd, "check", "--config", path)
    assert code == 2 and err.count("\n") == 1


def test_a_file_whose_name_is_no_text_is_shown(tmp_path, capfd):
    """Bytes that are not UTF-8 come from the shell as lone surrogates."""
    name = os.fsdecode(os.fsencode(str(tmp_path)) + b"/\xff\xfe.jsonl")
    code, _, err = run(capfd, "check", name)
    assert code == 2 and r"\udcff" in err
