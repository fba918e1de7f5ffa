"""Methods of another library that ours extend: whether they still take what they took when this was written."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature

from polypref.errors import PolyprefError

Seams = Mapping[str, tuple[str, ...]]


def check_seams(extended: type, seams: Seams, where: str, remedy: str) -> None:
    """Raise PolyprefError where a method of ``extended`` no longer takes the parameters that ``seams`` names.

    ``where`` is what the library calls the class, with {name} for the method; ``remedy`` says what to do.
    """
    for name, expected in seams.items():
        method = getattr(extended, name, None)
        found = tuple(signature(method).parameters) if method else None
        if found != expected:
            raise PolyprefError(f"{where.format(name=name)} takes {found}, expected {expected}: {remedy}")
