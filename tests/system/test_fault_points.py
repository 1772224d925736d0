"""A daemon is killed, frozen or cut from Postgres at each fault point: the books stay right."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import pytest

from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.postgres.outbox import Outbox
from tests.chaos.armed_daemon import peers
from tests.chaos.fault_points import (
    POINTS,
    SEALING_POINTS,
    Action,
    FaultValueError,
    MissingPointError,
    arm,
    parse_faults,
)
from tests.support.bet_paths import INTERRUPTED, NOT_SENT, Bets
from tests.support.daemons import FAULT_VARIABLE, WAIT_S, Daemon, until
from tests.support.environment import Environment, open_environment
from tests.support.harness import claim
from tests.support.postgres import Database
from tests.support.sealing import ORIGIN, check_logs

LANE = {"attempt_timeout_s": 1.0, "connect_timeout_s": 1.0}
"""Leases of six seconds, which expire in real time."""
QUICK_S, SLOW_S = 0.1, 0.6
"""The operator's response times; both are below the timeout."""
STARTS_WITHIN_S = 90.0
"""A dozen daemons start at once."""
_POLL_S = 0.1

AUDIT = {"origin": ORIGIN, "key_file": "audit.pem", "seal_s": 0.1}
"""Only these daemons seal."""

NTH = {"expiring": 2, "heartbeat": 3}
"""The pass at which the fault happens; the first passes here belong to the start."""
ANSWERED = {"answered", "before_settle"}
OF_ONE_ATTEMPT = {*NOT_SENT, "sent", *ANSWERED}

HELD = "select count(*) from predictu_dispatch.callback where state = 'in_flight' and leased_by = $1"


async def wait_until(what: str, is_so: Callable[[], Awaitable[bool]], *, within_s: float = WAIT_S) -> None:
    """As until(), but polls only ten times a second, because a dozen daemons need the machine."""

    async def polled() -> bool:
        if await is_so():
            return True
        await asyncio.sleep(_POLL_S)
        return False

    await until(what, polled, within_s=within_s)


async def finished(environment: Environment) -> None:
    """Wait until every callback is final."""

    async def all_final() -> bool:
        return not {"waiting", "ready", "in_flight"} & (await environment.states()).keys()

    await wait_until("every callback is final", all_final)


async def sealed_once(environment: Environment) -> None:
    """Wait until everything is sealed; each row is then in its log once, and no log has forked."""
    owner = environment.harness.owner
    now = await owner.fetchval("select clock_timestamp()")

    async def is_sealed() -> bool:
        return bool(await owner.fetchval("select sealed_at >= $1 from predictu_dispatch.audit_position", now))

    await wait_until("everything is sealed", is_sealed)
    await check_logs(owner)


@pytest.fixture
async def environment(tmp_path: Path, database: Database) -> AsyncIterator[Environment]:
    async with open_environment(tmp_path, database) as environment:
        environment.fleet.write_operator(environment.operator.url, interactive=LANE, settlement=LANE)
        create_key_file(tmp_path / "audit.pem", "EdDSA")
        yield environment


@pytest.fixture
async def bets(environment: Environment) -> Bets:
    """Due callbacks of every path, some with an expired lease."""
    bets = Bets(environment)
    await bets.place()
    assert await claim(environment.harness.daemon, instance="absent", lease_s=0.001)
    for _ in Bets.PATHS:
        await bets.place()
    return bets


async def armed_at(environment: Environment, points: Iterable[str], action: Action) -> dict[str, Daemon]:
    """Start one daemon for each point, named after it."""
    armed: dict[str, Daemon] = {}
    for point in points:
        fault = f"{point}:{action}:{NTH.get(point, 1)}"
        audit = AUDIT if point in SEALING_POINTS else {}
        armed[point] = first = environment.fleet.spawn(point, fault=fault, database={"pool_size": 2}, audit=audit)
        if len(armed) == 1:
            # The first one compiles what all others import.
            await has_started(first)
    return armed


async def has_started(daemon: Daemon) -> None:
    """As Daemon.ready(), also for a daemon that is killed next or logs more than JSON."""

    def has_logged() -> bool:
        # A thread writes the log: a daemon that is killed at once has written only its fault.
        return '"event":"daemon.started"' in daemon.log_text or '"event": "fault"' in daemon.log_text

    await until(f"{daemon.instance} has started", has_logged, within_s=STARTS_WITHIN_S)


