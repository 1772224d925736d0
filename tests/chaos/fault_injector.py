"""Injects faults into daemons, Postgres, operators and the network, and removes them again."""

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
import asyncpg

from tests.chaos import database_faults
from tests.chaos.database_faults import Injector
from tests.chaos.environment import CONNECTIONS_MAX, MIXED_FAULTS, NO_FAULTS, ChaosEnvironment, Operator
from tests.chaos.fault_points import POINTS, SEALING_POINTS, Action
from tests.chaos.proxy import UNIMPAIRED, Impairment, Proxy
from tests.support.daemons import Daemon

DAEMONS_MIN, DAEMONS_MAX = 2, 4
_LEASE_S = 6.5
"""Above the lease of an attempt: its timeout of 1 s and LEASE_MARGIN_S."""
_PAUSE_S = (0.3, 2.5)
_CLOCK_STEPS_S = ("-86400", "-30", "30", "86400")


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """One fault to inject: its kind, start, duration, and a seed."""

    kind: str
    at_s: float
    duration_s: float
    seed: int


@dataclass(kw_only=True)
class FaultInjector:
    """Injects the faults of a plan; `log` gets a line for each."""

    environment: ChaosEnvironment
    log: Callable[[str], None]
    injected: Counter[str] = field(default_factory=Counter)

    async def run(self, plan: list[Injection]) -> None:
        """Inject every fault at its time, and return when all are over."""
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._replace_daemons(started_s + (plan[-1].at_s if plan else 0.0)))
            for injection in plan:
                await asyncio.sleep(max(0.0, started_s + injection.at_s - loop.time()))
                tasks.create_task(self._inject(injection), name=injection.kind)

    async def _inject(self, injection: Injection) -> None:
        rng = random.Random(injection.seed)
        _, inject = KINDS[injection.kind]
        detail = await inject(self.environment, rng, injection.duration_s)
        if detail is None:
            return
        self.injected[injection.kind] += 1
        self.log(f"{injection.at_s:7.1f} s  {injection.kind}{f': {detail}' if detail else ''}")

    async def _replace_daemons(self, until_s: float) -> None:
        """Start daemons in place of killed ones, as a service manager does."""
        loop = asyncio.get_running_loop()
        while loop.time() < until_s:
            while len(self.environment.daemons) < DAEMONS_MIN:
                await self.environment.start_daemon()
            await asyncio.sleep(0.5)

    async def heal(self) -> None:
        """Remove every fault, and replace the daemons by unmodified ones."""
        for proxy in [*self.environment.postgres_proxies, *(operator.proxy for operator in self.environment.operators)]:
            proxy.impair(UNIMPAIRED)
        for operator in self.environment.operators:
            await operator.set_fault_rates(NO_FAULTS)
        # Armed, frozen and skewed daemons are killed; the new ones must find their leases.
        for daemon in self.environment.daemons:
            daemon.kill()
        for _ in range(DAEMONS_MIN):
            await self.environment.start_daemon()


def _some_daemon(environment: ChaosEnvironment, rng: random.Random) -> Daemon | None:
    return rng.choice(environment.daemons) if environment.daemons else None


async def _kill(environment: ChaosEnvironment, rng: random.Random, duration_s: float) -> str | None:
    if (daemon := _some_daemon(environment, rng)) is None:
        return None
    daemon.kill()
    await asyncio.sleep(duration_s / 2)
    await environment.start_daemon()
    return daemon.instance


def _at_a_point(points: Sequence[str], passes_max: int) -> Injector:
    async def inject(environment: ChaosEnvironment, rng: random.Random, _: float) -> str | None:
        if len(environment.daemons) >= DAEMONS_MAX and (daemon := _some_daemon(environment, rng)) is not None:
            daemon.kill()
        fault = f"{rng.choice(points)}:{rng.choice(list(Action))}:{rng.randint(1, passes_max)}"
        armed = await environment.start_daemon(fault)
        if "freeze" in fault:
            await asyncio.sleep(_LEASE_S + 2 * rng.random())
            _send(armed, signal.SIGCONT)
        return f"{armed.instance} {fault}"

    return inject


