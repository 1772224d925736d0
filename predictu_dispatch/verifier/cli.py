"""The command: arguments, and the report in plain sentences of at most 80 columns, or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from .archive import RefusedError
from .policy import POLICY_BYTES_MAX, Policy, parse_policy
from .records import Statement, Verdict
from .verify import Report, verify

EXIT_OK, EXIT_CONTRADICTED, EXIT_USAGE = 0, 1, 2
_COLUMNS: Final = 80
_TRUSTED: Final = {
    "given": "with your policy",
    "bundle": "with the keys that the bundle names",
    "none": "without a key of the log: only the signatures on requests are proved",
}


def main(arguments: Sequence[str]) -> int:
    """Verify a bundle; return 0 if nothing is contradicted, 1 otherwise, 2 for wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        options = _parser().parse_args(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_USAGE
    try:
        policy = _policy(options.policy) if options.policy else None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        _print([f"cannot use the policy {options.policy}: {why}"], err=True)
        return EXIT_USAGE
    try:
        report = verify(options.file, policy)
    except OSError as error:
        _print([f"cannot read {options.file}: {error.strerror or error}"], err=True)
        return EXIT_USAGE
    except RefusedError as error:
        if options.json:
            _print_json({"result": "refused", "file": error.file, "reason": error.reason})
        _print([f"refused: {error}", "This is not a bundle as Predictu makes them; nothing in it is proved."], err=True)
        return EXIT_CONTRADICTED
    if options.json:
        _print_json(_as_json(report))
    else:
        _print(_lines(report))
    return EXIT_CONTRADICTED if report.is_contradicted else EXIT_OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="verifier",
        description="Verify a bundle of `predictu-dispatch dispute` offline.",
        epilog="Exit codes: 0 nothing is contradicted; 1 contradicted, or no bundle; 2 wrong usage.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the bundle, a ZIP file")
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="whom you trust: keys of the log and of witnesses (c2sp.org/tlog-policy)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _policy(path: Path) -> Policy:
    with path.open("rb") as file:
        return parse_policy(file.read(POLICY_BYTES_MAX + 1))


def _lines(report: Report) -> Iterator[str]:
    manifest = report.manifest
    yield f"Bet {manifest.bet_id} of operator {manifest.operator_id}, log {manifest.origin}"
    about = ""
    for each in report.statements:
        if each.about != about:
            yield from ("", each.about)
            about = each.about
        yield from _sentence(each)
    yield ""
    counts = {verdict: sum(each.verdict is verdict for each in report.statements) for verdict in Verdict}
    yield ", ".join(f"{verdict}: {count}" for verdict, count in counts.items())
    yield from ("", "Not proved:")
    for text in report.not_proved:
        yield f"- {text}"
    yield ""
    if report.is_contradicted:
        yield "Result: CONTRADICTED. Do not rely on this bundle."
    else:
        yield f"Result: nothing is contradicted, {_TRUSTED[report.policy]}."


def _sentence(statement: Statement) -> Iterator[str]:
    yield f"  {statement.verdict}: {statement.text}"
    if statement.reason:
        yield f"    because {statement.reason}"


def _as_json(report: Report) -> dict[str, object]:
    manifest = report.manifest
    return {
        "result": "contradicted" if report.is_contradicted else "not contradicted",
        "operator_id": manifest.operator_id,
        "bet_id": manifest.bet_id,
        "origin": manifest.origin,
        "policy": report.policy,
        "without_player": manifest.is_without_player,
        "statements": [asdict(each) for each in report.statements],
        "not_proved": list(report.not_proved),
    }


def _print_json(value: object) -> None:
    # In ASCII, so nothing of it acts on a terminal.
    sys.stdout.write(json.dumps(value, indent=2).replace("\x7f", "\\u007f") + "\n")


def _print(lines: Sequence[str] | Iterator[str], *, err: bool = False) -> None:
    stream = sys.stderr if err else sys.stdout
    for line in lines:
        text = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in line)
        indent = text[: len(text) - len(text.lstrip(" "))]
        hanging = indent + ("  " if text.strip() else "")
        wrapped = textwrap.wrap(
            text, _COLUMNS, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False
        )
        stream.write("\n".join(wrapped or [""]) + "\n")
