"""Certificates: who signs one after a run, and `--check NOTE`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from predictu_dispatch.certification.certificate import Certificate, CertificateError, read, signed, text_of, vkey_of
from predictu_dispatch.certification.report import REPORT
from predictu_dispatch.certification.result import RunResult
from predictu_dispatch.certification.run_verdict import ExpectedFailure, may_have_certificate
from predictu_dispatch.commands.certify.targets import Chosen
from predictu_dispatch.commands.invocation import EXIT_FAILED, EXIT_MISCONFIGURED, Invocation
from predictu_dispatch.commands.keys.common import refuse
from predictu_dispatch.commands.output import count, print_json, print_line, print_wrapped, timestamp
from predictu_dispatch.core.merkle.note import NoteError, VerifierKey
from predictu_dispatch.edge.config.certify_keys import read_certify_key
from predictu_dispatch.edge.config.files import ConfigError, read_file, system_message


def signer_of(
    result: RunResult, chosen: Chosen, expected: Sequence[ExpectedFailure]
) -> tuple[Callable[[str], str] | None, str]:
    """What signs the certificate, given the digest of report.json; or why there is none."""
    if not may_have_certificate(result, expected):
        why = "the run did not pass"
        if not result.is_whole_suite:
            why = "--only chose scenarios; a certificate needs all of them"
        elif expected:
            why = "a known failure is none in a certificate"
        return None, why
    key = chosen.certify_key
    if key is None:
        return None, chosen.why_no_certificate

    def sign(report_digest: str) -> str:
        return signed(text_of(result, report_digest=report_digest, issued_at=result.ended_at), key.ed25519_seed)

    return sign, ""


def check(invocation: Invocation, file: Path, vkey: str | None) -> None:
    """Verify a certificate, and the report beside it if there is one; exit 1 if it is not valid."""
    try:
        note = read_file(file)
        # Not by read_file: a report may be longer than a configuration file.
        report = file.with_name(REPORT).read_bytes() if file.with_name(REPORT).is_file() else None
    except OSError as error:
        refuse(invocation, f"{error.filename or file}: {system_message(error)}", EXIT_MISCONFIGURED)
    trusted = vkey or _own_vkey(invocation)
    try:
        VerifierKey.parse(trusted)
    except NoteError as error:
        refuse(
            invocation,
            f"--vkey {trusted}: {error}; the signer prints it with: predictu-dispatch keys public --certify",
            EXIT_MISCONFIGURED,
        )
    try:
        certificate = read(note, trusted)
    except CertificateError as error:
        refuse(invocation, f"{file} is not valid: {error}; it was verified with {trusted}", EXIT_FAILED)
    faults = [certificate.fault_at(datetime.now(UTC))]
    if report is not None and (fault := certificate.fault_of_report(report)):
        faults.append(f"{REPORT} beside it: {fault}")
    faults = [fault for fault in faults if fault]
    if invocation.json:
        print_json(_as_json(certificate, faults))
    else:
        _print(file, certificate, faults, with_report=report is not None)
    sys.exit(EXIT_FAILED if faults else 0)


def _own_vkey(invocation: Invocation) -> str:
    if invocation.is_without_config:
        refuse(invocation, "give the signer's --vkey, which verifies the certificate", EXIT_MISCONFIGURED)
    try:
        settings = invocation.dispatcher().certify
        key = read_certify_key(settings, invocation.config, os.environ)
    except ConfigError as error:
        invocation.refuse(error)
    if key is None:
        refuse(
            invocation, f"{invocation.config} has no [certify] key_file: give the signer's --vkey", EXIT_MISCONFIGURED
        )
    return vkey_of(key.ed25519_public_key)


def _print(file: Path, certificate: Certificate, faults: Sequence[str], *, with_report: bool) -> None:
    title = f"{file} is not valid: {'; '.join(faults)}" if faults else f"{file} is valid"
    print_wrapped(title, colour="red" if faults else "green", bold=True)
    skipped, warned = (", ".join(ids) or "none" for ids in (certificate.skipped, certificate.warned))
    for name, value in {
        "operator": certificate.operator_id,
        "sandbox": certificate.url,
        "run": certificate.run,
        "suite": f"version {certificate.suite}, {count(certificate.scenarios, 'scenario')}",
        "passed": str(certificate.passed),
        "warned": warned,
        "skipped": skipped,
        "issued": timestamp(certificate.issued_at, timespec="seconds"),
        "valid until": timestamp(certificate.valid_until, timespec="seconds"),
        "report": f"SHA-256 {certificate.report_digest}",
    }.items():
        head = f"  {name:<12}"
        print_wrapped(value, indent=head, hanging=" " * len(head))
    if not with_report:
        print_line(f"There is no {REPORT} beside it, so the report was not compared.")


def _as_json(certificate: Certificate, faults: Sequence[str]) -> dict[str, object]:
    return {
        "valid": not faults,
        "faults": list(faults),
        "operator_id": certificate.operator_id,
        "url": certificate.url,
        "run": certificate.run,
        "suite": certificate.suite,
        "scenarios": certificate.scenarios,
        "scenarios_digest": certificate.scenarios_digest,
        "passed": certificate.passed,
        "warned": list(certificate.warned),
        "skipped": list(certificate.skipped),
        "issued_at": certificate.issued_at,
        "valid_until": certificate.valid_until,
        "report_digest": certificate.report_digest,
    }
