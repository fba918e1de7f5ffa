"""Tables as Markdown, LaTeX and HTML: every cell in its place, everything escaped, published told from measured."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest

from polypref.report.paper import legend
from polypref.report.table import Cell, Column, Row, Table, html, latex, markdown
from table_example import FIGURES, built, content, folder


@pytest.fixture
def psoups(tmp_path):
    return folder(tmp_path / "psoups", content(FIGURES, 50_000), users=8)


ODD = Table(
    "odd",
    "100 % of a_b & {c} | <d> ~ ^ \\",
    "x|y",
    (Column("n_1", "A & B", ("one",)), Column("50 %", "A & B", ("one",)), Column("z", "C")),
    (
        Row("<script>_1", (Cell("0.5", "0.4", "0.3–0.7"), Cell(None, "0.1"), Cell()), ("two",)),
        Row("plain", (Cell("a|b"), Cell("−1"), Cell("≤ 2", notes=("one",)))),
    ),
    ("A remark & more.",),
    {"one": "first & best", "two": "<b>second</b>", "never": "not referred to"},
)


def test_markdown_has_every_cell_in_its_place():
    text = markdown([ODD], "legend")
    header, rule, first, second = [line for line in text.splitlines() if line.startswith("|")]
    assert rule == "|---|---:|---:|---:|"
    assert all(len(re.split(r"(?<!\\)\|", line)) == 6 for line in (header, first, second))
    assert first == "| &lt;script>\\_1<sup>2</sup> | 0.5 *[0.4]* | – *[0.1]* | – |"
    assert "1. first & best\n2. &lt;b>second&lt;/b>" in text
    assert "not referred to" not in text
    assert "0.5 (0.3–0.7) *[0.4]*" in markdown([ODD], "", intervals=True)


def test_latex_is_whole_and_escaped(psoups):
    for text in (latex([ODD], "legend & more"), latex(list(built(psoups).values()), legend(True), intervals=True)):
        body = text.split(r"\begin{document}")[1]
        assert not re.findall(
            r"(?<!\\)[%#_$](?!-\$)(?!\\)", re.sub(r"\$[^$]*\$", "", body).replace("\n%", "").replace("{%", "")
        )
        opened, closed = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
        assert sorted(opened) == sorted(closed)
        assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
        for tabular in re.findall(r"\\begin\{tabular\}\{(l r*|lr*)\}(.*?)\\end\{tabular\}", text, re.DOTALL):
            columns = len(tabular[0])
            for line in tabular[1].splitlines():
                if line.endswith(r"\\"):
                    spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
                    assert len(re.split(r"(?<!\\)&", line)) + spans == columns, line


def test_latex_compiles(psoups, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed: the structure alone was checked")
    (tmp_path / "t.tex").write_text(latex([ODD, *built(psoups).values()], legend(True)))
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "t.tex"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:]


class Checker(HTMLParser):
    """Elements that are opened and closed in order, and the texts of published and measured figures."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.found: dict[str, list[str]] = {"published": [], "measured": []}
        self.targets: set[str] = set()
        self.links: set[str] = set()
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.tags.add(tag)
        self.targets.add(known.get("id") or "")
        if (known.get("href") or "").startswith("#"):
            self.links.add((known["href"] or "")[1:])
        if tag not in ("meta", "link", "br"):
            self.open.append((tag, known.get("class") or ""))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1][1] in self.found:
            self.found[self.open[-1][1]].append(data)


def parsed(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    return checker


def test_html_tells_published_from_measured_and_runs_nothing(psoups):
    page = html(list(built(psoups).values()), legend(True))
    found = parsed(page)
    assert "0.83" in found.found["published"]
    assert "0.870" in found.found["measured"]
    assert "fewer than 10 users they are of these users on new judgements" in page
    assert not set(found.found["published"]) & {"0.870", "0.880", "0.750"}
    assert found.links <= found.targets
    assert "default-src 'none'" in page
    odd = parsed(html([ODD], "<i>legend</i>"))
    assert not odd.tags & {"script", "i", "b", "d"}
