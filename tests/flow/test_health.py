"""Readiness, the watchdog, and the notifications to a service manager (a real socket)."""

import asyncio
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from predictu_dispatch.core.methods import Lane
from predictu_dispatch.edge.systemd import ServiceManager
from predictu_dispatch.flow.admission import Admission
from predictu_dispatch.flow.dispatcher import Dispatcher
from predictu_dispatch.flow.health import Health
from predictu_dispatch.flow.recorder import Recorder


@dataclass
class Clock:
    now_s: float = 1000.0


@dataclass
class FakeDispatcher:
    """The attributes of a dispatcher that Health reads."""

    lane: Lane
    claimed_at_s: float | None = None
    answered_at_s: float | None = None
    failure: str | None = None


@dataclass
class FakeUnsettled:
    held_up: float = 0.0

    def held_up_s(self) -> float:
        return self.held_up


@dataclass
class FakeRecorder:
    """The attributes of a recorder that Health reads."""

    lane: Lane
    has_work: bool = False
    progressed_at_s: float = 1000.0
    unsettled: FakeUnsettled = field(default_factory=FakeUnsettled)


@dataclass
class World:
    """Two dispatchers, a recorder, a database and a stop."""

    clock: Clock
    interactive: FakeDispatcher
    settlement: FakeDispatcher
    recorder: FakeRecorder = field(default_factory=lambda: FakeRecorder(Lane.INTERACTIVE))
    outage: str | None = None
    is_draining: bool = False
    poll_interval_s: float = 0.0

    def health(self) -> Health:
        return Health(
            cast("list[Dispatcher]", [self.interactive, self.settlement]),
            cast("list[Recorder]", [self.recorder]),
            Admission([]),
            poll_interval_s=self.poll_interval_s,
            database_outage=lambda: self.outage,
            database_blocked=lambda: None,
            heartbeat_failure=lambda: None,
            is_draining=lambda: self.is_draining,
            now_s=lambda: self.clock.now_s,
        )

    def claim(self, *dispatchers: FakeDispatcher) -> None:
        for one in dispatchers:
            one.claimed_at_s = one.answered_at_s = self.clock.now_s


@pytest.fixture
def world() -> World:
    return World(
        clock=Clock(), interactive=FakeDispatcher(Lane.INTERACTIVE), settlement=FakeDispatcher(Lane.SETTLEMENT)
    )


def test_a_dispatcher_without_an_answer_for_a_minute_is_stuck_even_if_the_other_claims(world: World) -> None:
    health, never = world.health(), world.health()
    world.clock.now_s += 60
    assert never.stuck() is None
    world.clock.now_s += 1
    assert never.stuck() is not None, "no answer since the start"
    world.claim(world.interactive, world.settlement)
    world.clock.now_s += 60
    world.claim(world.interactive)
    assert health.stuck() is None
    world.clock.now_s += 1
    assert health.stuck() == "the claims of the settlement dispatcher have had no answer for 61 s"
    world.claim(world.settlement)
    assert health.stuck() is None


def test_a_long_poll_interval_counts_in_both_limits(world: World) -> None:
    world.poll_interval_s = 60.0
    health = world.health()
    world.claim(world.interactive, world.settlement)
    world.clock.now_s += 70
    assert (health.unready(), health.stuck()) == (None, None)
    world.clock.now_s += 50
    assert (health.unready(), health.stuck()) == ("the last claim was 120 s ago", None)
    world.clock.now_s += 1
    assert health.stuck() is not None


def test_during_an_outage_the_daemon_is_unready_and_not_stuck(world: World) -> None:
    health = world.health()
    world.claim(world.interactive, world.settlement)
    world.clock.now_s += 3600
    world.outage = "the database cannot be reached"
    world.interactive.answered_at_s = world.settlement.answered_at_s = world.clock.now_s
    assert (health.unready(), health.stuck()) == ("the database cannot be reached", None)
    # Available again, but nothing was claimed since.
    world.outage = None
    assert (health.unready(), health.stuck()) == ("the last claim was 3600 s ago", None)


