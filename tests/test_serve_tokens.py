"""Who asks, by keys of a file and of the environment and by signed tokens; what proves nothing is refused."""

from __future__ import annotations

import base64
import hmac
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from fastapi.testclient import TestClient

from polypref.errors import SettingsError
from polypref.serve.app import app_of
from polypref.serve.who.person import Key, Keys, Unauthorized
from serve_cases import PROMPT, TEXTS, core

SECRET = "a secret of at least thirty-two bytes, drawn at random"
RSA, OTHER_RSA, EC = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 2048), None
EC = ec.generate_private_key(ec.SECP256R1())
ISSUERS = """
[[jwt]]
issuer = "https://hs"
audience = "polypref"
algorithm = "HS256"
secret_env = "TEST_SECRET"
tenant = "acme"

[[jwt]]
issuer = "https://rs"
audience = "polypref"
algorithm = "RS256"
key_file = "rsa.pem"
tenant_claim = "org"
user_claim = "person"

[[jwt]]
issuer = "https://es"
audience = "polypref"
algorithm = "ES256"
jwks_file = "keys.json"
tenant = "acme"
"""


def pem(key):
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwks(key, kid="k1"):
    return {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key())), "kid": kid, "use": "sig"}


@pytest.fixture
def keys(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_SECRET", SECRET)
    (tmp_path / "rsa.pem").write_bytes(pem(RSA))
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [jwks(EC)]}))
    (tmp_path / "keys.toml").write_text(ISSUERS)
    return Keys.read(tmp_path / "keys.toml")


def said(issuer="https://hs", **more):
    now = int(time.time())
    told = {"iss": issuer, "aud": "polypref", "sub": "ann", "nbf": now - 60, "exp": now + 60, **more}
    return {name: value for name, value in told.items() if value is not None}


def bearer(token):
    return f"Bearer {token}"


def refused(keys, token, why):
    with pytest.raises(Unauthorized, match=why) as told:
        keys.key_of(bearer(token))
    assert token[:20] not in str(told.value)


def test_each_algorithm_proves_a_tenant_and_a_user(keys):
    assert keys.key_of(bearer(jwt.encode(said(), SECRET, "HS256"))) == Key("acme", "ann")
    token = jwt.encode(said("https://rs", org="other", person="ben", sub=None), RSA, "RS256")
    assert keys.key_of(bearer(token)) == Key("other", "ben")
    assert keys.key_of(bearer(jwt.encode(said("https://es"), EC, "ES256", {"kid": "k1"}))) == Key("acme", "ann")
    assert SECRET not in repr(keys)


def unsigned(claims, header):
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=") for one in (header, claims)]
    return b".".join(parts)


def test_no_signature_and_another_algorithm_are_refused(keys):
    for alg in ("none", "None", "NONE", ""):
        for issuer in ("https://hs", "https://rs", "https://es"):
            refused(keys, unsigned(said(issuer), {"alg": alg, "typ": "JWT"}).decode() + ".", "algorithm is not")
    # the public key, which anybody may have, as if it were a secret
    for issuer, public in (("https://rs", pem(RSA)), ("https://es", pem(EC))):
        head = unsigned(said(issuer, org="o", person="p"), {"alg": "HS256", "typ": "JWT", "kid": "k1"})
        sign = base64.urlsafe_b64encode(hmac.digest(public, head, "sha256")).rstrip(b"=")
        refused(keys, (head + b"." + sign).decode(), "algorithm is not")
    # another issuer's key
    refused(keys, jwt.encode(said("https://rs"), SECRET, "HS256"), "algorithm is not")
    refused(keys, jwt.encode(said("https://hs"), RSA, "RS256"), "algorithm is not")
    # a key that the token brings along
    own = {"jwk": json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(OTHER_RSA.public_key()))}
    refused(keys, jwt.encode(said("https://rs", org="o", person="p"), OTHER_RSA, "RS256", own), "signature")
    refused(keys, jwt.encode(said("https://es"), EC, "ES256", {"kid": "k2"}), "key id")


