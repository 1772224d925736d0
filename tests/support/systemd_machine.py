"""A container made of namespaces with a real systemd as its first process, to start units on.

It shares our network and programs; units, configuration and processes are its own. It ends with the
test process.
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
# The compiled-in path to libpython does not exist inside the machine.
export LD_LIBRARY_PATH=/opt/predictu-dispatch/python/lib
exec /opt/predictu-dispatch/python/bin/python3 -c '
import signal, sys, time
# SIGUSR1 blocks the thread of the event loop: a daemon that hangs.
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(3600))
from predictu_dispatch.cli import main
sys.exit(main())' "$@"
"""
"""The program that an installation has as /opt/predictu-dispatch/bin/predictu-dispatch."""


def why_no_systemd() -> str | None:
    """Returns why such a machine cannot run here, or None."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a systemd of its own needs root on Linux"
    missing = [name for name in ("unshare", "nsenter", "setpriv", "systemctl") if shutil.which(name) is None]
    if missing or not SYSTEMD.exists():
        return f"needs systemd and util-linux ({', '.join(missing) or SYSTEMD} is missing): apt install systemd"
    tried = subprocess.run(
        # systemd needs no more rights than this.
        ["unshare", *_NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/opt"],  # noqa: S607 - wherever it is installed
        capture_output=True,
        text=True,
        check=False,
    )
    return f"this machine allows no namespaces: {tried.stderr.strip()}" if tried.returncode else None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A running systemd; `pid` is its process id outside of the namespaces."""

    folder: Path
    pid: int

    async def systemctl(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Runs systemctl; returns its result whatever the exit code."""
        return await asyncio.to_thread(
            subprocess.run,
            ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--uts", "--ipc", "systemctl", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=_COMMAND_TIMEOUT_S,
        )

    async def show(self, unit: str, name: str) -> str:
        return (await self.systemctl("show", "--value", "--property", name, unit)).stdout.strip()

    async def kill(self, unit: str, number: signal.Signals) -> None:
        """Sends a signal to the unit's main process only."""
        done = await self.systemctl("kill", "--kill-who=main", f"--signal={number.name}", unit)
        assert done.returncode == 0, done.stderr


@asynccontextmanager
async def running_machine(folder: Path) -> AsyncIterator[Machine]:
    """Boots the machine; `folder` has config/ and units/, see systemd_machine.sh."""
    daemon = folder / "daemon"
    daemon.write_text(DAEMON, encoding="utf-8")
    cgroup = next(path for path in _CGROUPS if path.is_dir()) / f"predictu-test-{os.getpid()}"
    cgroup.mkdir()
    process = _boot(folder, cgroup)
    try:
        # Becomes [the pid of the machine's first process].
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
        # unshare --kill-child kills the first process, and the kernel kills all others with it.
        process.kill()
        process.wait()
        await until("the machine's groups are empty", lambda: _removed(cgroup))


def _boot(folder: Path, cgroup: Path) -> "subprocess.Popen[bytes]":
    places = [str(folder), str(ROOT), sysconfig.get_path("purelib"), sys.base_prefix]
    boot = [*_NAMESPACES, str(Path(__file__).with_suffix(".sh")), *places]
    with (folder / "boot").open("wb") as log:
        return subprocess.Popen(
            # This shell's cgroup becomes the machine's root. --pdeathsig ends the machine with us.
            [
                *("/bin/sh", "-c", 'echo $$ >"$0/cgroup.procs" && exec setpriv --pdeathsig KILL unshare "$@"'),
                *(str(cgroup), *boot),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
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
