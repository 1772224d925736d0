"""Failover: daemons follow the promoted standby, and nothing acknowledged is lost."""

import asyncio
import dataclasses
import functools
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from predictu_dispatch.core.database import DatabaseUnavailable
from predictu_dispatch.edge.postgres.errors import FOREIGN, translate
from tests.support.bulk import until_heartbeats, until_slots
from tests.support.circuits import print_figures
from tests.support.command_line import command_line_for
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment, open_environment
from tests.support.harness import (
    OPERATOR,
    Connection,
    Harness,
    connected,
    enqueue,
    open_harness,
    placement_params,
    rollback,
    terminal_params,
)
from tests.support.postgres import Database, create_template
from tests.support.standby import Pair, running_pair

PRODUCERS, BETS_OF_EACH = 4, 45
ENQUEUED_BEFORE = 100
"""When the primary is killed: claims, attempts and settles are in progress."""
RECOVERY_MAX_S = 30.0
"""An upper bound, exceeded only by a daemon that does not follow."""
STAKE = 500
LANE = {"attempt_timeout_s": 2.0, "connect_timeout_s": 1.0}
"""Leases of seven seconds, so that the leases of a lost claim really expire."""


class Producer:
    """Enqueues bets and records each request_id after its commit is acknowledged.

    Interrupted transactions are repeated with the same id, as sql/README.md says.
    """

    def __init__(self, dsn: str, name: str) -> None:
        self._dsn = dsn
        self._name = name
        self._connection: Connection | None = None
        self.acknowledged: dict[uuid.UUID, float] = {}
        self.broken_off = 0

    async def run(self) -> None:
        """A third of its bets stays open, a third is won, a third is rolled back."""
        for n in range(BETS_OF_EACH):
            # One player per bet, so that each wallet shows one bet.
            bet_id = player_id = f"{self._name}-{n}"
            bet = {"bet_id": bet_id, "player_id": player_id, "currency": "EUR", "amount": STAKE}
            await self._enqueue("BET_MAKE", placement_params(bet_id, amount=STAKE, player_id=player_id))
            if n % 3 == 1:
                await self._enqueue("BET_WIN", terminal_params("BET_WIN", bet))
            elif n % 3 == 2:
                rolled_back = await self._acknowledged(functools.partial(rollback, bet_id=bet_id))
                if rolled_back is not None:
                    self.acknowledged[rolled_back] = time.monotonic()
        if self._connection is not None:
            await self._connection.close()

    async def _enqueue(self, method: str, params: dict[str, Any]) -> None:
        request_id = uuid.uuid4()
        returned = await self._acknowledged(lambda it: enqueue(it, method, params, request_id=request_id))
        assert returned == request_id
        self.acknowledged[request_id] = time.monotonic()

    async def _acknowledged(self, ask: Callable[[Connection], Awaitable[uuid.UUID | None]]) -> uuid.UUID | None:
        while True:
            try:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await asyncpg.connect(self._dsn, timeout=5)
                return await ask(self._connection)
            except FOREIGN as error:
                if not isinstance(translate(error), DatabaseUnavailable):
                    raise
                self.broken_off += 1
                # A pause, so that the producer does not use the CPU while the database is
                # unavailable.
                await asyncio.sleep(0.02)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    with running_pair() as pair:
        await pair.make_synchronous()
        yield pair


@pytest.fixture
async def database_of_both(pair: Pair) -> Database:
    """A database reached through both hosts.

    Not dropped, because that would wait for the standby.
    """
    server, name = pair.server, await create_template(pair.server)
    logins = {
        role: server.dsn(name, f"test_{role}")
        for role in (field.name for field in dataclasses.fields(Database) if field.name not in ("name", "owner"))
    }
    return Database(name=name, owner=server.dsn(name), **logins)


def enqueued(producers: list[Producer]) -> int:
    """Number of acknowledged callbacks."""
    return sum(len(one.acknowledged) for one in producers)


async def delivered(connection: Connection) -> int:
    count: int = await connection.fetchval("select count(*) from predictu_dispatch.callback where state = 'delivered'")
    return count


async def neither_reaches_it(daemons: list[Daemon]) -> bool:
    return not any([await daemon.is_ready() for daemon in daemons])


