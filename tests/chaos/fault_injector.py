"""The fault_injector: does what the plan says to the world, and tells what it has done."""

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import aiohttp
import asyncpg

from tests.chaos.fault_points import POINTS, Action
from tests.chaos.plan import Act
from tests.chaos.proxy import WELL, Proxy, Trouble
from tests.chaos.world import CALM, CONNECTIONS_MAX, STORMY, Operator, World
from tests.support.daemons import Daemon

DAEMONS_MIN, DAEMONS_MAX = 2, 4
_LEASE_S = 6.5
"""Above the lease of an attempt: its timeout of 1 s and LEASE_MARGIN_S."""
_CLOCK_STEPS_S = ("-86400", "-30", "30", "86400")


@dataclass(kw_only=True)
class FaultInjector:
    """Plays a plan. `say` gets a line for each act as it begins."""

    world: World
    say: Callable[[str], None]
    done: Counter[str] = field(default_factory=Counter)

    async def play(self, plan: list[Act]) -> None:
        """All acts have begun at their moments and are over."""
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        async with asyncio.TaskGroup() as acts:
            acts.create_task(self._keep_some_alive(began_s + (plan[-1].at_s if plan else 0.0)))
            for act in plan:
                await asyncio.sleep(max(0.0, began_s + act.at_s - loop.time()))
                acts.create_task(self._act(act), name=act.name)

    async def _act(self, act: Act) -> None:
        draws = random.Random(act.seed)
        what = await _ACTS[act.name](self.world, draws, act.lasts_s)
        if what is None:
            return
        self.done[act.name] += 1
        self.say(f"{act.at_s:7.1f} s  {act.name}{f': {what}' if what else ''}")

    async def _keep_some_alive(self, until_s: float) -> None:
        """Whoever runs daemons starts them again."""
        loop = asyncio.get_running_loop()
        while loop.time() < until_s:
            while len(self.world.daemons) < DAEMONS_MIN:
                await self.world.start_daemon()
            await asyncio.sleep(0.5)

    async def heal(self) -> None:
        """Nothing is wrong with anything any more, and daemons run as they ship."""
        for line in [*self.world.every_line, *(operator.proxy for operator in self.world.operators)]:
            line.suffer(WELL)
        for operator in self.world.operators:
            operator.weather = CALM
            await operator.change_weather(CALM)
        # Who is armed, frozen or has a wrong clock goes; what it held must be found all the same.
        for daemon in self.world.daemons:
            daemon.kill()
        for _ in range(DAEMONS_MIN):
            await self.world.start_daemon()


Deed = Callable[[World, random.Random, float], Awaitable[str | None]]
"""What is done for so long, with draws of its own; a few words about it, None where nothing could be done."""


def _some_daemon(world: World, draws: random.Random) -> Daemon | None:
    return draws.choice(world.daemons) if world.daemons else None


async def _kill(world: World, draws: random.Random, lasts_s: float) -> str | None:
    if (daemon := _some_daemon(world, draws)) is None:
        return None
    daemon.kill()
    await asyncio.sleep(lasts_s / 2)
    await world.start_daemon()
    return daemon.instance


async def _kill_at_a_point(world: World, draws: random.Random, _: float) -> str | None:
    if len(world.daemons) >= DAEMONS_MAX and (daemon := _some_daemon(world, draws)) is not None:
        daemon.kill()
    fault = f"{draws.choice(list(POINTS))}:{draws.choice(list(Action))}:{draws.randrange(1, 20)}"
    armed = await world.start_daemon(fault)
    if "freeze" in fault:
        await asyncio.sleep(_LEASE_S + 2 * draws.random())
        _send(armed, signal.SIGCONT)
    return f"{armed.instance} {fault}"


async def _freeze(world: World, draws: random.Random, lasts_s: float) -> str | None:
    if (daemon := _some_daemon(world, draws)) is None:
        return None
    _send(daemon, signal.SIGSTOP)
    # Some wake up with their leases, some long without them.
    await asyncio.sleep(_LEASE_S + lasts_s if draws.random() < 0.7 else lasts_s)
    _send(daemon, signal.SIGCONT)
    return daemon.instance


async def _stop(world: World, draws: random.Random, lasts_s: float) -> str | None:
    if (daemon := _some_daemon(world, draws)) is None:
        return None
    _send(daemon, signal.SIGTERM)
    await asyncio.sleep(lasts_s / 4)
    await world.start_daemon()
    return daemon.instance


async def _wrong_clock(world: World, draws: random.Random, lasts_s: float) -> str | None:
    step_s = draws.choice(_CLOCK_STEPS_S)
    daemon = await world.start_daemon(clock_step_s=step_s)
    await asyncio.sleep(2 + lasts_s)
    daemon.kill()
    return f"{step_s} s"


async def _reload(world: World, _: random.Random, __: float) -> str | None:
    for daemon in world.daemons:
        # A daemon that is only just starting knows no reload yet.
        if "daemon.started" in daemon.log_text:
            _send(daemon, signal.SIGHUP)
    return ""


