"""The couriers during a reload: a failure changes nothing, and a replaced one is always closed."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from predictu_dispatch.core.methods import Lane
from predictu_dispatch.edge.http.transport import Transport
from predictu_dispatch.flow.courier import Courier, CourierPool
from tests.flow.test_courier import KEYS, ConfiguredOperator, leased_now
from tests.support.raw_server import BOUND_S, OK, RawServer, answering, settings_for

OPERATOR = "op_abc123"


class User:
    """A dispatcher: its claim ends when the test says so."""

    def __init__(self) -> None:
        self.couriers: Mapping[str, Courier] = {}
        self.ended = asyncio.Event()

    def use_couriers(self, couriers: Mapping[str, Courier]) -> None:
        self.couriers = couriers

    async def claim_ended(self) -> None:
        await self.ended.wait()


@dataclass(kw_only=True)
class Bench:
    """A pool that serves one operator, which has answered once and keeps its connection."""

    server: RawServer
    pool: CourierPool[ConfiguredOperator]
    user: User

    def operator(self, attempt_timeout_s: float, *, enabled: bool = True) -> ConfiguredOperator:
        interactive = {"attempt_timeout_s": attempt_timeout_s}
        settings = settings_for(self.server.url, enabled=enabled, interactive=interactive)
        return ConfiguredOperator(settings=settings, signing_key=KEYS["EdDSA"])

    async def deliver(self) -> None:
        attempt = await self.user.couriers[OPERATOR].deliver(leased_now())
        assert attempt.exchange.status == 200


@asynccontextmanager
async def serving() -> AsyncIterator[Bench]:
    def make(operator: ConfiguredOperator, lane: Lane) -> Courier:
        if not operator.settings.enabled:
            raise RuntimeError("this courier cannot be built")
        return Courier(operator, Transport(operator.settings), lane=lane, instance="host-1")

    user = User()
    users = {lane: user if lane is Lane.INTERACTIVE else User() for lane in Lane}
    pool: CourierPool[ConfiguredOperator] = CourierPool(make, users)
    async with RawServer(answering(OK, OK)).running() as server:
        bench = Bench(server=server, pool=pool, user=user)
        pool.serve(pool.prepare({OPERATOR: bench.operator(5.0)}))
        await bench.deliver()
        try:
            yield bench
        finally:
            await pool.close()


async def test_a_courier_that_cannot_be_built_leaves_everything_as_it_was() -> None:
    async with serving() as bench:
        broken = bench.operator(4.0, enabled=False)
        new = bench.pool.prepare({OPERATOR: bench.operator(4.0), "op_broken": broken})
        assert list(new.failed) == ["op_broken"]
        await new.close()
        assert bench.user.couriers.keys() == {OPERATOR}
        # Through the same connection, and the next reload finds the same difference.
        await bench.deliver()
        assert bench.server.connections == 1
        assert not bench.server.hung_up.is_set()
        assert bench.pool.serve(bench.pool.prepare({OPERATOR: bench.operator(4.0)})) == 1


async def test_a_replaced_courier_is_closed_when_the_claim_has_ended() -> None:
    async with serving() as bench:
        bench.pool.serve(bench.pool.prepare({OPERATOR: bench.operator(4.0)}))
        assert not bench.server.hung_up.is_set()
        bench.user.ended.set()
        await asyncio.wait_for(bench.server.hung_up.wait(), BOUND_S)


async def test_a_replaced_courier_is_closed_at_the_end_although_a_claim_never_ends() -> None:
    async with serving() as bench:
        bench.pool.serve(bench.pool.prepare({OPERATOR: bench.operator(4.0)}))
        await bench.pool.close()
        await asyncio.wait_for(bench.server.hung_up.wait(), BOUND_S)
