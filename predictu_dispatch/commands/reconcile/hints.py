"""What a report advises: which files or settings may be wrong, and the next command."""

from __future__ import annotations

from collections.abc import Iterator

from predictu_dispatch.commands.output import timestamp
from predictu_dispatch.commands.texts import class_text
from predictu_dispatch.core.difference_classes import DifferenceClass
from predictu_dispatch.reconciliation.result import ITEMS_MAX, RunResult


def hints(result: RunResult) -> Iterator[str]:
    """Yield a sentence for each thing that the reader may have to do."""
    for name, left in result.unlisted.items():
        yield (
            f"{class_text(name).capitalize()}: of {left + ITEMS_MAX:,} the first {ITEMS_MAX:,} are listed; the table"
            " has all. To list the others, reconcile fewer days at once."
        )
    yield from _missing_hints(result)
    yield from _in_flight_hints(result)
    yield from _day_hints(result)
    outside, unmatched = (
        sum(total.rows_theirs for total in result.totals if total.name is name)
        for name in (DifferenceClass.OUT_OF_WINDOW, DifferenceClass.MISSING_HERE)
    )
    if unmatched and unmatched + outside == result.lines_read:
        yield (
            "No line is about a request of ours: the ledger is another operator's, or request_id, transaction_id or"
            " bet_id under [reconcile.columns] is another column."
        )
    if outside and outside == result.lines_read:
        yield (
            "No line was booked in the period: the ledger is of other days, or time_zone and day_starts under"
            " [reconcile] are not the operator's."
        )
    if result.open_count or result.open_contradictions:
        yield f"Next: predictu-dispatch reconcile list {result.operator_id}, then reconcile show ID"


def _missing_hints(result: RunResult) -> Iterator[str]:
    if result.is_empty:
        yield (
            "The ledger has no line, so it says that nothing was booked. If the operator's export failed, run it again"
            " with the whole ledger."
        )
        return
    missing, agreed = (
        sum(total.items for total in result.totals if total.name is name)
        for name in (DifferenceClass.MISSING_THERE, DifferenceClass.AGREED)
    )
    if missing and result.lines_unreadable:
        yield (
            "Missing there: what is missing may be among the lines that could not be read. Make them readable and run"
            " it again before you ask the operator."
        )
    elif missing > agreed:
        yield (
            "Missing there: more than agreed. A run reads only what it is given: if these were not all files of the"
            " period, run it again with all of them, also with those of an earlier run."
        )


def _in_flight_hints(result: RunResult) -> Iterator[str]:
    if any(total.name is DifferenceClass.IN_FLIGHT for total in result.totals):
        is_over = result.cut_at == result.ends_at
        yield (
            "In flight: not final here, or booked near an edge of what was given."
            f" {'Give' if is_over else 'When the period has ended, run it again with'} the files of the day before and"
            " of the day after too; lines of other days are only counted."
        )
    if result.first_sent_at is not None:
        yield (
            f"Some of it was first sent before, at {timestamp(result.first_sent_at, timespec='seconds')}: only a run"
            " from that day on decides whether its booking is missing."
        )


def _day_hints(result: RunResult) -> Iterator[str]:
    if any(total.name is DifferenceClass.DAY_DIFFERS for total in result.totals):
        yield (
            "Day differs: confirmed on one accounting day and booked on another. If these are many, time_zone or"
            " day_starts under [reconcile] is not the operator's."
        )
    if _crosses_an_edge(result):
        yield (
            "Its sums do not cancel, because what was confirmed outside of these days was booked in them. Reconcile"
            " both days in one run: only there is a second booking of the same request found."
        )


def _crosses_an_edge(result: RunResult) -> bool:
    """Return True if a callback became final outside of the period in which it was booked."""
    sums: dict[str, int] = {}
    for total in result.totals:
        if total.name is DifferenceClass.DAY_DIFFERS:
            sums[total.currency] = sums.get(total.currency, 0) + total.difference
    return any(sums.values())
