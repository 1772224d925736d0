"""Measure `find`: what its indexes cost the path of a bet, and how long each search takes.

python -m tests.bench.search cost --rounds 4
python -m tests.bench.search cost --index callback_finished --index callback_unknown
python -m tests.bench.search searches --callbacks 5000000
"""

import asyncio
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from predictu_dispatch.commands.find.search import Search, read_page
from predictu_dispatch.core.request_id import parse_beginning
from predictu_dispatch.core.search_input import parse_amount
from predictu_dispatch.edge.postgres.database import Database
from predictu_dispatch.edge.postgres.migrations import migrate
from predictu_dispatch.edge.postgres.sql_files import indexes
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.harness import Connection, claim, connected, delivered, enqueue, know_operators, settle

_BETS = 1_000
_AT_LEAST, _BELOW_MS = 0.97, 100.0
_UNITS = {"server's CPU": "µs", "time": "µs", "WAL": "bytes"}
_OPERATORS = 20
_TIMES = 60
"""Repetitions of each search."""
_WHALE_BETS, _FREQUENT = 10_000, 100_000
_KNOWN_OPERATORS = """
    insert into predictu_dispatch.operator
        (operator_id, enabled, interactive_deadline_s, settlement_deadline_s, config_fingerprint)
    select 'op_' || n, true, 15, 0, '' from generate_series(0, $1::integer - 1) n
"""
_BETS_OF_HISTORY = """
    insert into predictu_dispatch.bet
        (operator_id, bet_id, state, player_id, currency, amount, placement_request_id, terminal_request_id, created_at)
    select case when n < {whale} then 'op_0' else 'op_' || n % {operators} end, 'bet-' || n, 'closed',
           case when n < {whale} then 'whale' else 'p-' || (n * 7919) % 200000 end,
           case n % 10 when 8 then 'JPY' when 9 then 'KWD' else 'EUR' end,
           case when n % ({bets} / {frequent} + 1) = 0 then 500 else 100 + (n * 104729) % 50000 end,
           (lpad(to_hex(2 * n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid,
           (lpad(to_hex(2 * n + 1), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid,
           now() - (({bets} - n)::float8 / {bets}) * interval '90 days'
      from generate_series(0::bigint, {bets} - 1) n
"""


def _server_cpu_s(server: int) -> float:
    """CPU seconds of the server's process, to the nanosecond."""
    return int(Path(f"/proc/{server}/schedstat").read_text(encoding="utf-8").split()[0]) / 1e9


def _cpu_s(server: int) -> float:
    """CPU seconds of this process and of the server's process."""
    return time.process_time() + _server_cpu_s(server)


