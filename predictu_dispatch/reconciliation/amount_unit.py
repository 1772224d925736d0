"""Finds out whether all amounts of a ledger are in another unit or format than the settings say."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from predictu_dispatch.core.difference_classes import Kind
from predictu_dispatch.reconciliation.result import Total

_DECIMALS: Final = {
    "decimal": re.compile(r'"[+-]?[0-9]+\.[0-9]+" '),
    "decimal_comma": re.compile(r'"[+-]?[0-9]+,[0-9]+" '),
}
"""What a refused amount begins with, by the amount_format that reads it."""


class Factor(NamedTuple):
    """By how much every amount that was compared differs: 10^digits of its currency."""

    times: tuple[int, ...]
    """One for each number of digits."""
    are_theirs_larger: bool


def common_factor(
    totals: Iterable[Total], items: Iterable[Sequence[Mapping[str, Any]]], digits: Mapping[str, int]
) -> Factor | None:
    """Return the factor by which all amounts differ; None if one is equal or differs otherwise.

    `items` has our and their amounts of each item with another amount there. One without an amount
    of ours says nothing: its outcome was unknown, or it became final on other days.
    """
    # In a currency without decimals both units are the same.
    with_decimals = [total for total in totals if digits.get(total.currency, 0)]
    if any(total.kind is Kind.AGREED and (total.ours or total.theirs) for total in with_decimals):
        return None
    found: set[tuple[int, bool]] = set()
    for amounts in items:
        ours, theirs = sum(one["ours"] for one in amounts), sum(one["theirs"] for one in amounts)
        if not ours:
            continue
        times = 10 ** digits.get(amounts[0]["currency"], 0)
        if times == 1 or (theirs != ours * times and ours != theirs * times):
            return None
        found.add((times, theirs == ours * times))
    directions = {is_larger for _, is_larger in found}
    return Factor(tuple(sorted({times for times, _ in found})), directions.pop()) if len(directions) == 1 else None


def format_fault(factor: Factor, *, amount_format: str, file: str) -> str:
    """Return the sentence about amounts that all differ by this factor."""
    times = " or ".join(f"{one:,}" for one in factor.times)
    what = f"Every amount in the ledger is {times} times {'ours' if factor.are_theirs_larger else 'smaller than ours'}"
    wanted = "subunits" if factor.are_theirs_larger else "decimal"
    if amount_format.startswith(wanted):
        return (
            f'{what}, so [reconcile] amount_format = "{amount_format}" in {file} does not fit this file: ask the'
            " operator in which unit it writes amounts."
        )
    return f'{what}: set [reconcile] amount_format = "{wanted}" in {file} and run it again.'


def unit_fault(*, whys: Sequence[str], amount_format: str, file: str) -> str:
    """Return the sentence about a ledger without a readable line; empty if the reasons differ.

    `whys` begin with the amounts that were refused.
    """
    for wanted, number in _DECIMALS.items():
        if whys and wanted != amount_format and all(map(number.match, whys)):
            what = "numbers with a decimal comma" if wanted == "decimal_comma" else "decimal numbers"
            example = whys[0].partition(" ")[0]
            return (
                f"No line could be read, because the amounts are {what} such as {example}: set [reconcile]"
                f' amount_format = "{wanted}" in {file} and run it again.'
            )
    return ""
