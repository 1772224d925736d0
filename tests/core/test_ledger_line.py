"""One record of a ledger: read right, or refused with the column and the key to change."""

import string
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from predictu_dispatch.core.booking_amount import read_decimal, read_subunits
from predictu_dispatch.core.ledger_line import Ignored, LedgerLine, LineFault, read_line
from predictu_dispatch.core.reconcile_settings import ReconcileSettings

DIGITS = {"EUR": 2, "JPY": 0, "BHD": 3, "USDT": 6, "ETH": 18}
ID = "0192f6a1-5a7e-7c3a-9b1d-3f2e1d0c9b8a"
RECORD = {
    "booked_at": "2026-11-21T10:00:00Z",
    "amount": "-1250",
    "currency": "EUR",
    "request_id": ID,
    "transaction_id": "tx-1",
    "bet_id": "bet-1",
    "method": "BET_MAKE",
    "player_id": "p-1",
}


def read(given: dict[str, Any] | None = None, /, **fields: str | None) -> LedgerLine | LineFault | Ignored:
    settings = ReconcileSettings.model_validate(given or {})
    return read_line({**RECORD, **fields}, settings, settings.days, DIGITS)


def fault(given: dict[str, Any] | None = None, /, **fields: str | None) -> tuple[str, str]:
    read_ = read(given, **fields)
    assert isinstance(read_, LineFault), read_
    return read_.column, read_.why


def signed(given: dict[str, Any], /, **fields: str | None) -> tuple[int, bool]:
    line = read(given, **fields)
    assert isinstance(line, LedgerLine), line
    return line.amount, line.is_debit


def test_a_line_has_its_moment_its_day_and_its_signed_amount() -> None:
    line = read({"time_zone": "Europe/Malta", "day_starts": "12:00"})
    assert line == LedgerLine(
        booked_at=datetime(2026, 11, 21, 10, tzinfo=UTC),
        day=date(2026, 11, 20),
        transaction_id="tx-1",
        request_id=ID,
        method="BET_MAKE",
        bet_id="bet-1",
        player_id="p-1",
        currency="EUR",
        amount=-1250,
        is_debit=True,
    )


@pytest.mark.parametrize(
    "text", [ID, ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}", f"URN:UUID:{ID.upper()}"]
)
def test_a_request_id_is_read_in_every_usual_spelling(text: str) -> None:
    line = read(request_id=text)
    assert isinstance(line, LedgerLine)
    assert line.request_id == ID


@pytest.mark.parametrize(
    "text",
    [ID[:-1], f" {ID}", f"{ID}\n", f"{{{ID}", f"{ID}}}", ID.replace("-", "", 1), f"0x{ID}", "N/A", "0" * 31 + "g"],
)
def test_a_request_id_that_is_no_uuid_is_refused_and_not_taken_as_missing(text: str) -> None:
    column, why = fault(request_id=text)
    assert (column, why.endswith("is no UUID")) == ("request_id", True)


def test_the_nil_uuid_is_refused_unless_the_file_says_that_it_stands_for_none() -> None:
    nil = str(UUID(int=0))
    assert '[reconcile.values] request_id = { "' in fault(request_id=nil)[1]
    line = read({"values": {"request_id": {nil: ""}}}, request_id=nil)
    assert isinstance(line, LedgerLine)
    assert line.request_id is None


@pytest.mark.parametrize("kept", ["request_id", "transaction_id", "bet_id"])
def test_one_id_is_enough_and_none_is_too_few(kept: str) -> None:
    none: dict[str, str | None] = {"request_id": "", "transaction_id": None, "bet_id": ""}
    assert isinstance(read(**{**none, kept: RECORD[kept]}), LedgerLine)
    assert fault(**none) == ("", "has no request_id, no transaction_id and no bet_id")


