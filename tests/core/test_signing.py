"""Tokens as PROTOCOL.md specifies them, verified by joserfc, another library."""

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey, RSAKey
from pydantic import ValidationError

from predictu_dispatch.commands.keys.common import ALGORITHMS
from predictu_dispatch.core.operator_settings import SigningAlgorithm, SigningSettings
from predictu_dispatch.core.signing import SigningKey, jti_of, unsigned_token
from predictu_dispatch.edge.config.keys import new_private_pem

BODY = b'{"method":"BET_MAKE","request_id":"4f1c0b1e-6f0e-4a51-9a2b-0d2f5a3f7e10","params":{"amount":500}}'
REQUEST_ID = "4f1c0b1e-6f0e-4a51-9a2b-0d2f5a3f7e10"
NOW_S = 1_773_930_600

PEMS: dict[SigningAlgorithm, bytes] = {algorithm: new_private_pem(algorithm) for algorithm in ALGORITHMS}
KEYS: dict[SigningAlgorithm, SigningKey] = {
    algorithm: SigningKey.from_pem(pem, algorithm) for algorithm, pem in PEMS.items()
}
# RFC 9864 would say Ed25519; PROTOCOL.md says EdDSA, which operators verify.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated:joserfc.errors.SecurityWarning")
every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def token_of(algorithm: SigningAlgorithm, *, body: bytes = BODY, issued_at_s: int = NOW_S, audience: str = "") -> str:
    key = KEYS[algorithm]
    unsigned = unsigned_token(
        key,
        operator_id="op_abc123",
        method="BET_MAKE",
        jti=REQUEST_ID,
        body=body,
        issued_at_s=issued_at_s,
        ttl_s=30,
        audience=audience,
    )
    return key.signed(unsigned)


def verified(algorithm: SigningAlgorithm, token: str, body: bytes) -> dict[str, object] | None:
    """Return the claims as an operator with our public JWK verifies them, or None."""
    jwk: dict[str, str | list[str]] = {**KEYS[algorithm].public_jwk()}
    public = OKPKey.import_key(jwk) if algorithm == "EdDSA" else RSAKey.import_key(jwk)
    try:
        message = jws.deserialize_compact(token, public, algorithms=[algorithm])
    except (JoseError, ValueError):
        return None
    claims: dict[str, object] = json.loads(message.payload)
    return claims if claims["digest"] == hashlib.sha256(body).hexdigest() else None


@every_algorithm
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_refused(algorithm: SigningAlgorithm, data: st.DataObject) -> None:
    parts = [base64.urlsafe_b64decode(part + "==") for part in token_of(algorithm).split(".")]
    sent = [*parts, BODY]
    which = data.draw(st.integers(0, 3), label="header, claims, signature or body")
    bit = data.draw(st.integers(0, len(sent[which]) * 8 - 1), label="bit")
    flipped = bytearray(sent[which])
    flipped[bit // 8] ^= 1 << bit % 8
    sent[which] = bytes(flipped)
    token = ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in sent[:3])
    assert verified(algorithm, token, sent[3]) is None


def test_the_token_id_is_the_requests_or_one_per_attempt() -> None:
    assert {jti_of("request_id", REQUEST_ID, attempt) for attempt in (1, 2, 3)} == {REQUEST_ID}
    assert [jti_of("attempt", REQUEST_ID, attempt) for attempt in (1, 2)] == [f"{REQUEST_ID}:1", f"{REQUEST_ID}:2"]


@every_algorithm
def test_the_kid_is_the_rfc_7638_thumbprint_and_pem_and_jwk_are_the_same_key(algorithm: SigningAlgorithm) -> None:
    kind = OKPKey if algorithm == "EdDSA" else RSAKey
    jwk: dict[str, str | list[str]] = {**KEYS[algorithm].public_jwk()}
    assert kind.import_key(jwk).thumbprint() == jwk["kid"] == KEYS[algorithm].kid
    assert kind.import_key(KEYS[algorithm].public_pem()).thumbprint() == KEYS[algorithm].kid
    assert kind.import_key(PEMS[algorithm]).thumbprint() == KEYS[algorithm].kid
    assert (jwk["alg"], jwk["use"]) == (algorithm, "sig")


