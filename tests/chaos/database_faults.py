"""Faults of the database that others cause: logins, defaults, locks, full queues, bad rows."""

import asyncio
import contextlib
import fcntl
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg

from tests.chaos.environment import DATABASE, GRANTLESS, OPERATORS, ChaosEnvironment

Injector = Callable[[ChaosEnvironment, random.Random, float], Awaitable[str | None]]
"""Injects one fault for a duration; returns a detail for the log, None if it was not possible."""
_LOST = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
HOSTILE_DEFAULTS = {
    "default_transaction_isolation": "'repeatable read'",
    "default_transaction_deferrable": "on",
    "search_path": "nowhere",
    "statement_timeout": "'15s'",
    "lock_timeout": "'3s'",
    "timezone": "'Pacific/Chatham'",
    "datestyle": "'German, DMY'",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "0",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "quote_all_identifiers": "on",
    "enable_indexscan": "off",
}
"""Defaults that an administrator may give a database; producers get them too. Not among them is
synchronous_commit = off: a killed Postgres then loses what it acknowledged to a producer."""
_TAKEN_KEYS = (
    "select pg_advisory_lock(hashtext('predictu_dispatch.' || name)) from unnest(array["
    "'heartbeat', 'announce', 'notify_due', 'retention', 'prepare_partitions', 'migrate']) as name"
)
_PIPE_BYTES = 4096
"""Full after a few lines."""
_CLOCK_STEPS_S = (-3600.0, -20.0, -2.0, 2.0, 20.0, 3600.0)
_POISONED_TEXT = "(select string_agg(md5(random()::text), '') from generate_series(1, 300))"
"""Too long for its row and hardly compressible, so it is stored outside of it."""


@asynccontextmanager
async def _connection(environment: ChaosEnvironment, login: str = "postgres") -> "AsyncIterator[asyncpg.Connection]":
    connection = await asyncpg.connect(environment.postgres.dsn(DATABASE, login))
    try:
        yield connection
    finally:
        connection.terminate()


async def _restored(environment: ChaosEnvironment, *statements: str) -> None:
    """Undo a fault, also if Postgres is down at the moment."""
    while True:
        try:
            async with _connection(environment) as owner:
                for statement in statements:
                    await owner.execute(statement)
        except _LOST:
            await asyncio.sleep(0.2)
        else:
            return


def refused_login(fault: str, repair: str) -> Injector:
    """The daemons' sessions end, and their login or its rights are gone."""

    async def inject(environment: ChaosEnvironment, _: random.Random, duration_s: float) -> str | None:
        with contextlib.suppress(*_LOST):
            async with _connection(environment) as owner:
                await owner.execute(fault)
                await _end_sessions(owner, "chaos_daemon")
            await asyncio.sleep(duration_s)
        await _restored(environment, repair)
        return ""

    return inject


async def _end_sessions(owner: "asyncpg.Connection", login: str) -> None:
    await owner.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = $1", login)


async def hostile_defaults(environment: ChaosEnvironment, _: random.Random, duration_s: float) -> str | None:
    """Every session that begins meanwhile has other defaults, and keeps them."""
    settings = HOSTILE_DEFAULTS.items()
    with contextlib.suppress(*_LOST):
        async with _connection(environment) as owner:
            for name, value in settings:
                await owner.execute(f"alter database {DATABASE} set {name} = {value}")
            for login in ("chaos_daemon", "chaos_producer"):
                await _end_sessions(owner, login)
        await asyncio.sleep(2 * duration_s)
    await _restored(environment, *(f"alter database {DATABASE} reset {name}" for name, _ in settings))
    return ""


async def held_advisory_locks(environment: ChaosEnvironment, _: random.Random, duration_s: float) -> str | None:
    """A login without any grant holds every advisory lock that a release has used."""
    try:
        async with _connection(environment, GRANTLESS) as nobody:
            async with asyncio.timeout(duration_s):
                await nobody.execute(_TAKEN_KEYS)
            await asyncio.sleep(duration_s)
    except (*_LOST, TimeoutError):
        pass
    return ""


async def full_notification_queue(environment: ChaosEnvironment, _: random.Random, duration_s: float) -> str | None:
    """A login without any grant fills the queue and does not read it."""
    usage = 0.0
    with contextlib.suppress(*_LOST):
        async with (
            _connection(environment, GRANTLESS) as listener,
            _connection(environment, GRANTLESS) as notifier,
            listener.transaction(),
        ):
            # The queue is not shortened behind a listener's open transaction.
            await listener.execute("listen chaos")
            await listener.execute("commit; begin; select 1")
            for _message in range(200):
                try:
                    await notifier.execute("select pg_notify('chaos', md5(random()::text) || repeat('x', 7000))")
                except asyncpg.PostgresError:
                    break
            usage = await notifier.fetchval("select pg_notification_queue_usage()")
            await asyncio.sleep(duration_s)
    return f"{usage:.0%} full"


async def locked_logs(environment: ChaosEnvironment, _: random.Random, duration_s: float) -> str | None:
    """Nothing can be appended to a log, because a transaction holds its position."""
    with contextlib.suppress(*_LOST):
        async with _connection(environment) as owner, owner.transaction():
            await owner.execute("select 1 from predictu_dispatch.audit_position for update")
            # Some attempts to append time out.
            await asyncio.sleep(2 * duration_s)
    return ""


