"""Every error of the package survives pickle, which is how errors travel between processes."""

from __future__ import annotations

import importlib
import inspect
import pickle
import pkgutil
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

import polypref
from polypref.errors import MissingExtra, PolyprefError


def subclasses(cls: type) -> list[type]:
    return [cls, *(found for one in cls.__subclasses__() for found in subclasses(one))]


def modules_that_define_errors() -> list[str]:
    """Modules whose text names an error class as a base: only those are imported, since others import torch."""
    found = []
    for module in pkgutil.walk_packages(polypref.__path__, "polypref."):
        if module.name.endswith("__main__"):
            continue
        spec = module.module_finder.find_spec(module.name, None)
        text = spec.loader.get_source(module.name) if spec and spec.loader else ""
        if re.search(r"(?m)^class \w+\((\w+Error|NotEnoughData|MissingExtra|Diverged|Exception)\)", text or ""):
            found.append(module.name)
    return found


for name in modules_that_define_errors():
    importlib.import_module(name)
ERRORS = [cls for cls in subclasses(PolyprefError) if cls.__module__.startswith("polypref.")]


def built(cls: type) -> PolyprefError:
    """One of them, with a text for each argument that it needs."""
    wanted = [] if cls.__init__ is Exception.__init__ else list(inspect.signature(cls.__init__).parameters)[1:]
    return cls(*(f"the {name} [red] ünï \u202e" for name in wanted)) if wanted else cls("a message")


def raised(cls: type) -> None:
    raise built(cls)


def same(one: BaseException, other: BaseException) -> bool:
    return (type(one), str(one), one.args, vars(one)) == (type(other), str(other), other.args, vars(other))


def test_all_are_found():
    names = {cls.__name__ for cls in ERRORS}
    assert {"PolyprefError", "InputError", "MissingExtra", "Diverged", "SafetyFailed"} <= names


@pytest.mark.parametrize("cls", ERRORS, ids=lambda cls: cls.__name__)
def test_an_error_survives_pickle(cls):
    error = built(cls)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(error, protocol))
        assert same(error, again) and same(again, pickle.loads(pickle.dumps(again)))
    assert str(error)


def test_an_error_survives_a_worker_process():
    with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool, pytest.raises(MissingExtra) as caught:
        pool.submit(raised, MissingExtra).result()
    assert str(caught.value) == str(built(MissingExtra)) and "polypref[the extra" in str(caught.value)


def test_one_that_does_not_is_seen():
    class Broken(PolyprefError):
        def __init__(self, what: str, extra: str) -> None:
            super().__init__(f"{what} {extra}")

    error = Broken("a", "b")
    with pytest.raises(TypeError):
        type(error)(*error.args)
