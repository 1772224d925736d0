"""When a lane's dispatcher looks into the outbox: at once when it is told, and twice more a little later."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, cast

from predictu_dispatch.core.callback import Callback
from predictu_dispatch.core.change import LaneWant
from predictu_dispatch.core.fleet import Share
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.flow.courier import Courier
from predictu_dispatch.flow.dispatcher import Dispatcher
from predictu_dispatch.flow.gates import Gates
from tests.support.daemons import until

SETTINGS = OperatorSettings.model_validate(
    {"operator_id": "op_abc123", "callback_url": "https://wallet.example.com", "signing": {"key_file": "key.pem"}}
)


class EmptyOutbox:
    """Nothing is due; it counts how often it was asked."""

    def __init__(self) -> None:
        self.asked: list[Sequence[LaneWant]] = []

    def turn(self, _: Lane) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def claim(self, wants: Sequence[LaneWant]) -> list[Callback]:
        self.asked.append(wants)
        return []


class Configured:
    """What a dispatcher reads of a courier."""

    operator = type("Operator", (), {"settings": SETTINGS})()


async def test_whoever_is_told_looks_at_once_and_twice_more_and_then_waits_for_its_poll() -> None:
    outbox, gates = EmptyOutbox(), Gates([SETTINGS])
    share = Share(operator_id="op_abc123", interactive_slots=8, settlement_slots=8, requests_per_s=None, is_fair=True)
    dispatcher = Dispatcher(
        Lane.INTERACTIVE,
        cast("Any", outbox),
        cast("Any", None),
        cast("Any", None),
        gates,
        witness=lambda _: None,
        poll_interval_s=60.0,
        is_outage=lambda _: False,
    )
    gates.share([share], asked_at_s=asyncio.get_running_loop().time())
    await dispatcher.send_by({"op_abc123": cast("Courier", Configured())})
    running = asyncio.create_task(dispatcher.run())
    await until("it has looked when it started", lambda: len(outbox.asked) == 1)
    for expected in (4, 7):
        dispatcher.told(is_behind=False)
        while len(outbox.asked) < expected:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.1)
        assert len(outbox.asked) == expected
    dispatcher.stop()
    await running
