"""A daemon whose log is not read, or cannot be written, delivers, answers and stops as usual."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from predictu_dispatch.commands.invocation import EXIT_NO_DATABASE
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment

COUNT = 400
"""More than twice the deliveries whose lines a pipe of one page holds, with Python's buffer."""


@contextmanager
def stuck_stderr(kind: str) -> Iterator[int]:
    """A descriptor that takes one page and then nothing, or nothing at all."""
    if kind == "full disk":
        end = os.open("/dev/full", os.O_WRONLY)
        yield end
        os.close(end)
        return
    reader, end = os.pipe()
    fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 4096)
    if kind == "closed pipe":
        os.close(reader)
    yield end
    os.close(end)
    if kind != "closed pipe":
        os.close(reader)


def spawn(environment: Environment, stderr: int) -> Daemon:
    """Starts a daemon on a free port, which its log cannot name."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    daemon = environment.fleet.spawn("host-1", stderr=stderr, http={"listen": address})
    daemon.log.write_text(json.dumps({"event": "daemon.started", "http": f"http://{address}"}) + "\n")
    return daemon


@pytest.mark.parametrize("kind", ["unread pipe", "closed pipe", "full disk"])
async def test_a_log_that_cannot_be_written_stops_no_delivery_no_probe_and_no_end(
    environment: Environment, kind: str
) -> None:
    with stuck_stderr(kind) as stderr:
        daemon = spawn(environment, stderr)

        async def answers() -> bool:
            assert daemon.process.poll() is None
            try:
                return await daemon.is_ready()
            except OSError:
                return False

        await until("the daemon is ready", answers)
        for n in range(COUNT):
            await environment.harness.place(f"b-{n}")
        await environment.until_all_final()
        assert await environment.states() == {"delivered": COUNT}
        assert (await daemon.get("/healthz"))[0] == 200
        assert await daemon.metric("log_lines_lost_total") is not None
        before_s = await daemon.metric("process_cpu_seconds_total")
        since_s = time.monotonic()
        await until("two seconds have passed", lambda: time.monotonic() - since_s >= 2.0)
        after_s = await daemon.metric("process_cpu_seconds_total")
        assert before_s is not None
        assert after_s is not None
        assert after_s - before_s < 0.6, "a fault of the log costs no processor time"
        daemon.terminate()
        assert await daemon.exited(within_s=15.0) == 0


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_do_not_break_the_end(tmp_path: Path, closed: str) -> None:
    """The event loop's own descriptors would get their numbers, and uvloop would abort."""
    (tmp_path / "operators").mkdir()
    config = tmp_path / "dispatcher.toml"
    config.write_text('[database]\ndsn = "postgresql://127.0.0.1:1/nothing"\n')
    daemon = [sys.executable, "-m", "predictu_dispatch", "run", "--config", str(config)]
    ended = subprocess.run(["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *daemon], check=False, timeout=60)
    assert ended.returncode == EXIT_NO_DATABASE
