"""CPU usage of our processes by role, and of all other processes. Reads /proc (proc(5))."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class CpuClock:
    """Counts from its creation; each role is a set of processes with their children."""

    def __init__(self, **roles: Sequence[int]) -> None:
        self._roles = roles
        self._began_s = time.monotonic()
        self._before_s = self._busy_s()

    def cores(self) -> Mapping[str, float]:
        """Mean number of cores in use, by role and for `others`; empty if there is no /proc."""
        elapsed_s = time.monotonic() - self._began_s
        return {role: (busy_s - self._before_s[role]) / elapsed_s for role, busy_s in self._busy_s().items()}

    def _busy_s(self) -> dict[str, float]:
        try:
            busy_s = {role: sum(map(_of_family, pids)) for role, pids in self._roles.items()}
            # user, nice and system; irq and softirq after idle and iowait.
            ticks = list(map(int, Path("/proc/stat").read_text(encoding="utf-8").splitlines()[0].split()[1:8]))
        except FileNotFoundError:
            return {}
        machine_s = (sum(ticks[:3]) + sum(ticks[5:])) / _TICKS_PER_S
        return busy_s | {"others": machine_s - sum(busy_s.values())}


def own_s() -> float:
    """CPU seconds of this process and of its reaped children."""
    return sum(os.times()[:4])


def cpu_s(pid: int) -> float:
    """CPU seconds of a process without its children; 0 if it has ended."""
    return sum(_of_process(pid, fields=2))


def _of_family(pid: int) -> float:
    """CPU seconds of a process, its children, and its ended children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    return sum(_of_process(pid, fields=4)) + sum(sum(_of_process(int(child), fields=2)) for child in children)


def _of_process(pid: int, *, fields: int) -> list[float]:
    """The first fields of utime, stime, cutime, cstime; empty if the process has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The program's name is in parentheses and may contain any character.
    return [int(ticks) / _TICKS_PER_S for ticks in stat.rpartition(")")[2].split()[11 : 11 + fields]]
