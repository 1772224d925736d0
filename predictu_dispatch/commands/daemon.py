"""`run`, `migrate`, `check`: the daemon, its database schema and its configuration."""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import sys
from typing import TYPE_CHECKING, Final

import click

from predictu_dispatch.commands.invocation import (
    Invocation,
    common_options,
    config_option,
    dsn_of,
    exit_on_database_errors,
    fail,
)
from predictu_dispatch.commands.output import count, print_json, print_line, table, wrapped

if TYPE_CHECKING:
    from predictu_dispatch.edge.config.loader import Config
    from predictu_dispatch.edge.http.server import ListenError

GARBAGE_THRESHOLD: Final = 50_000
"""New objects between two garbage collections. Attempts in flight at full load exceed Python's
default of 700 and leave no cycles; at 10,000 the collector took a twentieth of the processor."""
SWITCH_INTERVAL_S: Final = 0.0005
"""How long the event loop waits for a thread that has the interpreter lock. Python's 5 ms would
delay each turn while a scrape is rendered (tests/bench/scrape.py)."""


@click.command()
@config_option
def run(invocation: Invocation) -> None:
    """Run the daemon until SIGTERM, which lets the attempts in flight finish."""
    _open_standard_streams()
    # A reload during the start must not end the process; the daemon installs its handler later.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Every slot of every operator may need a socket; the default soft limit suits select().
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # If a unit set both, its system call filter may refuse even this call.
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    import uvloop  # noqa: PLC0415 - loaded only where used

    from predictu_dispatch.core.fleet import InstanceTakenError  # noqa: PLC0415
    from predictu_dispatch.daemon import Daemon  # noqa: PLC0415
    from predictu_dispatch.edge.http.server import ListenError  # noqa: PLC0415
    from predictu_dispatch.edge.telemetry.log import configure_log  # noqa: PLC0415

    config = invocation.load()
    configure_log(config.dispatcher.log)

    async def serve() -> None:
        await Daemon(config).run()

    # Everything loaded so far stays for good: exclude it from garbage collection.
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with exit_on_database_errors(invocation), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serve())
        except InstanceTakenError as error:
            fail(str(error))
        except ListenError as error:
            fail(_cannot_listen(config, error))


def _open_standard_streams() -> None:
    """Opens /dev/null for each standard stream that is closed.

    Otherwise the event loop's own descriptor gets its number, and uvloop aborts at the end.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for the whole process


def _cannot_listen(config: Config, error: ListenError) -> str:
    from predictu_dispatch.edge.config.loader import VARIABLES  # noqa: PLC0415 - loaded only where used

    return (
        f'cannot listen on "{getattr(config.dispatcher.http, error.key)}": {error}; change [http] {error.key}, or set'
        f" {VARIABLES[f'http.{error.key}']} if several daemons share the file"
    )


@click.command()
@common_options
def migrate(invocation: Invocation) -> None:
    """Bring the database schema up to date; running it twice, or two at once, is safe."""
    from predictu_dispatch.edge.postgres.migrations import migrate as apply_migrations  # noqa: PLC0415 - loaded only where used

    dsn = dsn_of(invocation)
    with exit_on_database_errors(invocation):
        changes = asyncio.run(apply_migrations(dsn, _announce_build))
    if invocation.json:
        print_json({"applied": changes.migrations, "functions": changes.functions, "indexes": changes.indexes})
        return
    for name in changes.migrations:
        print_line(f"applied {name}")
    if changes.functions:
        print_line(f"applied {len(changes.functions)} functions and views")
    if changes.indexes:
        print_line(f"built {', '.join(changes.indexes)}")
    if not changes.migrations and not changes.functions and not changes.indexes:
        print_line("the schema is up to date")


def _announce_build(names: list[str]) -> None:
    """Say on stderr what may take minutes in a large database."""
    for line in wrapped(
        f"building the search indexes {', '.join(names)}; callbacks are delivered meanwhile. Each waits for the"
        " transactions that are open now. It may be interrupted and run again."
    ):
        print_line(line, err=True)


@click.command()
@common_options
def check(invocation: Invocation) -> None:
    """Validate all files, keys and certificates. Exits 2 with one line per fault."""
    from predictu_dispatch.certification.sandbox import certify_faults  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415
    from predictu_dispatch.edge.config.operator_file import time_zone_faults  # noqa: PLC0415

    configuration = invocation.load()
    faults = list(certify_faults(configuration, os.environ))
    for operator in configuration.operators.values():
        faults += time_zone_faults(operator.file, operator.settings)
    if faults:
        invocation.refuse(ConfigError(tuple(faults)))
    rows = [
        {
            "operator_id": operator_id,
            "enabled": operator.settings.enabled,
            "algorithm": operator.settings.signing.algorithm,
            "key_id": operator.signing_key.kid,
            "callback_url": operator.settings.callback_url,
        }
        for operator_id, operator in configuration.operators.items()
    ]
    if invocation.json:
        print_json({"ok": True, "operators": rows, "faults": []})
        return
    shown = [{**row, "enabled": "enabled" if row["enabled"] else "disabled"} for row in rows]
    for line in table([list(map(str, row.values())) for row in shown]):
        print_line(line.rstrip())
    if (audit := configuration.dispatcher.audit).origin:
        witnesses = ", ".join(each.name for each in audit.witness) or "none"
        print_line(f"audit: sealed as {audit.origin}/OPERATOR; witnesses: {witnesses}")
    elif audit.key_file:
        print_line("warning: [audit] key_file is set and origin is not, so the audit is not sealed", err=True)
    print_line(f"{count(len(rows), 'operator')}, no faults")