@pytest.mark.parametrize("column", ["transaction_id", "bet_id", "player_id"])
@pytest.mark.parametrize("text", [" a", "a ", "a\t", "\u00a0a", "a\0b", "a\nb", "a\x85b", "\ud800", "a" * 201])
def test_an_id_that_could_never_be_the_same_as_ours_is_refused(column: str, text: str) -> None:
    assert fault(**{column: text})[0] == column


@pytest.mark.parametrize("text", ["a b", "é", "🎲\u200d", "a" * 200, '"', "=1+1", "\\N"])
def test_an_id_is_kept_exactly(text: str) -> None:
    line = read(bet_id=text, transaction_id=text, player_id=text)
    assert isinstance(line, LedgerLine)
    assert (line.bet_id, line.transaction_id, line.player_id) == (text, text, text)


@pytest.mark.parametrize(
    "text", ["1e3", "1,250.00", "1.250,00", "1250.0", "1 250", "\u22121250", "--1", "-", "1250-", "(1250)"]
)
@pytest.mark.parametrize("amount_format", ["subunits", "decimal"])
def test_an_amount_in_another_notation_is_refused(text: str, amount_format: str) -> None:
    if (text, amount_format) == ("1250.0", "decimal"):
        assert signed({"amount_format": "decimal"}, amount="-1250.0") == (-125000, True)
    else:
        assert fault({"amount_format": amount_format}, amount=text)[0] == "amount"


@pytest.mark.parametrize(
    "text",
    [
        "\u0661\u0662\u0665\u0660",
        "\uff11\uff12\uff15\uff10",
        "1_250",
        " 1",
        "1\n",
        "0x1",
        "NaN",
        "Infinity",
        "1" * 19,
        "€1",
        "",
    ],
)
@pytest.mark.parametrize("amount_format", ["subunits", "decimal"])
def test_what_only_python_takes_for_a_number_is_refused(text: str, amount_format: str) -> None:
    assert fault({"amount_format": amount_format}, amount=text)[0] == "amount"


@pytest.mark.parametrize(
    ("currency", "text", "subunits"),
    [
        ("EUR", "12.5", 1250),
        ("EUR", "12.50", 1250),
        ("EUR", "12", 1200),
        ("EUR", "+0012.50", 1250),
        ("EUR", "12.5000", 1250),
        ("EUR", "0.01", 1),
        ("JPY", "1250", 1250),
        ("JPY", "1250.00", 1250),
        ("BHD", "1.250", 1250),
        ("USDT", "0.000001", 1),
        ("ETH", "0." + "0" * 17 + "1", 1),
        ("EUR", "9999999999999999.99", 10**18 - 1),
    ],
)
def test_a_decimal_amount_is_read_in_the_digits_of_its_currency(currency: str, text: str, subunits: int) -> None:
    assert read_decimal(text, currency, DIGITS[currency]) == subunits
    assert read_decimal(text.replace(".", ","), currency, DIGITS[currency], ",") == subunits


@pytest.mark.parametrize(
    ("currency", "text"),
    [
        ("EUR", "1.250"),
        ("EUR", "1.000"),
        ("JPY", "1.000"),
        ("EUR", "12.505"),
        ("EUR", "12.5001"),
        ("JPY", "1.5"),
        ("EUR", ".5"),
        ("EUR", "5."),
        ("EUR", "1.2.3"),
        ("EUR", "10000000000000000.00"),
        ("ETH", "1.5"),
        ("ETH", "1"),
    ],
)
def test_a_decimal_amount_that_could_mean_another_one_is_refused(currency: str, text: str) -> None:
    assert isinstance(read_decimal(text, currency, DIGITS[currency]), str)
    assert isinstance(read_decimal(text.replace(".", ","), currency, DIGITS[currency], ","), str)


@pytest.mark.parametrize("text", ["12.50", "1.250,00", "1,250.00", "1,250,00"])
def test_a_decimal_comma_is_the_only_separator(text: str) -> None:
    assert signed({"amount_format": "decimal_comma"}, amount="-12,50") == (-1250, True)
    assert isinstance(read_decimal(text, "EUR", 2, ","), str)


