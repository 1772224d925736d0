"""At each named point of its way a daemon is killed, frozen past its leases, or cut from Postgres: the money is right.

What happens to the process happens to a real one, by its own hand, at exactly that point; see tests/chaos.
"""

import asyncio
import json
import re
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from predictu_dispatch.edge.outbox import Outbox
from tests.chaos.armed_daemon import peers
from tests.chaos.fault_points import POINTS, Action, Fault, FaultValueError, VanishedPointError, arm, parse_faults
from tests.support.daemons import FAULT_VARIABLE, WAIT_S, Daemon, until
from tests.support.ledger import OPERATOR, claim, enqueue, placement_params, terminal_params
from tests.support.postgres import Database
from tests.support.stage import Stage, open_stage

LANE = {"attempt_timeout_s": 1.0, "connect_timeout_s": 1.0}
"""Leases of six seconds, which really run out: no clock is moved here."""
QUICK_S, SLOW_S = 0.1, 0.6
"""How long the operator takes; the slow answer is still on its way when somebody looks, and below the timeout."""
TOKEN_SLOW_S, TOKEN_OLD_S = 3.0, 5.0
"""A request may leave until 3 s after its claim, and is signed in the second before; a dozen daemons make use of it."""
STARTS_WITHIN_S = 90.0
"""A dozen daemons start at once, each as long as its imports take."""
_BEAT_S = 0.1

NTH = {"expiring": 2, "announcing": 3}
"""Their first passages are part of starting; these are in the middle of things. All others: the first."""
NOT_SENT = {"claimed", "signed"}
ANSWERED = {"answered", "before_settle"}
OF_ONE_ATTEMPT = {*NOT_SENT, "sent", *ANSWERED}

REGRETS = {"report.refused", "chore.failed", "drain.unfinished", "library.spoke"}
"""What no daemon says for any of these faults: they are outages, and none of them outlasts its patience."""

HOLDS_SOMETHING = "select count(*) from predictu_dispatch.callback where state = 'in_flight' and leased_by = $1"
INTERRUPTED = (
    "select request_id::text, started_at, finished_at from predictu_dispatch.attempt"
    " where instance = any ($1) and reason = 'interrupted' and verdict <> 'late'"
)


async def soon(what: str, is_so: Callable[[], Awaitable[bool]], *, within_s: float = WAIT_S) -> None:
    """As until(), but ten looks a second: a dozen daemons need the machine."""

    async def looked() -> bool:
        if await is_so():
            return True
        await asyncio.sleep(_BEAT_S)
        return False

    await until(what, looked, within_s=within_s)


