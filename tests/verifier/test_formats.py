"""What the verifier's small parsers refuse: keys, checkpoints, proofs, JWKs, tokens, JSON."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from predictu_dispatch.core.merkle.note import Algorithm, VerifierKey
from predictu_dispatch.verifier.canonical import parse_json, parse_object
from predictu_dispatch.verifier.merkle import root_of
from predictu_dispatch.verifier.notes import open_checkpoint, parse_key, parse_proof
from predictu_dispatch.verifier.tokens import open_token, parse_jwk
from tests.verifier.forge import IAT, KEY, OTHER_KEY, WITNESS, Log, SenderKey, base64url, canonical

LOG = Log(leaves=[bytes([number]) * 32 for number in range(7)])
NOTE = LOG.note(7)
TEXT, SIGNATURES = NOTE.split("\n\n")
KEYS = (
    parse_key(str(LOG.key)),
    parse_key(str(VerifierKey.of_seed(WITNESS, b"\x03" * 32, Algorithm.COSIGNATURE_V1))),
)
PROOF = LOG.proof(3).decode()


def encoded(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def test_keys_checkpoints_and_proofs_are_read() -> None:
    assert KEYS[0].text == str(LOG.key)
    opened = open_checkpoint(NOTE, KEYS)
    assert (opened.origin, opened.size, len(opened.log_keys), len(opened.cosigned_at)) == (LOG.origin, 7, 1, 1)
    proof = parse_proof(PROOF.encode())
    assert root_of(proof.index, 7, LOG.leaves[3], proof.hashes) == opened.root
    # Signatures of unknown keys are ignored.
    unknown = f"— somebody.example {encoded(b'0' * 80)}\n"
    assert open_checkpoint(NOTE + unknown, KEYS) == opened


@pytest.mark.parametrize(
    ("vkey", "fault"),
    [
        ("", "name is empty"),
        (str(LOG.key).replace("audit", "", 1), "has the id"),
        ("+" + str(LOG.key).partition("+")[2], "name is empty"),
        ("a b+" + str(LOG.key).partition("+")[2], "a space"),
        (f"x+00000000+{encoded(b'1' * 33)}", "no Ed25519"),
        (f"x+00000000+{encoded(bytes([1]) + b'1' * 31)}", "no Ed25519"),
        (str(LOG.key) + "=", "malformed base64"),
    ],
)
def test_a_malformed_key_is_refused(vkey: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_key(vkey)


@pytest.mark.parametrize(
    ("note", "fault"),
    [
        (TEXT, "no signatures"),
        (f"{TEXT}\n\n", "no signatures"),
        (NOTE[:-1], "no signatures"),
        (NOTE.replace("\n7\n", "\n07\n"), "no size"),
        (NOTE.replace("\n7\n", "\n\u0667\n"), "no size"),
        (NOTE.replace("\n7\n", f"\n{2**63}\n"), "no size"),
        (f"{TEXT}\nan extension\n\n{SIGNATURES}", "three lines"),
        (f"\n7\n{TEXT.splitlines()[2]}\n\n{SIGNATURES}", "three lines"),
        (NOTE.replace(TEXT.splitlines()[2], encoded(b"0" * 31)), "31 bytes"),
        (NOTE.replace("— audit", "- audit"), "malformed signature line"),
        (NOTE.replace("\n", "\r\n"), "control character"),
        (f"{NOTE}— x {encoded(b'0' * 68)}\n" * 2, "malformed|three lines"),
        (NOTE + f"— x {encoded(b'0' * 68)}\n" * 99, "more than 100"),
        (NOTE + f"— x {encoded(b'0' * 90_000)}\n" * 9, "too long"),
        (NOTE.replace("\n7\n", "\n8\n"), "is wrong"),
        (f"{TEXT}\n\n{SIGNATURES.splitlines()[1]}\n", "no known key of the log"),
        (NOTE.replace(SIGNATURES.splitlines()[1], f"— {WITNESS} {encoded(KEYS[1].key_id + b'0' * 64)}"), "72 bytes"),
    ],
)
def test_a_malformed_or_unsigned_checkpoint_is_refused(note: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        open_checkpoint(note, KEYS)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (PROOF.replace("@v1", "@v2"), "first line"),
        (PROOF.replace("\nindex 3\n", "\nextra AAAA\nindex 3\n"), "extra line"),
        (PROOF.replace("\nindex 3\n", "\n"), "no index line"),
        (PROOF.replace("\nindex 3\n", "\nindex 03\n"), "no size or index"),
        (PROOF.replace("\nindex 3\n", "\nindex -3\n"), "no size or index"),
        (PROOF.replace("\nindex 3\n", "\nindex 3\n" + f"{encoded(b'0' * 32)}\n" * 63), "more than 63"),
        (PROOF.replace("\nindex 3\n", f"\nindex 3\n{encoded(b'0' * 33)}\n"), "33 bytes"),
        (PROOF + "x" * (1 << 20), "too long"),
    ],
)
def test_a_malformed_proof_is_refused(content: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_proof(content.encode())


def test_a_proof_of_another_length_is_refused() -> None:
    hashes = parse_proof(PROOF.encode()).hashes
    with pytest.raises(ValueError, match="too short"):
        root_of(3, 7, LOG.leaves[3], hashes[:-1])
    with pytest.raises(ValueError, match="too long"):
        root_of(3, 7, LOG.leaves[3], (*hashes, b"0" * 32))
    for index in (-1, 7):
        with pytest.raises(ValueError, match="has no entry"):
            root_of(index, 7, LOG.leaves[3], hashes)


def jwk(key: SenderKey, **changes: object) -> bytes:
    return json.dumps({**json.loads(key.jwk), **changes}).encode()


SMALL = SenderKey(algorithm="RS256", rsa_key=rsa.generate_private_key(public_exponent=65537, key_size=1024))  # noqa: S505


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"[]", "not a JSON object"),
        (b"{", "Expecting|property name"),
        (jwk(KEY, kty="EC"), "neither an Ed25519 key"),
        (jwk(KEY, alg="none"), "neither an Ed25519 key"),
        (jwk(KEY, alg="RS256"), "neither an Ed25519 key"),
        (jwk(KEY, x=None), "neither an Ed25519 key"),
        (jwk(KEY, crv="X25519"), "no Ed25519 key"),
        (jwk(KEY, x=base64url(b"0" * 31)), "no Ed25519 key"),
        (jwk(KEY, x=OTHER_KEY.members["x"]), "not its thumbprint"),
        (jwk(KEY, kid=OTHER_KEY.kid), "not its thumbprint"),
        (jwk(KEY, x=KEY.members["x"] + "="), "malformed base64url"),
        (SMALL.jwk, "does not have 2048 to 8192 bits"),
        (b'{"kty":"OKP","kty":"OKP"}', "same key twice"),
    ],
)
def test_a_jwk_that_is_no_key_of_ours_is_refused(content: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        parse_jwk(content)


CLAIMS = {
    "iss": "predictu",
    "sub": "op_abc123",
    "iat": IAT,
    "exp": IAT + 30,
    "jti": "j",
    "method": "PING",
    "digest": "00",
}
TOKEN = KEY.token(CLAIMS)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (TOKEN + b"\n", "three parts"),
        (TOKEN.rpartition(b".")[0], "three parts"),
        (TOKEN + b"." + TOKEN, "three parts"),
        (b"x" * 20_000, "three parts"),
        (TOKEN[:-4] + b"AAAA", "not of this key|malformed"),
        (TOKEN[:-1] + bytes([TOKEN[-1] ^ 1]), "malformed base64url|not of this key"),
        (OTHER_KEY.token(CLAIMS, header={"alg": "EdDSA", "kid": KEY.kid, "typ": "JWT"}), "not of this key"),
        (KEY.token(CLAIMS, header={"alg": "none", "kid": KEY.kid, "typ": "JWT"}), "does not name the key"),
        (KEY.token(CLAIMS, header={"alg": "EdDSA", "kid": KEY.kid, "typ": "JWT", "crit": ["x"]}), "does not name"),
        (KEY.token(CLAIMS, header={"alg": "EdDSA", "kid": OTHER_KEY.kid, "typ": "JWT"}), "does not name the key"),
        *(
            (KEY.token({name: value for name, value in CLAIMS.items() if name != missing}), "lacks one|is no time")
            for missing in CLAIMS
        ),
        *((KEY.token({**CLAIMS, "iat": value}), "iat is no time") for value in (True, "1", -1, 0, 10**15, None)),
        (KEY.token({**CLAIMS, "exp": 10**15}), "exp is no time"),
        (KEY.token({**CLAIMS, "digest": 1}), "lacks one"),
    ],
)
def test_a_token_that_is_not_ours_is_refused(content: bytes, fault: str) -> None:
    key = parse_jwk(KEY.jwk)
    assert open_token(TOKEN, key).iat == IAT
    with pytest.raises(ValueError, match=fault):
        open_token(content, key)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"[1]", "not a JSON object"),
        (b'{"a":1, "b":2}', "canonical"),
        (b'{"b":1,"a":2}', "canonical"),
        (b'{"a":"\\u00e9"}', "canonical"),
        (b'{"a":-0}', "canonical"),
        (b'{"a":1.5}', "no integer"),
        (b'{"a":NaN}', "no integer"),
        (b'{"a":' + b"1" * 21 + b"}", "too many digits"),
        (b'{"a":1,"a":1}', "same key twice"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b'{"a":"\\ud800"}', "surrogates"),
        (b"[" * 90_000, "nested too deeply"),
        (b"[" * 100_001, "too many values"),
        (b"0," * 400_001, "too many values"),
    ],
)
def test_json_of_another_form_is_refused(content: bytes, fault: str) -> None:
    value = {"a": "é\u2028\x1f", "b": [None, True, -1, {"c": 2**53 + 1}]}
    assert parse_object(canonical(value)) == value
    with pytest.raises(ValueError, match=fault):
        parse_object(content)


def test_a_number_with_a_fraction_is_read_as_text_where_it_may_be_one() -> None:
    assert parse_json(b'{"odds": 1.85}', floats=True) == {"odds": "1.85"}
