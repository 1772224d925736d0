"""Random concurrent producers, daemons and people with a seed; invariants are checked afterwards.

The operator has a real ledger, so it may debit although its answer is lost. A trigger records every
state of every callback in order.
"""

import asyncio
import itertools
import random
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import asyncpg
import pytest

from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.harness import (
    Connection,
    Harness,
    Lease,
    Report,
    claim,
    connected,
    delivered,
    enqueue,
    exhausted,
    placement_params,
    reaped,
    rejected,
    retried,
    rollback,
    settle_all,
    terminal_params,
)
from tests.support.interventions import cancel, resolve, retry, terminal_in_review
from tests.support.postgres import Database

Isolation = Literal["read_committed", "repeatable_read"]

BETS = [f"b{number}" for number in range(40)]
PRODUCERS, DAEMONS, STEPS = 5, 3, 120
ATTEMPTS_MAX = 4
TERMINALS = ("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND", "BET_ROLLBACK")
EXPECTED_ERRORS = {"PD003", "PD004", "PD005", "40001"}
"""Of a producer: a deadline of 40 ms that has passed, a bet's state, a serialization failure."""
PEOPLE = 3
IN_REVIEW = 12
"""Terminals that need review from the beginning."""

HISTORY = """
create table public.history (seq bigserial, request_id uuid, bet_id text, method text, state text, effect text);
create function public.note() returns trigger language plpgsql security definer as $$
begin
    insert into public.history (request_id, bet_id, method, state, effect)
    values (new.request_id, new.bet_id, new.method, new.state, new.effect);
    return null;
end $$;
create trigger note after insert or update of state on predictu_dispatch.callback
    for each row when (new.bet_id is not null) execute function public.note();
create function public.note_deed() returns trigger language plpgsql security definer as $$
begin
    insert into public.history (request_id, state) values (new.request_id, new.action);
    return null;
end $$;
create trigger note_deed after insert on predictu_dispatch.intervention
    for each row execute function public.note_deed();
"""

NEVER = {
    "a debit was sent after its bet's terminal became ready": """
        select from public.history debit join public.history terminal using (bet_id)
         where debit.method = 'BET_MAKE' and debit.state = 'in_flight'
           and terminal.method <> 'BET_MAKE' and terminal.state in ('ready', 'in_flight')
           and terminal.seq < debit.seq""",
    "a terminal was sent before its debit was settled": """
        select from public.history terminal
         where terminal.method <> 'BET_MAKE' and terminal.state = 'in_flight' and not exists (
             select from public.history debit
              where debit.bet_id = terminal.bet_id and debit.method = 'BET_MAKE' and debit.seq < terminal.seq
                and (debit.state = 'delivered' or (terminal.method = 'BET_ROLLBACK' and debit.effect <> 'none'
                                                   and debit.state in ('rejected', 'exhausted'))))""",
    "two terminals of one bet were sent": """
        select bet_id from public.history where method <> 'BET_MAKE' and state = 'in_flight'
         group by bet_id having count(distinct request_id) > 1""",
    "a callback left a final state without a retry": """
        select from (select request_id, state, lead(state) over (partition by request_id order by seq) as next,
                            lead(state, 2) over (partition by request_id order by seq) as after_next
                       from public.history) moved
         where (state in ('delivered', 'cancelled') and next not in ('resolve', 'cancel'))
            or (state in ('rejected', 'exhausted') and next <> 'resolve'
                and (next, after_next) <> ('ready', 'retry'))""",
    "a debit was retried by a person": """
        select from public.history deed join predictu_dispatch.callback c using (request_id)
         where deed.state = 'retry' and c.method in ('PING', 'BALANCE', 'BET_MAKE')""",
    "a resolved or cancelled callback was sent": """
        select from public.history deed join public.history sent using (request_id)
         where deed.state in ('resolve', 'cancel') and sent.state = 'in_flight' and sent.seq > deed.seq""",
    "a callback that had been sent was cancelled": """
        select from public.history deed join public.history sent using (request_id)
         where deed.state = 'cancel' and sent.state = 'in_flight'""",
    "a rollback was cancelled": """
        select from public.history deed join predictu_dispatch.callback c using (request_id)
         where deed.state = 'cancel' and c.method = 'BET_ROLLBACK'""",
    "a bet has two terminals": """
        select bet_id from predictu_dispatch.callback
         where bet_id is not null and method <> 'BET_MAKE' and state <> 'cancelled'
         group by bet_id having count(*) > 1""",
    "an attempt has no row that decided it, or two": """
        select from predictu_dispatch.callback c cross join lateral generate_series(1, c.attempts) n
         where 1 <> (select count(*) from predictu_dispatch.attempt a
                      where a.request_id = c.request_id and a.attempt = n and a.verdict <> 'late')""",
    "the audit has an attempt that never began": """
        select from predictu_dispatch.attempt a join predictu_dispatch.callback c using (operator_id, request_id)
         where a.attempt > c.attempts""",
    "a report is in the audit twice": "select from predictu_dispatch.attempt group by report_id having count(*) > 1",
    "a callback waits although its bet is not being placed": """
        select from predictu_dispatch.callback c join predictu_dispatch.bet b using (operator_id, bet_id)
         where c.state = 'waiting' and b.state <> 'placing'""",
    "a debit with an unknown outcome has no rollback": """
        select from predictu_dispatch.callback c join predictu_dispatch.bet b using (operator_id, bet_id)
          left join predictu_dispatch.callback t on t.request_id = b.terminal_request_id
         where c.method = 'BET_MAKE' and c.state in ('rejected', 'exhausted') and c.effect = 'unknown'
           and (b.state not in ('closing', 'closed') or t.method is distinct from 'BET_ROLLBACK')""",
    "a bet's state does not match its callbacks": """
        select from predictu_dispatch.bet b
          left join predictu_dispatch.callback p on p.request_id = b.placement_request_id
          left join predictu_dispatch.callback t on t.request_id = b.terminal_request_id
         where not case b.state
             when 'open' then p.state = 'delivered' and (t.state is null or t.state = 'cancelled')
             when 'closing' then p.state in ('delivered', 'rejected', 'exhausted')
                                 and t.state not in ('waiting', 'delivered', 'cancelled')
             when 'closed' then t.state = 'delivered'
             when 'void' then p.effect = 'none' and (t.state is null or t.state = 'cancelled')
             else false end""",
    "a failed callback is not on the review list": """
        select from predictu_dispatch.callback c
         where c.bet_id is not null and c.method <> 'BET_MAKE' and c.state in ('rejected', 'exhausted')
           and c.review_since is null and not exists (
               select from public.history deed where deed.request_id = c.request_id and deed.state = 'resolve')""",
}


