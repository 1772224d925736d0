"""A kept demo, for another shell: a file to source, and commands with real ids to try."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from typing_extensions import override

from predictu_dispatch.books_check.ledgers import CallbackRow, PredictuLedger
from predictu_dispatch.demo.environment import Environment
from predictu_dispatch.demo.fixtures import GOOD
from predictu_dispatch.edge.config.loader import VARIABLES
from predictu_dispatch.embedded_postgres.binaries import find_binaries

PROGRAM: Final = "predictu-dispatch"
_COMMAND_WIDTH: Final = 43
"""Of the shorter commands; 80 columns leave 34 for what each shows."""


class Trial(NamedTuple):
    """The arguments of a command to try, and what it shows."""

    arguments: tuple[str, ...]
    shows: str

    @property
    def command(self) -> str:
        return shlex.join((PROGRAM, *self.arguments))

    @override
    def __str__(self) -> str:
        return f"{self.command:{_COMMAND_WIDTH}}  {self.shows}"


def trials(predictu: PredictuLedger) -> Iterator[Trial]:
    """Commands that look into this demo. `audit verify` and `reconcile` store their results."""
    callback = _most_repeated(predictu)
    yield Trial(("status",), "operators, daemons, review list")
    yield Trial(("top",), "the same, live")
    yield Trial(("find", "--player", callback.player_id or ""), "all requests about a player")
    yield Trial(("find", "--bet", callback.bet_id or ""), "all requests of a bet")
    yield Trial(("ping", GOOD), "send one PING now")
    yield Trial(("audit", "verify"), "compare each row with its log")
    yield Trial(("reconcile", GOOD, "--day", f"{datetime.now(UTC):%Y-%m-%d}"), "with its own ledger")
    yield Trial(("show", callback.request_id), "each attempt")
    for review in predictu.reviews[:1]:
        yield Trial(("why", review.request_id), "why not sent")


def _most_repeated(predictu: PredictuLedger) -> CallbackRow:
    """The callback of a bet that has the most to show; not of a player who is always rejected."""
    of_bets = [row for row in predictu.callbacks if row.bet_id and row.player_id]
    return max(of_bets, key=lambda row: (row.state == "delivered", row.attempts))


def write_shell_file(environment: Environment, predictu: PredictuLedger) -> Path:
    """Write the file beside the database, so that it is removed with it, however the demo ends."""
    file = environment.postgres.folder / "demo.sh"
    file.write_text("".join(f"{line}\n" for line in _shell_lines(environment, predictu, file)), encoding="utf-8")
    return file


def _shell_lines(environment: Environment, predictu: PredictuLedger, file: Path) -> Iterator[str]:
    yield f"# For bash, zsh and sh: . {shlex.quote(str(file))}"
    yield "# Ctrl-C in the demo's terminal ends the demo and removes this file."
    yield f"export PREDICTU_DISPATCH_CONFIG={shlex.quote(str(environment.config))}"
    yield f"export {VARIABLES['database.dsn']}={shlex.quote(environment.dsn('demo_person'))}"
    ours = Path(sys.executable).parent / PROGRAM
    if ours.exists() and shutil.which(PROGRAM) != str(ours):
        yield f'export PATH={shlex.quote(str(ours.parent))}:"$PATH"'
    psql = find_binaries(os.environ) / "psql"
    yield ""
    yield "# Then try:"
    for trial in trials(predictu):
        yield f"#   {trial}"
    yield "# More of the demo:"
    yield "#   somebody who may accept what you have explained (reconcile accept):"
    yield f"#     {VARIABLES['database.dsn']}={shlex.quote(environment.dsn('demo_second_person'))}"
    yield f"#   {psql if psql.exists() else 'psql'} {shlex.quote(environment.dsn('demo_support'))}"
    yield f"#   http://127.0.0.1:{environment.http_port}/metrics"
    for operator in environment.operators.values():
        yield f"#   {operator.admin_url}/_admin/ledger"
    yield f"#   logs: {environment.folder}"
