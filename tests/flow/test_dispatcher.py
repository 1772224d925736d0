"""When a lane's dispatcher claims, and how soon the claimed callbacks start."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import timedelta
from typing import Any, NoReturn, cast

import pytest
from typing_extensions import override

from predictu_dispatch.core import claim
from predictu_dispatch.core.callback import LEASE_MARGIN_S, Callback
from predictu_dispatch.core.claim import ClaimRequest
from predictu_dispatch.core.database import DatabaseUnavailable
from predictu_dispatch.core.fleet import Share
from predictu_dispatch.core.methods import Lane, Method
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.edge.postgres.database import Database as Pool
from predictu_dispatch.edge.postgres.outbox import Outbox
from predictu_dispatch.flow.admission import Admission
from predictu_dispatch.flow.dispatcher import Dispatcher
from tests.core.test_callback_body import MOMENT, a_callback
from tests.support.daemons import until
from tests.support.harness import Harness
from tests.support.postgres import Database

SETTINGS = OperatorSettings.model_validate(
    {"operator_id": "op_abc123", "callback_url": "https://wallet.example.com", "signing": {"key_file": "key.pem"}}
)
SLOTS = 600


class FakeOutbox:
    """Returns its callbacks to the first claim and remembers every claim."""

    def __init__(self, due: Sequence[Callback] = ()) -> None:
        self.claims: list[Sequence[ClaimRequest]] = []
        self._due = list(due)

    def claim_permit(self, _: Lane) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def claim(self, requests: Sequence[ClaimRequest], *, is_stopped: Callable[[], bool]) -> list[Callback]:
        assert not is_stopped()
        self.claims.append(requests)
        due, self._due = self._due, []
        return due


class FakeCourier:
    """Remembers when each delivery started, and finishes none."""

    operator = type("Operator", (), {"settings": SETTINGS})()

    def __init__(self) -> None:
        self.started_at_s: list[float] = []

    async def deliver(self, _: Callback) -> NoReturn:
        self.started_at_s.append(time.monotonic())
        await asyncio.Event().wait()
        raise AssertionError


class SilentObserver:
    def attempt_began(self, _: Callback) -> None: ...
    def chore_failed(self, chore: str, error: Exception) -> None: ...
    def chore_succeeded(self, chore: str) -> None: ...


def make_dispatcher(
    outbox: FakeOutbox | Outbox,
    admission: Admission | None = None,
    *,
    lane: Lane = Lane.INTERACTIVE,
    poll_interval_s: float = 60.0,
) -> Dispatcher:
    admission = admission or Admission([SETTINGS])
    shares = [
        Share(operator_id=operator_id, interactive_slots=SLOTS, settlement_slots=SLOTS, requests_per_s=None)
        for operator_id in admission.operator_ids
    ]
    admission.update_shares(shares, requested_at_s=time.monotonic())
    return Dispatcher(
        lane,
        cast("Any", outbox),
        cast("Any", None),
        cast("Any", SilentObserver()),
        admission,
        attempt_ended=lambda _: None,
        poll_interval_s=poll_interval_s,
    )


@asynccontextmanager
async def running(dispatcher: Dispatcher, *couriers: str, courier: FakeCourier | None = None) -> AsyncIterator[None]:
    delivering = {name: courier or FakeCourier() for name in couriers or ("op_abc123",)}
    dispatcher.use_couriers(cast("Any", delivering))
    task = asyncio.create_task(dispatcher.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def rarely_from_the_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    for interval in ("_FULL_READ_INTERVAL_S", "_FULL_READ_INTERVAL_MAX_S"):
        monkeypatch.setattr(claim, interval, 60.0)


async def test_after_a_notification_a_dispatcher_claims_three_times_and_then_waits_for_its_poll() -> None:
    outbox = FakeOutbox()
    dispatcher = make_dispatcher(outbox)
    async with running(dispatcher):
        await until("it has claimed when it started", lambda: len(outbox.claims) == 1)
        for expected in (4, 7):
            dispatcher.on_work_notification(is_behind=False)
            await until("all claims", lambda count=expected: len(outbox.claims) >= count)  # type: ignore[misc]
            await asyncio.sleep(0.1)
            assert len(outbox.claims) == expected


@pytest.mark.usefixtures("rarely_from_the_beginning")
async def test_a_wake_for_one_operator_claims_for_that_one_and_every_poll_for_all() -> None:
    outbox = FakeOutbox()
    admission = Admission([SETTINGS, SETTINGS.model_copy(update={"operator_id": "op_other"})])
    dispatcher = make_dispatcher(outbox, admission, poll_interval_s=0.2)
    async with running(dispatcher, "op_abc123", "op_other"):
        await until("it has claimed when it started", lambda: len(outbox.claims) == 1)
        began_s = time.monotonic()
        for _ in range(100):
            dispatcher.wake(operator_id="op_other")
            await asyncio.sleep(0.01)
        polls_max = (time.monotonic() - began_s) / 0.2
    claimed_for = [tuple(request.operator_id for request in requests) for requests in outbox.claims]
    assert set(claimed_for) == {("op_other",), ("op_abc123", "op_other")}
    # At the start and every 0.2 s, although there always was a wake for one operator.
    assert 2 <= claimed_for.count(("op_abc123", "op_other")) <= 2 + polls_max


@pytest.mark.usefixtures("rarely_from_the_beginning")
async def test_wakes_for_later_claim_for_each_of_their_operators_and_never_early() -> None:
    """Those of one millisecond share a timer; an earlier one must not wait for it."""

    class TimedOutbox(FakeOutbox):
        def __init__(self) -> None:
            super().__init__()
            self.claimed_at_s: dict[str, float] = {}

        @override
        async def claim(self, requests: Sequence[ClaimRequest], *, is_stopped: Callable[[], bool]) -> list[Callback]:
            if self.claims:
                for request in requests:
                    self.claimed_at_s.setdefault(request.operator_id, time.monotonic())
            return await super().claim(requests, is_stopped=is_stopped)

    outbox = TimedOutbox()
    delays_s = {"op_late": 0.3, "op_soon": 0.1, "op_as_soon": 0.1, "op_next": 0.0}
    admission = Admission([SETTINGS.model_copy(update={"operator_id": name}) for name in delays_s])
    dispatcher = make_dispatcher(outbox, admission)
    async with running(dispatcher, *delays_s):
        await until("it has claimed when it started", lambda: len(outbox.claims) == 1)
        began_s = time.monotonic()
        for name, delay_s in delays_s.items():
            dispatcher.wake(delay_s, name)
        await until("a claim for each", lambda: outbox.claimed_at_s.keys() == delays_s.keys())
    for name, delay_s in delays_s.items():
        assert outbox.claimed_at_s[name] >= began_s + delay_s
    assert max(outbox.claimed_at_s, key=outbox.claimed_at_s.__getitem__) == "op_late"


@pytest.mark.usefixtures("rarely_from_the_beginning")
async def test_a_claim_starts_at_the_cursor_until_a_notification_says_it_is_behind() -> None:
    outbox = FakeOutbox([a_callback(Method.BALANCE)])
    dispatcher = make_dispatcher(outbox)
    async with running(dispatcher):
        await until("the first claim", lambda: len(outbox.claims) == 1)
        for is_behind, due_from in ((False, MOMENT - timedelta(seconds=1)), (True, None)):
            before = len(outbox.claims)
            dispatcher.on_work_notification(is_behind=is_behind)
            await until("the next claim", lambda count=before: len(outbox.claims) > count)  # type: ignore[misc]
            assert [request.due_from for request in outbox.claims[before]] == [due_from]


async def test_settlements_are_spaced_while_bets_flow_but_all_start_in_time() -> None:
    """This loop is slow: with one start per turn most of a large claim would never be sent."""
    admission, courier = Admission([SETTINGS]), FakeCourier()
    dispatcher = make_dispatcher(FakeOutbox([a_callback(Method.BET_WIN)] * SLOTS), admission, lane=Lane.SETTLEMENT)
    admission.reserve("op_abc123", Lane.INTERACTIVE, limit=8)
    admission.confirm("op_abc123", Lane.INTERACTIVE, reserved=8, claimed=1)

    async def slow_down_the_loop() -> None:
        while True:
            time.sleep(0.01)  # noqa: ASYNC251 - blocks the loop on purpose
            await asyncio.sleep(0)

    slow = asyncio.create_task(slow_down_the_loop())
    async with running(dispatcher, courier=courier):
        await until("all have started", lambda: len(courier.started_at_s) == SLOTS)
    slow.cancel()
    duration_s = courier.started_at_s[-1] - courier.started_at_s[0]
    assert 0.2 < duration_s < LEASE_MARGIN_S / 2


class UnavailableOutbox(FakeOutbox):
    """Every claim fails; if `is_silent`, it does not even answer."""

    is_silent = False

    @override
    async def claim(self, requests: Sequence[ClaimRequest], *, is_stopped: Callable[[], bool]) -> list[Callback]:
        await super().claim(requests, is_stopped=is_stopped)
        if self.is_silent:
            await asyncio.Event().wait()
        raise DatabaseUnavailable("test")


async def test_an_outage_counts_as_an_answer_and_silence_does_not() -> None:
    """The watchdog restarts a dispatcher without answers.

    During an outage a new process could do no better.
    """
    outbox = UnavailableOutbox()
    dispatcher = make_dispatcher(outbox)
    async with running(dispatcher):
        await until("an outage is an answer", lambda: dispatcher.answered_at_s is not None)
        assert dispatcher.claimed_at_s is None
        answered_at_s = dispatcher.answered_at_s
        outbox.is_silent = True
        claims = len(outbox.claims)
        dispatcher.wake()
        await until("it claims again", lambda: len(outbox.claims) > claims)
        assert dispatcher.answered_at_s == answered_at_s


class SlowOutbox(Outbox):
    """The real outbox; `claiming` is set once a claim waits for a connection."""

    claiming: asyncio.Event

    @override
    async def claim(
        self, requests: Sequence[ClaimRequest], *, is_stopped: Callable[[], bool] = lambda: False
    ) -> list[Callback]:
        self.claiming.set()
        return await super().claim(requests, is_stopped=is_stopped)


async def test_a_claim_that_waits_for_a_connection_when_the_daemon_stops_claims_nothing(
    harness: Harness, database: Database
) -> None:
    pool = Pool(database.dispatcher, pool_size=1, application_name="test")
    await pool.open()
    await harness.owner.execute("select pg_advisory_lock(1)")
    blocking = asyncio.create_task(pool.fetch("select pg_advisory_lock(1)", urgent=True))
    outbox = SlowOutbox(pool, instance="host-1")
    outbox.claiming = asyncio.Event()
    dispatcher = make_dispatcher(outbox)
    async with running(dispatcher), asyncio.timeout(20.0):
        await outbox.claiming.wait()
        dispatcher.stop()
        placement = await harness.place()
        await harness.owner.execute("select pg_advisory_unlock(1)")
        await blocking
        await until("the claim has ended", lambda: dispatcher.answered_at_s is not None)
    await pool.close()
    callback = await harness.callback(placement)
    assert (callback["state"], callback["attempts"]) == ("ready", 0)