def _postgres(*, kill: bool) -> Deed:
    async def deed(world: World, draws: random.Random, lasts_s: float) -> str | None:
        if world.postgres_busy.locked():
            return None
        await world.restart_postgres(kill=kill, after_s=draws.choice((0.0, lasts_s)))
        return ""

    return deed


async def _cut_postgres(world: World, draws: random.Random, _: float) -> str | None:
    line = draws.choice(world.every_line)
    line.cut()
    return ""


def _on_postgres(trouble: Callable[[random.Random], Trouble]) -> Deed:
    async def deed(world: World, draws: random.Random, lasts_s: float) -> str | None:
        running = [world.producers_line, *(world.line_of(daemon) for daemon in world.daemons)]
        return await _suffered(draws.choice(running), trouble(draws), lasts_s)

    return deed


def _on_operator(trouble: Callable[[random.Random], Trouble]) -> Deed:
    async def deed(world: World, draws: random.Random, lasts_s: float) -> str | None:
        operator = draws.choice(world.operators)
        await _suffered(operator.proxy, trouble(draws), lasts_s)
        return operator.operator_id

    return deed


async def _suffered(line: Proxy, trouble: Trouble, lasts_s: float) -> str:
    line.suffer(trouble)
    await asyncio.sleep(lasts_s)
    line.suffer(WELL)
    return ""


async def _kill_operator(world: World, draws: random.Random, lasts_s: float) -> str | None:
    operator: Operator = draws.choice(world.operators)
    if operator.busy.locked():
        return None
    async with operator.busy:
        await operator.child.kill()
        await asyncio.sleep(lasts_s / 2)
        await operator.start()
    return operator.operator_id


async def _weather(world: World, draws: random.Random, lasts_s: float) -> str | None:
    operator: Operator = draws.choice(world.operators)
    before, operator.weather = operator.weather, {name: share * draws.random() * 2 for name, share in STORMY.items()}
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        await operator.change_weather(operator.weather)
    await asyncio.sleep(2 * lasts_s)
    operator.weather = before
    # One that was killed meanwhile starts with it.
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        await operator.change_weather(before)
    return operator.operator_id


async def _hold_bets(world: World, draws: random.Random, lasts_s: float) -> str | None:
    """A producer's transaction that stays open over some bets that are under way."""
    try:
        owner = await world.owner()
    except (OSError, asyncpg.PostgresError):
        return None
    held = []
    try:
        async with owner.transaction():
            held = await owner.fetch(
                "select 1 from predictu_dispatch.bet where state in ('placing', 'open', 'closing')"
                " order by md5(bet_id || $1) limit 5 for update skip locked",
                str(draws.random()),
            )
            await asyncio.sleep(lasts_s)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        pass
    finally:
        owner.terminate()
    return f"{len(held)}"


async def _take_connections(world: World, _: random.Random, lasts_s: float) -> str | None:
    # Those that are refused are one too many: that is the point.
    taken = await asyncio.gather(*(world.owner() for _ in range(CONNECTIONS_MAX)), return_exceptions=True)
    await asyncio.sleep(lasts_s)
    got = [connection for connection in taken if not isinstance(connection, BaseException)]
    for connection in got:
        connection.terminate()
    return f"{len(got)}"


def _send(daemon: Daemon, number: signal.Signals) -> None:
    if daemon.process.poll() is None:
        daemon.process.send_signal(number)


_ACTS: dict[str, Deed] = {
    "kill a daemon": _kill,
    "kill a daemon at a fault point": _kill_at_a_point,
    "freeze a daemon past its leases": _freeze,
    "stop a daemon": _stop,
    "start a daemon with a wrong clock": _wrong_clock,
    "reload every daemon": _reload,
    "kill Postgres": _postgres(kill=True),
    "restart Postgres": _postgres(kill=False),
    "cut Postgres connections": _cut_postgres,
    "Postgres behind a black hole": _on_postgres(lambda _: Trouble(is_black_hole=True)),
    "Postgres far away": _on_postgres(lambda draws: Trouble(latency_s=draws.uniform(0.01, 0.2))),
    "Postgres cut after some bytes": _on_postgres(lambda draws: Trouble(cut_after_bytes=draws.randrange(200, 60_000))),
    "Postgres drips": _on_postgres(lambda draws: Trouble(drip_bytes=draws.randrange(100, 1_000))),
    "an operator cut after some bytes": _on_operator(lambda draws: Trouble(cut_after_bytes=draws.randrange(1, 1_500))),
    "an operator behind a black hole": _on_operator(lambda _: Trouble(is_black_hole=True)),
    "an operator far away": _on_operator(lambda draws: Trouble(latency_s=draws.uniform(0.01, 0.6))),
    "an operator drips": _on_operator(lambda draws: Trouble(drip_bytes=draws.randrange(5, 100))),
    "an operator refuses connections": _on_operator(lambda _: Trouble(refuses=True)),
    "kill an operator": _kill_operator,
    "an operator's weather": _weather,
    "somebody holds bets": _hold_bets,
    "somebody takes every connection": _take_connections,
}
