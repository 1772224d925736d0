"""The certificate of an operator that passed: a note (c2sp.org/signed-note), valid for a year.

The text has one fact on each line, in a fixed order. `read` accepts exactly what `text_of` writes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from predictu_dispatch.certification.result import SUITE_VERSION, RunResult, digest_of
from predictu_dispatch.certification.scenario import ScenarioVerdict
from predictu_dispatch.core.merkle.note import NoteError, VerifierKey, assemble, sign, verify

KEY_NAME: Final = "certify.predictu"
"""The name of the key in notes and in its vkey."""
TITLE: Final = "Predictu S2S certificate"
_FIELDS: Final = (
    "suite",
    "operator",
    "url",
    "run",
    "scenarios",
    "scenarios-digest",
    "passed",
    "warning",
    "skipped",
    "issued",
    "valid-until",
    "report",
)
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_CLOCK_TOLERANCE: Final = timedelta(minutes=5)


class CertificateError(ValueError):
    """The note is no certificate, or nobody trusted signed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What a verified certificate says."""

    suite: int
    operator_id: str
    url: str
    run: str
    scenarios: int
    scenarios_digest: str
    """Hex SHA-256 of the scenarios that were played."""
    passed: int
    warned: tuple[str, ...]
    """The scenarios that passed with a warning."""
    skipped: tuple[str, ...]
    issued_at: datetime
    valid_until: datetime
    report_digest: str
    """Hex SHA-256 of report.json."""

    def fault_at(self, now: datetime) -> str:
        """Return why the certificate is not valid at this time; "" if it is."""
        if now > self.valid_until:
            return f"it expired at {self.valid_until.strftime(_TIME)}"
        if now < self.issued_at - _CLOCK_TOLERANCE:
            return f"it is valid from {self.issued_at.strftime(_TIME)} on, or this clock is wrong"
        return ""

    def fault_of_report(self, content: bytes) -> str:
        """Return why these bytes are not the report that was certified; "" if they are."""
        return "" if sha256(content).hexdigest() == self.report_digest else "it is not the report that was certified"


def text_of(result: RunResult, *, report_digest: str, issued_at: datetime) -> str:
    """Return the text of a note; `report_digest` is the hex SHA-256 of report.json."""
    issued_at = issued_at.astimezone(UTC)
    of = {verdict: [one.scenario.id for one in result.results if one.verdict is verdict] for verdict in ScenarioVerdict}
    values = (
        str(SUITE_VERSION),
        result.operator_id,
        result.url,
        result.run,
        str(len(result.results)),
        f"sha256:{digest_of([one.scenario for one in result.results])}",
        str(len(of[ScenarioVerdict.PASSED])),
        _listed(of[ScenarioVerdict.WARNING]),
        _listed(of[ScenarioVerdict.SKIPPED]),
        issued_at.strftime(_TIME),
        _a_year_later(issued_at).strftime(_TIME),
        f"sha256:{report_digest}",
    )
    lines = [TITLE, *(f"{name} {value}" for name, value in zip(_FIELDS, values, strict=True))]
    return "".join(f"{line}\n" for line in lines)


def signed(text: str, seed: bytes) -> str:
    """Return the note, signed with the private key of `[certify] key_file`."""
    return assemble(text, [sign(text, KEY_NAME, seed)])


def vkey_of(public_key: bytes) -> str:
    """Return the public half of the key as those write it who verify certificates."""
    return str(VerifierKey(KEY_NAME, public_key))


def read(note: bytes, vkey: str) -> Certificate:
    """Return what the certificate says; raises CertificateError if this key did not sign it.

    Its dates are not judged: see `Certificate.fault_at`.
    """
    try:
        key = VerifierKey.parse(vkey)
    except NoteError as error:
        raise CertificateError(f"the vkey cannot be read: {error}") from None
    try:
        text = verify(note, [key]).text
    except NoteError as error:
        raise CertificateError(str(error)) from None
    title, *lines = text.splitlines()
    values = dict(_field(line) for line in lines)
    if title != TITLE or tuple(values) != _FIELDS or len(lines) != len(_FIELDS):
        raise CertificateError("the note is signed, but it is no certificate that this release can read")
    try:
        return Certificate(
            suite=int(values["suite"]),
            operator_id=values["operator"],
            url=values["url"],
            run=values["run"],
            scenarios=int(values["scenarios"]),
            scenarios_digest=_digest(values["scenarios-digest"]),
            passed=int(values["passed"]),
            warned=tuple(_ids(values["warning"])),
            skipped=tuple(_ids(values["skipped"])),
            issued_at=datetime.strptime(values["issued"], _TIME).replace(tzinfo=UTC),
            valid_until=datetime.strptime(values["valid-until"], _TIME).replace(tzinfo=UTC),
            report_digest=_digest(values["report"]),
        )
    except ValueError as error:
        raise CertificateError(f"the note is signed, but a line of it cannot be read: {error}") from None


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(" ")
    return name, value


def _digest(value: str) -> str:
    if not _DIGEST.fullmatch(value):
        raise ValueError(f"{value!r} is no SHA-256")
    return value.removeprefix("sha256:")


def _listed(ids: list[str]) -> str:
    """The count, then the ids: a reader sees that none is cut off."""
    return " ".join([str(len(ids)), *ids])


def _ids(value: str) -> Iterator[str]:
    count, *ids = value.split(" ")
    if int(count) != len(ids):
        raise ValueError(f"{value!r} does not list {count} scenarios")
    yield from ids


def _a_year_later(at: datetime) -> datetime:
    try:
        return at.replace(year=at.year + 1)
    except ValueError:
        return at.replace(year=at.year + 1, day=28)
