"""Who asks: a tenant, by API key, and a user, in any of the ways in which clients can name one.

The user is read from these, in this order: a key that is bound to a user, the path prefix ``/u/{user}``, the body's
``safety_identifier``, ``user`` or ``user_id``, the header ``X-User``, the model alias ``polypref@user``. If two of them
name different people, the request is refused: an answer for the wrong person is worse than none.

With keys, every request needs one and belongs to its tenant; without keys, everybody belongs to the tenant "".
"""

from __future__ import annotations

import base64
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from polypref import content, strict_toml
from polypref.errors import InputError, PolyprefError, SettingsError, reason
from polypref.regular_files import content_of
from polypref.serve.store.contract import Person
from polypref.serve.who.tokens import NotValid, Tokens

ALIAS = "polypref@"
ENVIRONMENT = "POLYPREF_KEYS"
LONGEST = 1024  # bytes of an id


class Unauthorized(PolyprefError):
    """No key, or one that is not known."""


class TwoPeople(PolyprefError):
    """A request that names two different users."""


class NotYours(PolyprefError):
    """A person with a key of their own asks for what only the application may choose."""


@dataclass(frozen=True)
class Key:
    """What an API key stands for: a tenant, and a single user of it if the key is theirs."""

    tenant: str
    user: str | None = None


@dataclass(frozen=True)
class Keys:
    """API keys by their SHA-256, and issuers of tokens; neither: everybody may ask."""

    by_digest: Mapping[str, Key]
    tokens: Tokens | None = None
    _blind: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False, compare=False)
    _blinded: dict[bytes, Key] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._blinded.update((self._hidden(digest), key) for digest, key in self.by_digest.items())

    @classmethod
    def found(cls, path: Path | None) -> Keys | None:
        """The keys of a file and of the environment; None where there are none. Raises SettingsError."""
        read = None if path is None else cls.read(path)
        more = _of_environment(os.environ.get(ENVIRONMENT, ""))
        if not more:
            return read
        own: Mapping[str, Key] = {} if read is None else read.by_digest
        if set(own) & set(more):
            raise SettingsError(f"a key of {ENVIRONMENT} stands in {path} too; expected it in one of them.")
        return cls({**own, **more}, None if read is None else read.tokens)

    @classmethod
    def read(cls, path: Path | str) -> Keys:
        """Keys of a TOML file: ``[[key]]`` tables with ``key`` or ``sha256`` (hex), ``tenant`` and perhaps ``user``;
        ``[[jwt]]`` tables, see ``tokens``.

        Raises SettingsError for a file that says anything else.
        """
        found: dict[str, Key] = {}
        try:
            tables = strict_toml.loads(content_of(path, strict_toml.MOST).decode("utf-8"))
        except (OSError, ValueError, PolyprefError) as error:
            raise SettingsError(f"{path} cannot be read as keys: {reason(error)}.") from error
        if not tables or set(tables) - {"key", "jwt"} or not isinstance(tables.get("key", []), list):
            raise SettingsError(
                f"{path} has no keys; expected [[key]] tables with key, tenant and perhaps user, or [[jwt]] tables."
            )
        for number, table in enumerate(tables.get("key", []), 1):
            where = f"{path}: key number {number}"
            if not isinstance(table, dict):
                raise SettingsError(f"{where} is no table; write [[key]] above its key and tenant.")
            if odd := [name for name, value in table.items() if not (isinstance(value, str) and value)]:
                raise SettingsError(f"{where}: {odd[0]} is empty or no text; give it in quotation marks.")
            if unknown := set(table) - {"key", "sha256", "tenant", "user"}:
                raise SettingsError(f"{where} has {sorted(unknown)[0]!r}; expected key or sha256, tenant, user.")
            if ("key" in table) == ("sha256" in table) or "tenant" not in table:
                raise SettingsError(f"{where}; expected one of key and sha256, and a tenant.")
            if "/" in table["tenant"]:
                raise SettingsError(f"{where} has the tenant {table['tenant']!r}; expected a name without a slash.")
            digest = table.get("sha256", "").lower() or sha256(table["key"].encode()).hexdigest()
            if digest in found:
                raise SettingsError(f"{where} is a key that stands in the file twice.")
            user = content.one_id(table["user"]) if "user" in table else None
            found[digest] = Key(content.one_id(table["tenant"]), user)
        return cls(found, Tokens.read(tables["jwt"], Path(path)) if "jwt" in tables else None)

    def key_of(self, authorization: str | None) -> Key:
        """What the request's key or token stands for. Raises Unauthorized.

        Keys are found by a hash that nobody outside of this process can know, so the time says nothing about them.
        """
        if not self.by_digest and self.tokens is None:
            return Key("")
        given = _given(authorization or "")
        key = self._blinded.get(self._hidden(sha256(given.encode()).hexdigest()))
        if key is not None:
            return key
        if self.tokens is not None and given.count(".") == 2:
            try:
                return Key(*self.tokens.claims(given))
            except NotValid as error:
                raise Unauthorized(f"the token is not valid: {error}.") from None
        known = "the API key is not known here" if given else "this server needs an API key"
        raise Unauthorized(f"{known}: Authorization: Bearer KEY.")

    def _hidden(self, digest: str) -> bytes:
        return hmac.digest(self._blind, digest.encode(), "sha256")


def _of_environment(words: str) -> dict[str, Key]:
    """``TENANT:KEY`` and ``TENANT/USER:KEY`` words. Raises SettingsError, which never quotes a key."""
    found: dict[str, Key] = {}
    for number, word in enumerate(words.split(), 1):
        whose, _, key = word.partition(":")
        tenant, slash, user = whose.partition("/")
        if not (tenant and key) or (slash and not user):
            raise SettingsError(f"{ENVIRONMENT}: word {number} is not TENANT:KEY or TENANT/USER:KEY.")
        digest = sha256(key.encode()).hexdigest()
        if digest in found:
            raise SettingsError(f"{ENVIRONMENT}: word {number} has a key that stands there twice.")
        found[digest] = Key(content.one_id(tenant), content.one_id(user) if user else None)
    return found


def _given(authorization: str) -> str:
    """The key in an ``Authorization`` header: a Bearer token, or the password where a client only knows Basic."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except ValueError:  # not base64, or not text: no key
            return ""
    return ""


def asking(key: Key, path: str | None, body: Iterable[str | None], header: Iterable[str], model: str | None) -> Person:
    """The person whom a request names; nobody where it names none.

    Raises TwoPeople, InputError for impossible ids.
    """
    alias = model[len(ALIAS) :] if model and model.startswith(ALIAS) else None
    named = [one for one in (key.user, path, *body, *header, alias) if one is not None]
    ids = list(dict.fromkeys(_id(one) for one in named))
    if len(ids) > 1:
        raise TwoPeople(f"the request names {len(ids)} different users; name one.")
    return Person(key.tenant, ids[0] if ids else None)


def _id(given: str) -> str:
    if len(given.encode("utf-8", "surrogatepass")) > LONGEST:
        raise InputError(f"the user id has more than {LONGEST} bytes; give a shorter one.")
    return content.one_id(given)


def scorer_id(person: Person) -> str | None:
    """The id under which a scorer knows this person: the user's own, or ``tenant/user`` where there are tenants."""
    if person.user is None:
        return None
    return f"{person.tenant}/{person.user}" if person.tenant else person.user


def shown(person: Person) -> str:
    """A person in logs and metrics: a hash that does not reveal who it is."""
    return content.hexdigest(person.tenant, person.user)[:16]