def test_the_thumbprint_is_the_one_published_in_rfc_8037() -> None:
    seed = base64.urlsafe_b64decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=")
    # RFC 8410 section 7: the fixed DER prefix of an Ed25519 private key in PKCS#8.
    der = bytes.fromhex("302e020100300506032b657004220420") + seed
    pem = b"-----BEGIN PRIVATE KEY-----\n" + base64.encodebytes(der) + b"-----END PRIVATE KEY-----\n"
    assert SigningKey.from_pem(pem, "EdDSA").kid == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@every_algorithm
def test_the_private_half_is_never_shown(algorithm: SigningAlgorithm) -> None:
    key = KEYS[algorithm]
    assert repr(key) == f"SigningKey(algorithm='{algorithm}', kid='{key.kid}')"
    assert not {"d", "p", "q", "dp", "dq", "qi"} & {*key.public_jwk()}
    assert b"PRIVATE" not in key.public_pem()


def pem_of(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
    *,
    form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8,
    password: bytes = b"",
) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, form, encryption)


RSA_1024 = rsa.generate_private_key(65537, 1024)  # noqa: S505 # Too short is the point.
RSA_WITH_3 = rsa.generate_private_key(3, 2048)  # So is a small exponent.
P_256 = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(
    ("pem", "algorithm", "sentence"),
    [
        (
            PEMS["RS256"],
            "EdDSA",
            'signing.algorithm = "EdDSA" needs an Ed25519 key, and this is an RSA key of 2048 bits',
        ),
        (
            PEMS["EdDSA"],
            "RS256",
            'signing.algorithm = "RS256" needs an RSA key of 2048 bits or more, and this is an Ed25519 key',
        ),
        (
            pem_of(RSA_1024),
            "RS256",
            'signing.algorithm = "RS256" needs an RSA key of 2048 bits or more, and this is an RSA key of 1024 bits',
        ),
        (
            pem_of(RSA_WITH_3),
            "RS256",
            "the RSA key's public exponent is 3; it must be odd and 65537 or more; make a new key",
        ),
        (
            pem_of(P_256),
            "EdDSA",
            'signing.algorithm = "EdDSA" needs an Ed25519 key, and this is neither an RSA nor an Ed25519 key',
        ),
        (
            pem_of(RSA_1024, form=serialization.PrivateFormat.TraditionalOpenSSL),
            "RS256",
            "not a PKCS#8 PEM (BEGIN PRIVATE KEY); to convert another: openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW",
        ),
        (
            pem_of(RSA_1024, password=b"x"),
            "RS256",
            "the key is encrypted and the daemon has no password; store it unencrypted, mode 0600",
        ),
        (KEYS["EdDSA"].public_pem(), "EdDSA", "this is a public key; signing needs the private key"),
        # A fixed id: the text of a generated key would differ between test processes.
        pytest.param(
            PEMS["EdDSA"][:60], "EdDSA", "a damaged PKCS#8 PEM, or a kind of key that is not supported", id="damaged"
        ),
        (
            b"",
            "EdDSA",
            "not a PKCS#8 PEM (BEGIN PRIVATE KEY); to convert another: openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW",
        ),
    ],
)
def test_a_key_that_does_not_fit_is_refused_with_a_reason(
    pem: bytes, algorithm: SigningAlgorithm, sentence: str
) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 # The whole sentence is compared.
        SigningKey.from_pem(pem, algorithm)
    assert str(raised.value) == sentence


@every_algorithm
def test_the_audience_is_a_claim_only_if_it_is_set(algorithm: SigningAlgorithm) -> None:
    assert "aud" not in (verified(algorithm, token_of(algorithm), BODY) or {})
    found = verified(algorithm, token_of(algorithm, audience="https://wallet.example.com/~a?b"), BODY)
    assert found is not None
    assert found["aud"] == "https://wallet.example.com/~a?b"


@pytest.mark.parametrize("audience", ['a"b', "a\\b", "a b", "ä", "a\n"])
def test_an_audience_that_would_change_the_claims_is_refused(audience: str) -> None:
    with pytest.raises(ValidationError):
        SigningSettings(key_file="op.pem", audience=audience)
