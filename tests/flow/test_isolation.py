"""One callback that the database cannot process stops no other callback."""

import dataclasses
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from predictu_dispatch.core.claim import RowFailure
from predictu_dispatch.edge.postgres.sql_files import query
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from predictu_dispatch.flow.isolation import SetAside
from tests.support.corruption import large, lose_chunks, overwrite_page
from tests.support.daemons import Daemon, until
from tests.support.environment import OTHER, Environment, another_operator, open_environment
from tests.support.harness import OPERATOR, Harness, claim, enqueue, open_harness, placement_params, terminal_params
from tests.support.postgres import cloned_database, create_template, server_of

EACH = 30
"""Good callbacks of each operator and lane: more than one claim takes of an operator that fails."""
LEAVE_WITHIN_S = 10.0
SET_ASIDE = "callback.set_aside"


async def bets(environment: Environment, operator_id: str, count: int) -> list[uuid.UUID]:
    """Placements, and as many wins of adopted bets."""
    producer = environment.harness.producer
    made = []
    for number in range(count):
        made.append(await enqueue(producer, "BET_MAKE", placement_params(f"p-{number}"), operator_id=operator_id))
        await producer.execute(
            "select predictu_dispatch.adopt_bet($1, $2, 'p1', 'EUR', 500, gen_random_uuid())",
            *(operator_id, f"w-{number}"),
        )
        made.append(await win(environment, f"w-{number}", operator_id))
    return made


async def win(
    environment: Environment, bet_id: str, operator_id: str = OPERATOR, *, is_large: bool = False
) -> uuid.UUID:
    params = terminal_params("BET_WIN", {"player_id": "p1", "bet_id": bet_id, "currency": "EUR", "amount": 500})
    return await enqueue(
        environment.harness.producer, "BET_WIN", large(params) if is_large else params, operator_id=operator_id
    )


async def until_delivered(environment: Environment, request_ids: list[uuid.UUID], *, within_s: float) -> None:
    async def all_are() -> bool:
        count = await environment.harness.owner.fetchval(
            "select count(*) from predictu_dispatch.callback where request_id = any($1) and state = 'delivered'",
            request_ids,
        )
        return bool(count == len(request_ids))

    await until("all others are delivered", all_are, within_s=within_s)


async def until_ended(environment: Environment, request_id: uuid.UUID, state: str, reason: str) -> None:
    async def has_ended() -> bool:
        row = await environment.harness.owner.fetchrow(
            "select state, reason from predictu_dispatch.callback where request_id = $1", request_id
        )
        return row is not None and tuple(row) == (state, reason)

    await until(f"{request_id} is {state}, {reason}", has_ended)


def named(daemon: Daemon) -> list[str]:
    return sorted(str(line["request_id"]) for line in daemon.lines(SET_ASIDE))


async def refuse_poison(harness: Harness, sqlstate: str) -> None:
    """A trigger refuses each change of the callbacks in public.poison."""
    await harness.owner.execute(
        "create table public.poison (request_id uuid primary key);"
        "create function public.poisoned() returns trigger language plpgsql security definer as $$ begin"
        f"  if exists (select from public.poison p where p.request_id = new.request_id) then"
        f"    raise exception using errcode = '{sqlstate}', message = 'poisoned';"
        "  end if; return new; end $$;"
        "create trigger poisoned before update on predictu_dispatch.callback"
        " for each row execute function public.poisoned()"
    )


