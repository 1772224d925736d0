"""`cancel`, `abandon`, `resolve`: end callbacks, or their review."""

from __future__ import annotations

from uuid import UUID

import click

from predictu_dispatch.commands.interventions.batch import (
    Batch,
    by_option,
    ids_argument,
    name_of,
    operator_option,
    reason_option,
)
from predictu_dispatch.commands.invocation import Invocation, common_options
from predictu_dispatch.commands.output import Row, count, timestamp
from predictu_dispatch.commands.texts import BET_STATES, EFFECTS


@click.command()
@ids_argument
@operator_option
@reason_option
@by_option
@common_options
def cancel(invocation: Invocation, request_ids: tuple[UUID, ...], operator: str | None, reason: str, by: str) -> None:
    """Cancel callbacks that were never attempted. Their bets may then get other callbacks."""
    batch = Batch()
    work = batch.call_for_each(invocation, "cancel_callback", request_ids, operator, reason, by)
    batch.run(invocation, work, lambda done: [_cancelled(row) for row in done])


@click.command()
@ids_argument
@operator_option
@reason_option
@by_option
@common_options
def abandon(invocation: Invocation, request_ids: tuple[UUID, ...], operator: str | None, reason: str, by: str) -> None:
    """Stop the retries of callbacks: they end exhausted.

    A bet whose debit may have been applied is then rolled back, and a settlement needs review.
    """
    batch = Batch()
    work = batch.call_for_each(invocation, "abandon_callback", request_ids, operator, reason, by)
    batch.run(invocation, work, lambda done: [line for row in done for line in _abandoned(row)])


@click.command()
@ids_argument
@operator_option
@reason_option
@by_option
@common_options
def resolve(invocation: Invocation, request_ids: tuple[UUID, ...], operator: str | None, reason: str, by: str) -> None:
    """Remove callbacks from the review list after they were settled with the operator manually.

    They are never sent again.
    """
    batch = Batch()
    work = batch.call_for_each(invocation, "resolve_callback", request_ids, operator, reason, by)
    batch.run(invocation, work, lambda done: [_resolved(row) for row in done])


def _cancelled(row: Row) -> str:
    if row["bet_id"] is None:
        bet = ""
    elif row["method"] == "BET_MAKE":
        bet = f"; its bet {row['bet_id']} is void"
    else:
        bet = f"; another callback may be enqueued for its bet {row['bet_id']}"
    return f"{name_of(row)} is cancelled and will not be sent{bet}"


def _abandoned(row: Row) -> list[str]:
    """What was done, what follows for the bet, and what may remain at the operator."""
    if row["is_repeated"]:
        done_at = timestamp(row["abandoned_at"])
        return [f"{name_of(row)} was abandoned already, at {done_at} by {row['abandoned_by']}: {row['abandon_reason']}"]
    lines = [f"{name_of(row)} is abandoned {_after(row['attempts'])}: {EFFECTS[row['effect']]}"]
    if row["rollback_request_id"] is not None:
        lines.append(f"its bet {row['bet_id']} is rolled back: BET_ROLLBACK {row['rollback_request_id']}")
    elif row["method"] == "BET_MAKE":
        lines.append(f"its bet {row['bet_id']} is {row['bet_state']}: {BET_STATES[row['bet_state']]}")
    if row["warning"] is not None:
        lines.append(f"warning: {row['warning']}; settle it with the operator")
    if row["needs_review"]:
        steps = f"predictu-dispatch resolve {row['request_id']}, or predictu-dispatch retry {row['request_id']}"
        lines.append(f"it needs review. When it is settled: {steps} to send it again")
    return lines


def _after(attempts: int) -> str:
    return f"after {count(attempts, 'attempt')}" if attempts else "before any attempt"


def _resolved(row: Row) -> str:
    return f"{name_of(row)} is resolved: it stays {row['state']} and will never be sent again"