async def publication(environment: ChaosEnvironment, _: random.Random, duration_s: float) -> str | None:
    """Logical replication of every table begins, and ends again."""
    with contextlib.suppress(*_LOST):
        async with _connection(environment) as owner:
            await owner.execute("create publication chaos for all tables")
        await asyncio.sleep(duration_s)
    await _restored(environment, "drop publication if exists chaos")
    return ""


async def poison_row(environment: ChaosEnvironment, rng: random.Random, duration_s: float) -> str | None:
    """A settlement of one operator whose params cannot be read; a person removes it later."""
    operator_id, bet_id = rng.choice(list(OPERATORS)), f"poison-{rng.getrandbits(32):08x}"
    try:
        async with _connection(environment) as owner, owner.transaction():
            await _insert_poison(owner, operator_id, bet_id)
    except _LOST:
        return None
    await asyncio.sleep(2 * duration_s)
    await _remove_poison(environment, operator_id, bet_id)
    return operator_id


async def _insert_poison(owner: "asyncpg.Connection", operator_id: str, bet_id: str) -> None:
    await owner.execute("create extension if not exists pg_surgery")
    await owner.execute(
        "select predictu_dispatch.adopt_bet($1, $2, 'player-1', 'EUR', 100, gen_random_uuid())", operator_id, bet_id
    )
    await owner.execute(
        "select predictu_dispatch.enqueue_callback($1, 'BET_LOSE', jsonb_build_object("
        f" 'player_id', 'player-1', 'bet_id', $2::text, 'further', {_POISONED_TEXT}))",
        operator_id,
        bet_id,
    )
    toast = await owner.fetchval(
        "select reltoastrelid::regclass::text from pg_class where oid = 'predictu_dispatch.callback'::regclass"
    )
    await owner.execute(
        f"select heap_force_kill($1::text::regclass, array(select t.ctid from {toast} t where t.chunk_id ="  # noqa: S608
        " (select pg_column_toast_chunk_id(params) from predictu_dispatch.callback"
        "   where operator_id = $2 and bet_id = $3)))",
        toast,
        operator_id,
        bet_id,
    )


async def _remove_poison(environment: ChaosEnvironment, operator_id: str, bet_id: str) -> None:
    tables = ("predictu_dispatch.callback", "predictu_dispatch.bet")
    while True:
        try:
            async with _connection(environment) as owner, owner.transaction():
                triggers = await owner.fetch(
                    "select tgrelid::regclass::text as relation, quote_ident(tgname) as name,"
                    " case tgenabled when 'A' then 'always' else '' end as always"
                    " from pg_trigger where not tgisinternal and tgrelid::regclass::text = any ($1::text[])",
                    list(tables),
                )
                for table in tables:
                    await owner.execute(f"alter table {table} disable trigger all")
                for table in tables:
                    await owner.execute(
                        f"delete from {table} where operator_id = $1 and bet_id = $2",  # noqa: S608 - two names
                        operator_id,
                        bet_id,
                    )
                for table in tables:
                    await owner.execute(f"alter table {table} enable trigger all")
                for trigger in triggers:
                    await owner.execute(
                        f"alter table {trigger['relation']} enable {trigger['always']} trigger {trigger['name']}"
                    )
        except _LOST:
            await asyncio.sleep(0.2)
        else:
            return


async def stuck_log_reader(environment: ChaosEnvironment, _: random.Random, duration_s: float) -> str | None:
    """A daemon's log goes into a pipe that nobody reads; it works, and stops when it is told to."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    try:
        daemon = await environment.start_daemon(stderr=writer)
        await asyncio.sleep(2 + 2 * duration_s)
        daemon.terminate()
        # A killed daemon ended as well.
        await daemon.exited()
    finally:
        os.close(writer)
        os.close(reader)
    return daemon.instance


async def step_clock(environment: ChaosEnvironment, rng: random.Random, duration_s: float) -> str | None:
    """The database's clock is set, as after a failover, and set right some time later."""
    step_s = rng.choice(_CLOCK_STEPS_S)
    environment.clock.step(step_s)
    await asyncio.sleep(duration_s)
    environment.clock.step(-step_s)
    return f"{step_s:+g} s"


KINDS: dict[str, tuple[int, Injector]] = {
    "a role without login": (2, refused_login("alter role chaos_daemon nologin", "alter role chaos_daemon login")),
    "a role without its rights": (
        2,
        refused_login("revoke predictu_dispatcher from chaos_daemon", "grant predictu_dispatcher to chaos_daemon"),
    ),
    "a database that allows no connections": (
        1,
        refused_login(
            f"alter database {DATABASE} connection limit 0", f"alter database {DATABASE} connection limit -1"
        ),
    ),
    "a database with hostile defaults": (3, hostile_defaults),
    "a full notification queue": (3, full_notification_queue),
    "held advisory locks": (2, held_advisory_locks),
    "the database's clock steps": (3, step_clock),
    "logs that nobody can append to": (2, locked_logs),
    "a publication for all tables": (2, publication),
    "a row that cannot be read": (3, poison_row),
    "a log that nobody reads": (2, stuck_log_reader),
}
"""The kinds of faults, each with its relative frequency."""
