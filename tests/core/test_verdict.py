"""The judging table of DESIGN.md 4 with the clarifications of 11, row by row, and what no answer may bring about."""

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
REFUSED = b'{"status":"INSUFFICIENT_FUNDS","balance":3}'
NOTHING = b'{"status":"TRANSACTION_NOT_FOUND"}'
LOGIN_PAGE = b"<!doctype html><title>Log in</title>"
WORDS_BELOW_500 = [200, 201, 202, 400, 401, 402, 403, 404, 405, 409, 410, 422, 429, 451, 499]
"""Codes with which operators have been seen to send a status, or might: the body wins over each of
them."""
REDIRECTS = [300, 301, 302, 303, 304, 307, 308, 399]
OUTAGES = [500, 501, 502, 503, 504, 520, 599, 999]


def answered(code: int, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> Exchange:
    return Exchange(evidence=Evidence.ANSWERED, status=code, headers=headers, body=body, total_ms=1.0)


def judged(code: int, body: bytes, method: Method = Method.BET_MAKE, **differing: Any) -> Judgement:
    return judge(a_callback(method, **differing), answered(code, body), BUILT_IN, now=NOW)


def unknown(reason: str, operator_status: str | None = None) -> Judgement:
    """A retry after something of the request has left: the operator may have applied it."""
    return Judgement(verdict=Verdict.RETRY, reason=reason, effect=Effect.UNKNOWN, operator_status=operator_status)


# no answer


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("reason", ["connect_refused", "dns_failed", "tls_failed", "connect_timeout", "too_late"])
def test_what_was_never_sent_is_retried_and_teaches_nothing(method: Method, reason: str) -> None:
    exchange = Exchange(evidence=Evidence.NOT_SENT, reason=reason, total_ms=1.0)
    assert judge(a_callback(method), exchange, BUILT_IN, now=NOW) == Judgement(verdict=Verdict.RETRY, reason=reason)


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("reason", ["timeout", "reset", "truncated", "too_large", "interrupted"])
def test_what_left_without_a_complete_answer_has_an_unknown_effect(method: Method, reason: str) -> None:
    # Half an answer that already says OK is no answer: its second half might have been another
    # status.
    exchange = Exchange(evidence=Evidence.UNANSWERED, reason=reason, status=200, body=OK, truncated=True, total_ms=1.0)
    assert judge(a_callback(method), exchange, BUILT_IN, now=NOW) == unknown(reason)


# the body's status


@pytest.mark.parametrize("code", WORDS_BELOW_500)
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
        )


@pytest.mark.parametrize("code", WORDS_BELOW_500)
@pytest.mark.parametrize("status", ["INSUFFICIENT_FUNDS", "PLAYER_NOT_FOUND"])
def test_a_refusal_is_rejected_for_every_method_and_every_code_below_500(code: int, status: str) -> None:
    for method in Method:
        body = b'{"status":"%s","transaction_id":"t"}' % status.encode()
        # The effect is left as it was: a refusal does not say what became of an earlier attempt.
        assert judged(code, body, method) == Judgement(
            verdict=Verdict.REJECTED, reason=status.lower(), operator_status=status, operator_transaction_id="t"
        )


@pytest.mark.parametrize("code", WORDS_BELOW_500)
@pytest.mark.parametrize("status", ["TRANSACTION_NOT_FOUND", "BET_NOT_FOUND"])
def test_nothing_to_reverse_is_done_for_a_rollback_and_no_answer_for_the_others(code: int, status: str) -> None:
    body = b'{"status":"%s"}' % status.encode()
    for method in Method:
        verdict = judged(code, body, method)
        if method is Method.BET_ROLLBACK:
            assert verdict == Judgement(verdict=Verdict.DELIVERED, reason="nothing_to_reverse", operator_status=status)
        else:
            assert (verdict.verdict, verdict.effect) == (Verdict.RETRY, Effect.UNKNOWN)


