"""Makes the report's document: everything about a run as JSON; schema.json describes it. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from predictu_dispatch.certification.observation import Ledger, Observed, Sent, TlsFacts
from predictu_dispatch.certification.report.contents import Octets, Report, octets, plain, rfc3339, summary_of
from predictu_dispatch.certification.result import SUITE_VERSION, ScenarioResult, digest_of
from predictu_dispatch.certification.run_verdict import why_not_passed
from predictu_dispatch.certification.scenario import ScenarioVerdict

FORMAT: Final = 1
"""Raised if a reader of the document must change."""
_LEDGER_ROWS_MAX: Final = 20
_TEXT_CHARS_MAX: Final = 4096
"""For a header of an answer or an error."""
Json = dict[str, object]


def document(report: Report) -> Json:
    """Return the document."""
    result = report.result
    reasons = why_not_passed(result, report.expected)
    return {
        "format": FORMAT,
        "made_by": report.made_by,
        "passed": not reasons,
        "why_not_passed": list(reasons),
        "notes": list(report.notes),
        "suite": {
            "version": SUITE_VERSION,
            "scenarios": len(result.results),
            "digest": digest_of([each.scenario for each in result.results]),
            "is_whole": result.is_whole_suite,
        },
        "run": {
            "id": result.run,
            "started_at": rfc3339(result.started_at),
            "ended_at": rfc3339(result.ended_at),
            "requests_sent": result.requests_sent,
            "stopped": result.stopped,
        },
        "operator": {
            "id": result.operator_id,
            "url": result.url,
            "kid": result.kid,
            "algorithm": result.algorithm,
            "amount_format": result.amount_format,
            "currency": result.currency,
            "digits": result.digits,
            "players": list(result.players),
        },
        "counts": {verdict.value: result.count(verdict) for verdict in ScenarioVerdict},
        "scenarios": [_scenario(report, each) for each in result.results],
        "money": {
            "players": [
                {"player_id": each.player_id, "before": each.before, "after": each.after, "net": each.net}
                for each in result.reversal.players
            ],
            "rolled_back": result.reversal.rolled_back,
            "compensated": result.reversal.compensated,
            "unresolved": list(result.reversal.unresolved),
            "clean_line": report.clean_line,
        },
        "expected_failures": [
            {
                "scenario": known.scenario,
                "reason": known.reason,
                "until": known.until.isoformat(),
                "problem": known.problem,
            }
            for known in report.expected
        ],
    }


def json_bytes(made: Json) -> bytes:
    """Return the document's bytes. They are ASCII: nothing in them controls a terminal."""
    return f"{json.dumps(_without_signatures(made), indent=1)}\n".encode("ascii")


def _without_signatures(value: object) -> object:
    if isinstance(value, str):
        # JSON has no way to write a lone surrogate that every reader accepts.
        return plain(value).encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_without_signatures(key): _without_signatures(each) for key, each in value.items()}
    return [_without_signatures(each) for each in value] if isinstance(value, list | tuple) else value


def _scenario(report: Report, result: ScenarioResult) -> Json:
    scenario, known = result.scenario, report.known(result)
    about = [name for finding in result.findings for name in finding.about]
    return {
        "id": scenario.id,
        "group": scenario.group.value,
        "title": scenario.title,
        "why": scenario.why,
        "fix": scenario.fix,
        "verdict": result.verdict.value,
        "is_expected_failure": known is not None,
        "skipped_because": result.reason,
        "started_at": _time(result.started_at),
        "duration_s": round(result.duration_s, 3),
        "expectations": [each.text for each in scenario.expectations],
        "findings": [
            {
                "verdict": finding.verdict.value,
                "expected": finding.expected,
                "observed": finding.observed,
                "advice": finding.advice,
                "requests": list(finding.about),
            }
            for finding in result.findings
        ],
        "repeat": report.repeat_line(scenario.id),
        **_observed(result.observed, about),
    }


