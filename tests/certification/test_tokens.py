"""Each faulty token is refused for its own fault and for no other; a good one is accepted.

Verified by the reference operator and by joserfc.
"""

import base64
import hmac
import json
import time

import pytest
from cryptography.hazmat.primitives import serialization
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey, RSAKey

from predictu_dispatch.certification.requests import Prepared
from predictu_dispatch.certification.steps import Again, Send, TokenFault
from predictu_dispatch.certification.target import Target
from predictu_dispatch.certification.tokens import Token, ledger_token, stranger_of, token_of
from predictu_dispatch.commands.keys.common import ALGORITHMS
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.operator_settings import SigningAlgorithm
from predictu_dispatch.reference_operator.answer import Answer
from predictu_dispatch.reference_operator.keys import Keyring, thumbprint
from predictu_dispatch.reference_operator.money import Money
from predictu_dispatch.reference_operator.verify import Claims, verified_callback, verify_token
from tests.support.sandboxes import RUN, Requests, target_for

every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated:joserfc.errors.SecurityWarning")

GOOD = (TokenFault.NONE, TokenFault.NEXT_KEY, TokenFault.USED_JTI)
REASONS = {
    TokenFault.MISSING: "0 headers",
    TokenFault.WRONG_KEY: "Signature verification failed",
    TokenFault.UNKNOWN_KID: "kid ",
    TokenFault.OTHER_SUB: "subject",
    TokenFault.OTHER_METHOD: "method",
    TokenFault.OTHER_REQUEST_ID: "does not name request_id",
    TokenFault.EXPIRED: "has expired",
    TokenFault.FROM_THE_FUTURE: "not yet valid",
    TokenFault.ALG_NONE: "none",
    TokenFault.HS256_PUBLIC_KEY: "HS256",
    TokenFault.OTHER_BODY: "digest is not the SHA-256",
}
"""Part of the reference operator's message for each fault."""
assert {*GOOD, *REASONS} == {*TokenFault}


def hostile(target: Target, fault: TokenFault) -> Prepared:
    return Requests(target).one(Send(name="debit", method=Method.BET_MAKE, bet="b", amount=500, token=fault))


def keyring_of(target: Target) -> Keyring:
    assert target.next_key is not None
    public = [serialization.load_pem_public_key(key.public_pem()) for key in (target.key, target.next_key)]
    keys = {thumbprint(key): key for key in public}  # type: ignore[arg-type]
    return Keyring(algorithm=target.key.algorithm, keys=keys)  # type: ignore[arg-type]


def refusal_by_the_reference_operator(target: Target, prepared: Prepared, token: Token) -> str:
    verification = verified_callback(
        [f"Bearer {token.compact}"] if token.compact else [],
        prepared.body,
        keyring=keyring_of(target),
        operator_id="op_abc123",
        money=Money(),
        audience=target.settings.signing.audience,
    )
    if not isinstance(verification.content, Answer):
        return ""
    assert verification.content.http_status == 401
    return verification.content.message


@every_algorithm
@pytest.mark.parametrize("fault", REASONS)
def test_a_faulty_token_is_refused_for_its_own_fault(algorithm: SigningAlgorithm, fault: TokenFault) -> None:
    target = target_for(algorithm=algorithm)
    prepared = hostile(target, fault)
    token = token_of(prepared, target, run=RUN, now_s=int(time.time()))
    assert REASONS[fault] in refusal_by_the_reference_operator(target, prepared, token)


@every_algorithm
@pytest.mark.parametrize("fault", GOOD)
@pytest.mark.parametrize("signing", [{}, {"jti": "attempt", "audience": "https://wallet", "token_ttl_s": 5}])
def test_a_good_token_is_accepted(algorithm: SigningAlgorithm, fault: TokenFault, signing: dict[str, object]) -> None:
    target = target_for(algorithm=algorithm, signing=signing)
    prepared = hostile(target, fault)
    token = token_of(prepared, target, run=RUN, now_s=int(time.time()))
    assert refusal_by_the_reference_operator(target, prepared, token) == ""
    key = target.next_key if fault is TokenFault.NEXT_KEY else target.key
    assert key is not None
    assert claims_by_joserfc(key.public_jwk(), algorithm, token) == token.claims


def claims_by_joserfc(jwk: dict[str, str], algorithm: SigningAlgorithm, token: Token) -> object:
    public = (OKPKey if algorithm == "EdDSA" else RSAKey).import_key({**jwk})
    registry = jws.JWSRegistry(algorithms=[algorithm])
    # The token of an unknown key has that key.
    registry.max_header_length = 2_048
    message = jws.deserialize_compact(token.compact, public, registry=registry)
    assert message.headers() == token.header
    return json.loads(message.payload)