@dataclass(slots=True, kw_only=True)
class Operator:
    """An operator with a ledger by request_id, which may be slow or not answer."""

    chance: random.Random
    booked: set[uuid.UUID] = field(default_factory=set)

    def attempted(self, lease: Lease) -> Report | None:
        """The daemon's report; None if it crashes before."""
        chance = self.chance.random()
        if chance < 0.15:
            return rejected(lease) if lease["request_id"] not in self.booked else delivered(lease)
        if chance < 0.3 and lease["attempt"] < ATTEMPTS_MAX:
            return retried(lease, effect=lease["effect"], evidence="not_sent")
        if self.chance.random() < 0.6:
            self.booked.add(lease["request_id"])
        if chance < 0.4:
            return None
        if chance < 0.6:
            return (retried if lease["attempt"] < ATTEMPTS_MAX else exhausted)(lease)
        self.booked.add(lease["request_id"])
        return delivered(lease)


async def producing(connection: Connection, chance: random.Random, errors: Counter[str]) -> None:
    """One producer: places bets, ends them, rolls them back and asks for balances."""
    for _ in range(STEPS):
        bet_id = chance.choice(BETS)
        params = placement_params(bet_id)
        placement = uuid.uuid5(uuid.NAMESPACE_OID, bet_id)
        ends: dict[str, Any] = {**params, "placement_request_id": placement}
        isolation: Isolation = chance.choice(("read_committed", "read_committed", "repeatable_read"))
        try:
            async with connection.transaction(isolation=isolation):
                match chance.choice(("place", "place", "end", "end", "rollback", "balance")):
                    case "place":
                        deadline = datetime.now(UTC) + timedelta(milliseconds=chance.choice((40, 400, 60_000)))
                        await enqueue(connection, "BET_MAKE", params, request_id=placement, expires_at=deadline)
                    case "end":
                        method = chance.choice(TERMINALS)
                        once = uuid.uuid5(uuid.NAMESPACE_OID, f"{bet_id} {method}")
                        await enqueue(connection, method, terminal_params(method, ends), request_id=once)
                    case "rollback":
                        await rollback(connection, bet_id)
                    case "balance":
                        await enqueue(connection, "BALANCE", {"player_id": "p1", "currency": "EUR"})
        except asyncpg.PostgresError as error:
            errors[error.sqlstate or ""] += 1