def _observed(seen: Observed | None, about: Sequence[str]) -> Json:
    return {
        "balances": [
            {"reading": name, "player_id": seen.player_ids[index], "balance": balance}
            for name, reading in seen.balances.items()
            for index, balance in reading.items()
        ]
        if seen
        else [],
        "requests": [_request(each) for each in seen.sent.values()] if seen else [],
        "balance_requests": [_request(each) for each in seen.balance_reads] if seen else [],
        "batches": [_batch(name, batch, about) for name, batch in seen.batches.items()] if seen else [],
        "tls": _tls(seen.tls) if seen and seen.tls else None,
        "ledger": _ledger(seen.ledger) if seen and seen.ledger else None,
    }


def _request(sent: Sent) -> Json:
    exchange, judgement = sent.exchange, sent.judgement
    return {
        "name": sent.name,
        "method": sent.method.value,
        "request_id": sent.request_id,
        "bet_id": sent.bet_id,
        "player_id": sent.player_id,
        "amount": sent.amount,
        "body": _octets(octets(sent.body)),
        "token": {"fault": sent.token.value, "header": dict(sent.header), "claims": dict(sent.claims)},
        "delivery": sent.delivery.value,
        "is_on_used_connection": sent.is_on_used_connection,
        "sent_at": rfc3339(sent.started_at),
        "answer": {
            "evidence": exchange.evidence.value,
            "status": exchange.status,
            "headers": [{"name": _text(name), "value": _text(value)} for name, value in exchange.headers],
            "body": _octets(octets(exchange.body)),
            "is_truncated": exchange.truncated,
            "reason": exchange.reason,
            "error": None if exchange.error is None else _text(exchange.error),
            "connect_ms": _ms(exchange.connect_ms),
            "first_byte_ms": _ms(exchange.first_byte_ms),
            "total_ms": _ms(exchange.total_ms),
            "peer": exchange.peer,
        },
        "outcome": sent.outcome.value,
        "judgement": {
            "verdict": judgement.verdict.value,
            "reason": judgement.reason,
            "effect": None if judgement.effect is None else judgement.effect.value,
            "status": judgement.operator_status,
            "transaction_id": judgement.operator_transaction_id,
            "balance": judgement.balance,
            "anomaly": judgement.anomaly,
        },
    }


def _batch(name: str, batch: Sequence[Sent], about: Sequence[str]) -> Json:
    summary = summary_of(batch, about)
    return {
        "name": name,
        "count": summary.count,
        "amount": summary.amount,
        "outcomes": [{"outcome": outcome.value, "count": count} for outcome, count in summary.outcomes.items()],
        "slowest_ms": _ms(summary.slowest_ms),
        "examples": [_request(each) for each in summary.examples],
    }


def _tls(facts: TlsFacts) -> Json:
    return {
        "version": facts.version,
        "certificate_ends_at": _time(facts.certificate_ends_at),
        "fault": facts.fault,
    }


def _ledger(ledger: Ledger) -> Json:
    return {
        "fault": ledger.fault,
        "count": len(ledger.rows),
        "rows": [
            {
                "request_id": row.request_id,
                "transaction_id": row.transaction_id,
                "method": row.method,
                "bet_id": row.bet_id,
                "player_id": row.player_id,
                "currency": row.currency,
                "amount": row.amount,
            }
            for row in ledger.rows[:_LEDGER_ROWS_MAX]
        ],
    }


def _octets(shown: Octets) -> Json:
    content: Json = {"base64": shown.base64} if shown.text is None else {"text": shown.text}
    return {"length": shown.length, "sha256": shown.sha256, "is_shortened": shown.is_shortened, **content}


def _text(text: str) -> str:
    return text if len(text) <= _TEXT_CHARS_MAX else f"{text[:_TEXT_CHARS_MAX]}… ({len(text)} characters)"


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)


def _ms(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else round(milliseconds, 1)
