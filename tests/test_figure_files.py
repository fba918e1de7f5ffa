"""The figures of a report as files: XML that stands alone, whatever the names, with the same layers as on the page."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from polypref.report.figure_files import named_figures, standalone, write_figures
from polypref.report.figures import Figure, Tick
from report_example import HOSTILE, example_results, example_users

SVG = "{http://www.w3.org/2000/svg}"


def test_every_figure_of_the_report_is_a_file(tmp_path: Path) -> None:
    users = example_users(40)
    results = example_results(users)
    paths = write_figures(tmp_path, results, users)
    assert len(paths) == len(set(paths)) == len(list(named_figures(results, users))) >= 6
    assert {path.name.split("-")[0] for path in paths} == {"gains", "amounts", "sizes"}
    for path, (_, title, figure) in zip(paths, named_figures(results, users), strict=True):
        root = ElementTree.parse(path).getroot()
        assert root.tag == f"{SVG}svg" and root.find(f"{SVG}style") is not None
        drawn = [path.get("d") for path in root.iter(f"{SVG}path")]
        assert all(layer.path in drawn for layer in figure.layers)
        texts = [text.text for text in root.iter(f"{SVG}text")]
        assert title in texts and all(tick.text in texts for tick in figure.y_ticks)
        assert not [one for one in root.iter() if one.tag in (f"{SVG}script", f"{SVG}image", f"{SVG}use")]


def test_figures_of_learners_that_the_report_no_longer_has_go_and_other_files_stay(tmp_path: Path) -> None:
    users = example_users(40)
    results = example_results(users)
    first = {path.name for path in write_figures(tmp_path, results, users)}
    for name in ("gains-9-old-learner.svg", "mine.svg", "gains-9-old-learner.png"):
        (tmp_path / "figures" / name).write_text("x")
    write_figures(tmp_path, results, users)
    left = {path.name for path in (tmp_path / "figures").iterdir()}
    assert left == first | {"mine.svg", "gains-9-old-learner.png"}


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_others_stay_text(name: str) -> None:
    text = standalone(Figure(alt=name, layers=(), y_ticks=(Tick(0, name),), x_title=name, y_title=name), name)
    root = ElementTree.fromstring(text)
    assert {one.tag.removeprefix(SVG) for one in root.iter()} <= {"svg", "title", "style", "rect", "text", "path"}
    with pytest.raises(ElementTree.ParseError):
        ElementTree.fromstring(text.replace("</svg>", ""))
