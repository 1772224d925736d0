"""Every sentence that the verifier calls proved is contradicted if just that is false.

Each case makes one thing false and makes everything around it fit: hashes, tokens, the log.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from predictu_dispatch.core.merkle.note import Algorithm, VerifierKey
from predictu_dispatch.verifier.policy import parse_policy
from predictu_dispatch.verifier.records import Verdict
from predictu_dispatch.verifier.verify import Report, verify
from tests.verifier.forge import (
    BET,
    COSIGNED_AT,
    IAT,
    KEY,
    OTHER_KEY,
    REQUEST,
    WIN,
    WITNESS,
    Forge,
    Log,
    SenderKey,
    digest,
    folder,
    good_bundle,
)

FIRST = f"attempts/BET_MAKE_{REQUEST}_0001"
SECOND = f"attempts/BET_MAKE_{REQUEST}_0002"
TRUSTED = Log().policy
ANOTHER_LOG = Log(origin="audit.predictu.example/op_xyz", seed=b"\x05" * 32)


def verified(forge: Forge, folder: Path, policy: bytes | None = TRUSTED) -> Report:
    path = forge.write(folder / "bundle.zip")
    return verify(path, None if policy is None else parse_policy(policy))


def contradicted(report: Report) -> list[tuple[str, str]]:
    """What is contradicted and why: (sentence, reason), without those that follow from another."""
    return [(each.text, each.reason) for each in report.statements if each.verdict is Verdict.CONTRADICTED]


def with_one_attempt(**attempt: object) -> Forge:
    forge = Forge()
    forge.start()
    forge.key(KEY)
    forge.attempt(KEY, **attempt)  # type: ignore[arg-type]
    forge.finish()
    return forge


def test_everything_in_a_good_bundle_is_proved(tmp_path: Path) -> None:
    forge = good_bundle()
    forge.finish()
    report = verified(forge, tmp_path)
    assert contradicted(report) == []
    # Of each of three attempts: record, request, answer, signature, key, body, time.
    assert sum(each.verdict is Verdict.PROVED for each in report.statements) == 3 * 7 + 3
    records = [each.text for each in report.statements if each.verdict is Verdict.RECORD]
    assert len(records) == 4
    assert not any("comes from the bundle itself" in text for text in report.not_proved)


def test_an_rs256_key_and_a_token_for_one_attempt_are_proved_too(tmp_path: Path) -> None:
    key = SenderKey(algorithm="RS256", rsa_key=rsa.generate_private_key(public_exponent=65537, key_size=2048))
    forge = Forge()
    forge.start()
    forge.key(key)
    forge.attempt(key, claims={"jti": f"{REQUEST}:1"})
    forge.finish()
    assert contradicted(verified(forge, tmp_path)) == []


CASES: dict[str, tuple[Callable[[], Forge], str, str]] = {}
"""By name: how the bundle is made, and parts of the sentence and of the reason."""


def case(sentence: str, reason: str) -> Callable[[Callable[[], Forge]], Callable[[], Forge]]:
    def register(make: Callable[[], Forge]) -> Callable[[], Forge]:
        CASES[make.__name__.strip("_").replace("_", " ")] = (make, sentence, reason)
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


@pytest.mark.parametrize("name", CASES)
def test_a_false_sentence_is_contradicted(name: str, tmp_path: Path) -> None:
    make, sentence, reason = CASES[name]
    # Another log is trusted too; it is not the one of this operator.
    found = contradicted(verified(make(), tmp_path, TRUSTED + f"log {ANOTHER_LOG.key}\n".encode()))
    parts = reason.split("|")
    assert any(sentence in text and any(part in why for part in parts) for text, why in found), found


def test_nothing_else_is_contradicted_than_what_is_false(tmp_path: Path) -> None:
    """A token of another jti leaves the record, the files, the body and the time proved."""
    report = verified(CASES["the token is of another request"][0](), tmp_path)
    assert len(contradicted(report)) == 1
    report = verified(CASES["the key was first seen later"][0](), tmp_path)
    assert len(contradicted(report)) == 1


def test_a_cosignature_that_is_forged_refuses_the_checkpoint(tmp_path: Path) -> None:
    forge = with_one_attempt()
    note, later = forge.log.note(3), forge.log.note(3, time_s=COSIGNED_AT + 1)
    key_id = VerifierKey.of_seed(WITNESS, b"\x03" * 32, Algorithm.COSIGNATURE_V1).key_hash
    earlier = later.split(f"{WITNESS} ")[1].strip()
    raw = base64.b64decode(earlier)
    assert raw[:4] == key_id
    forged = base64.b64encode(key_id + (COSIGNED_AT - 1).to_bytes(8, "big") + raw[12:]).decode()
    changed = note.split(f"{WITNESS} ")[0] + f"{WITNESS} {forged}\n"
    forge.files[f"{FIRST}/entry.tlog-proof"] = forge.log.proof(2, note=changed)
    [(text, why)] = [one for one in contradicted(verified(forge, tmp_path)) if "record" in one[0]]
    assert (text, why) == (
        "The record (entry.json) is in the log.",
        f"the signature of {WITNESS} on the checkpoint is wrong",
    )


def test_a_witness_that_is_not_trusted_proves_no_time(tmp_path: Path) -> None:
    forge = good_bundle()
    forge.log.witnesses = {WITNESS: b"\x13" * 32}
    forge.finish()
    report = verified(forge, tmp_path)
    assert contradicted(report) == []
    assert not any("has not changed" in each.text for each in report.statements if each.verdict is Verdict.PROVED)
    assert any("no known witness cosigned it" in text for text in report.not_proved)


def test_a_quorum_that_is_not_met_contradicts(tmp_path: Path) -> None:
    forge = good_bundle()
    forge.log.witnesses = {}
    forge.finish()
    policy = TRUSTED.replace(b"quorum none", f"quorum {WITNESS}".encode())
    found = contradicted(verified(forge, tmp_path, policy))
    assert found
    assert all("lacks cosignatures: the policy asks for" in why for _, why in found)
    assert contradicted(verified(forge, tmp_path, TRUSTED)) == []
    # In the bundle's own policy it means that witnesses have not seen it yet.
    forge.files["policy.txt"] = policy
    report = verified(forge, tmp_path, policy=None)
    assert contradicted(report) == []
    proved = [each.text for each in report.statements if each.verdict is Verdict.PROVED]
    assert not any("is entry" in text for text in proved)
    assert any("signed the body" in text for text in proved)


def test_without_a_policy_of_ones_own_the_logs_key_is_not_proved(tmp_path: Path) -> None:
    forge = good_bundle()
    forge.log.seed = b"\x07" * 32
    forge.finish()
    report = verified(forge, tmp_path, policy=None)
    assert contradicted(report) == []
    assert report.not_proved[0].startswith("That the log's key belongs to Predictu")


def test_without_any_key_of_the_log_only_the_token_is_proved(tmp_path: Path) -> None:
    forge = good_bundle()
    forge.finish()
    del forge.files["policy.txt"]
    report = verified(forge, tmp_path, policy=None)
    assert contradicted(report) == []
    proved = [each.text for each in report.statements if each.verdict is Verdict.PROVED]
    assert any("signed the body" in text for text in proved)
    assert not any("is entry" in text or "the log has" in text.lower() for text in proved), proved


def test_what_is_not_sealed_is_our_record_only(tmp_path: Path) -> None:
    forge = good_bundle()
    path = "attempts/BET_LOSE_0190a6d1-7c3e-7c11-9a5b-1f0f6a2b9c77_0002"
    forge.finish()
    entry = (
        forge.files[f"{SECOND}/entry.json"]
        .replace(b"BET_MAKE", b"BET_LOSE")
        .replace(REQUEST.encode(), path[18:54].encode())
    )
    entry = entry.replace(b'"response_status":200', b'"response_status":500')
    forge.files[f"{path}/entry.json"] = entry
    names = {"request.body", "request.headers.json", "response.body", "response.headers.json", "token.jwt"}
    forge.manifest["attempts"].insert(0, folder(path, withheld=dict.fromkeys(names, "a test"), sealed=[]))
    report = verified(forge, tmp_path)
    assert contradicted(report) == []
    about = [each for each in report.statements if each.about == path and each.verdict is Verdict.PROVED]
    assert [each.text.split(":")[0] for each in about] == [
        "The record has the request's hashes",
        "The answer with HTTP 500 has the hashes of the record",
    ]


def test_a_withheld_body_leaves_its_hash_and_its_signature(tmp_path: Path) -> None:
    forge = with_one_attempt()
    del forge.files[f"{FIRST}/request.body"]
    forge.manifest["attempts"] = [folder(FIRST, withheld={"request.body": "it names the player"})]
    report = verified(forge, tmp_path)
    assert contradicted(report) == []
    texts = [f"{each.verdict}: {each.text}" for each in report.statements]
    assert any(text.startswith("proved: The key") and "a body that is left out" in text for text in texts)
    assert f"our record only: The attempt is about the bet {BET}; its body, which would show it, is not here." in texts
    assert "The content of the files that are left out." in report.not_proved


def test_the_earliest_cosigned_checkpoint_gives_the_time(tmp_path: Path) -> None:
    forge = good_bundle()
    forge.finish()
    early = forge.log.note(4, time_s=IAT + 5)
    forge.files[f"{FIRST}/entry.cosigned.tlog-proof"] = forge.log.proof(2, size=4, note=early)
    report = verified(forge, tmp_path)
    assert contradicted(report) == []
    (text,) = [each.text for each in report.statements if each.about == FIRST and "has not changed" in each.text]
    assert "2026-11-30T10:00:10Z" in text
    assert "size 4" in text


def test_a_witness_proves_the_time_of_a_checkpoint_that_an_earlier_key_of_the_log_signed(tmp_path: Path) -> None:
    forge = good_bundle()
    log_seed, forge.log.seed = forge.log.seed, b"\x04" * 32
    early = forge.log.note(4, time_s=IAT + 5)
    forge.log.seed = log_seed
    forge.finish()
    forge.files[f"{FIRST}/entry.cosigned.tlog-proof"] = forge.log.proof(2, size=4, note=early)
    report = verified(forge, tmp_path)
    assert contradicted(report) == []
    (text,) = [each.text for each in report.statements if each.about == FIRST and "has not changed" in each.text]
    assert "2026-11-30T10:00:10Z" in text
    # A witness that nobody trusts proves nothing, and no witness proves that the log has the entry.
    forge.log.seed, forge.log.witnesses = b"\x04" * 32, {WITNESS: b"\x05" * 32}
    unknown = forge.log.note(4, time_s=IAT + 5)
    forge.files[f"{FIRST}/entry.cosigned.tlog-proof"] = forge.log.proof(2, size=4, note=unknown)
    report = verified(forge, tmp_path)
    [(sentence, reason)] = contradicted(report)
    assert "has not changed" in sentence
    assert "no known key of the log" in reason
    forge.files[f"{FIRST}/entry.tlog-proof"] = forge.log.proof(2, size=4, note=early)
    sentences = [sentence for sentence, _ in contradicted(verified(forge, tmp_path))]
    assert any("is in the log" in sentence for sentence in sentences), sentences


def test_a_body_that_is_too_large_to_be_read_is_compared_by_its_hash(tmp_path: Path) -> None:
    report = verified(with_one_attempt(body={"padding": "x" * (1 << 20)}), tmp_path)
    assert contradicted(report) == []
    texts = [f"{each.verdict}: {each.text}" for each in report.statements]
    assert "our record only: The request body is too large to be read here; its hash is verified." in texts
    assert any(text.startswith("proved: The key") and "signed the body in request.body" in text for text in texts)
