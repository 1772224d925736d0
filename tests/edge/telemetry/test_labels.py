"""Labels from attempts are bounded, and money is counted as it was confirmed."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import predictu_dispatch
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.verdict import Statuses, judge
from predictu_dispatch.edge.telemetry.labels import confirmed_amount, reason_label
from tests.core.test_callback_body import a_callback

PACKAGE = Path(predictu_dispatch.__file__).parent
NOW = datetime(2026, 1, 1, tzinfo=UTC)
REASONS_MAX = 100


def reasons_in_the_code() -> Iterator[str]:
    """Every reason that is written as a literal where attempts fail."""
    for name, pattern in {
        "edge/http/connection.py": r"fail\(\s*\"(\w+)\"|reason, what = \(\"(\w+)\".*else \(\"(\w+)\"",
        "edge/http/failure_reason.py": r"return \"(\w+)\"",
        "edge/http/transport.py": r"reason=\"(\w+)\"|else \"(\w+)\"\)|\.fail, \"(\w+)\"|failure = \(\"(\w+)\"",
        "core/answer.py": r"NoAnswerError\(\"(\w+)\"",
        "core/verdict.py": r"^[A-Z_]+ = \"(\w+)\"|reason=\"(\w+)\"|or \"(\w+)\"",
        "flow/courier.py": r"reason=\"(\w+)\"",
        "flow/reaper.py": r"reason=\"(\w+)\"",
    }.items():
        found = re.findall(pattern, (PACKAGE / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert found, name
        yield from (text for one in found for text in ([one] if isinstance(one, str) else one) if text)


def test_every_reason_code_of_a_failed_attempt_is_a_label_of_its_own() -> None:
    reasons = {*reasons_in_the_code(), "http_429", "http_500", "http_502", "http_522"} - {"no_answer"}
    assert {"timeout", "reset", "truncated", "interrupted", "not_json", "misconfigured"} <= reasons
    assert {reason for reason in reasons if reason_label(reason) != reason} == set()


def test_no_answer_of_an_operator_creates_a_reason_beyond_a_hundred() -> None:
    """Every HTTP code, with a status that we do not know, without one, and without JSON."""
    labels = {
        reason_label(judge(a_callback(method), exchange, Statuses.of(), now=NOW).reason)
        for code in range(100, 1000)
        for body in (b'{"status": "S%d"}' % code, b"{}", b"%d" % code, b"\xff", b"<html>")
        for method in (Method.BET_MAKE, Method.BET_ROLLBACK)
        for exchange in [Exchange(Evidence.ANSWERED, 1.0, status=code, body=body)]
    }
    assert {"unknown_status", "misconfigured", "http_502", "http_522", "http_5xx", "no_status", "not_json"} <= labels
    assert len(labels) < REASONS_MAX
    assert not any(re.search(r"[^a-z0-9_]|s\d", label) for label in labels)


def test_unknown_reasons_share_one_label() -> None:
    assert {reason_label(reason) for reason in (None, "", "player_blocked", "http_", "http_x99", "HTTP_500")} == {
        "other"
    }
    assert [reason_label(f"http_{code}") for code in (499, 599, 650)] == ["http_4xx", "http_5xx", "http_6xx"]


PARAMS = '{"bet": {"amount": 7, "currency": "USD"}, "amount": 1234, "currency": "JPY", "player_id": "p"}'


@pytest.mark.parametrize(
    ("method", "direction"),
    [
        (Method.BET_MAKE, "debit"),
        (Method.BET_WIN, "credit"),
        (Method.BET_SELL, "credit"),
        (Method.BET_REFUND, "credit"),
        (Method.BET_ROLLBACK, "rollback"),
    ],
)
def test_money_is_counted_in_the_smallest_unit_of_its_own_currency(method: Method, direction: str) -> None:
    assert confirmed_amount(a_callback(method, params=PARAMS), None) == (1234, "JPY", direction)


def test_what_moves_no_money_is_not_counted() -> None:
    for method in (Method.PING, Method.BALANCE, Method.BET_LOSE):
        assert confirmed_amount(a_callback(method, params=PARAMS), None) is None
    rollback = a_callback(Method.BET_ROLLBACK, params=PARAMS)
    assert confirmed_amount(rollback, "nothing_to_reverse") is None


def test_keys_of_a_producer_do_not_hide_the_amount() -> None:
    for extra in ("1e400", "9" * 5000, '"\\u0000"', "[" * 90_000 + "]" * 90_000):
        params = f'{{"x": {extra}, {PARAMS[1:]}'
        money = confirmed_amount(a_callback(Method.BET_WIN, params=params), None)
        assert money is None if extra.startswith("[") else money == (1234, "JPY", "credit")