async def test_killing_the_primary_loses_nothing_acknowledged_and_daemons_follow_the_standby(
    pair: Pair, database_of_both: Database, tmp_path: Path
) -> None:
    """Two daemons (one polls, one relies on notifications) and four producers.

    Commits of all of them hang when the primary is killed: they are on its disk, not on the
    standby's, and not acknowledged.
    """
    database = database_of_both
    async with open_environment(tmp_path, database) as environment:
        environment.fleet.write_operator(environment.operator.url, interactive=LANE, settlement=LANE)
        polls = await environment.fleet.start("host-polls", daemon={"poll_interval_s": 0.5})
        listens = await environment.fleet.start("host-listens", daemon={"poll_interval_s": 60.0})
        producers = [Producer(database.producer, f"p{n}") for n in range(PRODUCERS)]
        async with connected(pair.standby.dsn(database.name), 1) as [observer], asyncio.TaskGroup() as enqueueing:
            for producer in producers:
                enqueueing.create_task(producer.run())
            await until("work flows", lambda: enqueued(producers) >= ENQUEUED_BEFORE)
            await pair.stop_sending()

            async def commits_hang() -> bool:
                # With an asynchronous standby nothing would hang, and commits would be lost.
                return await pair.commits_waiting() > PRODUCERS or enqueued(producers) >= ENQUEUED_BEFORE * 2

            await until("the producers' commits hang, and one of a daemon", commits_hang)
            killed_at_s = time.monotonic()
            await asyncio.to_thread(pair.primary.kill)
            gone_at_s = time.monotonic()
            # A failover manager needs time too, and both daemons must notice the outage.
            await until("both daemons report the outage", lambda: neither_reaches_it([polls, listens]))
            before = await delivered(observer)
            promoted_at_s = time.monotonic()
            await pair.standby.promote()

            async def one_more() -> bool:
                return await delivered(observer) > before

            await until("a callback is delivered on the new primary", one_more, within_s=RECOVERY_MAX_S)
            recovered_at_s = time.monotonic()
        async with (
            connected(database.owner, 1) as [owner],
            connected(database.producer, 1) as [producer_connection],
            connected(database.dispatcher, 1) as [daemon_connection],
        ):
            harness = Harness(owner=owner, producer=producer_connection, daemon=daemon_connection, person=owner)
            followed = dataclasses.replace(environment, harness=harness)
            await followed.until_all_final(within_s=RECOVERY_MAX_S)
            finished_at_s = time.monotonic()
            first_ack_s = min(at for one in producers for at in one.acknowledged.values() if at > gone_at_s)
            figures = (
                f"failover: kill to first delivery {recovered_at_s - killed_at_s:.2f} s, promotion to first delivery"
                f" {recovered_at_s - promoted_at_s:.2f} s, kill to first enqueue {first_ack_s - killed_at_s:.2f} s,"
                f" kill to the last of what it interrupted {finished_at_s - killed_at_s:.2f} s;"
                f" {sum(one.broken_off for one in producers)} statements of producers broke off"
            )
            print_figures(figures)
            await nothing_acknowledged_is_lost(followed, producers, [polls, listens], figures)
            await hears_of_new_work(followed, polls, killed_at_s=killed_at_s)
            code, output, _ = await command_line_for(tmp_path, database.dispatcher).run("status")
            assert (code, "host-listens" in output) == (0, True), output


async def nothing_acknowledged_is_lost(
    environment: Environment, producers: list[Producer], daemons: list[Daemon], figures: str
) -> None:
    owner, operator = environment.harness.owner, environment.operator
    callbacks = {row["request_id"]: row for row in await owner.fetch("select * from predictu_dispatch.callback")}
    acknowledged = {request_id for one in producers for request_id in one.acknowledged}
    lost = acknowledged - callbacks.keys()
    assert not lost, f"{len(lost)} of {len(acknowledged)} acknowledged callbacks are gone; {figures}"
    states = Counter((callbacks[one]["method"], callbacks[one]["state"]) for one in acknowledged)
    assert states.keys() <= {
        *((method, "delivered") for method in ("BET_MAKE", "BET_WIN", "BET_ROLLBACK")),
        # Rolled back before it was sent or confirmed.
        ("BET_MAKE", "cancelled"),
        ("BET_MAKE", "exhausted"),
        ("BET_ROLLBACK", "cancelled"),
    }, f"{states}; {figures}"

    # A daemon logs an attempt after its commit is acknowledged, so each logged attempt is in the
    # audit.
    rows = await owner.fetch("select request_id::text, attempt, verdict from predictu_dispatch.attempt")

    def logged() -> Counter[tuple[str, int, str]]:
        lines = [line for daemon in daemons for line in daemon.lines() if "attempt" in line]
        return Counter((line["request_id"], line["attempt"], line["verdict"]) for line in lines)

    # A thread writes the log a moment later.
    await until(f"every attempt is logged; {figures}", lambda: logged().total() >= len(rows))
    assert logged() == Counter(tuple(row) for row in rows), figures
    # No request was sent without an acknowledged claim.
    sent = Counter(uuid.UUID(request.request_id) for request in operator.requests)
    unknown = {one: count for one, count in sent.items() if one not in callbacks or callbacks[one]["attempts"] < count}
    assert not unknown, f"sent, but not in the database: {unknown}; {figures}"
    assert operator.faults == await environment.audit_faults() == [], figures

    bets = await owner.fetch("select bet_id, player_id, state from predictu_dispatch.bet")
    assert len(bets) == PRODUCERS * BETS_OF_EACH
    for bet in bets:
        kind = int(bet["bet_id"].rpartition("-")[2]) % 3
        assert bet["state"] in ({"open"}, {"closed"}, {"closed", "void"})[kind], f"{bet}; {figures}"
        assert operator.balance[bet["player_id"]] == (-STAKE if bet["state"] == "open" else 0), f"{bet}; {figures}"


