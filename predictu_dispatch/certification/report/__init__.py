"""The reports of a run: report.json, index.html, junit.xml, and certificate.note if it has one."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Final

from predictu_dispatch.certification.report.contents import Report
from predictu_dispatch.certification.report.document import document, json_bytes
from predictu_dispatch.certification.report.junit import junit
from predictu_dispatch.certification.report.page import page
from predictu_dispatch.certification.result import RunResult
from predictu_dispatch.certification.run_verdict import ExpectedFailure

SCHEMA: Final = "schema.json"
"""The JSON Schema of report.json, in this package."""
REPORT, PAGE, JUNIT, CERTIFICATE = "report.json", "index.html", "junit.xml", "certificate.note"


def write_reports(
    result: RunResult,
    folder: Path,
    *,
    repeat_line: Callable[[str], str],
    clean_line: str = "",
    expected: Sequence[ExpectedFailure] = (),
    notes: Sequence[str] = (),
    certify: Callable[[str], str] | None = None,
) -> tuple[Path, ...]:
    """Write the reports of a run, also of one that was stopped, and return their paths.

    `repeat_line` returns the shell line that plays a scenario again. `certify` gets the SHA-256 of
    report.json and returns the signed note. Each file is written as a whole or not at all, and only
    its owner can read it. Raises OSError.
    """
    report = Report(
        result=result,
        made_by=f"predictu-dispatch {version('predictu-dispatch')}",
        repeat_line=repeat_line,
        clean_line=clean_line,
        expected=tuple(expected),
        notes=tuple(notes),
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A certificate of an earlier report never stands beside this one.
    (folder / CERTIFICATE).unlink(missing_ok=True)
    content = json_bytes(document(report))
    certificate = certify(hashlib.sha256(content).hexdigest()) if certify else None
    written = {REPORT: content, PAGE: page(report, _style(), certificate).encode(), JUNIT: junit(report)}
    if certificate is not None:
        written[CERTIFICATE] = certificate.encode()
    return tuple(_write(folder / name, octets) for name, octets in written.items())


def schema() -> bytes:
    """Return the JSON Schema of report.json."""
    return (files(__package__) / SCHEMA).read_bytes()


def _style() -> str:
    return (files(__package__) / "page.css").read_text(encoding="utf-8")


def _write(path: Path, content: bytes) -> Path:
    descriptor, unfinished = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        Path(unfinished).replace(path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise
    return path