async def _freeze(environment: ChaosEnvironment, rng: random.Random, duration_s: float) -> str | None:
    if (daemon := _some_daemon(environment, rng)) is None:
        return None
    _send(daemon, signal.SIGSTOP)
    # Some continue with their leases, most without.
    await asyncio.sleep(_LEASE_S + duration_s if rng.random() < 0.7 else duration_s)
    _send(daemon, signal.SIGCONT)
    return daemon.instance


async def _stop(environment: ChaosEnvironment, rng: random.Random, duration_s: float) -> str | None:
    if (daemon := _some_daemon(environment, rng)) is None:
        return None
    _send(daemon, signal.SIGTERM)
    await asyncio.sleep(duration_s / 4)
    await environment.start_daemon()
    return daemon.instance


async def _wrong_clock(environment: ChaosEnvironment, rng: random.Random, duration_s: float) -> str | None:
    step_s = rng.choice(_CLOCK_STEPS_S)
    daemon = await environment.start_daemon(clock_step_s=step_s)
    await asyncio.sleep(2 + duration_s)
    daemon.kill()
    return f"{step_s} s"


async def _reload(environment: ChaosEnvironment, _: random.Random, __: float) -> str | None:
    for daemon in environment.daemons:
        # A daemon that is only just starting knows no reload yet.
        if "daemon.started" in daemon.log_text:
            _send(daemon, signal.SIGHUP)
    return ""


def _postgres(*, kill: bool) -> Injector:
    async def inject(environment: ChaosEnvironment, rng: random.Random, duration_s: float) -> str | None:
        if environment.postgres_busy.locked():
            return None
        await environment.restart_postgres(kill=kill, after_s=rng.choice((0.0, duration_s)))
        return ""

    return inject


async def _cut_postgres(environment: ChaosEnvironment, rng: random.Random, _: float) -> str | None:
    rng.choice(environment.postgres_proxies).cut()
    return ""


def _on_postgres(impairment: Callable[[random.Random], Impairment]) -> Injector:
    async def inject(environment: ChaosEnvironment, rng: random.Random, duration_s: float) -> str | None:
        running = [environment.producers_proxy, *(environment.proxy_of(daemon) for daemon in environment.daemons)]
        return await _impaired(rng.choice(running), impairment(rng), duration_s)

    return inject


def _on_operator(impairment: Callable[[random.Random], Impairment]) -> Injector:
    async def inject(environment: ChaosEnvironment, rng: random.Random, duration_s: float) -> str | None:
        operator = rng.choice(environment.operators)
        await _impaired(operator.proxy, impairment(rng), duration_s)
        return operator.operator_id

    return inject


async def _impaired(proxy: Proxy, impairment: Impairment, duration_s: float) -> str:
    proxy.impair(impairment)
    await asyncio.sleep(duration_s)
    proxy.impair(UNIMPAIRED)
    return ""


async def _kill_operator(environment: ChaosEnvironment, rng: random.Random, duration_s: float) -> str | None:
    operator: Operator = rng.choice(environment.operators)
    if operator.busy.locked():
        return None
    async with operator.busy:
        await operator.process.kill()
        await asyncio.sleep(duration_s / 2)
        await operator.start()
    return operator.operator_id


async def _fail_more_often(environment: ChaosEnvironment, rng: random.Random, duration_s: float) -> str | None:
    operator: Operator = rng.choice(environment.operators)
    before = operator.fault_rates
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        await operator.set_fault_rates({name: share * rng.random() * 2 for name, share in MIXED_FAULTS.items()})
    await asyncio.sleep(2 * duration_s)
    # A killed operator takes these rates when it starts.
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        await operator.set_fault_rates(before)
    return operator.operator_id


