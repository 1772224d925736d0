"""A daemon is killed, frozen past its leases, or cut from Postgres at each fault point: the books stay right."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path

import pytest

from predictu_dispatch.edge.postgres.outbox import Outbox
from tests.chaos.armed_daemon import peers
from tests.chaos.fault_points import POINTS, Action, Fault, FaultValueError, MissingPointError, arm, parse_faults
from tests.support.bet_paths import INTERRUPTED, NOT_SENT, Bets
from tests.support.daemons import FAULT_VARIABLE, WAIT_S, Daemon, until
from tests.support.environment import Environment, open_environment
from tests.support.harness import claim
from tests.support.postgres import Database

LANE = {"attempt_timeout_s": 1.0, "connect_timeout_s": 1.0}
"""Leases of six seconds, which really run out: no clock is moved here."""
QUICK_S, SLOW_S = 0.1, 0.6
"""How long the operator takes; the slow answer is still on its way when somebody looks, and below the timeout."""
STARTS_WITHIN_S = 90.0
"""A dozen daemons start at once, each as long as its imports take."""
_BEAT_S = 0.1

NTH = {"expiring": 2, "heartbeat": 3}
"""Their first passages are part of starting; these are in the middle of things. All others: the first."""
ANSWERED = {"answered", "before_settle"}
OF_ONE_ATTEMPT = {*NOT_SENT, "sent", *ANSWERED}

HOLDS_SOMETHING = "select count(*) from predictu_dispatch.callback where state = 'in_flight' and leased_by = $1"


async def soon(what: str, is_so: Callable[[], Awaitable[bool]], *, within_s: float = WAIT_S) -> None:
    """As until(), but ten looks a second: a dozen daemons need the machine."""

    async def looked() -> bool:
        if await is_so():
            return True
        await asyncio.sleep(_BEAT_S)
        return False

    await until(what, looked, within_s=within_s)


async def finished(environment: Environment) -> None:
    """Nothing waits, is ready or is in flight any more."""

    async def nothing_is_left() -> bool:
        return not {"waiting", "ready", "in_flight"} & (await environment.states()).keys()

    await soon("every callback is final", nothing_is_left)


@pytest.fixture
async def environment(tmp_path: Path, database: Database) -> AsyncIterator[Environment]:
    async with open_environment(tmp_path, database) as environment:
        environment.fleet.write_operator(environment.operator.url, interactive=LANE, settlement=LANE)
        yield environment


@pytest.fixture
async def bets(environment: Environment) -> Bets:
    """A bet of every path is due, and another one lies with a daemon that is gone, whose lease has run out."""
    bets = Bets(environment)
    await bets.place()
    assert await claim(environment.harness.daemon, instance="gone", lease_s=0.001)
    for _ in Bets.PATHS:
        await bets.place()
    return bets


async def armed_at(environment: Environment, points: Iterable[str], action: Action) -> dict[str, Daemon]:
    """A daemon for each of the points has been started; it is called after its point."""
    armed: dict[str, Daemon] = {}
    for point in points:
        # Few connections for each: they are many.
        fault, few = f"{point}:{action}:{NTH.get(point, 1)}", {"pool_size": 2}
        armed[point] = first = environment.fleet.spawn(point, fault=fault, database=few)
        if len(armed) == 1:
            # It compiles what they all import, if nobody has before.
            await has_started(first)
    return armed


async def has_started(daemon: Daemon) -> None:
    """As Daemon.ready(), also for one that may be gone or frozen a moment later, or that says more than JSON."""
    started = '"event": "daemon.started"'
    await until(f"{daemon.instance} has started", lambda: started in daemon.log_text, within_s=STARTS_WITHIN_S)


async def reach_their_points(bets: Bets, armed: Mapping[str, Daemon]) -> None:
    """Bets are placed until each has come to its point, in the middle of its work."""
    left = dict(armed)

    async def none_is_left() -> bool:
        for point, daemon in armed.items():
            if '"event": "fault"' in daemon.log_text:
                left.pop(point, None)
                continue
            assert daemon.process.poll() is None, daemon.log_text
            if point == "draining" and await bets.environment.harness.owner.fetchval(HOLDS_SOMETHING, point):
                daemon.terminate()
        if any('"event": "daemon.started"' in daemon.log_text for daemon in left.values()):
            await bets.place()
        return not left

    bets.environment.operator.answers_in_s = QUICK_S
    try:
        await soon("every armed daemon comes to its point", none_is_left, within_s=STARTS_WITHIN_S)
    except AssertionError as error:
        error.add_note(f"still on their way: {', '.join(left)}")
        raise
    for point, daemon in armed.items():
        assert [line["point"] for line in daemon.lines("fault")] == [point]
        assert daemon.lines("daemon.started")


async def left_something_at_the_operator(environment: Environment, point: str) -> bool:
    """The operator got what this daemon never settled: whether it was repeated or rolled back, it was booked once."""
    return any(
        row["started_at"].timestamp() <= request.arrived_at_s <= row["finished_at"].timestamp()
        for row in await environment.harness.owner.fetch(INTERRUPTED, [point])
        for request in environment.operator.sent(row["request_id"])
    )


async def test_killed_at_any_point_a_daemon_loses_and_doubles_nothing(environment: Environment, bets: Bets) -> None:
    """A fleet of which one after another dies, each at a point of its own; then one more comes, and finishes."""
    armed = await armed_at(environment, POINTS, Action.KILL)
    await reach_their_points(bets, armed)
    for daemon in armed.values():
        assert await daemon.exited() == -signal.SIGKILL
    await bets.roll_back_some_in_flight()
    await bets.end_the_rest()
    environment.fleet.spawn("second")
    await finished(environment)
    assert await bets.violations() == []
    assert [point for point in ANSWERED if not await left_something_at_the_operator(environment, point)] == []


async def test_frozen_at_any_point_past_its_leases_a_daemon_comes_back_and_does_no_harm(
    environment: Environment, bets: Bets
) -> None:
    """While another daemon repeats what they had begun, all of them are back with their news, and stop in order."""
    # Those in the middle of an attempt last, so that nobody is left to take over before the second daemon comes.
    armed = await armed_at(environment, POINTS.keys() - OF_ONE_ATTEMPT, Action.FREEZE)
    await reach_their_points(bets, armed)
    in_an_attempt = await armed_at(environment, OF_ONE_ATTEMPT, Action.FREEZE)
    await reach_their_points(bets, in_an_attempt)
    armed |= in_an_attempt
    await until("all stand still", lambda: all(is_stopped(daemon) for daemon in armed.values()))
    # A repetition takes its time, so that those who come back find it on its way.
    environment.operator.answers_in_s = SLOW_S
    await bets.roll_back_some_in_flight()
    await bets.end_the_rest()
    environment.fleet.spawn("second")

    async def the_second_has_taken_over() -> bool:
        taken_over: bool = await environment.harness.owner.fetchval(
            "select coalesce(bool_and(state <> 'in_flight' or leased_by = 'second')"
            "                and bool_or(state = 'in_flight' and attempts > 1), true)"
            "  from predictu_dispatch.callback where finished_at is null"
        )
        return taken_over

    await soon("the second daemon, and nobody else, has leases, and repeats attempts", the_second_has_taken_over)
    for daemon in armed.values():
        daemon.thaw()
        daemon.terminate()
    for daemon in armed.values():
        # Whatever it still had to say, it has said after this.
        assert await daemon.exited() == 0, daemon.log_text
    environment.operator.answers_in_s = 0.0
    await finished(environment)
    assert await bets.violations() == []
    late = await environment.harness.owner.fetch(
        "select distinct instance from predictu_dispatch.attempt where verdict = 'late'"
    )
    assert {row["instance"] for row in late} >= OF_ONE_ATTEMPT
    assert [
        point for point in ("sent", *ANSWERED) if not await left_something_at_the_operator(environment, point)
    ] == []


def is_stopped(daemon: Daemon) -> bool:
    return Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def test_cut_from_postgres_at_every_point_of_one_life_a_daemon_finishes_by_itself(
    environment: Environment, bets: Bets
) -> None:
    """Also the proof that every point lies on the way of ordinary play."""
    everywhere = ",".join(f"{point}:cut:{NTH.get(point, 1)}" for point in POINTS)
    armed = environment.fleet.spawn("armed", fault=everywhere)

    def passed() -> list[str]:
        return sorted(line["point"] for line in armed.lines("fault"))

    async def all_but_the_last_are_passed() -> bool:
        assert armed.process.poll() is None, armed.log_text
        await bets.place()
        return {*passed(), "draining"} == POINTS.keys()

    async def it_holds_something() -> bool:
        await bets.place()
        return bool(await environment.harness.owner.fetchval(HOLDS_SOMETHING, "armed"))

    await soon("every point but one is passed", all_but_the_last_are_passed, within_s=STARTS_WITHIN_S)
    await bets.end_the_rest()
    await finished(environment)
    # The last one with something under way, which is finished, cut off or not; what was not begun is another one's.
    environment.operator.answers_in_s = QUICK_S
    await soon("something is under way", it_holds_something)
    armed.terminate()
    assert await armed.exited() == 0
    assert passed() == sorted(POINTS)
    assert "in_flight" not in await environment.states()
    await bets.end_the_rest()
    environment.fleet.spawn("second")
    await finished(environment)
    assert await bets.violations() == []


async def test_a_daemon_that_is_not_armed_has_nothing_of_this(
    environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not read the variable, it does not load the wrappers, and no file of the product names either."""
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