async def hears_of_new_work(environment: Environment, polls: Daemon, *, killed_at_s: float) -> None:
    """The daemon that polls once a minute is notified of a bet by the new primary."""
    polls.terminate()
    assert await polls.exited() == 0
    # Its larger share wakes it once; after that only a notification does.
    await until_slots(environment, host_listens=60)
    await until_heartbeats(environment, "host-listens", times=1)
    await environment.harness.place("b-last")
    # A listening connection is checked every ten seconds.
    await environment.until_all_final(within_s=20.0)
    print_figures(f"failover: notified of a new bet at most {time.monotonic() - killed_at_s:.2f} s after the kill")


async def test_daemons_follow_if_the_primary_stops_answering(
    pair: Pair, database_of_both: Database, tmp_path: Path
) -> None:
    """As after a power or network failure: statements and new connections time out."""
    database = database_of_both
    async with open_environment(tmp_path, database) as environment:
        daemon = await environment.fleet.start("host-1")
        environment.operator.hold()
        placements = [await environment.harness.place(f"b-{n}") for n in range(5)]
        await environment.until_in_flight(len(placements))
        silent_at_s = time.monotonic()
        pair.silence_primary()
        environment.operator.release()
        try:
            await pair.standby.promote()
            async with (
                connected(pair.standby.dsn(database.name, "test_producer"), 1) as [producer],
                connected(pair.standby.dsn(database.name), 1) as [owner],
            ):
                followed = dataclasses.replace(
                    environment, harness=Harness(owner=owner, producer=producer, daemon=owner, person=owner)
                )
                await followed.harness.place("b-after")
                await followed.until_all_final(within_s=RECOVERY_MAX_S)
                print_figures(f"failover: silence to the last delivery {time.monotonic() - silent_at_s:.2f} s")
                assert await followed.bets() == {"open": len(placements) + 1}
                for placement in placements:
                    assert await followed.audit(placement) == [(1, "delivered", "answered", None, "host-1")]
                await until("the daemon is ready", daemon.is_ready)
            assert environment.operator.faults == []
        finally:
            # Stop the suspended server in any case.
            pair.primary.kill()


async def test_a_repeated_request_is_acknowledged_only_after_the_first_is_on_the_standby(
    pair: Pair, database_of_both: Database
) -> None:
    """If a producer cancels its wait for the standby, Postgres still makes the commit visible.

    Without this rule, the repetition would be acknowledged and then lost with the primary.
    """
    placement, adopted = uuid.uuid4(), uuid.uuid4()

    async def place(producer: Connection) -> uuid.UUID:
        return await enqueue(producer, "BET_MAKE", placement_params("b-placed"), request_id=placement)

    async def adopt(producer: Connection) -> None:
        await producer.execute(
            "select predictu_dispatch.adopt_bet($1, 'b-adopted', 'p1', 'EUR', 500, $2)", OPERATOR, adopted
        )

    async with open_harness(database_of_both) as harness:
        await pair.stop_sending()
        for ask, bet_id in ((place, "b-placed"), (adopt, "b-adopted")):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ask(harness.producer), 0.2)

            async def it_is_there(bet_id: str = bet_id) -> bool:
                seen = "select exists (select from predictu_dispatch.bet where bet_id = $1)"
                return bool(await harness.owner.fetchval(seen, bet_id))

            await until(f"{bet_id} is on the primary", it_is_there)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(ask(harness.producer), 1.0)
        await asyncio.to_thread(pair.primary.kill)
        await pair.standby.promote()
    async with connected(database_of_both.producer, 1) as [producer], connected(database_of_both.owner, 1) as [owner]:
        assert await owner.fetchval("select count(*) from predictu_dispatch.bet") == 0
        assert await place(producer) == placement
        await adopt(producer)