async def _lock_bets(environment: ChaosEnvironment, rng: random.Random, duration_s: float) -> str | None:
    """A transaction that locks some unfinished bets and stays open."""
    try:
        owner = await environment.owner()
    except (OSError, asyncpg.PostgresError):
        return None
    locked = []
    try:
        async with owner.transaction():
            locked = await owner.fetch(
                "select 1 from predictu_dispatch.bet where state in ('placing', 'open', 'closing')"
                " order by md5(bet_id || $1) limit 5 for update skip locked",
                str(rng.random()),
            )
            await asyncio.sleep(duration_s)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pass
    finally:
        owner.terminate()
    return f"{len(locked)}"


async def _take_connections(environment: ChaosEnvironment, _: random.Random, duration_s: float) -> str | None:
    # The last ones are refused.
    taken = await asyncio.gather(*(environment.owner() for _ in range(CONNECTIONS_MAX)), return_exceptions=True)
    await asyncio.sleep(duration_s)
    got = [connection for connection in taken if not isinstance(connection, BaseException)]
    for connection in got:
        connection.terminate()
    return f"{len(got)}"


def _send(daemon: Daemon, number: signal.Signals) -> None:
    if daemon.process.poll() is None:
        daemon.process.send_signal(number)


KINDS: dict[str, tuple[int, Injector]] = {
    "kill a daemon": (6, _kill),
    "kill a daemon at a fault point": (10, _at_a_point([name for name in POINTS if name not in SEALING_POINTS], 19)),
    "kill a daemon while it seals": (6, _at_a_point(SEALING_POINTS, 3)),
    "freeze a daemon past its leases": (5, _freeze),
    "stop a daemon": (3, _stop),
    "start a daemon with a wrong clock": (2, _wrong_clock),
    "reload every daemon": (2, _reload),
    "kill Postgres": (2, _postgres(kill=True)),
    "restart Postgres": (1, _postgres(kill=False)),
    "cut Postgres connections": (4, _cut_postgres),
    "Postgres behind a black hole": (3, _on_postgres(lambda _: Impairment(is_black_hole=True))),
    "Postgres with latency": (2, _on_postgres(lambda rng: Impairment(latency_s=rng.uniform(0.01, 0.2)))),
    "Postgres cut after some bytes": (
        3,
        _on_postgres(lambda rng: Impairment(cut_after_bytes=rng.randrange(200, 60_000))),
    ),
    "Postgres with low bandwidth": (1, _on_postgres(lambda rng: Impairment(bytes_per_10_ms=rng.randrange(100, 1_000)))),
    "an operator cut after some bytes": (
        4,
        _on_operator(lambda rng: Impairment(cut_after_bytes=rng.randrange(1, 1_500))),
    ),
    "an operator behind a black hole": (4, _on_operator(lambda _: Impairment(is_black_hole=True))),
    "an operator with latency": (3, _on_operator(lambda rng: Impairment(latency_s=rng.uniform(0.01, 0.6)))),
    "an operator with low bandwidth": (2, _on_operator(lambda rng: Impairment(bytes_per_10_ms=rng.randrange(5, 100)))),
    "an operator refuses connections": (3, _on_operator(lambda _: Impairment(refuses=True))),
    "kill an operator": (3, _kill_operator),
    "an operator fails more often": (6, _fail_more_often),
    "a transaction locks bets": (3, _lock_bets),
    "a client takes every connection": (1, _take_connections),
    **database_faults.KINDS,
}
"""The kinds of faults, each with its relative frequency."""


def plan(seed: int, seconds: float) -> list[Injection]:
    """The injections of one run; each kind occurs at least once if there is time."""
    rng = random.Random(seed)
    kinds, weights = list(KINDS), [weight for weight, _ in KINDS.values()]
    first = rng.sample(kinds, len(kinds))
    injections: list[Injection] = []
    at_s = 1.0
    while at_s < seconds:
        kind = first.pop() if first else rng.choices(kinds, weights)[0]
        duration_s = rng.uniform(0.2, 4.0)
        injections.append(Injection(kind=kind, at_s=at_s, duration_s=duration_s, seed=rng.getrandbits(32)))
        at_s += rng.uniform(*_PAUSE_S)
    return injections
