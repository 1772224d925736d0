"""What follows from the totals of a run: the identity, and the sentence about another unit."""

from datetime import date

import pytest

from predictu_dispatch.core.difference_classes import DifferenceClass
from predictu_dispatch.reconciliation.amount_unit import Factor, common_factor, format_fault, unit_fault
from predictu_dispatch.reconciliation.result import DaySum, Total, by_currency, identities

DAY, NEXT = date(2026, 11, 21), date(2026, 11, 22)
DIGITS = {"EUR": 2, "JPY": 0, "KWD": 3}
FILE = "operators/op_abc123.toml"
LARGER, SMALLER = Factor((100,), are_theirs_larger=True), Factor((100, 1000), are_theirs_larger=False)
AMOUNT_DIFFERS = DifferenceClass.AMOUNT_DIFFERS


def total(
    name: DifferenceClass = DifferenceClass.AGREED,
    ours: int = 0,
    theirs: int = 0,
    *,
    day: date = DAY,
    currency: str = "EUR",
) -> Total:
    return Total(name, currency, day, 1, 1, 1, ours, theirs, abs(theirs - ours), max(ours - theirs, 0))


def amounts(*pairs: tuple[str, int, int]) -> list[list[dict[str, object]]]:
    return [
        [
            {"currency": currency, "day": "2026-11-21", "ours": ours, "theirs": 0},
            {"currency": currency, "day": "2026-11-22", "ours": 0, "theirs": theirs},
        ]
        for currency, ours, theirs in pairs
    ]


def test_the_identity_is_checked_for_each_currency_and_day() -> None:
    totals = [
        total(DifferenceClass.AGREED, -500, -500),
        total(DifferenceClass.DAY_DIFFERS, 200, 0),
        total(DifferenceClass.DAY_DIFFERS, 0, 200, day=NEXT),
        total(DifferenceClass.IN_FLIGHT, 0, -40),
        total(DifferenceClass.MISSING_HERE, 0, 7, currency="KWD"),
    ]
    sums = [DaySum("EUR", DAY, -300, -540), DaySum("EUR", NEXT, 0, 200), DaySum("KWD", DAY, 0, 7)]
    euro, dinar = identities(totals, sums)
    assert euro == ("EUR", -300, 0, -40, -340, ())
    assert dinar == ("KWD", 0, 7, 0, 7, ())
    # The sums of a currency agree, and those of its days do not.
    [euro] = identities(totals[:3], [DaySum("EUR", DAY, -300, -300), DaySum("EUR", NEXT, 0, 0)])
    assert euro.differences == euro.theirs - euro.ours == 0
    assert euro.broken_days == (DAY, NEXT)
    # A sum of a day without items, and items of a day without a sum.
    [euro] = identities([total(DifferenceClass.MISSING_HERE, 0, 5)], [DaySum("EUR", NEXT, 0, 5)])
    assert euro.broken_days == (DAY, NEXT)


def test_the_table_has_a_row_for_each_class_with_the_agreed_ones_first() -> None:
    totals = [
        total(DifferenceClass.MISSING_THERE, 9, 0),
        total(DifferenceClass.IN_FLIGHT, 1, 0),
        total(DifferenceClass.AGREED, -3, -3),
        total(DifferenceClass.AGREED, -4, -4, day=NEXT),
        total(DifferenceClass.AGREED, 5, 5, currency="KWD"),
    ]
    found = by_currency(totals)
    assert [(one.name, one.items, one.ours) for one in found["EUR"]] == [
        ("agreed", 2, -7),
        ("in_flight", 1, 1),
        ("missing_there", 1, 9),
    ]
    assert list(found) == ["EUR", "KWD"]


@pytest.mark.parametrize(
    ("totals", "items", "factor"),
    [
        ([total(AMOUNT_DIFFERS, 5, 500)], amounts(("EUR", 5, 500), ("EUR", -7, -700)), LARGER),
        ([total(AMOUNT_DIFFERS, 5, 500)], amounts(("EUR", 500, 5), ("KWD", 9000, 9)), SMALLER),
        # Lost bets agree whatever the unit is.
        ([total(AMOUNT_DIFFERS, 5, 500), total()], amounts(("EUR", 5, 500)), LARGER),
        # We did not know whether a debit was booked; yen are the same in both units.
        ([total(AMOUNT_DIFFERS, 5, 500)], amounts(("EUR", 5, 500), ("EUR", 0, 700)), LARGER),
        (
            [total(AMOUNT_DIFFERS, 5, 500), total(ours=3, theirs=3, currency="JPY")],
            amounts(("EUR", 5, 500)),
            LARGER,
        ),
        ([total(AMOUNT_DIFFERS, 5, 500), total(ours=3, theirs=3)], amounts(("EUR", 5, 500)), None),
        ([total(AMOUNT_DIFFERS, 5, 500)], amounts(("EUR", 5, 500), ("EUR", 7, 701)), None),
        ([total(AMOUNT_DIFFERS, 5, 500)], amounts(("EUR", 5, 500), ("EUR", 700, 7)), None),
        ([total(AMOUNT_DIFFERS, 5, 500)], amounts(("EUR", 5, -500)), None),
        ([total(AMOUNT_DIFFERS, 0, 5)], amounts(("EUR", 0, 500)), None),
        ([total(AMOUNT_DIFFERS, 0, 5)], amounts(("JPY", 5, 500)), None),
    ],
)
def test_another_unit_is_found_only_if_every_amount_differs_by_it(
    totals: list[Total], items: list[list[dict[str, object]]], factor: Factor | None
) -> None:
    assert common_factor(totals, items, DIGITS) == factor


@pytest.mark.parametrize(
    ("factor", "amount_format", "sentence"),
    [
        (
            LARGER,
            "decimal",
            'is 100 times ours: set [reconcile] amount_format = "subunits" in operators/op_abc123.toml',
        ),
        (LARGER, "subunits", 'times ours, so [reconcile] amount_format = "subunits" in operators/op_abc123.toml does'),
        (LARGER, "decimal_comma", 'is 100 times ours: set [reconcile] amount_format = "subunits"'),
        (
            SMALLER,
            "decimal_comma",
            'so [reconcile] amount_format = "decimal_comma" in operators/op_abc123.toml does not',
        ),
        (SMALLER, "subunits", "is 100 or 1,000 times smaller than ours: set [reconcile] amount_format"),
    ],
)
def test_the_sentence_names_amount_format_and_what_to_set(factor: Factor, amount_format: str, sentence: str) -> None:
    assert sentence in format_fault(factor, amount_format=amount_format, file=FILE)


def test_decimals_under_subunits_are_one_sentence_only_if_nothing_else_is_wrong() -> None:
    decimal = '"-12.50" is no whole number of at most 18 digits, such as -1250'
    assert 'such as "-12.50": set [reconcile] amount_format = "decimal" in operators/op' in unit_fault(
        whys=[decimal, decimal], amount_format="subunits", file=FILE
    )
    comma = '"49,26" is no decimal number such as -12.50, without separators of thousands'
    for amount_format in ("subunits", "decimal"):
        assert 'such as "49,26": set [reconcile] amount_format = "decimal_comma" in operators/op' in unit_fault(
            whys=[comma, comma], amount_format=amount_format, file=FILE
        )
    for whys, amount_format in (
        ([comma, decimal], "subunits"),
        ([comma], "decimal_comma"),
        ([decimal, '"1,250.00" is no whole number'], "subunits"),
        ([decimal], "decimal"),
        ([], "subunits"),
    ):
        assert unit_fault(whys=whys, amount_format=amount_format, file=FILE) == ""