class Bets:
    """Bets of every path, each of a player of its own with a stake of its own, so that every cent has a name."""

    PATHS = (
        ("BET_WIN", "at once"),
        ("BET_LOSE", "at once"),
        ("BET_ROLLBACK", "with the next bet"),
        ("BET_WIN", "never, its deadline passes"),
        ("BET_SELL", "at the end"),
        ("BET_ROLLBACK", "at the end"),
        ("BET_REFUND", "at the end"),
    )

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.count = 0
        self._next: list[tuple[str, str]] = []
        self._last: list[tuple[str, str]] = []

    async def place(self) -> None:
        """One more bet, by the path whose turn it is, and a look at the player's balance."""
        number, bet_id, player_id = self.count, f"b-{self.count}", f"p-{self.count}"
        (method, when), self.count = self.PATHS[number % len(self.PATHS)], self.count + 1
        producer = self.stage.ledger.producer
        # The operator's own deadline might pass on a busy machine; that one does here is a path of its own.
        later = datetime.now(UTC) + timedelta(minutes=2)
        placement = placement_params(bet_id, amount=500 + number, player_id=player_id)
        for early_method, early_bet_id in self._next:
            await self._end(early_method, early_bet_id)
        self._next.clear()
        if when.startswith("never"):
            # A producer's slow transaction: nobody sees the bet before its deadline.
            async with producer.transaction():
                await producer.execute(
                    "select predictu_dispatch.enqueue_callback($1, 'BET_MAKE', $2::text::jsonb, null,"
                    "       clock_timestamp() + interval '30 milliseconds'), pg_sleep(0.04)",
                    *(OPERATOR, json.dumps(placement)),
                )
                await enqueue(producer, method, terminal_params(method, placement))
            return
        await enqueue(producer, "BET_MAKE", placement, expires_at=later)
        await enqueue(producer, "BALANCE", {"player_id": player_id, "currency": "EUR"}, expires_at=later)
        if when == "at once":
            await self._end(method, bet_id)
        else:
            (self._next if when == "with the next bet" else self._last).append((method, bet_id))

    async def roll_back_what_is_on_its_way(self) -> None:
        """Every other bet whose debit is in flight, while no daemon moves: what became of it is anybody's guess."""
        on_its_way = await self.stage.ledger.owner.fetch(
            "select bet_id from predictu_dispatch.callback"
            " where method = 'BET_MAKE' and state = 'in_flight' order by bet_id"
        )
        for row in on_its_way[::2]:
            await self._end("BET_ROLLBACK", row["bet_id"])
            self._last = [(method, bet_id) for method, bet_id in self._last if bet_id != row["bet_id"]]

    async def end_the_rest(self) -> None:
        """What had not come to its end has been told how it ends."""
        for method, bet_id in (*self._next, *self._last):
            await self._end(method, bet_id)
        self._next, self._last = [], []

    async def _end(self, method: str, bet_id: str) -> None:
        if method == "BET_ROLLBACK":
            await self.stage.ledger.rollback(bet_id)
        else:
            await self.stage.ledger.end(method, bet_id)

    async def wrongs(self) -> list[str]:
        """What is not as it must be once everything is final: wallets, bets, callbacks, audit; each in words."""
        operator, owner = self.stage.operator, self.stage.ledger.owner
        wrong = [*(fault for fault in operator.faults if not is_slow(fault)), *await self.stage.audit_faults()]
        bets = await owner.fetch(
            "select b.*, t.method from predictu_dispatch.bet b left join predictu_dispatch.callback t"
            "    on t.operator_id = b.operator_id and t.request_id = b.terminal_request_id"
        )
        for bet in bets:
            has, due = operator.balance[bet["player_id"]], -bet["amount"] if bet["method"] == "BET_LOSE" else 0
            due = 0 if bet["state"] == "void" else due
            what = f"{bet['bet_id']} is {bet['state']} ({bet['method']}), its player has {has:+} of {bet['amount']}"
            if bet["state"] not in ("closed", "void") or has != due:
                wrong.append(what)
            elif bet["state"] == "void" and operator.sent(bet["placement_request_id"]):
                wrong.append(f"{what}, and its debit was sent")
        if len(bets) != self.count:
            wrong.append(f"{self.count} bets were placed, {len(bets)} are there")
        callbacks = {str(row["request_id"]): row for row in await owner.fetch("table predictu_dispatch.callback")}
        unsent = Counter(row["request_id"] for row in await owner.fetch(INTERRUPTED, list(NOT_SENT)))
        for request_id, callback in callbacks.items():
            sent, what = len(operator.sent(request_id)), f"{callback['method']} {request_id} is {callback['state']}"
            if callback["state"] not in ("delivered", "exhausted", "cancelled"):
                wrong.append(what)
            if sent > callback["attempts"] - unsent[request_id]:
                wrong.append(f"{what} and was sent {sent} times: {await self.stage.audit(request_id)}")
            if callback["state"] == "delivered" and not sent:
                wrong.append(f"{what} and was never sent")
        wrong += [f"{one.request_id} is nobody's" for one in operator.requests if one.request_id not in callbacks]
        review = await owner.fetch("select method, reason from predictu_dispatch.needs_review")
        wrong += [f"{row['method']} needs review: {row['reason']}" for row in review]
        said = [line for daemon in self.stage.fleet.daemons for line in daemon.lines()]
        return [*wrong, *(str(line) for line in said if line["event"] in REGRETS)]


def is_slow(fault: str) -> bool:
    """A token that is older than an idle machine makes it, and younger than one that was signed before a freeze."""
    found = re.search(r"^token .*, (\S+) s old", fault)
    return found is not None and TOKEN_SLOW_S <= float(found[1]) < TOKEN_OLD_S


async def finished(stage: Stage) -> None:
    """Nothing waits, is ready or is in flight any more."""

    async def nothing_is_left() -> bool:
        return not {"waiting", "ready", "in_flight"} & (await stage.states()).keys()

    await soon("every callback is final", nothing_is_left)


@pytest.fixture
async def stage(tmp_path: Path, database: Database) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path, database) as stage:
        stage.fleet.write_operator(stage.operator.url, interactive=LANE, settlement=LANE)
        yield stage


@pytest.fixture
async def bets(stage: Stage) -> Bets:
    """A bet of every path is due, and another one lies with a daemon that is gone, whose lease has run out."""
    bets = Bets(stage)
    await bets.place()
    assert await claim(stage.ledger.daemon, instance="gone", lease_s=0.001)
    for _ in Bets.PATHS:
        await bets.place()
    return bets


