"""The documentation is true: generated pages are up to date, scripts run, links lead somewhere."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest

import polypref
from polypref.cli import main
from polypref.scorers import metadata

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def load(path: Path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load(ROOT / "docs" / "generate.py")


@pytest.mark.parametrize("page", generate.PAGES)
def test_generated_page_is_up_to_date(page):
    assert (ROOT / "docs" / page).read_text() == generate.PAGES[page](), f"docs/{page} is old. Run: make docs"


def test_a_stale_page_is_seen(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    monkeypatch.setattr(generate, "PAGES", {"one.md": lambda: "new\n"})
    (tmp_path / "one.md").write_text("old\n")
    assert generate.main(["--check"]) == 1
    assert "docs/one.md" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_the_readme_shows_the_five_lines_of_the_example():
    code = (ROOT / "examples" / "five_lines.py").read_text().split('"""', 2)[2].strip()
    assert len(code.splitlines()) <= 7
    assert f"```python\n{code}\n```" in (ROOT / "README.md").read_text()


def test_the_five_lines_run(tmp_path, monkeypatch, one_core, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "two-tastes", "--users", "12", "--judgements", "24", "--out", "prefs.jsonl"]) == 0
    capsys.readouterr()
    load(ROOT / "examples" / "five_lines.py")
    assert "personal" in capsys.readouterr().out


def test_the_readmes_rows_are_read(tmp_path):
    rows = re.search(r"```json\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert rows is not None
    (tmp_path / "prefs.jsonl").write_text(rows[1])
    comparisons = polypref.read([tmp_path / "prefs.jsonl"]).comparisons
    assert len(comparisons) == 3
    assert comparisons.users.ids.to_list() == ["ann", "bob"]
    assert comparisons.tie_N is not None
    assert comparisons.tie_N.tolist() == [False, False, True]


def broken_links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    found = []
    for target in LINK.findall(text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        file, _, anchor = target.partition("#")
        path = page.parent / file if file else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            found.append(f"{page.name}: {target}")
    return found


def anchors(page: Path) -> set[str]:
    """Names of a page's headings as a browser of the repository forms them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_lead_somewhere():
    assert len(PAGES) >= 5
    assert [link for page in PAGES for link in broken_links(page)] == []


def test_every_page_is_in_the_index():
    listed = set(LINK.findall((ROOT / "docs" / "index.md").read_text()))
    assert {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} - {"index.md"} <= listed


def test_a_broken_link_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# Top\n[a](page.md#top) [b](absent.md) [c](page.md#nowhere) ![d](absent.png)\n```\n[e](x)\n```\n")
    assert broken_links(page) == ["page.md: absent.md", "page.md: page.md#nowhere", "page.md: absent.png"]


def test_the_scoring_example_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["simulate", "two-tastes", "--users", "8", "--judgements", "20", "--out", "prefs.jsonl"]) == 0
    capsys.readouterr()
    load(ROOT / "examples" / "scoring.py")
    lines = capsys.readouterr().out.splitlines()
    assert [line.rsplit(" ", 1)[1] for line in lines[:4]] == ["(personal)"] * 2 + ["(population)"] * 2


def test_the_settings_file_of_the_page_runs(tmp_path, monkeypatch, one_core, capsys):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "cli.md").read_text()
    assert f"```toml\n{generate.SETTINGS}\n```\n\n{generate.SETTINGS_COMMAND}" in page
    Path("settings.toml").write_text(generate.SETTINGS)
    assert main(["simulate", "two-tastes", "--users", "8", "--judgements", "20", "--out", "prefs.jsonl"]) == 0
    program, *arguments = shlex.split(generate.SETTINGS_COMMAND.split("`")[1])
    assert program == "polypref"
    assert main(arguments) == 0, capsys.readouterr().err
    settings = json.loads(Path("report-of-settings/results.json").read_text())["settings"]
    assert (settings["seeds"], settings["placebo"]) == (1, False), "flags override the file, which overrides defaults"
    assert set(settings["learners"]) == {"pooled", "pooled-effects", "individual"}
    assert main(["fit", "--config", "settings.toml"]) == 0
    assert metadata("scorer-of-settings").learner == "individual"


def test_signatures_are_those_of_the_source():
    def called(first: str, *, rest: tuple[str, ...] | None = None) -> list[str]:
        raise NotImplementedError

    assert generate._signature("called", called) == (
        "called(first: str, *, rest: tuple[str, ...] | None = None) -> list[str]"
    )
    page = (ROOT / "docs" / "python.md").read_text()
    assert (
        "load(path: Path | str, encoder: Encoder | str | None = None, *, allow_network: bool = False) -> Scorer" in page
    )
