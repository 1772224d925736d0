"""Daemons as child processes: start, observe, freeze, stop and kill them.

Waits poll a condition until a timeout and then fail with its description. The daemons end with the
test process.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from predictu_dispatch.edge.config.loader import VARIABLES
from predictu_dispatch.embedded_postgres.watcher import Watcher
from tests.support.bytecode import use_bytecode_cache
from tests.support.harness import OPERATOR

WAIT_S = 60.0
"""Far above any wait here, so that only a failure takes this long."""
_POLL_S = 0.005
ARMED, FAULT_VARIABLE = "tests.chaos.armed_daemon", "PREDICTU_DISPATCH_FAULT"
Settings = Mapping[str, Any]

_LANE = {
    "deadline_s": 60.0,
    "attempt_timeout_s": 20.0,
    "max_attempts": 20,
    "initial_delay_s": 0.01,
    "max_delay_s": 0.05,
    "max_in_flight": 60,
}
"""Retries at once; nothing times out by default."""
OPERATOR_SETTINGS: Settings = {
    "operator_id": OPERATOR,
    "allow_insecure_http": True,
    "allow_private_addresses": True,
    "signing": {"key_file": "../key.pem"},
    "interactive": _LANE,
    "settlement": _LANE | {"deadline_s": 0},
    # The second question about a missing debit has tests of its own, and so has the circuit.
    "rollback": {"recheck_s": 0},
    "circuit": {"failure_threshold": 10_000},
    "health": {"ping_interval_s": 0},
}


async def until(what: str, is_so: Callable[[], bool | Awaitable[bool]], *, within_s: float = WAIT_S) -> None:
    """Waits until the condition holds. Raises AssertionError that names `what` after `within_s`."""
    give_up_at_s = time.monotonic() + within_s
    while True:
        answer = is_so()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < give_up_at_s, f"not within {within_s:g} s: {what}"
        await asyncio.sleep(_POLL_S)


@dataclass(kw_only=True)
class Daemon:
    """One `predictu-dispatch run` in a process of its own, with its log file."""

    instance: str
    process: "subprocess.Popen[bytes]"
    log: Path
    session: aiohttp.ClientSession

    @property
    def log_text(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Returns the log's complete lines, all or those of one event."""
        lines = [json.loads(line) for line in self.log_text.splitlines(keepends=True) if line.endswith("\n")]
        return [line for line in lines if event in (None, line["event"])]

    @property
    def url(self) -> str:
        return str(self.lines("daemon.started")[0]["http"])

    async def until_logged(self, event: str, *, times: int = 1) -> None:
        await until(f"{self.instance} logs {event}", lambda: len(self.lines(event)) >= times)

    async def get(self, path: str) -> tuple[int, str]:
        async with self.session.get(self.url + path) as response:
            return response.status, await response.text()

    async def is_ready(self) -> bool:
        return (await self.get("/readyz"))[0] == 200

    async def ready(self) -> None:
        """Waits until /readyz answers 200. Raises AssertionError if the daemon ended instead."""

        async def has_started_and_is_ready() -> bool:
            assert self.process.poll() is None, (
                f"{self.instance} ended with {self.process.returncode}:\n{self.log_text}"
            )
            return bool(self.lines("daemon.started")) and await self.is_ready()

        await until(f"{self.instance} is ready", has_started_and_is_ready)

    async def metrics(self) -> dict[str, dict[tuple[str, ...], float]]:
        """Every sample of /metrics by name, then by label values in the order of their names."""
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families((await self.get("/metrics"))[1]):
            for sample in family.samples:
                labels = tuple(value for _, value in sorted(sample.labels.items()))
                found.setdefault(sample.name.removeprefix("predictu_dispatch_"), {})[labels] = sample.value
        return found

    async def metric(self, name: str, *labels: str) -> float | None:
        """Returns one sample, None if it is absent."""
        return (await self.metrics()).get(name, {}).get(labels)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Suspends the process until thaw(); its sockets stay open and clocks continue."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    async def exited(self, *, within_s: float = WAIT_S) -> int:
        """Waits for the daemon's own end; returns the exit code."""
        await until(f"{self.instance} has ended", lambda: self.process.poll() is not None, within_s=within_s)
        assert self.process.returncode is not None
        return self.process.returncode


