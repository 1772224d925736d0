"""How far a lane has been read: nothing that is due is ever passed over for good."""

from datetime import UTC, datetime, timedelta

from predictu_dispatch.core.callback import Callback
from predictu_dispatch.core.claim_cursor import ClaimCursor
from predictu_dispatch.core.methods import Method
from tests.core.test_callback_body import a_callback
from tests.support.harness import Harness, claim, delivered

NOON = datetime(2026, 3, 19, 12, tzinfo=UTC)


def due(second: float, operator_id: str = "op_abc123") -> Callback:
    return a_callback(Method.BALANCE, operator_id=operator_id, due_at=NOON + timedelta(seconds=second))


def test_a_claim_goes_on_a_second_before_the_last_that_came() -> None:
    marks = ClaimCursor()
    assert marks.due_from("op_abc123") is None
    marks.read([due(5), due(9), due(7), due(60, "op_other")])
    assert marks.due_from("op_abc123") == NOON + timedelta(seconds=8)
    marks.read([due(2)])
    assert marks.due_from("op_abc123") == NOON + timedelta(seconds=8)
    assert marks.due_from("op_other") == NOON + timedelta(seconds=59)


def test_it_is_read_from_the_start_now_and_then_and_the_less_often_the_longer_it_takes() -> None:
    marks = ClaimCursor()
    assert marks.begin(100.0)
    # One at a time: what comes meanwhile goes on from the marks.
    assert not marks.begin(100.5)
    marks.ended(101.0, took_s=0.001)
    assert not marks.begin(101.9)
    assert marks.begin(102.0)
    marks.ended(102.0, took_s=0.1)
    assert not marks.begin(106.9)
    assert marks.begin(107.0)
    marks.ended(107.0, took_s=60.0)
    assert not marks.begin(116.9)
    assert marks.begin(117.0)


def test_whoever_is_told_of_something_behind_looks_back_at_once_also_while_it_is_reading() -> None:
    marks = ClaimCursor()
    assert marks.begin(100.0)
    marks.ended(100.0, took_s=0.001)
    marks.look_back()
    assert marks.begin(100.1)
    marks.look_back()
    marks.ended(100.2, took_s=0.001)
    assert marks.begin(100.2)


async def test_a_claim_finds_nothing_before_its_mark_and_everything_without_one(harness: Harness) -> None:
    early, late = await harness.place("b1"), await harness.place("b2")
    mark = (await harness.callback(late))["due_at"]
    assert [lease["request_id"] for lease in await claim(harness.daemon, due_from=mark)] == [late]
    [lease] = await claim(harness.daemon)
    assert lease["request_id"] == early
    await harness.settle(delivered(lease))
