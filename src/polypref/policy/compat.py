"""Checks that the methods of other libraries that we extend still have the signatures that we tested."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature

from polypref.errors import PolyprefError

Signatures = Mapping[str, tuple[str, ...]]


def check_signatures(extended: type, signatures: Signatures, where: str, remedy: str) -> None:
    """Raise PolyprefError where a method of ``extended`` no longer takes the parameters that ``signatures`` names.

    ``where`` is the library's name of the class, with {name} for the method; ``remedy`` is the next step.
    """
    for name, expected in signatures.items():
        method = getattr(extended, name, None)
        found = tuple(signature(method).parameters) if method else None
        if found != expected:
            raise PolyprefError(f"{where.format(name=name)} takes {found}, expected {expected}: {remedy}")
