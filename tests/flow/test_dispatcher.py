"""When a lane's dispatcher looks into the outbox, and how soon what it brings is begun."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import timedelta
from typing import Any, NoReturn, cast

import pytest
from typing_extensions import override

from predictu_dispatch.core import claim
from predictu_dispatch.core.callback import LEASE_MARGIN_S, Callback
from predictu_dispatch.core.claim import ClaimRequest
from predictu_dispatch.core.database_errors import DatabaseUnavailable
from predictu_dispatch.core.fleet import Share
from predictu_dispatch.core.methods import Lane, Method
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.flow.admission import Admission
from predictu_dispatch.flow.dispatcher import Dispatcher
from tests.core.test_callback_body import MOMENT, a_callback
from tests.support.daemons import until

SETTINGS = OperatorSettings.model_validate(
    {"operator_id": "op_abc123", "callback_url": "https://wallet.example.com", "signing": {"key_file": "key.pem"}}
)
SLOTS = 600


class Outbox:
    """Something is due once; it counts how often it was asked."""

    def __init__(self, due: Sequence[Callback] = ()) -> None:
        self.asked: list[Sequence[ClaimRequest]] = []
        self._due = list(due)

    def claim_permit(self, _: Lane) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def claim(self, wants: Sequence[ClaimRequest]) -> list[Callback]:
        self.asked.append(wants)
        due, self._due = self._due, []
        return due


class Courier:
    """Notes when each delivery was begun, and never ends one."""

    operator = type("Operator", (), {"settings": SETTINGS})()

    def __init__(self) -> None:
        self.begun_at_s: list[float] = []

    async def deliver(self, _: Callback) -> NoReturn:
        self.begun_at_s.append(time.monotonic())
        await asyncio.Event().wait()
        raise AssertionError


class Silent:
    """An observer with nothing to say."""

    def attempt_began(self, _: Callback) -> None: ...


def dispatching(
    lane: Lane,
    outbox: Outbox,
    admission: Admission,
    *,
    poll_interval_s: float = 60.0,
) -> Dispatcher:
    shares = [
        Share(operator_id=operator_id, interactive_slots=SLOTS, settlement_slots=SLOTS, requests_per_s=None)
        for operator_id in admission.operator_ids
    ]
    admission.update_shares(shares, requested_at_s=time.monotonic())
    return Dispatcher(
        lane,
        cast("Any", outbox),
        cast("Any", None),
        cast("Any", Silent()),
        admission,
        observe=lambda _: None,
        poll_interval_s=poll_interval_s,
    )


async def test_whoever_is_told_looks_at_once_and_twice_more_and_then_waits_for_its_poll() -> None:
    outbox = Outbox()
    dispatcher = dispatching(Lane.INTERACTIVE, outbox, Admission([SETTINGS]))
    await dispatcher.send_by({"op_abc123": cast("Any", Courier())})
    running = asyncio.create_task(dispatcher.run())
    await until("it has looked when it started", lambda: len(outbox.asked) == 1)
    for expected in (4, 7):
        dispatcher.on_work_notification(is_behind=False)
        await asyncio.sleep(0.3)
        assert len(outbox.asked) == expected
    dispatcher.stop()
    await running


async def test_what_is_due_of_one_operator_is_asked_of_that_one_and_every_poll_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for pause in ("_FULL_READ_INTERVAL_S", "_FULL_READ_INTERVAL_MAX_S"):
        monkeypatch.setattr(claim, pause, 60.0)
    outbox = Outbox()
    others = SETTINGS.model_copy(update={"operator_id": "op_other"})
    dispatcher = dispatching(Lane.INTERACTIVE, outbox, Admission([SETTINGS, others]), poll_interval_s=0.2)
    await dispatcher.send_by({name: cast("Any", Courier()) for name in ("op_abc123", "op_other")})
    running = asyncio.create_task(dispatcher.run())
    await until("it has looked when it started", lambda: len(outbox.asked) == 1)
    for _ in range(100):
        dispatcher.wake(operator_id="op_other")
        await asyncio.sleep(0.01)
    dispatcher.stop()
    await running
    asked = [tuple(want.operator_id for want in wants) for wants in outbox.asked]
    assert set(asked) == {("op_other",), ("op_abc123", "op_other")}
    # Once when it started, and then every fifth of a second, although there was always something else to do.
    assert 4 <= asked.count(("op_abc123", "op_other")) <= 8


async def test_a_claim_goes_on_from_its_mark_until_something_behind_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for pause in ("_FULL_READ_INTERVAL_S", "_FULL_READ_INTERVAL_MAX_S"):
        monkeypatch.setattr(claim, pause, 60.0)
    outbox = Outbox([a_callback(Method.BALANCE)])
    dispatcher = dispatching(Lane.INTERACTIVE, outbox, Admission([SETTINGS]))
    await dispatcher.send_by({"op_abc123": cast("Any", Courier())})
    running = asyncio.create_task(dispatcher.run())
    await until("the first has come", lambda: len(outbox.asked) == 1)
    for is_behind, due_from in ((False, MOMENT - timedelta(seconds=1)), (True, None)):
        before = len(outbox.asked)
        dispatcher.on_work_notification(is_behind=is_behind)
        await until("it has looked", lambda count=before: len(outbox.asked) > count)  # type: ignore[misc]
        assert [want.due_from for want in outbox.asked[before]] == [due_from]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_settlements_step_back_for_bets_but_all_begin_before_it_is_too_late() -> None:
    """On a loop whose every turn takes a while: begun one a turn, most of a large claim never left at all."""
    admission, courier = Admission([SETTINGS]), Courier()
    dispatcher = dispatching(Lane.SETTLEMENT, Outbox([a_callback(Method.BET_WIN)] * SLOTS), admission)
    admission.reserve("op_abc123", Lane.INTERACTIVE, limit=8)
    admission.confirm("op_abc123", Lane.INTERACTIVE, reserved=8, claimed=1)

    async def keep_the_loop_busy() -> None:
        while True:
            time.sleep(0.01)  # noqa: ASYNC251 - that is the point
            await asyncio.sleep(0)

    busy = asyncio.create_task(keep_the_loop_busy())
    await dispatcher.send_by({"op_abc123": cast("Any", courier)})
    running = asyncio.create_task(dispatcher.run())
    await until("all are begun", lambda: len(courier.begun_at_s) == SLOTS)
    took_s = courier.begun_at_s[-1] - courier.begun_at_s[0]
    # Not all at once, either.
    assert 0.2 < took_s < LEASE_MARGIN_S / 2
    for task in (busy, running):
        task.cancel()
    await asyncio.gather(busy, running, return_exceptions=True)


class Away(Outbox):
    """The database is away; with `is_silent` it does not even say so."""

    is_silent = False

    @override
    async def claim(self, wants: Sequence[ClaimRequest]) -> list[Callback]:
        self.asked.append(wants)
        if self.is_silent:
            await asyncio.Event().wait()
        raise DatabaseUnavailable("connection refused")


async def test_an_outage_is_an_answer_and_silence_is_none() -> None:
    """What the watchdog looks at: a process that is told of an outage works, and a new one could do no better."""
    outbox = Away()
    dispatcher = dispatching(Lane.INTERACTIVE, outbox, Admission([SETTINGS]))
    await dispatcher.send_by({"op_abc123": cast("Any", Courier())})
    running = asyncio.create_task(dispatcher.run())
    await until("an outage is an answer", lambda: dispatcher.answered_at_s is not None)
    assert dispatcher.claimed_at_s is None
    answered_at_s = dispatcher.answered_at_s
    outbox.is_silent = True
    asked = len(outbox.asked)
    dispatcher.wake()
    await until("it asks again", lambda: len(outbox.asked) > asked)
    assert dispatcher.answered_at_s == answered_at_s
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
