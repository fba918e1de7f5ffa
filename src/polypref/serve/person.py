"""Who asks: a tenant, by API key, and a user, in any of the ways in which clients can name one.

The user is read from these, in this order: a key that is bound to a user, the path prefix ``/u/{user}``, the body's
``safety_identifier`` or ``user``, the header ``X-User``, the model alias ``polypref@user``. If two of them name
different people, the request is refused: an answer for the wrong person is worse than none.

With keys, every request needs one and belongs to its tenant; without keys, everybody belongs to the tenant "".
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from polypref import content, strict_toml
from polypref.errors import InputError, PolyprefError, SettingsError, reason
from polypref.regular_files import content_of
from polypref.serve.store import Person

ALIAS = "polypref@"
LONGEST = 1024  # bytes of an id


class Unauthorized(PolyprefError):
    """No key, or one that is not known."""


class TwoPeople(PolyprefError):
    """A request that names two different users."""


@dataclass(frozen=True)
class Key:
    """What an API key stands for: a tenant, and a single user of it if the key is theirs."""

    tenant: str
    user: str | None = None


@dataclass(frozen=True)
class Keys:
    """API keys by their SHA-256; none: everybody may ask."""

    by_digest: Mapping[str, Key]

    @classmethod
    def read(cls, path: Path | str) -> Keys:
        """Keys of a TOML file: ``[[key]]`` tables with ``key`` or ``sha256`` (hex), ``tenant`` and perhaps ``user``.

        Raises SettingsError for a file that says anything else.
        """
        found: dict[str, Key] = {}
        try:
            tables = strict_toml.loads(content_of(path, strict_toml.MOST).decode("utf-8"))
        except (OSError, ValueError, PolyprefError) as error:
            raise SettingsError(f"{path} cannot be read as keys: {reason(error)}.") from error
        if set(tables) != {"key"} or not isinstance(tables["key"], list) or not tables["key"]:
            raise SettingsError(f"{path} has no keys; expected [[key]] tables with key, tenant and perhaps user.")
        for number, table in enumerate(tables["key"], 1):
            where = f"{path}: key number {number}"
            if not isinstance(table, dict) or not all(isinstance(value, str) and value for value in table.values()):
                raise SettingsError(f"{where} is no table of texts.")
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
        return cls(found)

    def key_of(self, authorization: str | None) -> Key:
        """What the request's key stands for. Raises Unauthorized."""
        if not self.by_digest:
            return Key("")
        asked = sha256(_given(authorization or "").encode()).hexdigest()
        for digest, key in self.by_digest.items():
            if hmac.compare_digest(digest, asked):
                return key
        raise Unauthorized("this server needs an API key: Authorization: Bearer KEY.")


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


def asking(key: Key, path: str | None, body: Iterable[str | None], header: str | None, model: str | None) -> Person:
    """The person whom a request names; nobody where it names none.

    Raises TwoPeople, InputError for impossible ids.
    """
    alias = model[len(ALIAS) :] if model and model.startswith(ALIAS) else None
    named = [one for one in (key.user, path, *body, header, alias) if one is not None]
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
