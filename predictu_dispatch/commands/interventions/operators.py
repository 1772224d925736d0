"""`pause`, `resume`, `operator retire`: manual actions on an operator."""

from __future__ import annotations

from typing import Final

import click

from predictu_dispatch.commands.interventions.batch import Batch, by_option, not_empty, reason_option
from predictu_dispatch.commands.invocation import Invocation, common_options
from predictu_dispatch.commands.output import Row, duration, timestamp
from predictu_dispatch.commands.verb_group import VerbGroup

_RETIRE_TIMEOUT_S: Final = 300.0
"""It reads all bets of the operator, a million in a second or two."""


@click.command()
@click.argument("operator")
@reason_option
@by_option
@common_options
def pause(invocation: Invocation, operator: str, reason: str, by: str) -> None:
    """Stop sending to OPERATOR until it is resumed; new bets fail at once, the rest waits."""
    batch = Batch()
    work = batch.call_once(invocation, "pause_operator", operator, reason, by)
    batch.run(invocation, work, lambda done: [line for row in done for line in _paused(row)])


@click.command()
@click.argument("operator")
@click.option("--reason", callback=not_empty, help="The reason, which is recorded.")
@by_option
@common_options
def resume(invocation: Invocation, operator: str, reason: str | None, by: str) -> None:
    """End OPERATOR's pause and send the callbacks that waited."""
    batch = Batch()
    work = batch.call_once(invocation, "resume_operator", operator, reason, by)
    batch.run(invocation, work, lambda done: [_resumed(row) for row in done])


@click.group(cls=VerbGroup)
def operator() -> None:
    """Remove operators."""


@operator.command()
@click.argument("operator")
@reason_option
@by_option
@common_options
def retire(invocation: Invocation, operator: str, reason: str, by: str) -> None:
    """Remove OPERATOR, which is gone for good. Its history stays, and its id is never used again.

    Refused while a running daemon has its file, while anything of it has not ended, and while
    anything of it needs review. It cannot be undone.
    """
    batch = Batch()
    work = batch.call_once(invocation, "retire_operator", operator, reason, by, timeout_s=_RETIRE_TIMEOUT_S)
    batch.run(invocation, work, lambda done: [line for row in done for line in _retired(row)])


def _retired(row: Row) -> list[str]:
    retired_at = timestamp(row["retired_at"])
    return [
        f"operator {row['operator_id']} was retired at {retired_at} by {row['retired_by']}: {row['retire_reason']}",
        "nothing is enqueued for it or sent to it any more; show, find and interventions still show its history",
        f"delete operators/{row['operator_id']}.toml on every host: a daemon that finds it reports it and ignores it",
    ]


def _paused(row: Row) -> list[str]:
    return [
        f"operator {row['operator_id']} was paused at {timestamp(row['paused_at'])}: nothing is sent to it",
        "new bets fail at once, everything else waits; attempts in flight finish",
        f"to end the pause: predictu-dispatch resume {row['operator_id']}",
    ]


def _resumed(row: Row) -> str:
    return (
        f"operator {row['operator_id']} is resumed; it was paused for {duration(row['paused_s'])}"
        f" by {row['paused_by']}: {row['pause_reason']}"
    )
