"""Every statement that the verifier calls proved is contradicted if just that is false."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from predictu_dispatch.core.merkle.note import Algorithm, VerifierKey
from predictu_dispatch.verifier.policy import parse_policy
from predictu_dispatch.verifier.records import Verdict
from predictu_dispatch.verifier.verify import Report, verify
from tests.verifier.false_bundles import ANOTHER_LOG, CASES, FIRST, SECOND, with_one_attempt
from tests.verifier.forge import (
    BET,
    COSIGNED_AT,
    IAT,
    REQUEST,
    WITNESS,
    Forge,
    Log,
    SenderKey,
    folder,
    good_bundle,
)

TRUSTED = Log().policy


def verified(forge: Forge, folder: Path, policy: bytes | None = TRUSTED) -> Report:
    path = forge.write(folder / "bundle.zip")
    return verify(path, None if policy is None else parse_policy(policy))


def contradicted(report: Report) -> list[tuple[str, str]]:
    """What is contradicted and why: (statement, reason), without those that follow from another."""
    return [(each.text, each.reason) for each in report.statements if each.verdict is Verdict.CONTRADICTED]


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


@pytest.mark.parametrize("name", CASES)
def test_a_false_statement_is_contradicted(name: str, tmp_path: Path) -> None:
    make, statement, reason = CASES[name]
    # Another log is trusted too; it is not the one of this operator.
    found = contradicted(verified(make(), tmp_path, TRUSTED + f"log {ANOTHER_LOG.key}\n".encode()))
    parts = reason.split("|")
    assert any(statement in text and any(part in why for part in parts) for text, why in found), found


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
