"""A store by its address: a file, or ``postgresql://...``; encrypted, if it was made so."""

from __future__ import annotations

import os
from pathlib import Path

from polypref.errors import MissingExtra, SettingsError, reason
from polypref.regular_files import content_of
from polypref.serve.store.contract import Store
from polypref.serve.store.sqlite import Sqlite

POSTGRES = ("postgresql://", "postgres://")
MASTER = "POLYPREF_MASTER_KEY"
MASTER_FILE = "POLYPREF_MASTER_KEY_FILE"
KEY_STORE = "POLYPREF_KEY_STORE"
MOST_KEY = 4096  # bytes
HOW = "draw one with: openssl rand -base64 48"


def is_database(address: str | Path) -> bool:
    """Whether the store is a database on a server, not a file."""
    return isinstance(address, str) and address.startswith(POSTGRES)


def opened(address: str | Path, encrypt: bool = False) -> Store:
    """The store at ``address``, made if it is not there. ``encrypt``: a new one is encrypted; one that is encrypted is
    opened with its key in any case.

    Raises StoreError, MissingExtra, SettingsError where an encrypted store's master key or store of keys is missing.
    """
    store = _plain(address)
    try:
        if not encrypt and not store.made("/sealed", "sealed"):
            return store
        from polypref.serve.store.sealed import Sealed

        master, where = _master(), os.environ.get(KEY_STORE)
        if where is None and is_database(address):
            raise SettingsError(f"{KEY_STORE} is missing: the address of another database, for the keys of people.")
        where = f"{address}.keys" if where is None else where
        if not is_database(where) and not Path(where).exists() and store.people(""):
            raise SettingsError(
                f"the store of keys {where} is not there, and nobody's judgements can be read without it; "
                f"bring it back, or say in {KEY_STORE} where it is."
            )
        keys = _plain(where)
        try:
            return Sealed(store, keys, master)
        except BaseException:
            keys.close()
            raise
    except BaseException:
        store.close()
        raise


def _plain(address: str | Path) -> Store:
    if not is_database(address):
        if isinstance(address, str) and "://" in address:
            scheme = address.partition("://")[0]
            expected = f"expected a file, or {POSTGRES[0]}USER@HOST/DATABASE"
            raise SettingsError(f"a store at {scheme}:// is not known; {expected}.")
        return Sqlite(address)
    try:
        from polypref.serve.store.postgres import Postgres
    except ImportError:
        raise MissingExtra("a store in PostgreSQL", "postgres") from None
    return Postgres(str(address))


def _master() -> bytes:
    """The master key. Raises SettingsError, which never quotes it."""
    from polypref.serve.store.sealed import LEAST_MASTER

    given, path = os.environ.get(MASTER), os.environ.get(MASTER_FILE)
    if (given is None) == (path is None):
        raise SettingsError(f"an encrypted store needs its master key in one of {MASTER} and {MASTER_FILE}; {HOW}.")
    try:
        key = given.encode() if given is not None else content_of(path or "", MOST_KEY)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{MASTER_FILE} {path} cannot be read: {reason(error)}.") from error
    if len(key.strip()) < LEAST_MASTER:
        raise SettingsError(f"the master key has fewer than {LEAST_MASTER} characters; {HOW}.")
    return key.strip()


def shown(address: str | Path) -> str:
    """The address without a password."""
    if not isinstance(address, str) or not address.startswith(POSTGRES):
        return str(address)
    from polypref.serve.store.postgres import Database

    return Database(address).name
