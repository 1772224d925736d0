"""The balance and the transaction id of an answer: exact, or an anomaly, and never a retry."""

import pytest

from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.verdict import Verdict
from tests.core.test_verdict import assert_storable, judged


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
def test_a_malformed_balance_is_an_anomaly_and_never_a_retry(amount_format: str, balance: str) -> None:
    body = f'{{"status":"OK","balance":{balance},"transaction_id":"t"}}'.encode()
    verdict = judged(200, body, amount_format=amount_format)
    assert (verdict.verdict, verdict.effect, verdict.balance) == (Verdict.DELIVERED, Effect.APPLIED, None)
    assert verdict.operator_transaction_id == "t"
    assert verdict.anomaly is not None
    assert amount_format in verdict.anomaly
    # The quotes show that it is a text and not a number.
    assert ("balance is '" in verdict.anomaly) is balance.startswith('"')
    assert_storable(verdict)


def test_a_balance_nested_to_the_parsers_limit_can_still_be_quoted() -> None:
    # What json can just read, repr must be able to print: both have a limit of depth.
    for depth in range(900, 1050):
        body = f'{{"status":"OK","balance":{"[" * depth}{"]" * depth}}}'.encode()
        assert judged(200, body).reason in {None, "not_json"}


@pytest.mark.parametrize(
    ("amount_format", "minor_digits", "balance"),
    [*(("subunits", 2, fraction) for fraction in ("950.00", "950.0", "9.5e2", "950.5")), ("decimal", None, "950.00")],
)
def test_a_fraction_of_subunits_or_of_an_unknown_currency_is_an_anomaly(
    amount_format: str, minor_digits: int | None, balance: str
) -> None:
    # An operator configured with the wrong amount_format would be off by a factor of a hundred.
    body = f'{{"status":"OK","balance":{balance}}}'.encode()
    verdict = judged(200, body, amount_format=amount_format, minor_digits=minor_digits)
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
