"""How far a lane has been read: nothing that is due is ever passed over for good."""

import uuid
from datetime import UTC, datetime, timedelta

from predictu_dispatch.core.callback import Callback, Effect
from predictu_dispatch.core.methods import Lane, Method
from predictu_dispatch.core.read_marks import ReadMarks
from tests.support.ledger import Ledger, claim, delivered

NOON = datetime(2026, 3, 19, 12, tzinfo=UTC)


def due(second: float, operator_id: str = "op_abc123") -> Callback:
    return Callback(
        operator_id=operator_id,
        request_id=uuid.uuid4(),
        method=Method.BALANCE,
        bet_id=None,
        lane=Lane.INTERACTIVE,
        attempt=1,
        budget_from=0,
        effect=Effect.NONE,
        reason=None,
        params="{}",
        created_at=NOON,
        due_at=NOON + timedelta(seconds=second),
        expires_in_s=None,
        leased_at=NOON,
        lease_s=10.0,
        amount_format="subunits",
        minor_digits=None,
        placement_ended_s_ago=None,
        leased_at_s=0.0,
    )


def test_a_claim_goes_on_a_second_before_the_last_that_came() -> None:
    marks = ReadMarks()
    assert marks.due_from("op_abc123") is None
    marks.read([due(5), due(9), due(7), due(60, "op_other")])
    assert marks.due_from("op_abc123") == NOON + timedelta(seconds=8)
    marks.read([due(2)])
    assert marks.due_from("op_abc123") == NOON + timedelta(seconds=8)
    assert marks.due_from("op_other") == NOON + timedelta(seconds=59)


def test_it_is_read_from_the_start_now_and_then_and_the_less_often_the_longer_it_takes() -> None:
    marks = ReadMarks()
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
    marks = ReadMarks()
    assert marks.begin(100.0)
    marks.ended(100.0, took_s=0.001)
    marks.look_back()
    assert marks.begin(100.1)
    marks.look_back()
    marks.ended(100.2, took_s=0.001)
    assert marks.begin(100.2)


async def test_a_claim_finds_nothing_before_its_mark_and_everything_without_one(ledger: Ledger) -> None:
    early, late = await ledger.place("b1"), await ledger.place("b2")
    mark = (await ledger.callback(late))["due_at"]
    assert [lease["request_id"] for lease in await claim(ledger.daemon, due_from=mark)] == [late]
    [lease] = await claim(ledger.daemon)
    assert lease["request_id"] == early
    await ledger.settle(delivered(lease))
