"""What leads a person into a demo: how to look inside a running one, and what is stuck in one that does not end."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator

from predictu_dispatch.demo.books import PredictuBooks
from predictu_dispatch.demo.stage import Stage
from predictu_dispatch.embedded_postgres.binaries import find_binaries

_STUCK_SHOWN_MAX = 20


def how_to_look_inside(stage: Stage, books: PredictuBooks) -> Iterator[str]:
    """Lines to copy into a shell, each with what it shows."""
    psql = find_binaries(os.environ) / "psql"
    yield "Everything keeps running until Ctrl-C. Look inside:"
    yield f"  the database   {psql if psql.exists() else 'psql'} {shlex.quote(stage.dsn('demo_support'))}"
    for review in books.reviews[:1]:
        yield f"  a bet's life   {show_command(stage)} --bet {review.operator_id} {review.bet_id}"
    yield f"  metrics        http://127.0.0.1:{stage.http_port}/metrics"
    for operator_id, operator in stage.operators.items():
        yield f"  {operator_id:14} {operator.admin_url}/_admin/ledger"
    yield f"  files, logs    {stage.folder}"


def stuck_lines(stage: Stage, books: PredictuBooks) -> Iterator[str]:
    """What is not at its end, each with the command that shows its whole life."""
    callbacks = [
        callback
        for callback in books.callbacks
        if callback.state in {"waiting", "ready", "in_flight"} and callback.method != "PING"
    ]
    bets = [bet for bet in books.bets if bet.state not in {"closed", "void"}]
    yield f"the demo's time is over; {len(callbacks)} callbacks and {len(bets)} bets are stuck:"
    for callback in callbacks[:_STUCK_SHOWN_MAX]:
        yield (
            f"  {callback.operator_id} {callback.bet_id}: {callback.method} is {callback.state} "
            f"after {callback.attempts} attempts ({callback.reason}): "
            f"{show_command(stage)} --operator {callback.operator_id} {callback.request_id}"
        )
    for bet in bets[:_STUCK_SHOWN_MAX]:
        name = f"{bet.operator_id} {bet.bet_id}"
        yield f"  {name} is {bet.state}: {show_command(stage)} --bet {name}"


def show_command(stage: Stage) -> str:
    """`predictu-dispatch show` for this demo's database."""
    beside_us = shutil.which("predictu-dispatch", path=os.path.dirname(sys.executable))  # noqa: PTH120 -- a PATH entry.
    command = shlex.quote(beside_us) if beside_us else f"{shlex.quote(sys.executable)} -m predictu_dispatch"
    return f"{command} show --config {shlex.quote(str(stage.config))}"