async def dispatching(connection: Connection, chance: random.Random, operator: Operator, stop: asyncio.Event) -> None:
    """One daemon: claims, posts, settles.

    Sometimes twice, late or never, or with an expired lease.
    """
    late: list[Report] = []
    while not stop.is_set():
        leases = await claim(connection, slots=chance.choice((1, 3, 20)), lease_s=chance.choice((0.0, 60.0)))
        reports = [operator.attempted(lease) for lease in leases]
        # A crashed daemon's lease must expire; with a long lease it reports late instead.
        batch = [
            word or retried(lease) for lease, word in zip(leases, reports, strict=True) if word or lease["lease_s"]
        ]
        chance.shuffle(batch)
        await settle_all(connection, *batch, *late)
        late = [retried(lease, effect="unknown") for lease in leases if chance.random() < 0.2]
        if chance.random() < 0.2:
            await settle_all(connection, *batch)


async def reaping(connection: Connection, stop: asyncio.Event) -> None:
    """Reap expired leases and deadlines."""
    while not stop.is_set():
        leases = await connection.fetch(query("expired_leases"), 50, 0.0, "a")
        await settle_all(connection, *(reaped(lease) for lease in leases))
        await connection.fetch(query("expire"), 50)


async def drain(harness: Harness) -> None:
    """Deliver everything that is still due."""
    for _ in itertools.takewhile(lambda round_: round_ < 100, itertools.count()):
        leases = await harness.daemon.fetch(query("expired_leases"), 500, 0.0, "a")
        await harness.settle(*(reaped(lease) for lease in leases))
        due = await claim(harness.daemon)
        if not due and not leases:
            return
        await harness.settle(*(delivered(lease) for lease in due))
    raise AssertionError("callbacks remain unfinished")


DEEDS: dict[str, Callable[..., Awaitable[Any]]] = {"retry": retry, "cancel": cancel, "resolve": resolve}
A_CALLBACK = {
    "retry": "select request_id from predictu_dispatch.callback where review_since is not null",
    "resolve": "select request_id from predictu_dispatch.callback where review_since is not null",
    "cancel": "select request_id from predictu_dispatch.callback where state in ('waiting', 'ready') and attempts = 0",
    "any": "select request_id from predictu_dispatch.callback",
}


async def intervening(connection: Connection, chance: random.Random, done: Counter[str], stop: asyncio.Event) -> None:
    """One person with random interventions, most of them allowed."""
    while not stop.is_set():
        action = chance.choice(("retry", "retry", "cancel", "cancel", "resolve"))
        rows = await connection.fetch(A_CALLBACK[action if chance.random() < 0.8 else "any"])
        if not rows:
            continue
        request_id = chance.choice(rows)["request_id"]
        try:
            await DEEDS[action](connection, request_id)
        except asyncpg.PostgresError as error:
            done[error.sqlstate or ""] += 1
        else:
            done[action] += 1


@pytest.mark.parametrize("seed", [1, 2])
async def test_random_concurrent_load_keeps_every_invariant(database: Database, harness: Harness, seed: int) -> None:
    await harness.owner.execute(HISTORY)
    for number in range(IN_REVIEW):
        await terminal_in_review(harness, f"r{number}")
    operator, stop = Operator(chance=random.Random(seed)), asyncio.Event()
    errors, done = Counter[str](), Counter[str]()
    async with (
        connected(database.producer, PRODUCERS) as producers,
        connected(database.dispatcher, DAEMONS) as daemons,
        connected(database.operations, PEOPLE) as people,
        connected(database.dispatcher, 2) as reapers,
        asyncio.TaskGroup() as group,
    ):
        for reaper in reapers:
            group.create_task(reaping(reaper, stop))
        for number, daemon in enumerate(daemons):
            group.create_task(dispatching(daemon, random.Random(f"{seed} d {number}"), operator, stop))
        for number, person in enumerate(people):
            group.create_task(intervening(person, random.Random(f"{seed} h {number}"), done, stop))
        async with asyncio.TaskGroup() as producing_group:
            for number, producer in enumerate(producers):
                producing_group.create_task(producing(producer, random.Random(f"{seed} p {number}"), errors))
        stop.set()
    assert set(errors) <= EXPECTED_ERRORS, errors
    assert set(done) <= {"retry", "cancel", "resolve", "PD005"}, done
    assert min(done["retry"], done["cancel"], done["resolve"], done["PD005"]) > 0, f"too little happened: {done}"
    await drain(harness)

    assert {fault: len(await harness.owner.fetch(never)) for fault, never in NEVER.items()} == dict.fromkeys(NEVER, 0)
    states = {row[0] for row in await harness.owner.fetch("select distinct state from predictu_dispatch.bet")}
    assert {"closed", "void"} <= states <= {"open", "closing", "closed", "void"}, "too little happened, or too much"
    void = await harness.owner.fetch("select placement_request_id from predictu_dispatch.bet where state = 'void'")
    assert not {row["placement_request_id"] for row in void} & operator.booked, "a debit stands without its bet"
