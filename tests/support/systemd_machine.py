"""A machine of its own in namespaces, with a real systemd as its first process, on which units can be started.

Its network and its programs are ours; its units, its configuration and its processes are its own. It ends with the
process that made it, however that ends.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.daemons import until

ROOT = Path(__file__).parents[2]
SYSTEMD = Path("/lib/systemd/systemd")
_NAMESPACES = ("--mount", "--uts", "--ipc", "--cgroup", "--pid", "--fork", "--mount-proc", "--kill-child")
_CGROUPS = (Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup"))
_COMMAND_TIMEOUT_S = 90.0
DAEMON = """#!/bin/sh
export PYTHONPATH=/opt/predictu-dispatch/repository:/opt/predictu-dispatch/site PYTHONDONTWRITEBYTECODE=1
# The path to a libpython that is compiled in leads to where the machine sees nothing.
export LD_LIBRARY_PATH=/opt/predictu-dispatch/python/lib
exec /opt/predictu-dispatch/python/bin/python3 -c '
import signal, sys, time
# A test may ask for a loop that hangs: this blocks the thread in which the loop turns.
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(3600))
from predictu_dispatch.cli import main
sys.exit(main())' "$@"
"""
"""What an installation has as /opt/predictu-dispatch/bin/predictu-dispatch."""


def why_no_systemd() -> str | None:
    """Why there can be no such machine here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a systemd of its own needs root on Linux"
    missing = [name for name in ("unshare", "nsenter", "setpriv", "systemctl") if shutil.which(name) is None]
    if missing or not SYSTEMD.exists():
        return f"needs systemd and util-linux ({', '.join(missing) or SYSTEMD} is missing): apt install systemd"
    tried = subprocess.run(
        # A whole systemd needs no more than this.
        ["unshare", *_NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/opt"],  # noqa: S607 - wherever it lies
        capture_output=True,
        text=True,
        check=False,
    )
    return f"this machine allows no namespaces: {tried.stderr.strip()}" if tried.returncode else None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A systemd that runs; `pid` is that of its first process as seen from here."""

    folder: Path
    pid: int

    async def systemctl(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Has ended, whatever it returned."""
        return await asyncio.to_thread(
            subprocess.run,
            ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--uts", "--ipc", "systemctl", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_TIMEOUT_S,
        )

    async def show(self, unit: str, name: str) -> str:
        """One property of a unit."""
        return (await self.systemctl("show", "--value", "--property", name, unit)).stdout.strip()

    async def kill(self, unit: str, number: signal.Signals) -> None:
        """The unit's main process, and nothing else, has got the signal."""
        done = await self.systemctl("kill", "--kill-who=main", f"--signal={number.name}", unit)
        assert done.returncode == 0, done.stderr


@asynccontextmanager
async def running_machine(folder: Path) -> AsyncIterator[Machine]:
    """`folder` holds config/ and units/; see systemd_machine.sh."""
    daemon = folder / "daemon"
    daemon.write_text(DAEMON, encoding="utf-8")
    cgroup = next(path for path in _CGROUPS if path.is_dir()) / f"predictu-test-{os.getpid()}"
    cgroup.mkdir()
    process = _boot(folder, cgroup)
    try:
        # Grows to [the machine's first process], as seen from here.
        first: list[int] = []

        async def has_booted() -> bool:
            assert process.poll() is None, f"ended with {process.returncode}: {(folder / 'boot').read_text()}"
            first[:] = [int(pid) for pid in _children(process.pid)]
            if not first:
                return False
            state = await Machine(folder=folder, pid=first[0]).systemctl("is-active", "basic.target")
            return state.stdout.strip() == "active"

        await until("systemd has booted", has_booted)
        yield Machine(folder=folder, pid=first[0])
    finally:
        # Its first process goes with it (--kill-child), and with that one everything in there.
        process.kill()
        process.wait()
        await until("the machine's groups are empty", lambda: _removed(cgroup))


def _boot(folder: Path, cgroup: Path) -> "subprocess.Popen[bytes]":
    places = [str(folder), str(ROOT), sysconfig.get_path("purelib"), sys.base_prefix]
    boot = [*_NAMESPACES, str(Path(__file__).with_suffix(".sh")), *places]
    with (folder / "boot").open("wb") as said:
        return subprocess.Popen(
            # The group of this shell becomes the root of the machine's own. Whatever becomes of us, the machine ends.
            [
                *("/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec setpriv --pdeathsig KILL unshare "$@"'),
                *(str(cgroup), *boot),
            ],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()


def _removed(cgroup: Path) -> bool:
    try:
        for path, _, _ in os.walk(cgroup, topdown=False):
            Path(path).rmdir()
    except OSError:
        return False
    return True
