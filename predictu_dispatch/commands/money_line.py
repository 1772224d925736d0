"""One line that sums up what became of a bet's money."""

from __future__ import annotations

from typing import Any, Final

from predictu_dispatch.commands.output import Row, money, timestamp
from predictu_dispatch.commands.texts import reason_text
from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.lifecycle import FINAL, CallbackState
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.money_summary import Credit, Debit, Money, Step, money_of

_IN_REVIEW: Final = "needs manual review"
_RESOLVED: Final = "settled manually"
_NOUNS: Final = {
    Method.BET_WIN: "the win",
    Method.BET_SELL: "the sale",
    Method.BET_REFUND: "the refund",
    Method.BET_ROLLBACK: "the rollback",
}
_CONFIRMED: Final = {
    Method.BET_WIN: "paid",
    Method.BET_SELL: "sold, paid",
    Method.BET_REFUND: "refunded",
    Method.BET_ROLLBACK: "rolled back,",
}


def summary_of(row: Row) -> Money:
    """What became of the money of a row of show_money.sql."""
    return money_of(_step(row, "placement", Method.BET_MAKE), _step(row, "terminal", row["terminal_method"]))


def _step(row: Row, prefix: str, method: str | None) -> Step | None:
    if method is None or row[f"{prefix}_state"] is None:
        return None
    return Step(
        Method(method),
        CallbackState(row[f"{prefix}_state"]),
        Effect(row[f"{prefix}_effect"]),
        row[f"{prefix}_reason"] == "nothing_to_reverse",
    )


def money_line(row: Row) -> str:
    """The line for a row of show_money.sql."""
    summary = summary_of(row)
    debit, credit = _debit_text(summary, row), _credit_text(summary, row)
    line = f"{debit}, {credit}" if credit else debit
    # An automatic rollback cancels a waiting terminal callback, which then needs review.
    return f"{line}; a cancelled {row['others_in_review']} {_IN_REVIEW}" if row["others_in_review"] else line


def money_json(row: Row) -> dict[str, Any]:
    """The same for JSON, with what decided it."""
    summary = summary_of(row)
    return {"text": money_line(row), "debit": summary.debit, "credit": summary.credit, **row}


def _debit_text(summary: Money, row: Row) -> str:
    stake = money(row["stake"], row["currency"], row["minor_digits"])
    match summary.debit:
        case Debit.ADOPTED:
            return f"debited {stake} before this system existed (adopted at {timestamp(row['placed_at'])})"
        case Debit.DEBITED:
            return f"debited {stake} at {timestamp(row['placement_finished_at'])}"
        case Debit.PENDING:
            return f"not charged yet: the debit of {stake} is {'being sent' if _is_sent(row) else 'due'}"
        case Debit.UNKNOWN if summary.credit is Credit.CONFIRMED:
            return f"the outcome of the debit of {stake} was unknown"
        case Debit.UNKNOWN:
            since = row["placement_unknown_since"] or row["placement_finished_at"] or row["placed_at"]
            applied = "may have been applied" + ("" if row["placement_state"] in FINAL else " and is retried")
            return f"outcome unknown since {timestamp(since)}: the debit of {stake} {applied}"
        case Debit.NEVER:
            if summary.credit is Credit.NOTHING_TO_REVERSE:
                confirmed = timestamp(row["terminal_finished_at"])
                return f"never charged: the operator had no debit to return (confirmed at {confirmed})"
            why = reason_text(row["placement_reason"], row["placement_operator_status"], row["operator_id"])
            return f"never charged{f': {why}' if why else ''}"


def _is_sent(row: Row) -> bool:
    return bool(row["placement_state"] == CallbackState.IN_FLIGHT)


def _credit_text(summary: Money, row: Row) -> str:
    match summary.credit:
        case Credit.NONE:
            return "the bet has not ended" if summary.debit in (Debit.ADOPTED, Debit.DEBITED) else ""
        case Credit.NOTHING_TO_REVERSE:
            if summary.debit is Debit.NEVER:
                return ""
            still = _IN_REVIEW if row["terminal_review_since"] else _RESOLVED
            return f"the operator had nothing to return at {timestamp(row['terminal_finished_at'])}; {still}"
        case _ if row["terminal_method"] == Method.BET_LOSE:
            return _lost(summary.credit, row)
        case _:
            return _paid(summary.credit, row)


def _lost(credit: Credit, row: Row) -> str:
    if credit is Credit.CONFIRMED:
        return f"lost at {timestamp(row['terminal_finished_at'])}, nothing to pay"
    if credit in (Credit.FAILED, Credit.UNKNOWN):
        return f"lost, nothing to pay; the operator has not confirmed the loss; {_follow_up(row)}"
    return "lost, nothing to pay; the loss is being sent" if credit is not Credit.WAITING else "lost, nothing to pay"


def _paid(credit: Credit, row: Row) -> str:
    method = Method(row["terminal_method"])
    amount = row["terminal_amount"]
    shown = "an amount that cannot be read" if amount is None else money(amount, row["currency"], row["minor_digits"])
    what = f"{_NOUNS[method]} of {shown}"
    since = row["terminal_unknown_since"] or row["terminal_finished_at"] or row["terminal_created_at"]
    match credit:
        case Credit.CONFIRMED:
            if amount == 0:
                shown = f"nothing ({shown})"
            verb = f"{_CONFIRMED[method]} {shown}" + (" returned" if method is Method.BET_ROLLBACK else "")
            return f"{verb} at {timestamp(row['terminal_finished_at'] or row['terminal_created_at'])}"
        case Credit.WAITING:
            return f"{what} waits for the debit"
        case Credit.PENDING:
            return f"being rolled back ({shown})" if method is Method.BET_ROLLBACK else f"{what} is being sent"
        case Credit.UNKNOWN_PENDING:
            return f"outcome of {what} unknown since {timestamp(since)}, being retried"
        case Credit.FAILED:
            why = reason_text(row["terminal_reason"], row["terminal_operator_status"], row["operator_id"])
            done = "returned" if method in (Method.BET_REFUND, Method.BET_ROLLBACK) else "paid"
            return f"{shown} not {done}: {why or 'it was not confirmed'}; {_follow_up(row)}"
        case _:
            return f"outcome of {what} unknown since {timestamp(since)}; {_follow_up(row)}"


def _follow_up(row: Row) -> str:
    """What remains to do: only resolving takes a failed callback off the review list."""
    return _IN_REVIEW if row["terminal_review_since"] is not None else _RESOLVED