def test_faults_are_spelled_as_point_action_and_passage() -> None:
    assert parse_faults("claimed:kill") == (Fault(point="claimed", action=Action.KILL, nth=1),)
    assert parse_faults("sent:freeze:3, before_settle:cut:2") == (
        Fault(point="sent", action=Action.FREEZE, nth=3),
        Fault(point="before_settle", action=Action.CUT, nth=2),
    )


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", "'' is no point"),
        ("claimd:kill", "'claimd' is no point"),
        ("claimed", "'' is no action"),
        ("claimed:stop", "'stop' is no action"),
        ("claimed:kill:0", "'0' is no passage"),
        ("claimed:kill:", "'' is no passage"),
        ("claimed:kill:1:2", "'1:2' is no passage"),
        ("claimed:kill,", "'' is no point"),
    ],
)
def test_a_bad_value_is_refused_in_words(value: str, words: str) -> None:
    with pytest.raises(FaultValueError, match=re.escape(words)) as refused:
        parse_faults(value)
    assert all(name in str(refused.value) for name in (*POINTS, *Action))


async def test_the_test_build_with_bad_values_does_not_start_and_says_every_fault(environment: Environment) -> None:
    refused = environment.fleet.spawn("refused", fault="claimd:kill,sent:melt")
    assert await refused.exited() == 2
    assert "PREDICTU_DISPATCH_FAULT: 'claimd:kill': 'claimd' is no point" in refused.log_text
    assert "PREDICTU_DISPATCH_FAULT: 'sent:melt': 'melt' is no action" in refused.log_text
    assert "Allowed is POINT:ACTION[:NTH]" in refused.log_text


def test_a_point_whose_method_is_gone_is_never_silently_disarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every point, whichever is armed: a rename in the product must be seen by the first run of the test build."""
    monkeypatch.delattr(Outbox, "expired_leases")
    with pytest.raises(MissingPointError, match="Outbox has no method expired_leases to await any more"):
        arm([], lambda _: True)
    monkeypatch.undo()
    monkeypatch.delattr("predictu_dispatch.flow.courier.Courier")
    with pytest.raises(MissingPointError, match=r"there is no predictu_dispatch\.flow\.courier:Courier any more"):
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
def test_a_cut_knows_every_server_that_the_dsn_names(dsn: str, expected: set[object]) -> None:
    assert peers(dsn) == expected