async def pass_their_points(bets: Bets, armed: Mapping[str, Daemon]) -> None:
    """Place bets until each daemon has passed its point."""
    left = dict(armed)

    async def all_passed() -> bool:
        for point, daemon in armed.items():
            if '"event": "fault"' in daemon.log_text:
                left.pop(point, None)
                continue
            assert daemon.process.poll() is None, daemon.log_text
            if point == "draining" and await bets.environment.harness.owner.fetchval(HELD, point):
                daemon.terminate()
        if any('"event":"daemon.started"' in daemon.log_text for daemon in left.values()):
            await bets.place()
        return not left

    bets.environment.operator.answers_in_s = QUICK_S
    try:
        await wait_until("every armed daemon passes its point", all_passed, within_s=STARTS_WITHIN_S)
    except AssertionError as error:
        error.add_note(f"not passed: {', '.join(left)}")
        raise
    for point, daemon in armed.items():
        assert [line["point"] for line in daemon.lines("fault")] == [point]


async def sent_without_settling(environment: Environment, point: str) -> bool:
    """Whether the operator received a request that this daemon sent and never settled."""
    return any(
        row["started_at"].timestamp() <= request.arrived_at_s <= row["finished_at"].timestamp()
        for row in await environment.harness.owner.fetch(INTERRUPTED, [point])
        for request in environment.operator.sent(row["request_id"])
    )


async def test_a_daemon_killed_at_any_point_loses_and_doubles_nothing(environment: Environment, bets: Bets) -> None:
    """One daemon is killed at each point; then another one finishes their work."""
    armed = await armed_at(environment, POINTS, Action.KILL)
    await pass_their_points(bets, armed)
    for daemon in armed.values():
        assert await daemon.exited() == -signal.SIGKILL
    await bets.roll_back_some_in_flight()
    await bets.end_the_rest()
    environment.fleet.spawn("second", audit=AUDIT)
    await finished(environment)
    assert await bets.violations() == []
    await sealed_once(environment)
    assert [point for point in ANSWERED if not await sent_without_settling(environment, point)] == []


async def test_a_daemon_frozen_at_any_point_past_its_leases_does_no_harm_when_it_continues(
    environment: Environment, bets: Bets
) -> None:
    """They continue and report late while another daemon repeats their attempts."""
    # Points inside an attempt come last, so that no running daemon can take over their leases.
    armed = await armed_at(environment, POINTS.keys() - OF_ONE_ATTEMPT, Action.FREEZE)
    await pass_their_points(bets, armed)
    in_an_attempt = await armed_at(environment, OF_ONE_ATTEMPT, Action.FREEZE)
    await pass_their_points(bets, in_an_attempt)
    armed |= in_an_attempt
    await until("all are frozen", lambda: all(is_stopped(daemon) for daemon in armed.values()))
    # The repeated attempts are still in flight when the frozen daemons continue.
    environment.operator.answers_in_s = SLOW_S
    await bets.roll_back_some_in_flight()
    await bets.end_the_rest()
    environment.fleet.spawn("second", audit=AUDIT)

    async def second_has_taken_over() -> bool:
        taken_over: bool = await environment.harness.owner.fetchval(
            "select coalesce(bool_and(state <> 'in_flight' or leased_by = 'second')"
            "                and bool_or(state = 'in_flight' and attempts > 1), true)"
            "  from predictu_dispatch.callback where finished_at is null"
        )
        return taken_over

    await wait_until("only the second daemon has leases, and it repeats attempts", second_has_taken_over)
    for daemon in armed.values():
        daemon.thaw()
        daemon.terminate()
    for daemon in armed.values():
        # All of its late reports are written now.
        assert await daemon.exited() == 0, daemon.log_text
    environment.operator.answers_in_s = 0.0
    await finished(environment)
    assert await bets.violations() == []
    await sealed_once(environment)
    late = await environment.harness.owner.fetch(
        "select distinct instance from predictu_dispatch.attempt where verdict = 'late'"
    )
    assert {row["instance"] for row in late} >= OF_ONE_ATTEMPT
    assert [point for point in ("sent", *ANSWERED) if not await sent_without_settling(environment, point)] == []


