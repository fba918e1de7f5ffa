"""All exceptions of polypref, and how to add one.

An error names the thing, the value, what was expected and the next step, in one line:

    line 41 of prefs.jsonl: "user_id" is missing; found: prompt, chosen, rejected. Use --columns to map yours.

To add one: subclass ``PolyprefError`` here if callers must distinguish it; otherwise raise the nearest class below with
a message of that form. Keep the arguments of ``__init__`` in ``args``: errors travel between processes by pickle.
``raise`` is for what a user can cause; ``assert`` for what only we can cause. The command line prints the message of a
``PolyprefError`` on one line, with invisible characters escaped, and exits with its ``exit_code``; any other exception
is a bug and keeps its traceback. A message may contain any text from outside: it is escaped when printed, not before.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from difflib import get_close_matches


class PolyprefError(Exception):
    """Base of everything a user can cause."""

    exit_code = 2


class InputError(PolyprefError):
    """A file or a row cannot be used."""


class SettingsError(PolyprefError):
    """A flag, a settings file or an argument has a value that cannot work."""


class NotEnoughData(PolyprefError):
    """The data are readable but too few for the request."""


class MissingExtra(PolyprefError):
    """An optional part of polypref is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(what, extra)  # both are in args, which pickle passes to __init__
        self.what, self.extra = what, extra

    def __str__(self) -> str:
        return f"{self.what} needs an optional part: pip install 'polypref[{self.extra}]'"


class EncoderError(PolyprefError):
    """A model, its weights or an embeddings endpoint cannot be used."""


class CacheError(PolyprefError):
    """The cache or an output folder cannot be read or written."""


class ArtifactError(PolyprefError):
    """A saved scorer cannot be loaded."""


class Diverged(PolyprefError):
    """A fit's loss is not finite."""


def reason(error: Exception) -> str:
    """Why a file could not be used, for a message: the system's words, without its number and the path again."""
    return getattr(error, "strerror", None) or str(error)


class NotConverged(UserWarning):
    """A solver stopped at its limit of iterations; its result is used, but is approximate."""


def not_converged(solver: str, reached: str) -> None:
    """Warn once per place that ``solver`` stopped early; ``reached`` gives the reached and the required accuracy."""
    warnings.warn(f"{solver} stopped early: {reached}; its result is approximate.", NotConverged, stacklevel=3)


def unknown_name(kind: str, name: str, known: Iterable[str]) -> SettingsError:
    """The error for a misspelt name: shows the nearest known ones first, then all."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return SettingsError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names)}.")
