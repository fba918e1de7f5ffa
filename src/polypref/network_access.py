"""Who named a model or an address, and what that may start: network traffic needs the word of the caller.

What the caller names, on the command line, in Python or in a file of settings, may be asked and downloaded. What an
artifact names may not, unless the caller says so (``allow_network``), and is looked for on this machine alone. An API
key goes only to an address that the caller gave: named by an artifact, an allowed server is asked without it.

Encoders and judges take what is in force where they are made, and keep it. ``named_by`` sets it:

    with named_by("scorers/mine", allow_network=False):
        encoder("endpoint:http://...")          raises SettingsError: nothing is sent

``POLYPREF_API_URL`` in the caller's environment, one or more addresses parted by commas, is the caller's word too.

Covered: every model and address that polypref reads from a saved scorer, detector or grouping. Not covered: what other
packages do by themselves when they are imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from urllib.parse import urlsplit

from polypref.errors import SettingsError

VARIABLE = "POLYPREF_API_URL"


@dataclass(frozen=True)
class Permission:
    """``source`` is the artifact that names what is asked, None: the caller; ``network``: may the network be used."""

    source: str | None = None
    network: bool = True

    def ensure(self, address: str) -> None:
        """Raise SettingsError, naming address and flag, where ``address`` may not be asked."""
        if not self.network and not _is_callers(address):
            raise SettingsError(
                f"{self.source} names {address}, and what an artifact names is not asked over the network; nothing was "
                "sent. If you trust it: --allow-network, or --encoder NAME; in Python load(..., allow_network=True)."
            )

    def key(self, variable: str, address: str) -> str:
        """The environment variable whose key goes to ``address``; "" where none does."""
        return variable if self.source is None or _is_callers(address) else ""


CALLER = Permission()

_PRESENT: ContextVar[Permission] = ContextVar("who names models and addresses", default=CALLER)


def present() -> Permission:
    """What is in force for a model or address that is named now."""
    return _PRESENT.get()


@contextmanager
def named_by(source: object, *, allow_network: bool) -> Iterator[None]:
    """Within, models and addresses are named by the artifact ``source``."""
    with acting_for(Permission(str(source), allow_network)):
        yield


@contextmanager
def acting_for(permission: Permission) -> Iterator[None]:
    """Within, ``permission`` is in force: what was made under it is being used."""
    token = _PRESENT.set(permission)
    try:
        yield
    finally:
        _PRESENT.reset(token)


def _is_callers(address: str) -> bool:
    """Whether the caller's environment names the server at ``address``."""
    given = (one.strip() for one in os.environ.get(VARIABLE, "").split(","))
    return _origin(address)[1] is not None and _origin(address) in {_origin(one) for one in given}


def _origin(address: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(address)
        return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None
