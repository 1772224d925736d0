"""The test build of the daemon: `python -m tests.chaos.armed_daemon run --config X` with PREDICTU_DISPATCH_FAULT set.

It is the product's own command line and the product's own methods, a few of them wrapped; see fault_points.py. Before
anything happens to the process, one JSON line on stderr says what.
"""

import argparse
import json
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn, assert_never
from urllib.parse import parse_qsl, unquote, urlsplit

from predictu_dispatch import cli
from predictu_dispatch.commands.invocation import DEFAULT_CONFIG, EXIT_FAILED, EXIT_MISCONFIGURED
from predictu_dispatch.edge.config.dispatcher_file import read_dispatcher
from tests.chaos.fault_points import Action, Fault, FaultValueError, VanishedPointError, arm, parse_faults
from tests.support.daemons import FAULT_VARIABLE

Peer = tuple[str, int] | str
"""Where a connection goes: address and port, or the path of a Unix socket."""
_DEFAULT_PORT = "5432"


def main() -> None:
    """Runs the daemon, armed. Ends with exit code 2 and what is allowed, or 1 and what has vanished."""
    try:
        arm(parse_faults(os.environ.get(FAULT_VARIABLE, "")), happen)
    except FaultValueError as error:
        _end(EXIT_MISCONFIGURED, str(error))
    except VanishedPointError as error:
        _end(EXIT_FAILED, f"a fault point is gone; put POINTS in tests/chaos/fault_points.py right: {error}")
    cli.main()


def happen(fault: Fault) -> bool:
    """The fault has happened, and the process lives on, or lives again. False where there was nothing to cut."""
    connections = postgres_connections() if fault.action is Action.CUT else []
    if fault.action is Action.CUT and not connections:
        return False
    said = {"event": "fault", "point": fault.point, "action": fault.action}
    # Past every buffer: a moment later the process may be no more.
    os.write(2, f"{json.dumps(said)}\n".encode())
    match fault.action:
        case Action.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        case Action.FREEZE:
            os.kill(os.getpid(), signal.SIGSTOP)
        case Action.CUT:
            for connection in connections:
                with connection:
                    connection.shutdown(socket.SHUT_RDWR)
        case never:
            assert_never(never)
    return True


def postgres_connections() -> list[socket.socket]:
    """This process's connections to the servers that its configuration names: doubles, which are to be closed."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--config", default=DEFAULT_CONFIG)
    database = read_dispatcher(Path(options.parse_known_args()[0].config), os.environ).database
    wanted = peers(database.dsn.get_secret_value()) | peers(database.listen_dsn.get_secret_value())
    found = []
    for link in list(Path("/proc/self/fd").iterdir()):
        try:
            if not str(link.readlink()).startswith("socket:"):
                continue
            double = socket.socket(fileno=os.dup(int(link.name)))
        except FileNotFoundError:
            # The descriptor that the listing itself was read by.
            continue
        if _peer(double) in wanted:
            found.append(double)
        else:
            double.close()
    return found


def peers(dsn: str) -> set[Peer]:
    """Where a DSN may lead; nowhere if it is empty. What libpq would take from its own variables is not looked at."""
    if not dsn:
        return set()
    parts = urlsplit(dsn)
    options = dict(parse_qsl(parts.query))
    hosts = (parts.netloc.rpartition("@")[2] or options.get("host", "localhost")).split(",")
    ports = options.get("port", _DEFAULT_PORT).split(",")
    found: set[Peer] = set()
    for number, host in enumerate(hosts):
        named = re.fullmatch(r"(.*?)(?::(\d+))?", unquote(host))
        assert named is not None
        name, port = named[1].strip("[]"), named[2] or ports[number % len(ports)]
        if name.startswith("/"):
            found.add(os.path.realpath(f"{name}/.s.PGSQL.{port}"))
        else:
            resolved = socket.getaddrinfo(name, int(port), type=socket.SOCK_STREAM)
            found |= {(str(address[0]), int(port)) for *_, address in resolved}
    return found


def _peer(connection: socket.socket) -> Peer | None:
    try:
        peer = connection.getpeername()
    except OSError:
        # It listens, or is not connected any more.
        return None
    if connection.family == socket.AF_UNIX:
        return os.path.realpath(peer) if isinstance(peer, str) and peer else None
    return (str(peer[0]), int(peer[1]))


def _end(code: int, words: str) -> NoReturn:
    sys.stderr.write(f"{words}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