@every_algorithm
@pytest.mark.parametrize("fault", TokenFault)
def test_apart_from_its_fault_a_token_is_a_good_one(algorithm: SigningAlgorithm, fault: TokenFault) -> None:
    """An operator that misses the fault accepts the token, so the scenario finds it."""
    target = target_for(algorithm=algorithm)
    prepared = hostile(target, fault)
    good = token_of(hostile(target, TokenFault.NONE), target, run=RUN, now_s=1_773_930_600)
    token = token_of(prepared, target, run=RUN, now_s=1_773_930_600)
    differing_claims = {name for name in good.claims if token.claims.get(name) != good.claims[name]}
    differing_headers = {name for name in good.header if token.header.get(name) != good.header[name]}
    claims, headers = {
        TokenFault.NEXT_KEY: (set(), {"kid"}),
        TokenFault.UNKNOWN_KID: (set(), {"kid"}),
        TokenFault.MISSING: ({*good.claims}, {*good.header}),
        TokenFault.OTHER_SUB: ({"sub"}, set()),
        TokenFault.OTHER_METHOD: ({"method"}, set()),
        TokenFault.OTHER_REQUEST_ID: ({"jti"}, set()),
        TokenFault.EXPIRED: ({"iat", "exp"}, set()),
        TokenFault.FROM_THE_FUTURE: ({"iat", "exp"}, set()),
        TokenFault.ALG_NONE: (set(), {"alg"}),
        TokenFault.HS256_PUBLIC_KEY: (set(), {"alg"}),
        TokenFault.OTHER_BODY: ({"digest"}, set()),
    }.get(fault, (set(), set()))
    assert (differing_claims, differing_headers) == (claims, headers)


@every_algorithm
def test_the_forged_tokens_deceive_a_verifier_that_lets_the_token_choose(algorithm: SigningAlgorithm) -> None:
    target = target_for(algorithm=algorithm)
    mac = token_of(hostile(target, TokenFault.HS256_PUBLIC_KEY), target, run=RUN, now_s=0)
    signed, _, signature = mac.compact.rpartition(".")
    expected = hmac.digest(target.key.public_pem(), signed.encode(), "sha256")
    assert base64.urlsafe_b64decode(f"{signature}=") == expected
    none = token_of(hostile(target, TokenFault.ALG_NONE), target, run=RUN, now_s=0)
    assert none.compact.endswith(".")
    assert none.compact.count(".") == 2
    stranger = stranger_of(RUN, algorithm)
    for fault in (TokenFault.WRONG_KEY, TokenFault.UNKNOWN_KID):
        token = token_of(hostile(target, fault), target, run=RUN, now_s=0)
        assert claims_by_joserfc(stranger.public_jwk(), algorithm, token) == token.claims
        with pytest.raises(JoseError):
            claims_by_joserfc(target.key.public_jwk(), algorithm, token)
        assert token.header.get("jwk") == (stranger.public_jwk() if fault is TokenFault.UNKNOWN_KID else None)


def test_an_expired_token_is_over_however_long_tokens_live() -> None:
    target = target_for(signing={"token_ttl_s": 3600})
    claims = token_of(hostile(target, TokenFault.EXPIRED), target, run=RUN, now_s=1_000_000).claims
    assert (claims["iat"], claims["exp"]) == (995_800, 999_400)


@pytest.mark.parametrize(("jti", "ids"), [("request_id", ["", "", ""]), ("attempt", [":1", ":2", ":2"])])
def test_a_repeated_token_id_is_that_of_the_sending_before(jti: str, ids: list[str]) -> None:
    target = target_for(signing={"jti": jti})
    requests = Requests(target)
    sendings = [
        requests.one(Send(name="debit", method=Method.BET_MAKE, bet="b", amount=500)),
        requests.one(Again(name="second", of="debit")),
        requests.one(Again(name="third", of="debit", token=TokenFault.USED_JTI)),
    ]
    found = [token_of(one, target, run=RUN, now_s=0).claims["jti"] for one in sendings]
    assert found == [f"{sendings[0].request_id}{suffix}" for suffix in ids]


@every_algorithm
def test_the_token_for_the_ledger_is_bound_to_it(algorithm: SigningAlgorithm) -> None:
    target = target_for(algorithm=algorithm)
    token = ledger_token(target, jti="4f1c0b1e-6f0e-4a51-9a2b-0d2f5a3f7e10", now_s=int(time.time()))
    authorization = [f"Bearer {token.compact}"]
    claims = verify_token(authorization, b"", keyring=keyring_of(target), operator_id="op_abc123")
    assert isinstance(claims, Claims)
    assert (claims.method, claims.jti) == ("LEDGER", "4f1c0b1e-6f0e-4a51-9a2b-0d2f5a3f7e10")