def test_a_recorder_without_progress_for_a_minute_is_stuck_only_if_it_has_work(world: World) -> None:
    health = world.health()
    world.recorder.has_work = True
    world.clock.now_s += 61
    world.claim(world.interactive, world.settlement)
    assert health.stuck() == "the settles of the interactive recorder have had no answer for 61 s"
    # An outage is an answer too.
    world.recorder.progressed_at_s = world.clock.now_s
    assert health.stuck() is None
    world.clock.now_s += 3600
    world.claim(world.interactive, world.settlement)
    world.recorder.has_work = False
    assert health.stuck() is None


def test_an_answer_that_is_not_settled_makes_the_daemon_unready_and_not_stuck(world: World) -> None:
    health = world.health()
    world.claim(world.interactive, world.settlement)
    world.recorder.unsettled.held_up = 12.0
    assert health.unready() == "an answer of the interactive lane has not been settled for 12 s"
    assert health.stuck() is None


def test_a_refused_claim_makes_the_daemon_unready_at_once_and_not_stuck(world: World) -> None:
    health = world.health()
    world.claim(world.interactive, world.settlement)
    world.settlement.failure = "claims of the settlement lane fail (SQLSTATE 42501)"
    assert (health.unready(), health.stuck()) == (world.settlement.failure, None)


def test_a_draining_daemon_is_never_stuck(world: World) -> None:
    health = world.health()
    world.is_draining = True
    world.clock.now_s += 3600
    assert (health.unready(), health.stuck()) == ("draining", None)


@dataclass
class NotifySocket:
    """The service manager's end of NOTIFY_SOCKET."""

    listening: socket.socket
    environ: dict[str, str]

    def received(self) -> list[str]:
        messages = []
        while True:
            try:
                messages.append(self.listening.recv(4096, socket.MSG_DONTWAIT).decode())
            except BlockingIOError:
                return messages


@pytest.fixture(params=["path", "abstract"])
def notify_socket(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NotifySocket]:
    name = f"@predictu-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name.replace("@", "\0"))
        yield NotifySocket(
            listening, {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "80000", "WATCHDOG_PID": str(os.getpid())}
        )


async def test_ready_is_notified_once_and_the_watchdog_only_while_nothing_is_stuck(
    world: World, notify_socket: NotifySocket
) -> None:
    reporting = asyncio.create_task(world.health().report(ServiceManager(notify_socket.environ)))

    async def until_received(*wanted: str) -> list[str]:
        """All messages until the last of these."""
        messages: list[str] = []
        async with asyncio.timeout(10):
            while not set(wanted) <= set(messages):
                messages += notify_socket.received()
                await asyncio.sleep(0.001)
        return messages

    assert await until_received("STATUS=no claim has succeeded yet") == ["STATUS=no claim has succeeded yet"]
    world.claim(world.interactive, world.settlement)
    assert (await until_received("READY=1", "WATCHDOG=1", "STATUS=ready"))[:3] == [
        "READY=1",
        "WATCHDOG=1",
        "STATUS=ready",
    ]
    assert "WATCHDOG=1" in await until_received("WATCHDOG=1")

    world.clock.now_s += 61
    stuck = "STATUS=the claims of the interactive dispatcher have had no answer for 61 s"
    await until_received(stuck)
    # Several intervals of the 80 ms watchdog, in which it would have been notified.
    world.interactive.answered_at_s = world.clock.now_s
    still = "STATUS=the claims of the settlement dispatcher have had no answer for 61 s"
    assert await until_received(still) == [still]
    world.claim(world.interactive, world.settlement)
    assert "WATCHDOG=1" in await until_received("STATUS=ready", "WATCHDOG=1")
    reporting.cancel()


def test_a_stop_extends_the_managers_timeout(notify_socket: NotifySocket) -> None:
    ServiceManager(notify_socket.environ).stopping(within_s=35.0)
    assert notify_socket.received() == ["STOPPING=1\nEXTEND_TIMEOUT_USEC=35000000"]


@pytest.mark.parametrize(
    ("environ", "watchdog_s"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_counts_only_if_it_is_for_this_process(environ: dict[str, str], watchdog_s: float | None) -> None:
    assert ServiceManager({"NOTIFY_SOCKET": "/gone", **environ}).watchdog_s == watchdog_s
    assert ServiceManager(environ).watchdog_s is None


async def test_nothing_fails_without_a_service_manager(world: World, tmp_path: Path) -> None:
    await world.health().report(ServiceManager({}))
    gone = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    gone.ready()
    gone.alive()
    gone.status("ready")
    gone.stopping(within_s=1)