async def _path_of_bets(connection: Connection, name: str, batch: int) -> dict[str, dict[str, float]]:
    """CPU seconds of the server's process, seconds, and bytes of WAL, by step."""
    pid = connection.get_server_pid()
    used: dict[str, dict[str, float]] = {step: dict.fromkeys(_UNITS, 0.0) for step in ("enqueue", "claim, settle")}

    async def wal_bytes() -> float:
        return float(await connection.fetchval("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    async def measured(step: str, work: Callable[[], Awaitable[Any]]) -> None:
        written = await wal_bytes()
        cpu_s, began_s = _server_cpu_s(pid), time.perf_counter()
        await work()
        used[step]["server's CPU"] += (_server_cpu_s(pid) - cpu_s) * 1e6
        used[step]["time"] += (time.perf_counter() - began_s) * 1e6
        used[step]["WAL"] += await wal_bytes() - written

    async def place(numbers: range) -> None:
        for n in numbers:
            bet = {"market_id": "m", "outcome": "yes", "odds": 1.85, "shares": 10, "price": 0.5}
            params = {"player_id": f"p-{n}", "currency": "EUR", "amount": 100 + n, "bet_id": f"{name}-{n}", "bet": bet}
            await enqueue(connection, "BET_MAKE", params)

    async def end(numbers: range) -> None:
        for n in numbers:
            params = {"player_id": f"p-{n}", "currency": "EUR", "amount": 200 + n, "bet_id": f"{name}-{n}"}
            await enqueue(connection, "BET_WIN", params)

    async def deliver() -> None:
        leases = await claim(connection, slots=batch)
        await settle(connection, *(delivered(one, operator_transaction_id=f"tx-{one['request_id']}") for one in leases))

    for first in range(0, _BETS, batch):
        numbers = range(first, first + batch)
        for enqueueing in (place, end):
            await measured("enqueue", lambda e=enqueueing, n=numbers: e(n))  # type: ignore[misc]
            await measured("claim, settle", deliver)
    return used


async def _cost(
    dsn: Callable[[str], str], owner: Connection, rounds: int, batch: int, measured: Collection[str]
) -> None:
    used: dict[str, dict[str, list[float]]] = {side: {} for side in ("with", "without")}
    await owner.execute("create database bench_with encoding 'UTF8' template template0")
    await migrate(dsn("bench_with"))
    await owner.execute("create database bench_without template bench_with")
    async with connected(dsn("bench_without"), 1) as [connection]:
        for name in measured or [index.name for index in indexes()]:
            await connection.execute(f"drop index predictu_dispatch.{name}")
    for side in used:
        async with connected(dsn(f"bench_{side}"), 1) as [connection]:
            await know_operators(connection)
            await _path_of_bets(connection, "warm", batch)
    for number in range(rounds):
        # Each side is first in every other round.
        for side, figures in list(used.items())[:: 1 if number % 2 else -1]:
            async with connected(dsn(f"bench_{side}"), 1) as [connection]:
                steps = await _path_of_bets(connection, f"round-{number}", batch)
            for step, amounts in steps.items():
                for what, amount in amounts.items():
                    figures.setdefault(f"{step}: {what}", []).append(amount / (2 * _BETS))
    for name, without in used["without"].items():
        ratios = [a / b for a, b in zip(without, used["with"][name], strict=True)]
        best = min(without) / min(used["with"][name])
        with_it, without_it = statistics.median(used["with"][name]), statistics.median(without)
        unit = _UNITS[name.partition(": ")[2]]
        limit = f"; at least {_AT_LEAST}" if unit == "µs" else ""
        click.echo(
            f"{name:30} with {with_it:7.1f} {unit:5}, without {without_it:7.1f} {unit:5} a callback;"
            f" without / with {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f};"
            f" best rounds {best:.3f}{limit})"
        )


async def _fill(connection: Connection, callbacks: int) -> None:
    bets = callbacks // 2
    sizes = {"whale": min(_WHALE_BETS, bets // 10), "operators": _OPERATORS, "bets": bets, "frequent": _FREQUENT}
    for index in indexes():
        await connection.execute(f"drop index if exists predictu_dispatch.{index.name}")
    await connection.execute("set session_replication_role = replica; set synchronous_commit = off")
    await connection.execute(_KNOWN_OPERATORS, _OPERATORS)
    await connection.execute(_BETS_OF_HISTORY.format(**sizes), timeout=3600)
    await connection.execute(
        """
        insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, effect, attempts,
                                                params, operator_transaction_id, created_at, due_at, finished_at)
        select b.operator_id, one.id, one.method, b.bet_id, one.lane, 'delivered', 'applied', 1, one.params,
               'tx-' || one.id, b.created_at + one.later, b.created_at, b.created_at
          from predictu_dispatch.bet b
         cross join lateral (values
             (b.placement_request_id, 'BET_MAKE', 'interactive', '{}'::jsonb, interval '0'),
             (b.terminal_request_id, 'BET_WIN', 'settlement',
              jsonb_build_object('currency', b.currency, 'amount', b.amount * 2), interval '1 hour')
         ) one (id, method, lane, params, later)
        """,
        timeout=3600,
    )
    for index in indexes():
        await connection.execute(index.sql, timeout=3600)
    await connection.execute("vacuum analyze predictu_dispatch.bet, predictu_dispatch.callback", timeout=3600)


async def _searches(dsn: str, callbacks: int) -> None:
    await migrate(dsn)
    async with connected(dsn, 1) as [connection]:
        began_s = time.monotonic()
        await _fill(connection, callbacks)
        found = await connection.fetchval("select count(*) from predictu_dispatch.callback", timeout=600)
        click.echo(f"{found:,} callbacks of {_OPERATORS} operators, filled in {time.monotonic() - began_s:.0f} s")
        for column, value in (("player_id", "whale"), ("amount", "500")):
            bets = f"select count(*) from predictu_dispatch.bet where {column} = '{value}'"  # noqa: S608 - constants
            click.echo(f"{await connection.fetchval(bets, timeout=600):,} bets have {column} {value}")
    chance = random.Random(1)
    every = Search(
        operator=None, player=None, bet=None, transaction=None, request=None, amount=None, since=None, until=None,
        state=None, method=None, after=None, rows_max=20,
    )  # fmt: skip

    def bet() -> int:
        return chance.randrange(callbacks // 2)

    def request_id() -> str:
        n = bet()
        return f"{2 * n:012x}70008000{n:012x}"

    kinds: dict[str, Callable[[], Search]] = {
        "a player": lambda: replace(every, player=f"p-{bet() % 200000}"),
        "a player with 10,000 bets": lambda: replace(every, player="whale"),
        "that player, a filter without a hit": lambda: replace(every, player="whale", state="cancelled"),
        "an unknown player": lambda: replace(every, player=f"x-{bet()}"),
        "a bet": lambda: replace(every, bet=f"bet-{bet()}"),
        "a transaction": lambda: replace(every, transaction=f"tx-{UUID(request_id())}"),
        "a request id": lambda: replace(every, request=parse_beginning(request_id())),
        "a beginning of 6 digits": lambda: replace(every, request=parse_beginning(request_id()[:6])),
        "an amount": lambda: replace(every, amount=parse_amount(f"{chance.randrange(100, 50000) / 100:.2f}")),
        "an amount of 100,000 bets": lambda: replace(every, amount=parse_amount("5 EUR")),
        "that amount, a filter without a hit": lambda: replace(every, amount=parse_amount("5 EUR"), state="cancelled"),
        "an amount that no bet has": lambda: replace(every, amount=parse_amount("98765.43")),
        "the newest bets": lambda: every,
        "one operator, newest": lambda: replace(every, operator=f"op_{bet() % _OPERATORS}"),
        "a filter without a hit": lambda: replace(every, state="cancelled"),
        "one operator, a filter without a hit": lambda: replace(every, operator="op_1", state="cancelled"),
    }
    database = Database(dsn, pool_size=1, application_name="bench", through_pooler=True)
    await database.open()
    (row,) = await database.fetch("select pg_backend_pid() as pid")
    server: int = row["pid"]
    for name, search in kinds.items():
        took_ms, cpu_ms, rows = [], [], 0
        for _ in range(_TIMES):
            began_s, cpu_s = time.perf_counter(), _cpu_s(server)
            rows = len((await read_page(database, search())).rows)
            took_ms.append((time.perf_counter() - began_s) * 1000)
            cpu_ms.append((_cpu_s(server) - cpu_s) * 1000)
        p95, cpu_p95 = (sorted(one)[round(_TIMES * 0.95) - 1] for one in (took_ms, cpu_ms))
        # On a busy machine the CPU time is what the search itself takes; it waits for nothing else.
        kept = "" if min(p95, cpu_p95) < _BELOW_MS else "  MISSED"
        click.echo(
            f"{name:36} p50 {statistics.median(took_ms):6.1f} ms, p95 {p95:6.1f} ms;"
            f" CPU p50 {statistics.median(cpu_ms):5.1f} ms, p95 {cpu_p95:5.1f} ms; {rows:3} rows{kept}"
        )
    await database.close()


@click.group()
def main() -> None:
    """Measure `find`."""


@main.command()
@click.option("--rounds", default=4, show_default=True)
@click.option("--batch", default=10, show_default=True, help="Callbacks that are claimed and settled at once.")
@click.option("--index", "names", multiple=True, help="Measure only this index; repeatable.")
def cost(rounds: int, batch: int, names: tuple[str, ...]) -> None:
    """Compare enqueueing, claiming and settling with and without indexes, in turn."""
    # Without fsync, so that the time is that of the work and not of the disk.
    with EmbeddedPostgres(fsync=False) as postgres:

        async def run() -> None:
            async with connected(postgres.dsn(), 1) as [owner]:
                await _cost(postgres.dsn, owner, rounds, batch, names)

        asyncio.run(run())


@main.command()
@click.option("--callbacks", default=5_000_000, show_default=True)
def searches(callbacks: int) -> None:
    """Fill a database and time each kind of search."""
    with EmbeddedPostgres(fsync=False) as postgres:
        asyncio.run(_searches(postgres.dsn(), callbacks))


if __name__ == "__main__":
    main()
