"""Network permission: only models and addresses named by the caller may be requested or downloaded.

Models and servers named by the caller, on the command line, in Python or in a settings file, may be used over the
network. Those named by an artifact may not, unless the caller allows it (``allow_network``); they are only looked up on
this machine. An API key goes only to an address given by the caller: an allowed server named by an artifact gets none.

Encoders and judges keep the permission in force when they are created. ``named_by`` sets it:

    with named_by("scorers/mine", allow_network=False):
        encoder("endpoint:http://...")          raises SettingsError: nothing is sent

Addresses in ``POLYPREF_API_URL``, separated by commas in the caller's environment, also count as given by the caller.

Covered: every model and address that polypref reads from a saved scorer, detector or grouping. Not covered: network
traffic of other packages on import.
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
    """``source`` is the artifact that names the model or address (None: the caller); ``network``: is it allowed?"""

    source: str | None = None
    network: bool = True

    def ensure(self, address: str) -> None:
        """Raise SettingsError, naming address and flag, if ``address`` may not be used."""
        if not self.network and not _is_callers(address):
            raise SettingsError(
                f"{self.source} names {address}, and artifacts may not use the network by default; nothing was "
                "sent. If you trust it: --allow-network, or --encoder NAME; in Python load(..., allow_network=True)."
            )

    def key(self, variable: str, address: str) -> str:
        """The environment variable whose key goes to ``address``; "" for none."""
        return variable if self.source is None or _is_callers(address) else ""


CALLER = Permission()

_PRESENT: ContextVar[Permission] = ContextVar("who names models and addresses", default=CALLER)


def present() -> Permission:
    """The permission in force for a model or address that is named now."""
    return _PRESENT.get()


@contextmanager
def named_by(source: object, *, allow_network: bool) -> Iterator[None]:
    """Within the block, models and addresses count as named by the artifact ``source``."""
    with acting_for(Permission(str(source), allow_network)):
        yield


@contextmanager
def acting_for(permission: Permission) -> Iterator[None]:
    """Within the block, ``permission`` is in force, for using objects created under it."""
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
