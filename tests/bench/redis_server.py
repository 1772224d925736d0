"""A Redis server for the peers that use one, with Redis's usual durability."""

import shutil
import socket
import time
from pathlib import Path

from predictu_dispatch.embedded_postgres.binaries import free_port
from tests.bench.child_process import ChildProcess

_START_TIMEOUT_S = 20.0
_POLL_S = 0.01


def redis_server() -> str | None:
    """The path of redis-server; None if it is not installed."""
    return shutil.which("redis-server")


class RedisServer(ChildProcess):
    """A server on a free loopback port, with its data in `folder`.

    It syncs its append-only file once per second (appendfsync everysec). A power cut can lose a
    second of jobs, while Postgres loses none. `always` would be slower.
    """

    def __init__(self, program: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._port = free_port()
        super().__init__(
            [
                program,
                *("--port", str(self._port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""),
                *("--appendonly", "yes", "--appendfsync", "everysec"),
            ],
            log=folder / "redis.log",
        )
        give_up_at_s = time.monotonic() + _START_TIMEOUT_S
        while not self._is_ready():
            if not self.is_alive or time.monotonic() > give_up_at_s:
                self.end()
                raise RuntimeError(f"redis-server did not start: {self.output}")
            time.sleep(_POLL_S)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def _is_ready(self) -> bool:
        """Wait until it has loaded its data; before that it answers LOADING."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1.0) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False