async def armed_at(stage: Stage, points: Iterable[str], action: Action) -> dict[str, Daemon]:
    """A daemon for each of the points has been started; it is called after its point."""
    armed: dict[str, Daemon] = {}
    for point in points:
        # Few connections for each: they are many.
        fault, few = f"{point}:{action}:{NTH.get(point, 1)}", {"pool_size": 2}
        armed[point] = first = stage.fleet.spawn(point, fault=fault, database=few)
        if len(armed) == 1:
            # It compiles what they all import, if nobody has before.
            await has_started(first)
    return armed


async def has_started(daemon: Daemon) -> None:
    """As Daemon.ready(), also for one that may be gone or frozen a moment later, or that says more than JSON."""
    started = '"event": "daemon.started"'
    await until(f"{daemon.instance} has started", lambda: started in daemon.said, within_s=STARTS_WITHIN_S)


async def reach_their_points(bets: Bets, armed: Mapping[str, Daemon]) -> None:
    """Bets are placed until each has come to its point, in the middle of its work."""
    left = dict(armed)

    async def none_is_left() -> bool:
        for point, daemon in armed.items():
            if '"event": "fault"' in daemon.said:
                left.pop(point, None)
                continue
            assert daemon.process.poll() is None, daemon.said
            if point == "draining" and await bets.stage.ledger.owner.fetchval(HOLDS_SOMETHING, point):
                daemon.ask_to_stop()
        if any('"event": "daemon.started"' in daemon.said for daemon in left.values()):
            await bets.place()
        return not left

    bets.stage.operator.answers_in_s = QUICK_S
    try:
        await soon("every armed daemon comes to its point", none_is_left, within_s=STARTS_WITHIN_S)
    except AssertionError as error:
        error.add_note(f"still on their way: {', '.join(left)}")
        raise
    for point, daemon in armed.items():
        assert [line["point"] for line in daemon.lines("fault")] == [point]
        assert daemon.lines("daemon.started")


async def left_something_at_the_operator(stage: Stage, point: str) -> bool:
    """The operator got what this daemon never settled: whether it was repeated or rolled back, it was booked once."""
    return any(
        row["started_at"].timestamp() <= request.arrived_at_s <= row["finished_at"].timestamp()
        for row in await stage.ledger.owner.fetch(INTERRUPTED, [point])
        for request in stage.operator.sent(row["request_id"])
    )


async def test_killed_at_any_point_a_daemon_loses_and_doubles_nothing(stage: Stage, bets: Bets) -> None:
    """A fleet of which one after another dies, each at a point of its own; then one more comes, and finishes."""
    armed = await armed_at(stage, POINTS, Action.KILL)
    await reach_their_points(bets, armed)
    for daemon in armed.values():
        assert await daemon.exited() == -signal.SIGKILL
    await bets.roll_back_what_is_on_its_way()
    await bets.end_the_rest()
    stage.fleet.spawn("second")
    await finished(stage)
    assert await bets.wrongs() == []
    assert [point for point in ANSWERED if not await left_something_at_the_operator(stage, point)] == []


async def test_frozen_at_any_point_past_its_leases_a_daemon_comes_back_and_does_no_harm(
    stage: Stage, bets: Bets
) -> None:
    """While another daemon repeats what they had begun, all of them are back with their news, and stop in order."""
    # Those in the middle of an attempt last, so that nobody is left to take over before the second daemon comes.
    armed = await armed_at(stage, POINTS.keys() - OF_ONE_ATTEMPT, Action.FREEZE)
    await reach_their_points(bets, armed)
    in_an_attempt = await armed_at(stage, OF_ONE_ATTEMPT, Action.FREEZE)
    await reach_their_points(bets, in_an_attempt)
    armed |= in_an_attempt
    await until("all stand still", lambda: all(is_stopped(daemon) for daemon in armed.values()))
    # A repetition takes its time, so that those who come back find it on its way.
    stage.operator.answers_in_s = SLOW_S
    await bets.roll_back_what_is_on_its_way()
    await bets.end_the_rest()
    stage.fleet.spawn("second")

    async def the_second_has_taken_over() -> bool:
        taken_over: bool = await stage.ledger.owner.fetchval(
            "select coalesce(bool_and(state <> 'in_flight' or leased_by = 'second')"
            "                and bool_or(state = 'in_flight' and attempts > 1), true)"
            "  from predictu_dispatch.callback where finished_at is null"
        )
        return taken_over

    await soon("the second daemon, and nobody else, has leases, and repeats attempts", the_second_has_taken_over)
    for daemon in armed.values():
        daemon.thaw()
        daemon.ask_to_stop()
    for daemon in armed.values():
        # Whatever it still had to say, it has said after this.
        assert await daemon.exited() == 0, daemon.said
    stage.operator.answers_in_s = 0.0
    await finished(stage)
    assert await bets.wrongs() == []
    late = await stage.ledger.owner.fetch(
        "select distinct instance from predictu_dispatch.attempt where verdict = 'late'"
    )
    assert {row["instance"] for row in late} >= OF_ONE_ATTEMPT
    assert [point for point in ("sent", *ANSWERED) if not await left_something_at_the_operator(stage, point)] == []