async def test_a_callback_with_unreadable_params_stops_no_other_one(environment: Environment) -> None:
    """A debit of its own ends at its deadline; a person can withdraw a credit."""
    harness = environment.harness
    async with another_operator(environment):
        daemon = await environment.fleet.start("host-1")
        daemon.freeze()
        deadline = datetime.now(UTC) + timedelta(seconds=8)
        placement = await enqueue(harness.producer, "BET_MAKE", large(placement_params("b-1")), expires_at=deadline)
        await environment.adopt("b-2")
        credit = await win(environment, "b-2", is_large=True)
        for poison in (placement, credit):
            await lose_chunks(harness.owner, poison)
        others = [*await bets(environment, OPERATOR, EACH), *await bets(environment, OTHER, EACH)]
        daemon.thaw()
        await until_delivered(environment, others, within_s=LEAVE_WITHIN_S)
        assert await daemon.metric("set_aside", OPERATOR) == 2
        assert await daemon.metric("set_aside", OTHER) == 0
        await until_ended(environment, placement, "exhausted", "deadline")
        assert (await harness.bet("b-1"))["state"] == "void"
        await harness.owner.execute(
            "select request_id, state, attempts from predictu_dispatch.cancel_callback($1, $2, 'unreadable', 'test')",
            *(OPERATOR, credit),
        )
        assert (await harness.bet("b-2"))["state"] == "open"
        again = await win(environment, "b-2")
        await until_delivered(environment, [again], within_s=LEAVE_WITHIN_S)
        # Once for each callback, although both were tried for seconds.
        assert named(daemon) == sorted([str(placement), str(credit)])
        assert {line["sqlstate"] for line in daemon.lines(SET_ASIDE)} <= {"XX000", "XX001"}
        assert daemon.process.poll() is None


@pytest.mark.parametrize("sqlstate", ["P0001", "58030"])
async def test_callbacks_that_a_trigger_refuses_stop_no_other_one_and_leave_after_it(
    environment: Environment, sqlstate: str
) -> None:
    """More of them than one claim tries, at the head of both lanes."""
    harness = environment.harness
    async with another_operator(environment):
        daemon = await environment.fleet.start("host-1")
        daemon.freeze()
        await refuse_poison(harness, sqlstate)
        poison = []
        for number in range(25):
            await environment.adopt(f"x-{number}")
            poison.append(await win(environment, f"x-{number}"))
            poison.append(await enqueue(harness.producer, "BET_MAKE", placement_params(f"y-{number}")))
        await harness.owner.executemany("insert into public.poison values ($1)", [[one] for one in poison])
        others = [*await bets(environment, OPERATOR, EACH), *await bets(environment, OTHER, EACH)]
        daemon.thaw()
        await until_delivered(environment, others, within_s=LEAVE_WITHIN_S)
        await until("all are logged", lambda: len(daemon.lines(SET_ASIDE)) >= len(poison))
        await harness.owner.execute("drop trigger poisoned on predictu_dispatch.callback")
        # It may have failed twice.
        await until_delivered(environment, poison, within_s=2 * LEAVE_WITHIN_S)
        assert named(daemon) == sorted(str(one) for one in poison)
        assert daemon.process.poll() is None