def is_stopped(daemon: Daemon) -> bool:
    return Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def test_a_daemon_cut_from_postgres_at_every_point_finishes_by_itself(
    environment: Environment, bets: Bets
) -> None:
    """This also shows that ordinary traffic passes every point."""
    everywhere = ",".join(f"{point}:cut:{NTH.get(point, 1)}" for point in POINTS)
    armed = environment.fleet.spawn("armed", fault=everywhere, audit=AUDIT)

    def passed() -> list[str]:
        return sorted(line["point"] for line in armed.lines("fault"))

    async def all_but_draining_passed() -> bool:
        assert armed.process.poll() is None, armed.log_text
        await bets.place()
        return {*passed(), "draining"} == POINTS.keys()

    async def holds_a_lease() -> bool:
        await bets.place()
        return bool(await environment.harness.owner.fetchval(HELD, "armed"))

    await wait_until("every point but one is passed", all_but_draining_passed, within_s=STARTS_WITHIN_S)
    await bets.end_the_rest()
    await finished(environment)
    # The last point is passed with callbacks in flight; they are settled in spite of the cut.
    environment.operator.answers_in_s = QUICK_S
    await wait_until("a callback is in flight", holds_a_lease)
    armed.terminate()
    assert await armed.exited() == 0
    assert passed() == sorted(POINTS)
    # A claim whose answer was cut off leaves a lease that nobody knows; nothing of it was sent.
    for row in await environment.harness.owner.fetch(
        "select request_id, attempts from predictu_dispatch.callback where state = 'in_flight'"
    ):
        assert len(environment.operator.sent(row["request_id"])) < row["attempts"]
    await bets.end_the_rest()
    environment.fleet.spawn("second", audit=AUDIT)
    await finished(environment)
    assert await bets.violations() == []
    await sealed_once(environment)


async def test_the_product_has_no_fault_points(environment: Environment, monkeypatch: pytest.MonkeyPatch) -> None:
    """It neither reads the variable nor imports the wrappers, and names neither."""
    monkeypatch.setenv(FAULT_VARIABLE, "claimed:kill")
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    daemon = environment.fleet.spawn("plain")
    await has_started(daemon)
    placement = await environment.harness.place()
    await environment.until_all_final()
    assert await environment.harness.state(placement) == "delivered"
    daemon.terminate()
    assert await daemon.exited() == 0
    loaded = re.findall(r"^import time:.*\| +(\S+)$", daemon.log_text, re.MULTILINE)
    assert "predictu_dispatch.daemon" in loaded
    assert [name for name in loaded if name.partition(".")[0] == "tests"] == []

    root = Path(__file__).parents[2]
    shipped = [
        path
        for folder in ("predictu_dispatch", "sql", "deploy", "config")
        for path in (root / folder).rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".md")
    ]
    assert len(shipped) > 100
    named = re.compile(rb"PREDICTU_DISPATCH_FAULT|tests\.chaos|armed_daemon|fault_points")
    assert [path for path in shipped if named.search(path.read_bytes())] == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "'' is no fault point"),
        ("claimd:kill", "'claimd' is no fault point"),
        ("claimed", "'' is no action"),
        ("claimed:stop", "'stop' is no action"),
        ("claimed:kill:0", "'0' is not a pass number"),
        ("claimed:kill:", "'' is not a pass number"),
        ("claimed:kill:1:2", "'1:2' is not a pass number"),
        ("claimed:kill,", "'' is no fault point"),
    ],
)
def test_a_malformed_value_is_refused_with_the_syntax(value: str, message: str) -> None:
    with pytest.raises(FaultValueError, match=re.escape(message)) as refused:
        parse_faults(value)
    assert all(name in str(refused.value) for name in (*POINTS, *Action))


def test_a_renamed_method_of_a_fault_point_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """All points are checked, whichever is armed."""
    monkeypatch.delattr(Outbox, "expired_leases")
    with pytest.raises(MissingPointError, match="Outbox has no async method expired_leases"):
        arm([], lambda _: True)
    monkeypatch.undo()
    monkeypatch.delattr("predictu_dispatch.flow.courier.Courier")
    with pytest.raises(MissingPointError, match=r"predictu_dispatch\.flow\.courier:Courier does not exist"):
        arm([], lambda _: True)


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("", set()),
        ("postgresql://u:p@127.0.0.1:20001/d?sslmode=disable", {("127.0.0.1", 20001)}),
        ("postgresql://u@127.0.0.1,127.0.0.2:99/d?port=7", {("127.0.0.1", 7), ("127.0.0.2", 99)}),
        ("postgresql://u@[::1]:5433/d", {("::1", 5433)}),
        ("postgresql://u@/d?host=%2Fsockets&port=20001", {"/sockets/.s.PGSQL.20001"}),
        ("postgresql://u@%2Fsockets/d", {"/sockets/.s.PGSQL.5432"}),
    ],
)
def test_a_cut_finds_every_server_of_the_dsn(dsn: str, expected: set[object]) -> None:
    assert peers(dsn) == expected