def is_stopped(daemon: Daemon) -> bool:
    return Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


async def test_cut_from_postgres_at_every_point_of_one_life_a_daemon_finishes_by_itself(
    stage: Stage, bets: Bets
) -> None:
    """Also the proof that every point lies on the way of ordinary play."""
    everywhere = ",".join(f"{point}:cut:{NTH.get(point, 1)}" for point in POINTS)
    armed = stage.fleet.spawn("armed", fault=everywhere)

    def passed() -> list[str]:
        return sorted(line["point"] for line in armed.lines("fault"))

    async def all_but_the_last_are_passed() -> bool:
        assert armed.process.poll() is None, armed.said
        await bets.place()
        return {*passed(), "draining"} == POINTS.keys()

    async def it_holds_something() -> bool:
        await bets.place()
        return bool(await stage.ledger.owner.fetchval(HOLDS_SOMETHING, "armed"))

    await soon("every point but one is passed", all_but_the_last_are_passed, within_s=STARTS_WITHIN_S)
    await bets.end_the_rest()
    await finished(stage)
    # The last one with something under way, which is finished, cut off or not; what was not begun is another one's.
    stage.operator.answers_in_s = QUICK_S
    await soon("something is under way", it_holds_something)
    armed.ask_to_stop()
    assert await armed.exited() == 0
    assert passed() == sorted(POINTS)
    assert "in_flight" not in await stage.states()
    await bets.end_the_rest()
    stage.fleet.spawn("second")
    await finished(stage)
    assert await bets.wrongs() == []


async def test_a_daemon_that_is_not_armed_has_nothing_of_this(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not read the variable, it does not load the wrappers, and no file of the product names either."""
    monkeypatch.setenv(FAULT_VARIABLE, "claimed:kill")
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")
    daemon = stage.fleet.spawn("plain")
    await has_started(daemon)
    placement = await stage.ledger.place()
    await stage.all_final()
    assert await stage.ledger.state(placement) == "delivered"
    daemon.ask_to_stop()
    assert await daemon.exited() == 0
    loaded = re.findall(r"^import time:.*\| +(\S+)$", daemon.said, re.MULTILINE)
    assert "predictu_dispatch.daemon" in loaded
    assert [name for name in loaded if name.partition(".")[0] == "tests"] == []

    root = Path(__file__).parents[1]
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


async def test_the_test_build_with_bad_values_does_not_start_and_says_every_fault(stage: Stage) -> None:
    refused = stage.fleet.spawn("refused", fault="claimd:kill,sent:melt")
    assert await refused.exited() == 2
    assert "PREDICTU_DISPATCH_FAULT: 'claimd:kill': 'claimd' is no point" in refused.said
    assert "PREDICTU_DISPATCH_FAULT: 'sent:melt': 'melt' is no action" in refused.said
    assert "Allowed is POINT:ACTION[:NTH]" in refused.said


def test_a_point_whose_method_is_gone_is_never_silently_disarmed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every point, whichever is armed: a rename in the product must be seen by the first run of the test build."""
    monkeypatch.delattr(Outbox, "expired_leases")
    with pytest.raises(VanishedPointError, match="Outbox has no method expired_leases to await any more"):
        arm([], lambda _: True)
    monkeypatch.undo()
    monkeypatch.delattr("predictu_dispatch.flow.courier.Courier")
    with pytest.raises(VanishedPointError, match=r"there is no predictu_dispatch\.flow\.courier:Courier any more"):
        arm([], lambda _: True)


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("", set()),
        ("postgresql://u:p@127.0.0.1:20001/d?sslmode=disable", {("127.0.0.1", 20001)}),
        ("postgresql://u@127.0.0.1,127.0.0.2:99/d?port=7", {("127.0.0.1", 7), ("127.0.0.2", 99)}),
        ("postgresql://u@[::1]:5433/d", {("::1", 5433)}),
        ("postgresql://u@/d?host=%2Ftmp%2Frun&port=20001", {"/tmp/run/.s.PGSQL.20001"}),  # noqa: S108 - nothing is there
        ("postgresql://u@%2Ftmp%2Frun/d", {"/tmp/run/.s.PGSQL.5432"}),  # noqa: S108 - the same
    ],
)
def test_a_cut_knows_every_server_that_the_dsn_names(dsn: str, expected: set[object]) -> None:
    assert peers(dsn) == expected
