"""Writes reference_operator/vectors.json: tokens that an operator must accept, and must refuse.

Our own signer makes those to accept, from fixed keys at a fixed time. Both algorithms are
deterministic, so `python -m tests.support.vectors` writes the same bytes again. The private keys
here are for tests only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from predictu_dispatch.core.operator_settings import SigningAlgorithm
from predictu_dispatch.core.signing import SigningKey, unsigned_token
from tests.support.code_blocks import ROOT

FILE = ROOT / "predictu_dispatch" / "reference_operator" / "vectors.json"
OPERATOR_ID = "op_abc123"
ISSUED_AT_S = 1_773_930_600
TTL_S = 30
TTL_MAX_S = 300
NOW_S = ISSUED_AT_S + 2
REQUEST_ID = "4f1c0b1e-6f0e-4a51-9a2b-0d2f5a3f7e10"

_RSA_P = int(
    "f8a041b3cea13a4ea5a4b4236a5ae31f334a804a387322c647e1704d5920919c"
    "019b9bc1607abaefb42e25d7971555105ac5fca2c0e7a3932c12f239ca1b16d4"
    "1c8ed39a20ba7f473cbeb7b9a73477e29af8ff0050ea45b2f6350ee73ad4c527"
    "624e31464d4ae97a6ee63a7c9f73ae634e5759a9d9266808b7fcb8da23ec665f",
    16,
)
_RSA_Q = int(
    "ecacbce677bc6960b0a8298c424b81b135bdd50a03134fea21c96e50d641faf8"
    "7abb20b654e8fb0ba595398febe09713777985bbdd85c6851eb12d8f11d2809b"
    "729de04457120b88e763b8cf78c166f8a2b2de3c03f63b6eb96b98bffb94879b"
    "dff3fb19f5c2743920d9980eb68906e3f4ae0e10ebd6d44d78238846302e8cfb",
    16,
)


def _pem(key: Ed25519PrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _ed25519(name: str) -> SigningKey:
    seed = hashlib.sha256(f"a test vector's key: {name}".encode()).digest()
    return SigningKey.from_pem(_pem(Ed25519PrivateKey.from_private_bytes(seed)), "EdDSA")


def _rsa() -> SigningKey:
    e, p, q = 65_537, _RSA_P, _RSA_Q
    d = pow(e, -1, (p - 1) * (q - 1))
    numbers = rsa.RSAPrivateNumbers(
        p=p,
        q=q,
        d=d,
        dmp1=d % (p - 1),
        dmq1=d % (q - 1),
        iqmp=pow(q, -1, p),
        public_numbers=rsa.RSAPublicNumbers(e=e, n=p * q),
    )
    return SigningKey.from_pem(_pem(numbers.private_key()), "RS256")


ACTIVE, STAGED, STRANGER, RSA = _ed25519("active"), _ed25519("staged"), _ed25519("stranger"), _rsa()
PUBLISHED = (ACTIVE, STAGED, RSA)
"""The keys that the operator knows, without the stranger's."""


def _body(method: str, params: str) -> bytes:
    return (
        f'{{"method":"{method}","timestamp":"2026-03-19T14:30:00.000Z","request_id":"{REQUEST_ID}",'
        f'"operator_id":"{OPERATOR_ID}","params":{params}}}'
    ).encode()


# Written again by a JSON library, 1.850 and the letters outside of ASCII would become other bytes.
BET_MAKE = _body(
    "BET_MAKE",
    '{"player_id":"p-1","currency":"EUR","amount":1250,"bet_id":"b-1",'
    '"bet":{"market_id":"m-7","outcome":"größer als 1½, да","odds":1.850,"shares":10,"price":0.54}}',
)
PING = _body("PING", "{}")
BET_WIN = _body("BET_WIN", '{"player_id":"p-1","currency":"EUR","amount":2312,"bet_id":"b-1"}')


