"""Bundles in which one statement is false; everything around it fits: hashes, tokens, the log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.verifier.forge import (
    IAT,
    KEY,
    OTHER_KEY,
    REQUEST,
    WIN,
    Forge,
    Log,
    digest,
    good_bundle,
)

FIRST = f"attempts/BET_MAKE_{REQUEST}_0001"
SECOND = f"attempts/BET_MAKE_{REQUEST}_0002"
ANOTHER_LOG = Log(origin="audit.predictu.example/op_xyz", seed=b"\x05" * 32)


def with_one_attempt(**attempt: object) -> Forge:
    forge = Forge()
    forge.start()
    forge.key(KEY)
    forge.attempt(KEY, **attempt)  # type: ignore[arg-type]
    forge.finish()
    return forge


CASES: dict[str, tuple[Callable[[], Forge], str, str]] = {}
"""By name: how the bundle is made, and parts of the statement and of the reason."""


def case(statement: str, reason: str) -> Callable[[Callable[[], Forge]], Callable[[], Forge]]:
    def register(make: Callable[[], Forge]) -> Callable[[], Forge]:
        CASES[make.__name__.strip("_").replace("_", " ")] = (make, statement, reason)
        return make

    return register


@case("signed with the key", "signature is not of this key")
def _another_key_signed() -> Forge:
    def forged(claims: dict[str, object]) -> bytes:
        return OTHER_KEY.token(claims, header={"alg": "EdDSA", "kid": KEY.kid, "typ": "JWT"})

    return with_one_attempt(token=forged)


@case("signed with the key", "digest")
def _the_body_was_changed_and_hashed_again() -> Forge:
    return with_one_attempt(claims={"digest": digest(b"another body")})


@case("signed with the key", "names the key")
def _the_token_names_another_kid() -> Forge:
    forge = Forge()
    forge.start()
    forge.key(KEY)
    forge.key(OTHER_KEY)
    forge.attempt(KEY, token=OTHER_KEY.token)
    forge.finish()
    return forge


@case("signed with the key", "the bundle has no such key")
def _the_key_is_missing() -> Forge:
    forge = Forge()
    forge.start()
    forge.attempt(KEY)
    forge.finish()
    return forge


@case("signed with the key", "'sub|the token's sub")
def _the_token_is_for_another_operator() -> Forge:
    return with_one_attempt(claims={"sub": "op_other"})


@case("signed with the key", "the token's iss")
def _the_token_is_of_another_issuer() -> Forge:
    return with_one_attempt(claims={"iss": "somebody"})


@case("signed with the key", "the token's method")
def _the_token_is_for_another_method() -> Forge:
    return with_one_attempt(claims={"method": "BET_WIN"})


@case("signed with the key", "the token's jti")
def _the_token_is_of_another_request() -> Forge:
    return with_one_attempt(claims={"jti": WIN})


@case("signed with the key", "the token's jti")
def _the_token_is_of_another_attempt() -> Forge:
    return with_one_attempt(claims={"jti": f"{REQUEST}:2"})


@case("signed with the key", "ends before it begins")
def _the_token_was_never_valid() -> Forge:
    return with_one_attempt(claims={"exp": IAT})


@case("The log had the key", "and the key came at")
def _the_key_was_first_seen_later() -> Forge:
    forge = Forge()
    forge.start()
    forge.key(KEY, at="2026-11-30T11:00:05.000000Z")
    forge.attempt(KEY)
    forge.finish()
    return forge


@case("The log had the key", "after the key was retired")
def _the_key_was_retired_earlier() -> Forge:
    forge = Forge()
    forge.start()
    forge.key(KEY)
    forge.key(KEY, event="retired", at="2026-11-30T09:00:00.000000Z")
    forge.attempt(KEY)
    forge.finish()
    return forge


@case("The log has the key", "not first_seen of")
def _the_entry_of_the_key_is_of_another_key() -> Forge:
    forge = Forge()
    forge.start()
    forge.key(KEY, kid=OTHER_KEY.kid)
    forge.finish()
    return forge


@case("The log has the key", "SHA-256 of the record's field public_jwk_sha256")
def _the_jwk_is_not_that_of_the_entry() -> Forge:
    forge = Forge()
    forge.start()
    forge.key(KEY, public_jwk_sha256=digest(OTHER_KEY.jwk))
    forge.finish()
    return forge


@case("The log has the key", "is the key")
def _the_folder_of_a_key_has_another_key() -> Forge:
    forge = Forge()
    forge.start()
    forge.key(KEY, public_jwk_sha256=digest(OTHER_KEY.jwk))
    forge.finish()
    forge.files[f"keys/{KEY.kid}/jwk.json"] = OTHER_KEY.jwk
    return forge


@case("The log has the key", "about different JWKs")
def _the_retired_key_is_another() -> Forge:
    forge = Forge()
    forge.start()
    forge.key(KEY)
    forge.key(KEY, event="retired", at="2026-12-01T09:00:00.000000Z", public_jwk_sha256=digest(OTHER_KEY.jwk))
    forge.finish()
    return forge


@case("The log has the key", "entry of the operator op_other")
def _the_entry_of_the_key_is_of_another_operator() -> Forge:
    forge = Forge()
    forge.start()
    forge.key(KEY, operator_id="op_other")
    forge.finish()
    return forge


@case("The record", "entry of the operator op_other")
def _the_record_is_of_another_operator() -> Forge:
    return with_one_attempt(operator_id="op_other")


@case("The record", "leads to another root")
def _the_record_was_changed_after_it_was_sealed() -> Forge:
    forge = with_one_attempt()
    path = f"{FIRST}/entry.json"
    forge.files[path] = forge.files[path].replace(b'"response_status":200', b'"response_status":402')
    return forge


@case("The record", "leads to another root")
def _the_proof_is_of_another_record() -> Forge:
    forge = good_bundle()
    forge.finish()
    first, second = f"{FIRST}/entry.tlog-proof", f"{SECOND}/entry.tlog-proof"
    forge.files[first], forge.files[second] = forge.files[second], forge.files[first]
    return forge


@case("The record", "index|leads to another root|too")
def _the_proof_is_for_another_index() -> Forge:
    forge = with_one_attempt()
    path = f"{FIRST}/entry.tlog-proof"
    forge.files[path] = forge.files[path].replace(b"\nindex 2\n", b"\nindex 1\n")
    return forge


@case("The record", "no known key of the log")
def _the_checkpoint_is_of_another_log() -> Forge:
    other = Log(origin="audit.predictu.example/op_other")
    forge = with_one_attempt()
    other.leaves = forge.log.leaves
    forge.files[f"{FIRST}/entry.tlog-proof"] = other.proof(2)
    return forge


@case("The record", "is of the log audit.predictu.example/op_xyz, not")
def _the_checkpoint_is_of_another_log_that_is_trusted() -> Forge:
    forge = with_one_attempt()
    other = replace(ANOTHER_LOG, leaves=forge.log.leaves)
    forge.files[f"{FIRST}/entry.tlog-proof"] = other.proof(2)
    return forge


@case("The record", "no known key of the log")
def _the_log_was_built_again_with_another_key() -> Forge:
    forge = good_bundle()
    forge.log.seed = b"\x07" * 32
    forge.finish()
    return forge


@case("The record", "is wrong")
def _the_log_did_not_sign_the_checkpoint() -> Forge:
    forge = with_one_attempt()
    forge.files[f"{FIRST}/entry.tlog-proof"] = _with_another_root(forge)
    return forge


def _with_another_root(forge: Forge) -> bytes:
    note = forge.log.note(3)
    lines = note.split("\n")
    other = Log(leaves=[*forge.log.leaves[:2], b"\x11" * 32]).note(3).split("\n")[2]
    return forge.log.proof(2, note=note.replace(lines[2], other))


@case("The record", "two roots for the size")
def _the_log_signed_two_histories() -> Forge:
    forge = with_one_attempt()
    fork = Log(leaves=[*forge.log.leaves])
    fork.leaves[0] = b"\x12" * 32
    forge.files[f"{FIRST}/entry.tlog-proof"] = fork.proof(2)
    return forge


@case("The record has not changed", "is wrong|another index|leads to another root")
def _the_cosigned_proof_is_of_another_record() -> Forge:
    forge = good_bundle()
    forge.finish()
    forge.files[f"{FIRST}/entry.cosigned.tlog-proof"] = forge.log.proof(1, size=5)
    return forge


@case("The record has not changed", "is about another index")
def _the_record_is_in_the_log_twice() -> Forge:
    forge = with_one_attempt()
    again = forge.log.add(forge.files[f"{FIRST}/entry.json"])
    forge.files[f"{FIRST}/entry.cosigned.tlog-proof"] = forge.log.proof(again)
    return forge


@case("begins at", "is not the first entry")
def _the_start_is_not_the_first_entry() -> Forge:
    forge = Forge()
    forge.key(KEY)
    forge.start()
    forge.finish()
    return forge


@case("begins at", "is the start of the log")
def _the_start_is_of_another_log() -> Forge:
    forge = Forge()
    forge.start(origin="audit.predictu.example/op_other")
    forge.finish()
    return forge


@case("The request in this folder", "request_body_sha256")
def _the_body_is_another() -> Forge:
    forge = with_one_attempt()
    forge.files[f"{FIRST}/request.body"] = forge.files[f"{FIRST}/request.body"].replace(b"500", b"700")
    return forge


@case("The request in this folder", "request_headers_sha256")
def _the_headers_are_others() -> Forge:
    forge = with_one_attempt()
    forge.files[f"{FIRST}/request.headers.json"] += b" "
    return forge


@case("The request in this folder", "token_sha256")
def _the_token_is_that_of_another_attempt_of_the_same_body() -> Forge:
    forge = good_bundle(claims={"iat": IAT + 1})
    forge.finish()
    forge.files[f"{FIRST}/token.jwt"] = forge.files[f"{SECOND}/token.jwt"]
    return forge


@case("signed with the key", "not the token of this record")
def _a_signature_of_another_attempt_of_the_same_body() -> Forge:
    return _the_token_is_that_of_another_attempt_of_the_same_body()


@case("The answer in this folder", "response_body_stored_sha256")
def _the_answer_is_another() -> Forge:
    forge = with_one_attempt()
    forge.files[f"{FIRST}/response.body"] = b'{"status":"PLAYER_NOT_FOUND"}'
    return forge


@case("The answer in this folder", "response_headers_sha256")
def _the_headers_of_the_answer_are_others() -> Forge:
    forge = with_one_attempt()
    forge.files[f"{FIRST}/response.headers.json"] = b"[]"
    return forge


@case("The answer in this folder", "error_sha256")
def _the_error_is_another() -> Forge:
    forge = with_one_attempt(error_sha256=digest(b"an error"))
    forge.files[f"{FIRST}/error.txt"] = b"another error"
    return forge


@case("The answer in this folder", "not the same as that of attempt 1")
def _a_repeated_answer_is_not_the_earlier_one() -> Forge:
    forge = good_bundle(response_body_repeats=1, response_body_sha256=digest(b"quite another answer"))
    forge.finish()
    return forge


@case("The answer in this folder", "two hashes of one body")
def _the_record_has_two_hashes_of_one_answer() -> Forge:
    return with_one_attempt(response_body_sha256=digest(b"another"))


@case("The request body is BET_MAKE for the bet", "about another bet")
def _the_body_is_about_another_bet() -> Forge:
    return with_one_attempt(body={"params": {"bet_id": "b-2", "amount": 500}})


@case("The request body is BET_MAKE for the bet", "are not those of the record")
def _the_body_is_of_another_request() -> Forge:
    return with_one_attempt(body={"request_id": WIN})


@case("The request body is BET_MAKE for the bet", "are not those of the record")
def _the_body_has_another_method() -> Forge:
    return with_one_attempt(body={"method": "BET_WIN"})


@case("The request body is BET_MAKE for the bet", "about another bet")
def _the_bundle_says_that_it_is_about_another_bet() -> Forge:
    forge = with_one_attempt()
    forge.manifest["bet_id"] = "b-2"
    return forge


@case("The intervention retry", "reason_sha256")
def _the_reason_of_an_intervention_is_another() -> Forge:
    forge = good_bundle()
    forge.finish()
    (path,) = [path for path in forge.files if path.endswith("reason.txt")]
    forge.files[path] = b"no reason"
    return forge


@case("The intervention retry", "leads to another root")
def _the_intervention_was_by_somebody_else() -> Forge:
    forge = good_bundle()
    forge.finish()
    (path,) = [path for path in forge.files if path.startswith("interventions/") and path.endswith("entry.json")]
    forge.files[path] = forge.files[path].replace(b"ada@host-1", b"bob@host-1")
    return forge