async def test_an_unreadable_page_of_callbacks_stops_no_callback_of_another_page(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    """Nor the end of a bet of another operator, which is paused."""
    server = server_of(embedded)
    async with (
        cloned_database(server, await create_template(server)) as database,
        open_environment(tmp_path, database) as before,
        another_operator(before),
    ):
        await before.harness.daemon.execute(query("sync_operators"), [OTHER], [True], [60.0], [0.0], ["other"])
        lost = [await before.harness.place(f"lost-{number}") for number in range(30)]
        others = [*await bets(before, OPERATOR, EACH), *await bets(before, OTHER, EACH)]
        count = await overwrite_page(
            embedded, database.owner, "predictu_dispatch.callback", f"request_id = '{lost[0]}'"
        )
        assert count < len(lost)
        async with open_harness(database) as harness:
            environment = dataclasses.replace(before, harness=harness)
            # The test itself must not read the page.
            await harness.owner.execute("set enable_seqscan = off")
            daemon = await environment.fleet.start("host-1")
            await until_delivered(environment, [*lost[count:], *others], within_s=2 * LEAVE_WITHIN_S)
            assert await daemon.metric("set_aside", OPERATOR) == 1
            for operator_id in (OPERATOR, OTHER):
                await harness.owner.execute("select predictu_dispatch.pause_operator($1, 'x', 'test')", operator_id)
            ended = await enqueue(harness.producer, "BET_MAKE", placement_params("late"), operator_id=OTHER)
            await until_ended(environment, ended, "exhausted", "paused")
            await daemon.until_logged(SET_ASIDE, times=2)
            assert {line["sqlstate"] for line in daemon.lines(SET_ASIDE)} == {"XX001"}
            assert {(line["step"], line["request_id"]) for line in daemon.lines(SET_ASIDE)} == {
                ("claim_interactive", None),
                ("expire", None),
            }
            # A figure that cannot be read is absent; the chore that counts goes on with the others.
            assert await daemon.metric("backlog", "interactive", OPERATOR, "ready") is None
            assert daemon.lines("chore.failed") == []


async def test_an_unreadable_callback_in_flight_keeps_no_other_one_in_flight_or_in_the_future(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    """Leases of its own claim and of others expired before and after; the clock was set back."""
    server = server_of(embedded)
    async with (
        cloned_database(server, await create_template(server)) as database,
        open_environment(tmp_path, database) as before,
        another_operator(before),
    ):
        owner = before.harness.owner
        await before.harness.daemon.execute(query("sync_operators"), [OTHER], [True], [60.0], [0.0], ["other"])
        placed = [await before.harness.place(f"lost-{number}") for number in range(120)]
        await claim(before.harness.daemon, instance="gone", lease_s=1.0)
        ahead = await enqueue(before.harness.producer, "BET_MAKE", placement_params("ahead"), operator_id=OTHER)
        await owner.execute(
            "update predictu_dispatch.callback set state = 'ready', lease_until = null,"
            " due_at = now() + interval '1 hour' where bet_id in ('ahead', 'lost-3')"
        )
        # Some of the same claim, some of others, and one that began in the future.
        await owner.execute(
            "update predictu_dispatch.callback set lease_until = lease_until + shift, leased_at = leased_at + shift"
            "  from (select b.bet_id, case when b.bet_id in ('lost-1', 'lost-2') then interval '1 hour'"
            "               when b.bet_id ~ '[02468]$' then '0' else random() * interval '-1 hour' end as shift"
            "          from predictu_dispatch.bet b) b"
            " where callback.bet_id = b.bet_id and state = 'in_flight'"
        )
        # Without dead versions on other pages.
        await owner.execute("vacuum full predictu_dispatch.callback")
        page = "select (ctid::text::point)[0] from predictu_dispatch.callback where bet_id = 'lost-1'"
        lost = await owner.fetch(
            f"select request_id from predictu_dispatch.callback where (ctid::text::point)[0] = ({page})"  # noqa: S608
        )
        left = {*placed, ahead} - {row["request_id"] for row in lost}
        assert len(left) < len(placed)
        await overwrite_page(embedded, database.owner, "predictu_dispatch.callback", "bet_id = 'lost-1'")
        async with open_harness(database) as harness:
            environment = dataclasses.replace(before, harness=harness)
            await harness.owner.execute("set enable_seqscan = off")
            daemon = await environment.fleet.start("host-1")
            await until_delivered(environment, list(left), within_s=2 * LEAVE_WITHIN_S)
            await daemon.until_logged(SET_ASIDE)
            assert {(line["step"], line["operator_id"]) for line in daemon.lines(SET_ASIDE)} >= {
                ("reap", ""),
                ("correct_times", OPERATOR),
            }
            assert {line["sqlstate"] for line in daemon.lines(SET_ASIDE)} == {"XX001"}
            assert daemon.lines("chore.failed") == []


async def test_an_unreadable_page_of_bets_keeps_no_other_bet_from_its_end(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    """The answers for its bets are kept, are sent once, and fail no batch."""
    server = server_of(embedded)
    async with (
        cloned_database(server, await create_template(server)) as database,
        open_environment(tmp_path, database) as before,
        another_operator(before),
    ):
        await before.harness.daemon.execute(query("sync_operators"), [OTHER], [True], [60.0], [0.0], ["other"])
        lost = [await before.harness.place(f"lost-{number}") for number in range(120)]
        others = [*await bets(before, OPERATOR, EACH), *await bets(before, OTHER, EACH)]
        await overwrite_page(embedded, database.owner, "predictu_dispatch.bet", "bet_id = 'lost-0'")
        async with open_harness(database) as harness:
            environment = dataclasses.replace(before, harness=harness)
            daemon = await environment.fleet.start("host-1")
            await until_delivered(environment, others, within_s=2 * LEAVE_WITHIN_S)
            await daemon.until_logged("report.refused")
            assert len(environment.operator.sent(lost[0])) == 1
            assert (await harness.callback(lost[0]))["state"] == "in_flight"
            assert daemon.process.poll() is None


async def test_a_row_that_this_release_cannot_read_hides_no_other_one(environment: Environment) -> None:
    """It is leased: another release reports it, or nobody sends it again."""
    harness = environment.harness
    daemon = await environment.fleet.start("host-1")
    daemon.freeze()
    unknown, other = await harness.place("b-1"), await harness.place("b-2")
    await harness.owner.execute("alter table predictu_dispatch.callback disable trigger user")
    await harness.owner.execute("update predictu_dispatch.callback set method = 'BET_X' where request_id = $1", unknown)
    daemon.thaw()
    await until_delivered(environment, [other], within_s=LEAVE_WITHIN_S)
    await daemon.until_logged(SET_ASIDE)
    [line] = daemon.lines(SET_ASIDE)
    assert (line["request_id"], line["sqlstate"]) == (str(unknown), "")
    assert environment.operator.sent(unknown) == []


async def test_two_hundred_callbacks_that_fail_hold_up_the_rest_of_their_lane_for_seconds_only(
    environment: Environment,
) -> None:
    """With the default poll interval the first of them are due again before the last are tried."""
    harness = environment.harness
    daemon = await environment.fleet.start("host-1", daemon={"poll_interval_s": 0.5})
    daemon.freeze()
    await refuse_poison(harness, "P0001")
    poison = [await harness.place(f"x-{number}") for number in range(200)]
    await harness.owner.executemany("insert into public.poison values ($1)", [[one] for one in poison])
    last = await harness.place("last")
    daemon.thaw()
    await until_delivered(environment, [last], within_s=2 * LEAVE_WITHIN_S)
    assert set(named(daemon)) == {str(one) for one in poison}


class Named:
    """Collects what is reported as set aside."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, RowFailure]] = []

    def callback_set_aside(self, step: str, failure: RowFailure) -> None:
        self.failures.append((step, failure))


def test_the_pause_of_a_callback_that_fails_again_doubles_up_to_a_minute_and_is_remembered() -> None:
    named = Named()
    set_aside = SetAside("claim", named)
    failure = RowFailure(OPERATOR, uuid.uuid4(), "P0001", "poisoned")
    now_s, pauses_s = 1_000.0, []
    for _ in range(7):
        set_aside.add([failure], now_s)
        failed_at_s = now_s
        while set_aside.request_ids(now_s):
            now_s += 1
            set_aside.forget(now_s)
        pauses_s.append(now_s - failed_at_s)
    assert pauses_s == [4, 8, 16, 32, 60, 60, 60]
    assert named.failures == [("claim", failure)]
    set_aside.forget(now_s + 59)
    assert len(set_aside.failed()) == 1
    set_aside.forget(now_s + 60)
    assert len(set_aside.failed()) == 0
    # From the beginning, because it is new.
    set_aside.add([failure], now_s)
    assert set_aside.request_ids(now_s + 3) == [failure.request_id]
    assert set_aside.request_ids(now_s + 4) == []


@pytest.mark.parametrize("count", [160, 200, 2_000])
def test_callbacks_that_fail_again_leave_turns_for_the_others(count: int) -> None:
    """A turn takes the first 20 that are not set aside, and there are two turns a second."""
    set_aside = SetAside("claim", Named())
    failures = [RowFailure(OPERATOR, uuid.uuid4(), "P0001", "poisoned") for _ in range(count)]
    free_turns, now_s = 0, 1_000.0
    while free_turns == 0 and now_s < 1_000 + count:
        paused = set(set_aside.request_ids(now_s))
        tried = [one for one in failures if one.request_id not in paused][:20]
        set_aside.add(tried, now_s)
        free_turns += len(tried) < 20
        now_s += 0.5
        set_aside.forget(now_s)
    assert free_turns