def _token(key: SigningKey, body: bytes, method: str = "BET_MAKE", jti: str = REQUEST_ID, ttl_s: int = TTL_S) -> str:
    return key.signed(
        unsigned_token(
            key, operator_id=OPERATOR_ID, method=method, jti=jti, body=body, issued_at_s=ISSUED_AT_S, ttl_s=ttl_s
        )
    )


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _parts(token: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    head, claims, signature = token.split(".")
    return (*(json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, claims)), signature)


def _unsigned(head: dict[str, Any], claims: dict[str, Any]) -> str:
    return ".".join(
        _base64url(json.dumps({k: v for k, v in members.items() if v is not None}, separators=(",", ":")).encode())
        for members in (head, claims)
    )


def _forged(key: SigningKey, *, head: dict[str, Any] | None = None, claims: dict[str, Any] | None = None) -> str:
    """Returns a token signed by `key` with changed header members and claims; None removes one."""
    own_head, own_claims, _ = _parts(_token(key, BET_MAKE))
    message = _unsigned(own_head | (head or {}), own_claims | (claims or {}))
    return f"{message}.{_base64url(key.signature(message.encode()))}"


def _tampered(key: SigningKey, **claims: Any) -> str:
    """Returns a good token with changed claims and the old signature."""
    head, own_claims, signature = _parts(_token(key, BET_MAKE))
    return f"{_unsigned(head, own_claims | claims)}.{signature}"


def _hmac_of_the_public_key(key: SigningKey) -> str:
    """Returns an HS256 token whose shared secret is the public key."""
    head, claims, _ = _parts(_token(key, BET_MAKE))
    message = _unsigned(head | {"alg": "HS256"}, claims)
    return f"{message}.{_base64url(hmac.digest(key.public_pem(), message.encode(), 'sha256'))}"


def _flipped(token: str) -> str:
    """Returns the token with the first bit of its signature flipped."""
    message, _, signature = token.rpartition(".")
    octets = bytearray(base64.urlsafe_b64decode(signature + "=="))
    octets[0] ^= 0x80
    return f"{message}.{_base64url(bytes(octets))}"


def _case(
    name: str, key: SigningKey, token: str, why: str = "", *, body: bytes = BET_MAKE, now_s: int = NOW_S
) -> dict[str, Any]:
    return {
        "name": f"{key.algorithm}: {name}",
        "algorithm": key.algorithm,
        "now": now_s,
        "authorization": token if " " in token or not token else f"Bearer {token}",
        "body_base64": base64.b64encode(body).decode(),
        "accept": not why,
        "why": why,
    }


def _accepted(key: SigningKey) -> list[dict[str, Any]]:
    good = _token(key, BET_MAKE)
    return [
        _case("BET_MAKE", key, good),
        _case("PING", key, _token(key, PING, "PING"), body=PING),
        _case(
            "BET_WIN, jti of the third attempt", key, _token(key, BET_WIN, "BET_WIN", f"{REQUEST_ID}:3"), body=BET_WIN
        ),
        _case("our clock is 3 s behind", key, good, now_s=ISSUED_AT_S - 3),
        _case("our clock is 3 s ahead at its end", key, good, now_s=ISSUED_AT_S + TTL_S + 3),
        _case("the longest lifetime", key, _token(key, BET_MAKE, ttl_s=TTL_MAX_S)),
    ]