@dataclass(kw_only=True)
class Fleet:
    """Daemons that share one folder of operators and, unless started with another, one DSN."""

    folder: Path
    dsn: str
    session: aiohttp.ClientSession
    daemons: list[Daemon] = field(default_factory=list)
    _watchers: list[Watcher] = field(default_factory=list)

    def write_operator(self, url: str, *, operator_id: str = OPERATOR, **sections: Any) -> None:
        """Writes the operator's file: OPERATOR_SETTINGS with `sections` over them.

        Call it before a daemon starts.
        """
        (self.folder / "operators").mkdir(exist_ok=True)
        settings = _merged({**OPERATOR_SETTINGS, "callback_url": url, "operator_id": operator_id}, sections)
        (self.folder / "operators" / f"{operator_id}.toml").write_text(_toml(settings), encoding="utf-8")

    def spawn(
        self,
        instance: str,
        *,
        fault: str = "",
        module: str = "predictu_dispatch",
        environment: Mapping[str, str] | None = None,
        stderr: int | None = None,
        **sections: Any,
    ) -> Daemon:
        """Starts the process without waiting for it.

        `sections` override the default dispatcher.toml. `stderr` is a descriptor for its log, which
        is not read then.

        With a `fault` it starts the test build that injects it; see tests/chaos/armed_daemon.py.
        """
        if fault:
            module, environment = ARMED, {**(environment or {}), FAULT_VARIABLE: fault}
        config = self.folder / f"{instance}.toml"
        settings: Settings = {
            "database": {"dsn": self.dsn},
            "daemon": {"instance": instance, "drain_s": 10.0, "poll_interval_s": 0.05},
            "http": {"listen": "127.0.0.1:0"},
            "log": {"format": "json"},
        }
        config.write_text(_toml(_merged(settings, sections)), encoding="utf-8")
        log = self.folder / f"{instance}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module, "run", "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output if stderr is None else stderr,
                env={**_environment(), **(environment or {})},
                start_new_session=True,
            )
        daemon = Daemon(instance=instance, process=process, log=log, session=self.session)
        self.daemons.append(daemon)
        # If the test process is killed, the watcher ends the daemon.
        watched = self.folder / f".{instance}.{len(self.daemons)}"
        watched.mkdir()
        self._watchers.append(Watcher(watched))
        self._watchers[-1].watch(process.pid)
        return daemon

    async def start(self, instance: str, *, fault: str = "", **sections: Any) -> Daemon:
        daemon = self.spawn(instance, fault=fault, **sections)
        await daemon.ready()
        return daemon

    async def start_all(self, *instances: str) -> list[Daemon]:
        """Starts daemons concurrently and waits until they are ready."""
        daemons = [self.spawn(instance) for instance in instances]
        for daemon in daemons:
            await daemon.ready()
        return daemons

    def end(self) -> None:
        """Kills every daemon, frozen ones too."""
        for watcher in self._watchers:
            watcher.forget()
        for daemon in self.daemons:
            daemon.kill()
        for watcher in self._watchers:
            watcher.close()


def _environment() -> dict[str, str]:
    """Returns our environment with a bytecode cache, without the variables that override files."""
    use_bytecode_cache()
    removed = {*VARIABLES.values(), "NOTIFY_SOCKET"}
    return {name: value for name, value in os.environ.items() if name not in removed}


def _merged(settings: Settings, over: Settings) -> dict[str, Any]:
    """Returns `settings` with `over` merged into it, table by table."""
    merged = {**settings, **over}
    tables = {name: value for name, value in over.items() if isinstance(value, Mapping)}
    return merged | {name: _merged(settings.get(name, {}), table) for name, table in tables.items()}


def _toml(settings: Settings) -> str:
    """Writes TOML with one level of tables.

    Strings, numbers, booleans and lists are written as in JSON, tables in a list inline.
    """
    plain = [f"{name} = {_value(value)}" for name, value in settings.items() if not isinstance(value, Mapping)]
    tables = [f"\n[{name}]\n{_toml(value)}" for name, value in settings.items() if isinstance(value, Mapping)]
    return "\n".join([*plain, *tables]) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{name} = {_value(one)}' for name, one in value.items())}}}"
    return json.dumps(value)