@pytest.mark.parametrize("body", [OK, REFUSED, NOTHING, LOGIN_PAGE, b""])
@pytest.mark.parametrize("code", REDIRECTS)
def test_a_302_to_a_login_page_is_never_a_delivery(code: int, body: bytes) -> None:
    for method in Method:
        assert judged(code, body, method) == unknown("misconfigured")


@pytest.mark.parametrize("body", [OK, REFUSED, NOTHING])
@pytest.mark.parametrize("code", OUTAGES)
def test_from_500_on_no_body_is_believed(code: int, body: bytes) -> None:
    for method in Method:
        assert judged(code, body, method) == unknown(f"http_{code}", json.loads(body)["status"])


@pytest.mark.parametrize("code", [401, 403, 404, 405, 410])
@pytest.mark.parametrize("body", [b"", LOGIN_PAGE, b'{"status":"NOT_FOUND"}', b'{"error":"bad token"}', b"[]"])
def test_a_wrong_address_or_key_is_misconfigured_and_never_means_that_nothing_happened(code: int, body: bytes) -> None:
    for method in Method:
        verdict = judged(code, body, method)
        assert (verdict.verdict, verdict.reason, verdict.effect) == (Verdict.RETRY, "misconfigured", Effect.UNKNOWN)


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
        (b'{"status":""}', "unknown_status"),
        (b'{"status":"ok"}', "unknown_status"),
        (b'{"status":" OK"}', "unknown_status"),
        (b'{"status":"PENDING"}', "unknown_status"),
    ],
)
def test_what_is_not_an_answer_is_retried_for_every_method(body: bytes, reason: str) -> None:
    for method in Method:
        verdict = judged(200, body, method)
        assert (verdict.verdict, verdict.reason, verdict.effect) == (Verdict.RETRY, reason, Effect.UNKNOWN)
        # With another code the code says more than the body does.
        assert judged(418, body, method).reason == "http_418"


def test_an_unknown_status_is_kept_for_whoever_looks_at_three_in_the_morning() -> None:
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
def test_retry_after_is_heard_in_seconds_and_as_a_date(
    code: int, value: str | None, retry_after_s: float | None
) -> None:
    headers = () if value is None else (("Content-Type", "text/html"), ("retry-AFTER", value), ("Retry-After", "1"))
    verdict = judge(a_callback(), answered(code, b"", headers), BUILT_IN, now=NOW)
    assert verdict == Judgement(
        verdict=Verdict.RETRY, reason=f"http_{code}", effect=Effect.UNKNOWN, retry_after_s=retry_after_s
    )


def test_retry_after_on_another_code_is_not_a_promise_we_keep() -> None:
    for code in (500, 404, 301, 200):
        verdict = judge(a_callback(), answered(code, b"", (("Retry-After", "40"),)), BUILT_IN, now=NOW)
        assert verdict.retry_after_s is None


# balance and transaction


@pytest.mark.parametrize(
    ("amount_format", "minor_digits", "balance", "subunits"),
    [
        ("subunits", 2, "95000", 95000),
        ("subunits", None, "95000", 95000),
        ("subunits", 2, "0", 0),
        ("subunits", 2, "-5", -5),
        ("subunits", 2, str(2**63 - 1), 2**63 - 1),
        ("decimal", 2, "950.00", 95000),
        ("decimal", 2, "950.0", 95000),
        ("decimal", 2, "950", 95000),
        ("decimal", 2, "0.07", 7),
        ("decimal", 2, "-0.07", -7),
        ("decimal", 2, "0.29", 29),
        ("decimal", 2, "1e2", 10000),
        ("decimal", 2, "950.000000000", 95000),
        ("decimal", 0, "950", 950),
        ("decimal", 0, "950.0", 950),
        ("decimal", 3, "950.001", 950001),
        ("decimal", 4, "0.0001", 1),
        ("decimal", 2, "92233720368547758.07", 2**63 - 1),
    ],
)
def test_a_balance_is_exact_in_subunits(
    amount_format: str, minor_digits: int | None, balance: str, subunits: int
) -> None:
    body = f'{{"status":"OK","balance":{balance}}}'.encode()
    verdict = judged(200, body, amount_format=amount_format, minor_digits=minor_digits)
    assert (verdict.verdict, verdict.balance, verdict.anomaly) == (Verdict.DELIVERED, subunits, None)
    assert type(verdict.balance) is int


