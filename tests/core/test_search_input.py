"""Times and amounts are understood as people write them, and nothing else is."""

from datetime import UTC, datetime, timedelta

import pytest

from predictu_dispatch.core.search_input import parse_amount, parse_time

NOW = datetime(2026, 11, 28, 10, 0, 5, tzinfo=UTC)
DIGITS = {"JPY": 0, "EUR": 2, "KWD": 3, "XXX": None}


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("3d", NOW - timedelta(days=3)),
        ("30m", NOW - timedelta(minutes=30)),
        ("30 min", NOW - timedelta(minutes=30)),
        ("2026-11-27", datetime(2026, 11, 27, tzinfo=UTC)),
        ("2026-11-27T12:00:00Z", datetime(2026, 11, 27, 12, tzinfo=UTC)),
        ("2026-11-27T12:00:00.5+02:00", datetime(2026, 11, 27, 10, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-11-27 12:00", datetime(2026, 11, 27, 12, tzinfo=UTC)),
    ],
)
def test_a_time_is_absolute_a_date_or_an_age(text: str, at: datetime) -> None:
    assert parse_time(text, NOW) == at


def test_a_date_at_the_end_of_a_window_includes_its_day() -> None:
    assert parse_time("2026-11-27", NOW, is_end=True) == datetime(2026, 11, 28, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2x", "999999w", "2026-13-01", "-2h", "2026-11-27T25:00:00Z"])
def test_another_time_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="give a time"):
        parse_time(text, NOW)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("6.41", {"EUR": [641], "KWD": [6410]}),
        ("6,41", {"EUR": [641], "KWD": [6410]}),
        ("6.41 EUR", {"EUR": [641]}),
        ("EUR 6,41", {"EUR": [641]}),
        ("6.41eur", {"EUR": [641]}),
        ("6.410", {"EUR": [641, 641000], "JPY": [6410], "KWD": [6410, 6410000]}),
        ("12", {"JPY": [12], "EUR": [1200], "KWD": [12000]}),
        ("1,234", {"JPY": [1234], "EUR": [123400], "KWD": [1234, 1234000]}),
        ("1.234 EUR", {"EUR": [123400]}),
        ("1,234.56 EUR", {"EUR": [123456]}),
        ("1.234,56 EUR", {"EUR": [123456]}),
        ("1 234,56", {"EUR": [123456], "KWD": [1234560]}),
        ("1,234,567", {"JPY": [1234567], "EUR": [123456700], "KWD": [1234567000]}),
        ("641 subunits", {"JPY": [641], "EUR": [641], "KWD": [641], "XXX": [641]}),
        ("0", {"JPY": [0], "EUR": [0], "KWD": [0]}),
    ],
)
def test_an_amount_is_searched_in_every_currency_that_can_have_it(text: str, found: dict[str, list[int]]) -> None:
    amount = parse_amount(text)
    meant = {currency: list(amount.in_subunits(currency, digits)) for currency, digits in DIGITS.items()}
    assert {currency: subunits for currency, subunits in meant.items() if subunits} == found


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "EUR",
        "€6.41",
        "6.41.2",
        "1,23,4",
        "-6.41",
        "6..41",
        "6.41 EUR x",
        "EUR 6 EUR",
        "6.4 subunits",
        "9" * 30,
    ],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 6\.41"):
        parse_amount(text)
