"""The test build of the daemon, with the faults of PREDICTU_DISPATCH_FAULT.

It is the product's command line with a few methods wrapped; see fault_points.py. Before a fault
happens, one JSON line on stderr names it.
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
from predictu_dispatch.edge.config.loader import read_dispatcher
from tests.chaos.fault_points import Action, Fault, FaultValueError, MissingPointError, arm, parse_faults
from tests.support.daemons import FAULT_VARIABLE

Peer = tuple[str, int] | str
"""The other end of a connection: address and port, or the path of a Unix socket."""
_DEFAULT_PORT = "5432"


def main() -> None:
    """Run the daemon; exits with 2 for a bad value, with 1 if a fault point is missing."""
    try:
        arm(parse_faults(os.environ.get(FAULT_VARIABLE, "")), happen)
    except FaultValueError as error:
        _exit(EXIT_MISCONFIGURED, str(error))
    except MissingPointError as error:
        _exit(EXIT_FAILED, f"fault point missing; change POINTS in tests/chaos/fault_points.py: {error}")
    cli.main()


def happen(fault: Fault) -> bool:
    """Make the fault happen. False if there was no connection to cut."""
    connections = postgres_connections() if fault.action is Action.CUT else []
    if fault.action is Action.CUT and not connections:
        return False
    line = {"event": "fault", "point": fault.point, "action": fault.action}
    # Unbuffered, because the process may be killed next.
    os.write(2, f"{json.dumps(line)}\n".encode())
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
    """Duplicates of the connections to the configured servers; the caller closes them."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--config", default=DEFAULT_CONFIG)
    database = read_dispatcher(Path(options.parse_known_args()[0].config), os.environ).database
    configured = peers(database.dsn.get_secret_value()) | peers(database.listen_dsn.get_secret_value())
    found = []
    for link in list(Path("/proc/self/fd").iterdir()):
        try:
            if not str(link.readlink()).startswith("socket:"):
                continue
            duplicate = socket.socket(fileno=os.dup(int(link.name)))
        except FileNotFoundError:
            # The descriptor of the listing itself.
            continue
        if _peer(duplicate) in configured:
            found.append(duplicate)
        else:
            duplicate.close()
    return found


def peers(dsn: str) -> set[Peer]:
    """The servers that a DSN names; libpq's environment variables are ignored."""
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
        # A listening or disconnected socket.
        return None
    if connection.family == socket.AF_UNIX:
        return os.path.realpath(peer) if isinstance(peer, str) and peer else None
    return (str(peer[0]), int(peer[1]))


def _exit(code: int, message: str) -> NoReturn:
    sys.stderr.write(f"{message}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
