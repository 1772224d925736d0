"""`run` and `migrate`."""

from __future__ import annotations

import asyncio
import sys

import click

from predictu_dispatch.commands.connection import dsn_of, reported_outages
from predictu_dispatch.commands.invocation import EXIT_FAILED, Invocation, common_options, print_json

GARBAGE_LOOKED_FOR_EVERY = 50_000
"""Objects more than before. At full load what is under way is more than Python's own 700, and leaves no cycles behind:
with 10,000 every few claims had it all looked through, 8 ms each time and a twentieth of the processor."""

THREADS_TAKE_TURNS_S = 0.0005
"""The loop waits so long for a thread that holds the interpreter; with Python's own 5 ms each of its turns would wait
5 ms for as long as a scrape is rendered or files are read again. Measured by tests/bench/scrape.py."""


@click.command()
@common_options
def run(invocation: Invocation) -> None:
    """Run the daemon until SIGTERM; what is in flight then is finished first."""
    import gc  # noqa: PLC0415 - loaded only where used
    import resource  # noqa: PLC0415
    import signal  # noqa: PLC0415

    # Until the daemon listens for it: a reload that is asked of one that is still starting must not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Every slot of every operator may hold a connection, and the usual soft limit is for programs that use select().
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Not where a unit set both, because its filter of system calls may refuse even that.
    if soft != most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    import uvloop  # noqa: PLC0415

    from predictu_dispatch.core.fleet import InstanceTakenError  # noqa: PLC0415
    from predictu_dispatch.daemon import Daemon  # noqa: PLC0415
    from predictu_dispatch.edge.http.server import ListenError  # noqa: PLC0415
    from predictu_dispatch.edge.telemetry.log import configure_log  # noqa: PLC0415

    config = invocation.load()
    configure_log(config.dispatcher.log)

    async def serve() -> None:
        await Daemon(config).run()

    # What is there by now stays for good, and need not be looked through for garbage again and again.
    gc.freeze()
    gc.set_threshold(GARBAGE_LOOKED_FOR_EVERY)
    sys.setswitchinterval(THREADS_TAKE_TURNS_S)
    with reported_outages(invocation), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(serve())
        except InstanceTakenError as taken:
            click.echo(str(taken), err=True)
            sys.exit(EXIT_FAILED)
        except ListenError as error:
            listen = config.dispatcher.http.listen
            click.echo(
                f'[http] listen = "{listen}" cannot be had: {error}; choose another there, or in'
                " PREDICTU_DISPATCH_LISTEN where several daemons share the file",
                err=True,
            )
            sys.exit(EXIT_FAILED)


@click.command()
@common_options
def migrate(invocation: Invocation) -> None:
    """Bring the database schema up to date; twice is harmless, two at once is safe."""
    from predictu_dispatch.edge.postgres.migrations import migrate as bring_up_to_date  # noqa: PLC0415 - loaded only where used

    dsn = dsn_of(invocation)
    with reported_outages(invocation):
        changes = asyncio.run(bring_up_to_date(dsn))
    if invocation.json:
        print_json({"applied": changes.migrations, "functions": changes.functions})
        return
    for name in changes.migrations:
        click.echo(f"applied {name}")
    if changes.functions:
        click.echo(f"applied {len(changes.functions)} functions and views")
    if not changes.migrations and not changes.functions:
        click.echo("the schema is up to date")