WRONG = [
    ({"exp": None}, "no claim exp"),
    ({"nbf": None}, "no claim nbf"),
    ({"aud": None}, "no claim aud"),
    ({"sub": None}, "no claim sub"),
    ({"iss": None}, "issuer is not known"),
    ({"iss": "https://evil"}, "issuer is not known"),
    ({"aud": "another"}, "another audience"),
    ({"exp": 1}, "expired"),
    ({"exp": "soon"}, "cannot be read"),
    ({"nbf": int(time.time()) + 3600}, "not valid yet"),
    ({"sub": ""}, "not a text|no claim"),
    ({"sub": "a\0b"}, "no id"),
]


@pytest.mark.parametrize(("claims", "why"), WRONG)
def test_a_token_that_lacks_something_is_refused(keys, claims, why):
    refused(keys, jwt.encode(said(**claims), SECRET, "HS256"), why)


def test_claims_are_texts_and_tenants_have_no_slash(keys):
    for org, person, why in (("a/b", "ben", "slash"), ("", "ben", "org"), ("o", "", "person")):
        refused(keys, jwt.encode(said("https://rs", org=org, person=person), RSA, "RS256"), why)
    for org, person in ((7, "ben"), ("o", ["ben"]), ("o", None), (None, "ben")):
        refused(keys, jwt.encode(said("https://rs", org=org, person=person), RSA, "RS256"), "not valid")


def test_a_changed_token_is_refused_and_clocks_may_differ_a_little(keys):
    token = jwt.encode(said(), SECRET, "HS256")
    head, body, sign = token.split(".")
    other = unsigned(said(sub="ben"), {"alg": "HS256", "typ": "JWT"}).decode()
    for changed in (
        f"{other}.{sign}",
        f"{head}.{body}.{sign[::-1]}",
        f"{head}.{body}.",
        "a.b.c",
        "..",
        f"{head}..{sign}",
    ):
        with pytest.raises(Unauthorized):
            keys.key_of(bearer(changed))
    now = int(time.time())
    assert keys.key_of(bearer(jwt.encode(said(exp=now - 3), SECRET, "HS256"))).user == "ann"
    assert keys.key_of(bearer(jwt.encode(said(nbf=now + 5), SECRET, "HS256"))).user == "ann"
    refused(keys, jwt.encode(said(exp=now - 12), SECRET, "HS256"), "expired")


def test_a_verified_claim_beats_other_ways_and_a_conflict_is_refused(keys, tmp_path):
    served = core(tmp_path / "s.db")
    with TestClient(app_of(served, keys)) as client:
        ask = {"query": PROMPT, "documents": TEXTS}
        own = {"authorization": bearer(jwt.encode(said(), SECRET, "HS256"))}
        tell = {"prompt": PROMPT, "chosen": TEXTS[0], "rejected": TEXTS[1]}
        assert client.post("/v1/feedback", json=tell, headers=own).status_code == 200
        assert client.post("/rerank", json=ask, headers=own).json()["personalization"]["judgements"] == 1
        assert client.get("/v1/users/me", headers=own).json()["judgements"] == 1
        for found in (
            client.post("/rerank", json={**ask, "user": "ben"}, headers=own),
            client.post("/u/ben/rerank", json=ask, headers=own),
            client.post("/rerank", json=ask, headers={**own, "x-user": "ben"}),
            client.post("/rerank", json={**ask, "model": "polypref@ben"}, headers=own),
            client.get("/v1/users/ben", headers=own),
            client.delete("/v1/users/ben", headers=own),
        ):
            assert found.status_code == 403, found.text
        bad = client.post("/rerank", json=ask, headers={"authorization": bearer("a.b.c")})
        assert bad.status_code == 401 and bad.headers["www-authenticate"] == "Bearer"
    served.store.close()


# --- wrong files