@pytest.mark.parametrize("amount_format", ["subunits", "decimal"])
@pytest.mark.parametrize(
    "balance",
    [
        '"95000"',
        "true",
        "[]",
        "{}",
        "9" * 30,
        "9" * 5000,
        "-" + "9" * 5000,
        "1e400",
        "1e-400",
        "1e999999999999999999999",
        "0.001",
        "950.005",
        "1." + "0" * 5000 + "1",
        str(2**63),
        "[" * 400 + "]" * 400,
        '"\\ud800\\u0000"',
    ],
)
def test_a_malformed_balance_is_an_anomaly_on_the_row_and_never_a_retry(amount_format: str, balance: str) -> None:
    body = f'{{"status":"OK","balance":{balance},"transaction_id":"t"}}'.encode()
    verdict = judged(200, body, amount_format=amount_format)
    assert (verdict.verdict, verdict.effect, verdict.balance) == (Verdict.DELIVERED, Effect.APPLIED, None)
    assert verdict.operator_transaction_id == "t"
    assert verdict.anomaly is not None
    assert amount_format in verdict.anomaly
    assert_storable(verdict)


def test_a_balance_nested_to_the_parsers_very_limit_can_still_be_quoted() -> None:
    # What json just manages to read, repr must manage to print: both count how deep they are.
    for depth in range(900, 1050):
        body = f'{{"status":"OK","balance":{"[" * depth}{"]" * depth}}}'.encode()
        assert judged(200, body).reason in {None, "not_json"}


@pytest.mark.parametrize("balance", ["950.00", "950.0", "9.5e2", "950.5"])
def test_a_fraction_is_never_read_as_subunits(balance: str) -> None:
    # An operator that was set up with the wrong amount_format shows itself here, by a factor of a
    # hundred.
    verdict = judged(200, f'{{"status":"OK","balance":{balance}}}'.encode(), amount_format="subunits")
    assert (verdict.verdict, verdict.balance) == (Verdict.DELIVERED, None)
    assert verdict.anomaly is not None


def test_a_decimal_balance_in_an_unknown_currency_is_an_anomaly() -> None:
    verdict = judged(200, b'{"status":"OK","balance":950.00}', amount_format="decimal", minor_digits=None)
    assert (verdict.verdict, verdict.balance) == (Verdict.DELIVERED, None)
    assert verdict.anomaly is not None


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("body", [b'{"status":"OK"}', b'{"status":"OK","balance":null}'])
def test_a_missing_balance_is_an_anomaly_except_for_ping(method: Method, body: bytes) -> None:
    verdict = judged(200, body, method)
    assert verdict.verdict is Verdict.DELIVERED
    assert verdict.anomaly == (None if method is Method.PING else "balance is missing")


@pytest.mark.parametrize(
    ("transaction_id", "kept"),
    [('"op-tx-123"', "op-tx-123"), ("123", "123"), ("null", None), ('"a\\u0000b"', "a\ufffdb"), ('"\\ud800"', "?")],
)
def test_the_operators_transaction_id_is_kept(transaction_id: str, kept: str | None) -> None:
    verdict = judged(200, f'{{"status":"OK","balance":1,"transaction_id":{transaction_id}}}'.encode())
    assert (verdict.operator_transaction_id, verdict.anomaly) == (kept, None)


