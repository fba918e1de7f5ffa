"""The public names: small, documented, and imported only when used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import polypref
from polypref.progress import Progress
from toy_learners import Length, LengthEncoder, people


@pytest.mark.parametrize("name", polypref.PUBLIC)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(polypref, name)
    assert name in dir(polypref)
    assert name in polypref.__all__
    assert f"    {name}" in polypref.__doc__ or f", {name}" in polypref.__doc__
    if callable(value):
        assert value.__doc__, f"{name} has no docstring"
    else:
        assert len(value) > 1


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(polypref.__file__).read_text())
    guard = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.name: node.module for node in guard.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == polypref.PUBLIC
    assert set(polypref.__all__) == {"__version__", *polypref.PUBLIC}


def test_import_loads_nothing():
    code = "import sys, polypref; print(*[n for n in sys.modules if n.split('.')[0] in ('torch', 'polars', 'numpy')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


def test_first_use_loads_what_it_needs():
    code = "import sys, polypref; polypref.Comparisons; print('polars' in sys.modules, 'torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown == "True False\n"


def test_a_misspelt_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"no attribute 'raed'.*read"):
        polypref.raed  # noqa: B018


def test_star_import_gives_the_public_names():
    namespace: dict[str, object] = {}
    exec("from polypref import *", namespace)
    assert set(polypref.PUBLIC) <= set(namespace)


def test_submodules_are_reached_by_name():
    from polypref.groups import from_attribute

    assert callable(from_attribute)


class Slow(LengthEncoder):
    """An encoder that tells how far it is after every text, as those that take long do."""

    def encode(self, responses):
        with Progress("encoding with slow", len(responses), "texts") as progress:
            for _ in range(len(responses)):
                progress.advance(1)
        return super().encode(responses)


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_silences_the_encoder_too(quiet, monkeypatch, capsys):
    monkeypatch.setattr("polypref.progress.LINE_EVERY_SECONDS", -1.0)
    learners = {"pooled": Length()}
    data = people(users=6, per_user=20)
    results = polypref.compare(data, learners, Slow(), seeds=1, workers=1, placebo=False, quiet=quiet)
    assert ("encoding with slow" in capsys.readouterr().err) != quiet
    assert repr(results).startswith("<Results: 120 judgements, 6 users, learners `pooled`. ")
    assert len(repr(results)) < 1000
    assert results.verdict["text"] in repr(results)
    assert results.to_polars().equals(results.rows)
    page = results._repr_html_()
    assert page.startswith("<table>") and "<td>pooled</td>" in page