ONE = {"issuer": "i", "audience": "a", "algorithm": "HS256", "secret_file": "secret", "tenant": "t"}
FILES = [
    ({"issuer": None}, "no issuer"),
    ({"issuer": ""}, "not a text"),
    ({"algorithm": "none"}, "expected HS256, RS256 or ES256"),
    ({"algorithm": "HS512"}, "expected HS256"),
    ({"secret_file": None}, "needs one of secret_env"),
    ({"secret_file": "absent"}, "cannot be read"),
    ({"secret_file": "short"}, "no secret of at least 32"),
    ({"secret_file": "rsa.pem"}, "no secret"),
    ({"secret_file": None, "secret_env": "NOT_THERE"}, "NOT_THERE is no secret"),
    ({"secret_file": None, "key_file": "rsa.pem"}, "needs one of secret_env"),
    ({"algorithm": "RS256"}, "needs one of key_file"),
    ({"algorithm": "RS256", "secret_file": None, "key_file": "secret"}, "not a public key in PEM"),
    ({"algorithm": "RS256", "secret_file": None, "key_file": "private.pem"}, "not a public key in PEM"),
    ({"algorithm": "RS256", "secret_file": None, "key_file": "ec.pem"}, "needs RSA"),
    ({"algorithm": "RS256", "secret_file": None, "key_file": "small.pem"}, "2048 bits"),
    ({"algorithm": "ES256", "secret_file": None, "key_file": "rsa.pem"}, "P-256"),
    ({"algorithm": "ES256", "secret_file": None, "jwks_file": "rsa.pem"}, "not a JSON Web Key Set"),
    ({"tenant": None}, "one of tenant"),
    ({"tenant_claim": "org"}, "one of tenant"),
    ({"tenant": "a/b"}, "slash"),
    ({"skew_seconds": 3600}, "from 0 to 60"),
    ({"leeway": 5}, "'leeway'"),
]


@pytest.mark.parametrize(("change", "says"), FILES)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, change, says):
    (tmp_path / "secret").write_text(SECRET)
    (tmp_path / "short").write_text("short")
    (tmp_path / "rsa.pem").write_bytes(pem(RSA))
    (tmp_path / "ec.pem").write_bytes(pem(EC))
    (tmp_path / "small.pem").write_bytes(pem(rsa.generate_private_key(65537, 1024)))
    private = RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "private.pem").write_bytes(private)
    table = {name: value for name, value in {**ONE, **change}.items() if value is not None}
    lines = [f"{name} = {json.dumps(value)}" for name, value in table.items()]
    (tmp_path / "keys.toml").write_text("[[jwt]]\n" + "\n".join(lines))
    with pytest.raises(SettingsError, match=says) as told:
        Keys.read(tmp_path / "keys.toml")
    assert "\n" not in str(told.value) and SECRET not in str(told.value)
    (tmp_path / "keys.toml").write_text("[[jwt]]\n" + "\n".join(f"{a} = {json.dumps(b)}" for a, b in ONE.items()))
    assert Keys.read(tmp_path / "keys.toml").tokens is not None  # the control


# --- the environment


def test_keys_of_the_environment(tmp_path, monkeypatch):
    assert Keys.found(None) is None
    monkeypatch.setenv("POLYPREF_KEYS", "acme:first:key acme/ann:second\n other:third")
    keys = Keys.found(None)
    assert keys is not None
    assert keys.key_of("Bearer first:key") == Key("acme") and keys.key_of("bearer second") == Key("acme", "ann")
    for wrong in (None, "", "Bearer", "Bearer first", "Bearer first:key2", "first:key", "Basic !", "Bearer \xff"):
        with pytest.raises(Unauthorized):
            keys.key_of(wrong)
    (tmp_path / "keys.toml").write_text('[[key]]\nkey = "fourth"\ntenant = "acme"')
    both = Keys.found(tmp_path / "keys.toml")
    assert both is not None and both.key_of("Bearer fourth") == Key("acme") == both.key_of("Bearer first:key")
    (tmp_path / "keys.toml").write_text('[[key]]\nkey = "third"\ntenant = "acme"')
    with pytest.raises(SettingsError, match="expected it in one of them"):
        Keys.found(tmp_path / "keys.toml")
    for words, why in (("acme", "word 1"), ("a:b :c", "word 2"), ("a/:key", "word 1"), ("a:x b:x", "twice")):
        monkeypatch.setenv("POLYPREF_KEYS", words)
        with pytest.raises(SettingsError, match=why) as told:
            Keys.found(None)
        assert "key" not in str(told.value).replace("TENANT:KEY", "").replace("KEYS", "") or "twice" in str(told.value)
