"""The verdict of every kind of answer, row by row, and what no answer may cause."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from predictu_dispatch.core.callback import Effect, Evidence, Exchange
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.operator_settings import StatusesSettings
from predictu_dispatch.core.verdict import Judgement, Statuses, Verdict, judge
from tests.core.test_callback_body import a_callback

NOW = datetime(2026, 3, 19, 14, 30, tzinfo=UTC)
BUILT_IN = Statuses.of()
OK = b'{"status":"OK","balance":95000,"transaction_id":"op-tx-123"}'
REJECTED = b'{"status":"INSUFFICIENT_FUNDS","balance":3}'
NOTHING = b'{"status":"TRANSACTION_NOT_FOUND"}'
LOGIN_PAGE = b"<!doctype html><title>Log in</title>"
CODES_BELOW_500 = [200, 201, 202, 400, 401, 402, 403, 404, 405, 409, 410, 422, 429, 451, 499]
"""Codes that operators send with a status in the body, which decides before the code."""
REDIRECTS = [300, 301, 302, 303, 304, 307, 308, 399]
OUTAGES = [500, 501, 502, 503, 504, 520, 599, 999]


def answered(code: int, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> Exchange:
    return Exchange(evidence=Evidence.ANSWERED, status=code, headers=headers, body=body, total_ms=1.0)


def judged(code: int, body: bytes, method: Method = Method.BET_MAKE, **differing: Any) -> Judgement:
    return judge(a_callback(method, **differing), answered(code, body), BUILT_IN, now=NOW)


def unknown(reason: str, operator_status: str | None = None) -> Judgement:
    """Return the retry of a request that was sent: the operator may have applied it."""
    return Judgement(verdict=Verdict.RETRY, reason=reason, effect=Effect.UNKNOWN, operator_status=operator_status)


# No answer


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("reason", ["connect_refused", "dns_failed", "tls_failed", "connect_timeout", "too_late"])
def test_an_attempt_that_was_not_sent_is_retried_and_leaves_the_effect(method: Method, reason: str) -> None:
    exchange = Exchange(evidence=Evidence.NOT_SENT, reason=reason, total_ms=1.0)
    assert judge(a_callback(method), exchange, BUILT_IN, now=NOW) == Judgement(verdict=Verdict.RETRY, reason=reason)


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("reason", ["timeout", "reset", "truncated", "too_large", "interrupted"])
def test_an_attempt_without_a_complete_answer_has_an_unknown_effect(method: Method, reason: str) -> None:
    # A truncated answer does not count although it says OK: the rest might have another status.
    exchange = Exchange(evidence=Evidence.UNANSWERED, reason=reason, status=200, body=OK, truncated=True, total_ms=1.0)
    assert judge(a_callback(method), exchange, BUILT_IN, now=NOW) == unknown(reason)


# The body's status


@pytest.mark.parametrize("code", CODES_BELOW_500)
@pytest.mark.parametrize("status", ["OK", "DUPLICATE", "DUPLICATE_TRANSACTION"])
def test_a_success_is_delivered_for_every_method_and_every_code_below_500(code: int, status: str) -> None:
    for method in Method:
        body = b'{"status":"%s","balance":95000,"transaction_id":"op-tx-123"}' % status.encode()
        assert judged(code, body, method) == Judgement(
            verdict=Verdict.DELIVERED,
            effect=Effect.APPLIED,
            operator_status=status,
            operator_transaction_id="op-tx-123",
            balance=95000,
            is_from_application=True,
        )


@pytest.mark.parametrize("code", CODES_BELOW_500)
@pytest.mark.parametrize("status", ["INSUFFICIENT_FUNDS", "PLAYER_NOT_FOUND"])
def test_a_rejection_is_rejected_for_every_method_and_every_code_below_500(code: int, status: str) -> None:
    for method in Method:
        body = b'{"status":"%s","transaction_id":"t"}' % status.encode()
        # The effect stays: a rejection does not say whether an earlier attempt was applied.
        assert judged(code, body, method) == Judgement(
            verdict=Verdict.REJECTED,
            reason=status.lower(),
            operator_status=status,
            operator_transaction_id="t",
            is_from_application=True,
        )


@pytest.mark.parametrize("code", CODES_BELOW_500)
@pytest.mark.parametrize("status", ["TRANSACTION_NOT_FOUND", "BET_NOT_FOUND"])
def test_nothing_to_reverse_delivers_a_rollback_and_rejects_others(code: int, status: str) -> None:
    """Whether a BET_MAKE answered with it was booked is unknown, so its bet is rolled back."""
    body = b'{"status":"%s"}' % status.encode()
    for method in Method:
        is_rollback = method is Method.BET_ROLLBACK
        assert judged(code, body, method) == Judgement(
            verdict=Verdict.DELIVERED if is_rollback else Verdict.REJECTED,
            reason="nothing_to_reverse" if is_rollback else status.lower(),
            effect=Effect.UNKNOWN if method is Method.BET_MAKE else None,
            operator_status=status,
            is_from_application=True,
        )


@pytest.mark.parametrize("body", [OK, REJECTED, NOTHING, LOGIN_PAGE, b""])
@pytest.mark.parametrize("code", REDIRECTS)
def test_a_redirect_is_never_a_delivery(code: int, body: bytes) -> None:
    for method in Method:
        assert judged(code, body, method) == unknown("misconfigured")


@pytest.mark.parametrize("body", [OK, REJECTED, NOTHING])
@pytest.mark.parametrize("code", OUTAGES)
def test_from_500_on_the_body_does_not_count(code: int, body: bytes) -> None:
    for method in Method:
        assert judged(code, body, method) == unknown(f"http_{code}", json.loads(body)["status"])


@pytest.mark.parametrize("code", [401, 403, 404, 405, 410])
@pytest.mark.parametrize("body", [b"", LOGIN_PAGE, b'{"status":404}', b'{"error":"bad token"}', b"[]"])
def test_the_codes_of_a_wrong_url_or_key_are_misconfigured_with_an_unknown_effect(code: int, body: bytes) -> None:
    for method in Method:
        assert judged(code, body, method) == unknown("misconfigured")


@pytest.mark.parametrize("code", [401, 403, 405, 410])
def test_a_wrong_key_or_route_is_misconfigured_also_with_an_unknown_status(code: int) -> None:
    for method in Method:
        verdict = judged(code, b'{"status":"NOT_ALLOWED"}', method)
        assert verdict == unknown("misconfigured", "NOT_ALLOWED")._replace(is_from_application=code in {405, 410})


@pytest.mark.parametrize("code", [200, 201, 202, 400, 402, 404, 409, 418, 422, 451, 499])
@pytest.mark.parametrize("status", ["PLAYER_BLOCKED", "PENDING", "ok", " OK", ""])
def test_an_unknown_status_retries_a_rollback_and_rejects_others_with_an_unknown_effect(code: int, status: str) -> None:
    """The overview says that business errors are never retried; a reversal must become definite."""
    body = b'{"status":"%s","transaction_id":7}' % status.encode()
    for method in Method:
        is_rollback = method is Method.BET_ROLLBACK
        assert judged(code, body, method) == Judgement(
            verdict=Verdict.RETRY if is_rollback else Verdict.REJECTED,
            reason="unknown_status",
            effect=Effect.UNKNOWN,
            operator_status=status,
            operator_transaction_id=None if is_rollback else "7",
            is_from_application=True,
        )


@pytest.mark.parametrize("code", [*CODES_BELOW_500, *OUTAGES])
def test_a_status_that_the_file_lists_under_retry_is_retried_at_any_code(code: int) -> None:
    own = Statuses.of(StatusesSettings(retry=("BUSY",)))
    for method in Method:
        for headers, retry_after_s in (((), None), ((("Retry-After", "40"),), 40.0)):
            verdict = judge(a_callback(method), answered(code, b'{"status":"BUSY"}', headers), own, now=NOW)
            assert verdict == unknown("operator_retry", "BUSY")._replace(
                retry_after_s=retry_after_s, is_from_application=code < 500 and code not in {401, 403}
            )
    # A redirect comes first: nobody knows who gave this answer.
    for redirect in REDIRECTS:
        assert judge(a_callback(), answered(redirect, b'{"status":"BUSY"}'), own, now=NOW) == unknown("misconfigured")


@pytest.mark.parametrize("code", [*CODES_BELOW_500, *REDIRECTS, *OUTAGES])
def test_an_answer_with_a_status_below_500_is_the_applications_unless_a_gateway_may_have_given_it(code: int) -> None:
    """It decides whether the operator is down. A known status counts at every code below 500."""
    for body in (OK, REJECTED, NOTHING, b'{"status":"PENDING"}', b'{"status":7}', b"{}", LOGIN_PAGE):
        is_known = body in (OK, REJECTED, NOTHING)
        has_status = is_known or b"PENDING" in body
        may_be_the_gateway = code in {401, 403} and not is_known
        is_from_application = has_status and code < 500 and code not in REDIRECTS and not may_be_the_gateway
        assert judged(code, body).is_from_application == is_from_application


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (LOGIN_PAGE, "not_json"),
        (b"OK", "not_json"),
        (b'{"status":"OK"', "not_json"),
        (b'{"status":"OK"}{"status":"OK"}', "not_json"),
        (b'{"status":"OK"} trailing', "not_json"),
        (b"{'status':'OK'}", "not_json"),
        (b'{"status":"OK",}', "not_json"),
        (b'{"status":"OK","balance":NaN}', "not_json"),
        (b'{"status":"OK","balance":-Infinity}', "not_json"),
        (b'\xef\xbb\xbf{"status":"OK"}', "not_json"),
        (b'{"status":"OK","deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "not_json"),
        (b'{"status":"OK","deep":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}", "not_json"),
        ('{"status":"OK"}'.encode("utf-16"), "not_utf8"),
        (b'{"status":"OK","name":"\xe9"}', "not_utf8"),
        (b'[{"status":"OK"}]', "not_object"),
        (b'"OK"', "not_object"),
        (b"null", "not_object"),
        (b"200", "not_object"),
        (b'{"status":"OK","status":"OK"}', "duplicate_keys"),
        (b'{"status":"OK","status":"INSUFFICIENT_FUNDS"}', "duplicate_keys"),
        (b'{"status":"OK","st\\u0061tus":"FAILED"}', "duplicate_keys"),
        (b'{"status":"OK","balance":1,"balance":2}', "duplicate_keys"),
        (b'{"status":"OK","more":{"a":1,"a":2}}', "duplicate_keys"),
        (b"{}", "no_status"),
        (b'{"Status":"OK"}', "no_status"),
        (b'{"status":null}', "no_status"),
        (b'{"status":true}', "no_status"),
        (b'{"status":200}', "no_status"),
        (b'{"status":["OK"]}', "no_status"),
        (b'{"data":{"status":"OK"}}', "no_status"),
    ],
)
def test_a_body_that_is_not_an_answer_is_retried_for_every_method(body: bytes, reason: str) -> None:
    for method in Method:
        verdict = judged(200, body, method)
        assert (verdict.verdict, verdict.reason, verdict.effect) == (Verdict.RETRY, reason, Effect.UNKNOWN)
        # With another code the reason is the code.
        assert judged(418, body, method).reason == "http_418"


def test_an_unknown_status_is_kept() -> None:
    for code in (200, 401, 404, 429, 500, 503):
        assert judged(code, b'{"status":"PENDING"}').operator_status == "PENDING"


# Retry-After


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize(
    ("value", "retry_after_s"),
    [
        ("40", 40.0),
        (" 0 ", 0.0),
        ("9" * 30, float("9" * 30)),
        ("9" * 5000, float("inf")),
        ("Thu, 19 Mar 2026 14:31:30 GMT", 90.0),
        ("Thursday, 19-Mar-26 14:31:30 GMT", 90.0),
        ("Thu, 19 Mar 2026 14:29:00 GMT", 0.0),
        ("Thu, 19 Mar 2026 14:31:30 -0000", None),
        ("-5", None),
        ("4.5", None),
        ("1e3", None),
        ("٤", None),
        ("soon", None),
        ("Thu, 99 Foo 2026 99:99:99 GMT", None),
        ("Thu, 19 Mar 999999999999 14:31:30 GMT", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(
    code: int, value: str | None, retry_after_s: float | None
) -> None:
    headers = () if value is None else (("Content-Type", "text/html"), ("retry-AFTER", value), ("Retry-After", "1"))
    verdict = judge(a_callback(), answered(code, b"", headers), BUILT_IN, now=NOW)
    assert verdict == Judgement(
        verdict=Verdict.RETRY, reason=f"http_{code}", effect=Effect.UNKNOWN, retry_after_s=retry_after_s
    )


def test_retry_after_counts_only_with_429_and_503() -> None:
    for code in (500, 404, 301, 200):
        verdict = judge(a_callback(), answered(code, b"", (("Retry-After", "40"),)), BUILT_IN, now=NOW)
        assert verdict.retry_after_s is None


# Statuses of the operator's file


def test_statuses_of_the_operators_file_add_to_the_built_in_ones() -> None:
    own = Statuses.of(
        StatusesSettings(success=("ACCEPTED",), rejected=("PLAYER_BLOCKED",), nothing_to_reverse=("NO_SUCH_BET",))
    )

    def verdict(method: Method, status: str, statuses: Statuses) -> Judgement:
        exchange = answered(409, b'{"status":"%s","balance":1}' % status.encode())
        return judge(a_callback(method), exchange, statuses, now=NOW)

    assert verdict(Method.BET_WIN, "ACCEPTED", own).verdict is Verdict.DELIVERED
    assert verdict(Method.BET_WIN, "PLAYER_BLOCKED", own).reason == "player_blocked"
    assert verdict(Method.BET_ROLLBACK, "NO_SUCH_BET", own).reason == "nothing_to_reverse"
    assert verdict(Method.BET_WIN, "NO_SUCH_BET", own).reason == "no_such_bet"
    assert verdict(Method.BET_WIN, "OK", own).verdict is Verdict.DELIVERED
    assert verdict(Method.BET_WIN, "INSUFFICIENT_FUNDS", own).verdict is Verdict.REJECTED
    for status in ("ACCEPTED", "PLAYER_BLOCKED", "NO_SUCH_BET"):
        assert verdict(Method.BET_ROLLBACK, status, BUILT_IN).reason == "unknown_status"


# Any answer

statuses_seen = st.one_of(
    st.sampled_from(sorted(BUILT_IN.success | BUILT_IN.rejected | BUILT_IN.nothing_to_reverse)), st.text(max_size=300)
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=8,
)
answers = st.fixed_dictionaries(
    {"status": st.one_of(statuses_seen, json_values)},
    optional={"balance": json_values, "transaction_id": json_values, "more": json_values},
).map(lambda answer: json.dumps(answer).encode())
bodies = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    answers,
    # Truncated, repeated and damaged answers.
    st.tuples(answers, st.integers(0, 200)).map(lambda cut: cut[0][: cut[1]]),
    st.tuples(answers, st.binary(max_size=3)).map(lambda damaged: damaged[0] + damaged[1]),
    answers.map(lambda answer: b"[" + answer + b"]"),
    answers.map(lambda answer: answer[:-1] + b"," + answer[1:]),
)
header_values = st.one_of(
    st.text(max_size=60),
    st.datetimes().map(lambda time: time.strftime("%a, %d %b %Y %H:%M:%S GMT")),
    st.from_regex(r"[A-Za-z]{0,3},? ?[0-9]{0,12}[ -]?[A-Za-z]{0,4}[ -]?[0-9]{0,12} ?[0-9:.]{0,10} ?[-+A-Z0-9]{0,6}"),
)


@given(
    method=st.sampled_from(Method),
    code=st.integers(min_value=100, max_value=999),
    body=bodies,
    retry_after=header_values,
    amount_format=st.sampled_from(["subunits", "decimal"]),
    minor_digits=st.sampled_from([None, 0, 2, 3, 4]),
)
@example(Method.BET_MAKE, 429, b"", "Mon, 1 Jan 0001 00:00:00 +9999", "subunits", 2)
def test_every_answer_gets_the_right_verdict_and_can_be_stored(  # noqa: PLR0917 - drawn
    method: Method, code: int, body: bytes, retry_after: str, amount_format: str, minor_digits: int | None
) -> None:
    callback = a_callback(method, amount_format=amount_format, minor_digits=minor_digits)
    verdict = judge(callback, answered(code, body, (("Retry-After", retry_after),)), BUILT_IN, now=NOW)
    status = status_of(body) if code < 500 and not 300 <= code < 400 else None
    assert_verdict_follows_from_the_status(verdict, method, code, status)
    assert verdict.retry_after_s is None or verdict.retry_after_s >= 0
    assert_storable(verdict)


def status_of(body: bytes) -> str | None:
    """Return the status of a body that is one JSON object without a repeated key; else None."""

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("repeated key")
        return dict(pairs)

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        answer = json.loads(body.decode(), object_pairs_hook=once, parse_constant=refuse)
    except ValueError:
        return None
    status = answer.get("status") if isinstance(answer, dict) else None
    return status if isinstance(status, str) else None


def assert_verdict_follows_from_the_status(verdict: Judgement, method: Method, code: int, status: str | None) -> None:
    """Assert that only a text status ends a callback; `status` is None if none counts."""
    is_rollback = method is Method.BET_ROLLBACK
    nothing = status in BUILT_IN.nothing_to_reverse
    known = status in BUILT_IN.success | BUILT_IN.rejected or nothing
    unknown = status is not None and not known and code not in {401, 403, 405, 410, 429}
    assert (verdict.verdict is Verdict.DELIVERED) == (status in BUILT_IN.success or (nothing and is_rollback))
    rejected = status in BUILT_IN.rejected or ((nothing or unknown) and not is_rollback)
    assert (verdict.verdict is Verdict.REJECTED) == rejected
    assert (verdict.effect is Effect.APPLIED) == (status in BUILT_IN.success)
    unclear = nothing and method is Method.BET_MAKE
    assert (verdict.effect is Effect.UNKNOWN) == (verdict.verdict is Verdict.RETRY or unknown or unclear)


def assert_storable(verdict: Judgement) -> None:
    """Assert that Postgres can store it: no NUL, limited length, a balance within bigint."""
    for text in (verdict.reason, verdict.operator_status, verdict.operator_transaction_id, verdict.anomaly):
        if text is not None:
            assert "\0" not in text
            # The anomaly quotes the value: at most ten characters for each of 200.
            assert len(text.encode()) <= 2_500
    assert verdict.balance is None or -(2**63) <= verdict.balance < 2**63
