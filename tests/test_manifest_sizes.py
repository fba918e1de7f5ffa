"""A manifest that states sizes which its arrays do not have is one line, and takes no memory for them."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pytest
from safetensors.numpy import save as to_bytes

import finetune_cases
from contract_cases import Words, answers, fresh, small
from polypref import artifact
from polypref.errors import ArtifactError, PolyprefError
from polypref.finetune import LEARNERS as TUNED
from polypref.learners.protocol import Adapts
from polypref.schema import Layout, floats
from polypref.scorers import load, save
from test_artifact import KINDS, places, scorer_of, write

STATED = (0, -1, 10**5, 2**31, 2**40, 2**62)
MEMORY = 1 << 30  # bytes more than a test has already


@contextmanager
def little_memory() -> Iterator[None]:
    had = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, had[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, had)


def at(value: Any, place: tuple) -> Any:
    for key in place:
        value = value[key]
    return value


def restated(folder: Path) -> Iterator[tuple[tuple, int, Path]]:
    """Copies of an artifact in which one whole number of its state is another."""
    manifest = json.loads((folder / "manifest.json").read_text())
    payload = to_bytes(artifact.load(folder, manifest["kind"])[1])
    state = manifest["config"]["state"]
    for place in places(state):
        if type(at(state, place)) is not int:
            continue
        for number in STATED:
            copy = json.loads(json.dumps(manifest))
            at(copy["config"]["state"], place[:-1])[place[-1]] = number
            write(folder.with_name("restated"), copy, payload)
            yield place, number, folder.with_name("restated")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stated_size_is_refused_or_takes_no_memory(kind, tmp_path):
    """What is loaded after all (a number that is no size) answers, and learns new people, in the same memory."""
    save(scorer_of(kind), tmp_path / "s")
    answers(load(tmp_path / "s", Words()), fresh())
    for place, number, folder in restated(tmp_path / "s"):
        with little_memory(), np.errstate(all="ignore"):
            try:
                scorer = load(folder, Words())
                answers(scorer, fresh())
                if isinstance(scorer, Adapts):
                    answers(scorer.adapt("new", small().take(small().user_N == 0)), fresh())
            except PolyprefError as error:
                assert isinstance(error, ArtifactError), (place, number)
                assert "\n" not in str(error)


# --- tuned language models


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> str:
    return finetune_cases.llama(tmp_path_factory.mktemp("llama"))


@cache
def tuned(method: str, backbone: str):
    return finetune_cases.fitted(method, backbone, finetune_cases.judgements(2, 12), steps=1, looks=1)


SIZES = {
    ("recipe", "rank"),
    ("asking", "users"),
    ("asking", "tokens"),
    ("asking", "clusters"),
    ("sizes", "embedding"),
    ("sizes", "latent"),
    ("sizes", "hidden"),
    ("adapters",),
}


@pytest.mark.parametrize("name", TUNED)
def test_sizes_of_a_tuned_network_are_those_of_its_arrays(name, backbone, tmp_path):
    scorer = tuned(name.partition(":")[2], backbone)
    save(scorer, tmp_path / "s")
    loaded = load(tmp_path / "s", finetune_cases.Words())
    pool, ids = finetune_cases.asked(finetune_cases.judgements(2, 2))
    assert np.isfinite(loaded.score(pool, ids).value_Q).all()
    seen = set()
    for place, number, folder in restated(tmp_path / "s"):
        if place not in SIZES:
            continue
        seen.add(place)
        if at(scorer.state()[0], place) == number or (place == ("asking", "users") and number == 0):
            continue
        with little_memory(), pytest.raises(ArtifactError) as refused:
            load(folder, finetune_cases.Words())
        assert "\n" not in str(refused.value)
    assert len(seen) >= 5


def test_an_array_without_values_backs_no_size(tmp_path):
    class Fields(TypedDict):
        width: int

    layout = Layout(Fields, {"weights_WD": floats("W", "D")}, sizes={"W": "width"})
    layout.check({"width": 3}, {"weights_WD": np.zeros((3, 2))}, "here")
    for size in (1, 10**12):
        with pytest.raises(ArtifactError, match=f"here: width is {size}, and no array has as many values"):
            layout.check({"width": size}, {"weights_WD": np.zeros((size, 0))}, "here")
