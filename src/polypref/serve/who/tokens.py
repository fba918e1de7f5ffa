"""JSON Web Tokens: who asks, as an identity provider signed it.

One algorithm and one issuer belong to one key, all of them named in the file of keys: what a token says about its own
algorithm is compared, never followed. So a token without a signature, and one that is signed with a public key as if it
were a secret, are refused. A token has to say when it begins and ends (``nbf``, ``exp``), for whom it is (``aud``), and
who the user is.

Not covered: tokens that were withdrawn before their end. Let them be short.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from polypref import content
from polypref.errors import InputError, SettingsError, reason
from polypref.regular_files import content_of

Algorithm = Literal["HS256", "RS256", "ES256"]
SECRETS, PUBLIC = ("secret_env", "secret_file"), ("key_file", "jwks_file")
NAMES = {"issuer", "audience", "algorithm", "tenant", "tenant_claim", "user_claim", "skew_seconds", *SECRETS, *PUBLIC}
LEAST_SECRET = 32  # bytes: those of the hash
LEAST_RSA = 2048  # bits
SKEW_S, MOST_SKEW_S = 10, 60  # between the clocks of the issuer and of this server
MOST_FILE = 1 << 20  # bytes


class NotValid(Exception):
    """A token that proves nothing. Its text says why, without quoting the token."""


@dataclass(frozen=True)
class Issuer:
    """Whose tokens are believed, and how they are read. ``keys``: by key id; "" where there is only one."""

    issuer: str
    audience: str
    algorithm: Algorithm
    keys: Mapping[str, Any] = field(repr=False)
    tenant: str | None
    tenant_claim: str | None
    user_claim: str
    skew: int

    def claims(self, token: str, header: Mapping[str, Any]) -> tuple[str, str]:
        """The tenant and the user that a token proves. Raises NotValid."""
        if header.get("alg") != self.algorithm:
            raise NotValid(f"its algorithm is not {self.algorithm}")
        key = self.keys.get("") or self.keys.get(str(header.get("kid")))
        if key is None:
            raise NotValid("its key id (kid) is not known")
        try:
            said = jwt.decode(
                token,
                key,
                algorithms=[self.algorithm],
                audience=self.audience,
                issuer=self.issuer,
                leeway=self.skew,
                options={"require": ["exp", "nbf", "iss", "aud", self.user_claim]},
            )
        except jwt.PyJWTError as error:
            raise NotValid(_why(error)) from error
        tenant = self.tenant if self.tenant_claim is None else said.get(self.tenant_claim)
        user = said.get(self.user_claim)
        for name, value in ((self.tenant_claim, tenant), (self.user_claim, user)):
            if not isinstance(value, str) or not value:
                raise NotValid(f"its claim {name} is not a text")
        assert isinstance(tenant, str) and isinstance(user, str)
        if "/" in tenant:
            raise NotValid(f"its claim {self.tenant_claim} has a slash")
        try:
            return content.one_id(tenant), content.one_id(user)
        except InputError as error:
            raise NotValid("its tenant or user is no id") from error


def _why(error: jwt.PyJWTError) -> str:
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"it has no claim {error.claim}"
    reasons: Sequence[tuple[type[jwt.PyJWTError], str]] = (
        (jwt.ExpiredSignatureError, "it has expired"),
        (jwt.ImmatureSignatureError, "it is not valid yet"),
        (jwt.InvalidAudienceError, "it is for another audience"),
        (jwt.InvalidSignatureError, "its signature is wrong"),
    )
    return next((said for cls, said in reasons if isinstance(error, cls)), "it cannot be read")


@dataclass(frozen=True)
class Tokens:
    """Issuers by name."""

    issuers: Mapping[str, Issuer]

    def claims(self, token: str) -> tuple[str, str]:
        """The tenant and the user that a token proves. Raises NotValid."""
        try:
            header = jwt.get_unverified_header(token)
            said = jwt.decode(token, options={"verify_signature": False, "verify_exp": False, "verify_nbf": False})
        except jwt.PyJWTError as error:
            raise NotValid("it cannot be read") from error
        issuer = self.issuers.get(str(said.get("iss")))
        if issuer is None:
            raise NotValid("its issuer is not known")
        return issuer.claims(token, header)

    @classmethod
    def read(cls, tables: Any, path: Path) -> Tokens:
        """The ``[[jwt]]`` tables of a file of keys. Raises SettingsError."""
        found: dict[str, Issuer] = {}
        if not isinstance(tables, list):
            raise SettingsError(f"{path}: jwt is not a list of tables; write [[jwt]].")
        for number, table in enumerate(tables, 1):
            one = _issuer(table, f"{path}: jwt number {number}", path.parent)
            if one.issuer in found:
                raise SettingsError(f"{path}: two [[jwt]] tables have the issuer {one.issuer!r}; expected one of each.")
            found[one.issuer] = one
        return cls(found)


def _issuer(table: Any, where: str, folder: Path) -> Issuer:
    if not isinstance(table, dict):
        raise SettingsError(f"{where} is no table.")
    if unknown := sorted(set(table) - NAMES):
        raise SettingsError(f"{where} has {unknown[0]!r}; expected {', '.join(sorted(NAMES))}.")
    texts = {name: value for name, value in table.items() if name != "skew_seconds"}
    if wrong := [name for name, value in texts.items() if not isinstance(value, str) or not value]:
        raise SettingsError(f"{where}: {wrong[0]} is not a text.")
    if missing := [name for name in ("issuer", "audience", "algorithm") if name not in table]:
        raise SettingsError(f"{where} has no {missing[0]}.")
    if table["algorithm"] not in get_args(Algorithm):
        raise SettingsError(f"{where} has the algorithm {table['algorithm']!r}; expected HS256, RS256 or ES256.")
    if ("tenant" in table) == ("tenant_claim" in table) or "/" in table.get("tenant", ""):
        raise SettingsError(f"{where}; expected one of tenant (a name without a slash) and tenant_claim.")
    skew = table.get("skew_seconds", SKEW_S)
    if not isinstance(skew, int) or isinstance(skew, bool) or not 0 <= skew <= MOST_SKEW_S:
        raise SettingsError(f"{where}: skew_seconds is {skew!r}; expected a whole number from 0 to {MOST_SKEW_S}.")
    return Issuer(
        issuer=table["issuer"],
        audience=table["audience"],
        algorithm=table["algorithm"],
        keys=_keys(table, where, folder),
        tenant=table.get("tenant"),
        tenant_claim=table.get("tenant_claim"),
        user_claim=table.get("user_claim", "sub"),
        skew=skew,
    )


def _keys(table: Mapping[str, Any], where: str, folder: Path) -> dict[str, Any]:
    """The keys of an issuer. Raises SettingsError, which never quotes a key."""
    wanted = SECRETS if table["algorithm"] == "HS256" else PUBLIC
    given = [name for name in (*SECRETS, *PUBLIC) if name in table]
    if len(given) != 1 or given[0] not in wanted:
        raise SettingsError(f"{where}; {table['algorithm']} needs one of {' and '.join(wanted)}.")
    (name,) = given
    if name == "secret_env":
        raw = os.environ.get(table[name], "").encode()
    else:
        try:
            raw = content_of(folder / table[name], MOST_FILE)
        except (OSError, ValueError) as error:
            raise SettingsError(f"{where}: {name} cannot be read: {reason(error)}.") from error
    if name in SECRETS:
        return {"": _secret(raw.strip(), f"{where}: {name} {table[name]}")}
    return _public(raw, table["algorithm"], name, where)


def _secret(raw: bytes, where: str) -> bytes:
    if b"-----BEGIN" in raw or len(raw) < LEAST_SECRET:
        raise SettingsError(f"{where} is no secret of at least {LEAST_SECRET} bytes.")
    return raw


def _public(raw: bytes, algorithm: str, name: str, where: str) -> dict[str, Any]:
    try:
        if name == "key_file":
            found: dict[str, Any] = {"": load_pem_public_key(raw)}
        else:
            keys = jwt.PyJWKSet.from_json(raw.decode()).keys
            found = {str(one.key_id): one.key for one in keys if one.public_key_use in (None, "sig")}
            if len(found) < len([one for one in keys if one.public_key_use in (None, "sig")]):
                raise ValueError("two keys have one key id (kid)")
    except (ValueError, TypeError, KeyError, jwt.PyJWTError) as error:
        expected = "a public key in PEM" if name == "key_file" else "a JSON Web Key Set"
        raise SettingsError(f"{where}: {name} is not {expected} ({type(error).__name__}).") from None
    for key in found.values():
        if algorithm == "RS256" and not (isinstance(key, RSAPublicKey) and key.key_size >= LEAST_RSA):
            raise SettingsError(f"{where}: RS256 needs RSA public keys of at least {LEAST_RSA} bits.")
        if algorithm == "ES256" and not (isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)):
            raise SettingsError(f"{where}: ES256 needs public keys on the curve P-256.")
    if not found:
        raise SettingsError(f"{where}: {name} has no key for signatures.")
    return found