@pytest.mark.parametrize(
    ("text", "digits", "is_named"),
    [("-12,50", 2, True), ("1,250", 2, False), ("1,250", 3, False), ("1,250", 0, False), ("1.250,00", 2, False)],
)
def test_a_decimal_comma_is_named_if_it_separates_no_thousands(text: str, digits: int, *, is_named: bool) -> None:
    why = read_decimal(text, "EUR", digits)
    assert isinstance(why, str)
    assert ('amount_format = "decimal_comma"' in why) == is_named


_AMOUNTS = st.one_of(
    st.text(max_size=12),
    st.text(st.sampled_from("0123456789.,+- eE'_"), max_size=12),
    st.from_regex(r"[+-]?[0-9]{1,20}(\.[0-9]{1,6})?", fullmatch=True),
)


@given(_AMOUNTS, st.sampled_from(sorted(DIGITS)))
@example("1.250", "EUR")
@example("12.5000", "EUR")
@example("1e3", "JPY")
def test_an_amount_is_exactly_what_a_naive_reader_reads_or_refused(text: str, currency: str) -> None:
    decimal, whole = read_decimal(text, currency, DIGITS[currency]), read_subunits(text)
    try:
        # Signs, digits and one point: what the naive reader takes for certain.
        naive = Decimal(text) if {*text} <= {*string.digits, ".", "+", "-"} else None
    except InvalidOperation:
        naive = None
    if not isinstance(decimal, str):
        assert naive is not None
        assert Decimal(decimal).scaleb(-DIGITS[currency]) == naive
    if not isinstance(whole, str):
        assert whole == naive


@pytest.mark.parametrize(
    ("amount_sign", "text", "fields", "read_as"),
    [
        ("player", "-1250", {}, (-1250, True)),
        ("operator", "1250", {}, (-1250, True)),
        ("operator", "+1250", {}, (-1250, True)),
        ("none", "1250", {}, (-1250, True)),
        ("player", "1250", {"method": "BET_WIN"}, (1250, False)),
        ("operator", "-1250", {"method": "BET_REFUND"}, (1250, False)),
        ("none", "1250", {"method": "BET_SELL"}, (1250, False)),
        # Without a method, the sign or the direction decides.
        ("player", "-1250", {"method": ""}, (-1250, True)),
        ("operator", "-1250", {"method": None}, (1250, False)),
        ("none", "1250", {"method": "", "direction": "debit"}, (-1250, True)),
        ("none", "1250", {"method": "", "direction": "credit"}, (1250, False)),
        # Zero has no sign.
        ("player", "0", {}, (0, True)),
        ("operator", "-0", {"method": "BET_WIN"}, (0, False)),
        ("player", "+0", {"method": "", "direction": "debit"}, (0, True)),
        ("player", "0", {"method": ""}, (0, False)),
        ("none", "0", {"method": ""}, (0, False)),
        # A lost bet moves nothing, whatever its direction is called.
        ("player", "", {"method": "BET_LOSE"}, (0, False)),
        ("none", "0", {"method": "BET_LOSE", "direction": "debit"}, (0, False)),
        ("operator", "-0", {"method": "BET_LOSE"}, (0, False)),
    ],
)
def test_the_sign_the_direction_and_the_method_tell_a_debit(
    amount_sign: str, text: str, fields: dict[str, str | None], read_as: tuple[int, bool]
) -> None:
    assert signed({"amount_sign": amount_sign}, amount=text, **fields) == read_as


@pytest.mark.parametrize(
    ("amount_sign", "text", "fields", "column"),
    [
        ("player", "1250", {}, "amount"),
        ("player", "-1250", {"method": "BET_WIN"}, "amount"),
        ("operator", "-1250", {}, "amount"),
        ("player", "-1250", {"method": "", "direction": "credit"}, "amount"),
        ("none", "-1250", {}, "amount"),
        ("none", "+1250", {}, "amount"),
        ("none", "1250", {"method": ""}, ""),
    ],
)
def test_a_sign_that_contradicts_names_the_key(
    amount_sign: str, text: str, fields: dict[str, str | None], column: str
) -> None:
    found, why = fault({"amount_sign": amount_sign}, amount=text, **fields)
    assert (found, f'[reconcile] amount_sign is "{amount_sign}"' in why) == (column, True)