def _refused(key: SigningKey, algorithm: SigningAlgorithm) -> list[dict[str, Any]]:
    other = RSA if algorithm == "EdDSA" else ACTIVE
    good = _token(key, BET_MAKE)
    message = good.rpartition(".")[0]
    head, claims, _ = _parts(good)
    other_body = BET_MAKE.replace(b'"amount":1250', b'"amount":1350')
    rewritten = json.dumps(json.loads(BET_MAKE)).encode()
    renamed = _forged(key, head={"alg": other.algorithm})
    wrong_key = _forged(other, head={"alg": algorithm, "kid": other.kid})
    return [
        _case("wrong digest: another amount", key, good, "digest is not the SHA-256 of the body", body=other_body),
        _case(
            "wrong digest: the same JSON, written again",
            key,
            good,
            "digest is of the bytes, not of their meaning",
            body=rewritten,
        ),
        _case("wrong digest: none", key, _forged(key, claims={"digest": None}), "digest is missing"),
        _case("expired", key, good, "exp is over", now_s=ISSUED_AT_S + TTL_S + 60),
        _case(
            "too long a lifetime", key, _token(key, BET_MAKE, ttl_s=TTL_MAX_S + 1), f"exp - iat is above {TTL_MAX_S}"
        ),
        _case("from the future", key, good, "iat has not come", now_s=ISSUED_AT_S - 60),
        _case("without exp", key, _forged(key, claims={"exp": None}), "exp is missing"),
        _case("without iat", key, _forged(key, claims={"iat": None}), "iat is missing"),
        _case("wrong kid: unknown", key, _forged(key, head={"kid": STRANGER.kid}), "kid is not known"),
        _case("wrong kid: none", key, _forged(key, head={"kid": None}), "kid is missing"),
        _case("wrong alg: the other one, rightly signed", key, _token(other, BET_MAKE), f"agreed on is {algorithm}"),
        _case(
            "wrong alg: the agreed one, and a key of the other kind", key, wrong_key, f"the key is not for {algorithm}"
        ),
        _case("wrong alg: another name, rightly signed", key, renamed, f"agreed on is {algorithm}"),
        _case("wrong alg: no name, rightly signed", key, _forged(key, head={"alg": None}), "alg is missing"),
        _case("wrong alg: HS256 over the public key", key, _hmac_of_the_public_key(key), f"agreed on is {algorithm}"),
        _case("none: without a signature", key, f"{_unsigned(head | {'alg': 'none'}, claims)}.", "alg none"),
        _case(
            "none: with the old signature",
            key,
            _unsigned(head | {"alg": "none"}, claims) + good[len(message) :],
            "alg none",
        ),
        _case("tampered: exp", key, _tampered(key, exp=ISSUED_AT_S + 3600), "the signature does not hold"),
        _case("tampered: sub", key, _tampered(key, sub="op_other"), "the signature does not hold"),
        _case("tampered: one bit of the signature", key, _flipped(good), "the signature does not hold"),
        _case(
            "tampered: half a signature", key, good[: -(len(good) - len(message)) // 2], "the signature does not hold"
        ),
        _case("tampered: no signature", key, f"{message}.", "the signature is empty"),
        _case("wrong sub", key, _forged(key, claims={"sub": "op_other"}), "the token is another operator's"),
        _case("wrong iss", key, _forged(key, claims={"iss": "predicty"}), "iss is not predictu"),
        _case("wrong method", key, _forged(key, claims={"method": "BET_WIN"}), "method is not the body's"),
        _case(
            "wrong jti", key, _forged(key, claims={"jti": REQUEST_ID[:-1] + "1"}), "jti is not the body's request_id"
        ),
        _case("two parts", key, message, "not a token"),
        _case("not base64url", key, "a.b.c!", "not a token"),
        _case("no header", key, "", "Authorization is missing"),
        _case("another scheme", key, f"Basic {good}", "not Bearer"),
    ]


def vectors() -> dict[str, Any]:
    return {
        "about": "Tokens of callbacks: verify each at its time `now`, as an operator that agreed on its `algorithm`.",
        "operator_id": OPERATOR_ID,
        "leeway_s": 5,
        "token_ttl_max_s": TTL_MAX_S,
        "jwks": {"keys": [key.public_jwk() for key in PUBLISHED]},
        "pems": {key.kid: key.public_pem().decode() for key in PUBLISHED},
        "cases": [
            *_accepted(ACTIVE),
            _case("by the staged key", STAGED, _token(STAGED, BET_MAKE)),
            *_accepted(RSA),
            *_refused(ACTIVE, "EdDSA"),
            _case(
                "another key's kid", STAGED, _forged(STAGED, head={"kid": ACTIVE.kid}), "the signature does not hold"
            ),
            _case(
                "a key nobody published",
                STRANGER,
                _forged(STRANGER, head={"kid": ACTIVE.kid}),
                "the signature does not hold",
            ),
            *_refused(RSA, "RS256"),
        ],
    }


def as_text() -> str:
    return json.dumps(vectors(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(as_text(), encoding="utf-8")
