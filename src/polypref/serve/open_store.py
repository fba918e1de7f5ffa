"""A store by its address: a file, or ``postgresql://...``."""

from __future__ import annotations

from pathlib import Path

from polypref.errors import MissingExtra
from polypref.serve.sqlite import Sqlite
from polypref.serve.store import Store

POSTGRES = ("postgresql://", "postgres://")


def is_database(address: str | Path) -> bool:
    """Whether the store is a database on a server, not a file."""
    return isinstance(address, str) and address.startswith(POSTGRES)


def opened(address: str | Path) -> Store:
    """The store at ``address``, made if it is not there. Raises StoreError, MissingExtra."""
    if not is_database(address):
        return Sqlite(address)
    try:
        from polypref.serve.postgres import Postgres
    except ImportError:
        raise MissingExtra("a store in PostgreSQL", "postgres") from None
    return Postgres(str(address))


def shown(address: str | Path) -> str:
    """The address without a password."""
    if not isinstance(address, str) or not address.startswith(POSTGRES):
        return str(address)
    from polypref.serve.postgres import Database

    return Database(address).name