@pytest.mark.parametrize("transaction_id", ['""', "true", "1.5", "[]", "9" * 5000, "[" * 400 + "]" * 400])
def test_a_malformed_transaction_id_is_an_anomaly_and_never_a_retry(transaction_id: str) -> None:
    verdict = judged(200, f'{{"status":"OK","balance":1,"transaction_id":{transaction_id}}}'.encode())
    assert (verdict.verdict, verdict.operator_transaction_id, verdict.balance) == (Verdict.DELIVERED, None, 1)
    assert verdict.anomaly is not None
    assert "transaction_id" in verdict.anomaly
    assert_storable(verdict)


def test_a_very_long_transaction_id_is_cut_to_what_the_database_takes() -> None:
    verdict = judged(200, b'{"status":"OK","balance":1,"transaction_id":"%s"}' % (b"x" * 5000))
    assert verdict.operator_transaction_id == "x" * 200


# ---------------------------------------------------------------------------------------------- an
# operator's own words


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
    assert verdict(Method.BET_WIN, "NO_SUCH_BET", own).verdict is Verdict.RETRY
    assert verdict(Method.BET_WIN, "OK", own).verdict is Verdict.DELIVERED
    assert verdict(Method.BET_WIN, "INSUFFICIENT_FUNDS", own).verdict is Verdict.REJECTED
    for status in ("ACCEPTED", "PLAYER_BLOCKED", "NO_SUCH_BET"):
        assert verdict(Method.BET_ROLLBACK, status, BUILT_IN).verdict is Verdict.RETRY


# any answer

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
    # Cut, doubled and spoilt answers.
    st.tuples(answers, st.integers(0, 200)).map(lambda cut: cut[0][: cut[1]]),
    st.tuples(answers, st.binary(max_size=3)).map(lambda spoilt: spoilt[0] + spoilt[1]),
    answers.map(lambda answer: b"[" + answer + b"]"),
    answers.map(lambda answer: answer[:-1] + b"," + answer[1:]),
)
header_values = st.one_of(
    st.text(max_size=60),
    st.datetimes().map(lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT")),
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
def test_no_answer_makes_judging_raise_deliver_wrongly_or_write_what_the_database_refuses(  # noqa: PLR0917 - drawn
    method: Method, code: int, body: bytes, retry_after: str, amount_format: str, minor_digits: int | None
) -> None:
    callback = a_callback(method, amount_format=amount_format, minor_digits=minor_digits)
    verdict = judge(callback, answered(code, body, (("Retry-After", retry_after),)), BUILT_IN, now=NOW)
    status = status_of(body) if code < 500 and not 300 <= code < 400 else None
    nothing_to_reverse = method is Method.BET_ROLLBACK and status in BUILT_IN.nothing_to_reverse
    assert (verdict.verdict is Verdict.DELIVERED) == (status in BUILT_IN.success or nothing_to_reverse)
    assert (verdict.verdict is Verdict.REJECTED) == (status in BUILT_IN.rejected)
    assert (verdict.effect is Effect.APPLIED) == (status in BUILT_IN.success)
    assert (verdict.effect is Effect.UNKNOWN) == (verdict.verdict is Verdict.RETRY)
    assert verdict.retry_after_s is None or verdict.retry_after_s >= 0
    assert_storable(verdict)


def status_of(body: bytes) -> str | None:
    """The status of a body that is one JSON object without a key twice, read the plain way.

    None for anything else.
    """

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len({name for name, _ in pairs}) < len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        answer = json.loads(body.decode(), object_pairs_hook=once, parse_constant=refuse)
    except ValueError:
        return None
    status = answer.get("status") if isinstance(answer, dict) else None
    return status if isinstance(status, str) else None


def assert_storable(verdict: Judgement) -> None:
    """Everything fits Postgres: text without NUL that encodes, a balance within bigint, and nothing endless."""
    for text in (verdict.reason, verdict.operator_status, verdict.operator_transaction_id, verdict.anomaly):
        if text is not None:
            assert "\0" not in text
            # The anomaly quotes what it found: at worst ten characters for each of 200.
            assert len(text.encode()) <= 2_500
    assert verdict.balance is None or -(2**63) <= verdict.balance < 2**63