def test_a_direction_and_a_method_that_contradict_each_other_are_refused() -> None:
    column, why = fault({"amount_sign": "none"}, amount="1", direction="credit")
    assert (column, why.startswith("credit contradicts method BET_MAKE")) == ("direction", True)


@pytest.mark.parametrize("text", ["1", "-1250", "x"])
def test_a_lost_bet_has_no_amount(text: str) -> None:
    assert fault(method="BET_LOSE", amount=text)[0] == "amount"


VALUES = {
    "values": {
        "method": {"BET": "BET_MAKE", "POKER": "ignore", "": "BET_WIN", "TRANSFER": "", "BET_SELL": "BET_REFUND"},
        "direction": {"D": "debit", "C": "credit"},
        "currency": {"": "EUR", "mBTC": "USDT"},
        "bet_id": {"-": ""},
        "amount": {"-": ""},
    },
    "amount_sign": "none",
}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"method": "BET"}, {"method": "BET_MAKE", "amount": -1250}),
        ({"method": ""}, {"method": "BET_WIN", "amount": 1250}),
        ({"method": None}, {"method": "BET_WIN"}),
        ({"method": "BET_SELL"}, {"method": "BET_REFUND"}),
        ({"method": "TRANSFER", "direction": "D"}, {"method": None, "amount": -1250}),
        ({"method": "TRANSFER", "direction": "credit"}, {"method": None, "amount": 1250}),
        ({"currency": ""}, {"currency": "EUR"}),
        ({"currency": "mBTC"}, {"currency": "USDT"}),
        ({"bet_id": "-"}, {"bet_id": None}),
        ({"method": "BET_LOSE", "amount": "-"}, {"amount": 0}),
    ],
)
def test_values_are_translated_first(fields: dict[str, str | None], expected: dict[str, Any]) -> None:
    line = read(VALUES, **{"amount": "1250", **fields})
    assert isinstance(line, LedgerLine), line
    assert {name: getattr(line, name) for name in expected} == expected


def test_a_line_of_another_product_is_ignored_whatever_else_it_holds() -> None:
    assert isinstance(read(VALUES, method="POKER", amount="1,5", currency="CHIPS", booked_at="?"), Ignored)


@pytest.mark.parametrize(
    ("fields", "column", "why"),
    [
        ({"method": "WAGER"}, "kind", 'unknown method "WAGER"; name it under [reconcile.values] method'),
        ({"method": "ignore"}, "kind", 'unknown method "ignore"'),
        ({"method": "PING"}, "kind", 'unknown method "PING"'),
        ({"direction": "D"}, "direction", 'unknown direction "D"; name it under [reconcile.values] direction'),
        ({"currency": "eur"}, "ccy", "currencies add CODE DIGITS"),
        ({"currency": ""}, "ccy", "is empty"),
        ({"amount": "x"}, "value", "is no whole number"),
        ({"booked_at": None}, "time", "is empty"),
    ],
)
def test_a_fault_names_the_operators_column_and_the_key(fields: dict[str, str | None], column: str, why: str) -> None:
    columns = {"method": "kind", "currency": "ccy", "amount": "value", "booked_at": "time"}
    found, reason = fault({"columns": columns}, **fields)
    assert (found, why in reason) == (column, True), reason


@given(st.dictionaries(st.sampled_from([*RECORD, "direction"]), st.one_of(st.none(), st.text(max_size=30))))
def test_any_texts_are_a_line_or_a_fault(fields: dict[str, str | None]) -> None:
    read_ = read(**fields)
    assert isinstance(read_, LedgerLine | LineFault)
    if isinstance(read_, LineFault):
        assert read_.why.isprintable()
