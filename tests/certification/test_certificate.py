"""The certificate: what it says, who signed it, and when it is valid."""

from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from predictu_dispatch.certification.certificate import (
    KEY_NAME,
    CertificateError,
    read,
    signed,
    text_of,
    vkey_of,
)
from predictu_dispatch.certification.result import SUITE_VERSION, digest_of
from predictu_dispatch.certification.scenario import ScenarioVerdict
from predictu_dispatch.core.merkle.note import VerifierKey, assemble, sign
from tests.certification import made_results as made
from tests.support.foreign_verifier import ACCEPTED, foreign_verifier, signed_note

SEED = b"c" * 32
VKEY = vkey_of(VerifierKey.of_seed(KEY_NAME, SEED).public_key)
ISSUED_AT = datetime(2026, 11, 30, 10, 20, tzinfo=UTC)
REPORT = b'{"run": "..."}\n'
RESULT = made.run(
    *made.results(
        {
            "connection-tls": ScenarioVerdict.SKIPPED,
            "connection-keep-alive": ScenarioVerdict.WARNING,
            "money-balance": ScenarioVerdict.PASSED,
            "money-win": ScenarioVerdict.PASSED,
        }
    )
)
TEXT = text_of(RESULT, report_digest=sha256(REPORT).hexdigest(), issued_at=ISSUED_AT)
NOTE = signed(TEXT, SEED)


def test_a_certificate_says_what_was_played_and_is_read_back() -> None:
    certificate = read(NOTE.encode(), VKEY)
    assert certificate.suite == SUITE_VERSION
    assert (certificate.operator_id, certificate.url, certificate.run) == (RESULT.operator_id, RESULT.url, made.RUN)
    assert certificate.scenarios == 4
    assert certificate.scenarios_digest == digest_of([one.scenario for one in RESULT.results])
    assert (certificate.passed, certificate.warned) == (2, ("connection-keep-alive",))
    assert certificate.skipped == ("connection-tls",)
    assert certificate.issued_at == ISSUED_AT
    assert certificate.valid_until == datetime(2027, 11, 30, 10, 20, tzinfo=UTC)


def test_its_text_is_for_people_too() -> None:
    assert TEXT.splitlines() == [
        "Predictu S2S certificate",
        f"suite {SUITE_VERSION}",
        "operator op_abc123",
        "url https://sandbox.example.com/predictu",
        "run 20261130-101502-3f2a",
        "scenarios 4",
        f"scenarios-digest sha256:{digest_of([one.scenario for one in RESULT.results])}",
        "passed 2",
        "warning 1 connection-keep-alive",
        "skipped 1 connection-tls",
        "issued 2026-11-30T10:20:00Z",
        "valid-until 2027-11-30T10:20:00Z",
        f"report sha256:{sha256(REPORT).hexdigest()}",
    ]


@pytest.mark.parametrize(
    ("age", "fault"),
    [
        (timedelta(days=-1), "it is valid from 2026-11-30T10:20:00Z on, or this clock is wrong"),
        (timedelta(minutes=-4), ""),
        (timedelta(0), ""),
        (timedelta(days=365), ""),
        (timedelta(days=365, seconds=1), "it expired at 2027-11-30T10:20:00Z"),
    ],
)
def test_it_is_valid_for_a_year(age: timedelta, fault: str) -> None:
    assert read(NOTE.encode(), VKEY).fault_at(ISSUED_AT + age) == fault


def test_one_of_a_leap_day_is_valid_until_the_last_of_february() -> None:
    text = text_of(RESULT, report_digest="0" * 64, issued_at=datetime(2028, 2, 29, 1, 2, 3, tzinfo=UTC))
    assert "valid-until 2029-02-28T01:02:03Z\n" in text


def test_only_the_certified_report_fits_it() -> None:
    certificate = read(NOTE.encode(), VKEY)
    assert certificate.fault_of_report(REPORT) == ""
    assert certificate.fault_of_report(REPORT + b" ") == "it is not the report that was certified"


@pytest.mark.parametrize("line", range(len(TEXT.splitlines())))
def test_a_change_of_any_line_is_found(line: int) -> None:
    lines = NOTE.splitlines(keepends=True)
    lines[line] = lines[line].replace(lines[line][-2], "x", 1) if "x" not in lines[line] else f"y{lines[line]}"
    with pytest.raises(CertificateError, match=f"the signature of {KEY_NAME} does not verify"):
        read("".join(lines).encode(), VKEY)


def test_another_key_of_the_same_name_is_not_trusted() -> None:
    other = vkey_of(VerifierKey.of_seed(KEY_NAME, b"o" * 32).public_key)
    with pytest.raises(CertificateError, match="no known key signed the note"):
        read(NOTE.encode(), other)


@pytest.mark.parametrize(
    "text",
    [
        "Another note\n",
        TEXT.replace("passed", "failed"),
        TEXT + "passed 9\n",
        TEXT.replace("warning 1", "warning 2"),
        TEXT.replace("sha256:", "sha1:"),
        TEXT.replace("2026-11-30T10:20:00Z", "yesterday"),
    ],
)
def test_another_note_of_our_key_is_no_certificate(text: str) -> None:
    with pytest.raises(CertificateError, match="the note is signed, but"):
        read(assemble(text, [sign(text, KEY_NAME, SEED)]).encode(), VKEY)


@pytest.mark.parametrize("vkey", ["", "certify.predictu", VKEY[:-4], f"{VKEY} "])
def test_a_damaged_vkey_is_named(vkey: str) -> None:
    with pytest.raises(CertificateError, match="the vkey cannot be read"):
        read(NOTE.encode(), vkey)


def test_gos_verifier_accepts_the_note() -> None:
    changed = NOTE.replace("op_abc123", "op_abc124")
    accepted, refused = foreign_verifier().verdicts([signed_note(NOTE, VKEY), signed_note(changed, VKEY)])
    assert accepted == ACCEPTED
    assert "invalid signature" in refused
