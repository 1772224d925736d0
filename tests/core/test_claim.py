"""Where a claim starts to read: no due callback is skipped forever."""

from datetime import UTC, datetime, timedelta

from predictu_dispatch.core.callback import Callback
from predictu_dispatch.core.claim import ClaimCursor
from predictu_dispatch.core.methods import Method
from tests.core.test_callback_body import a_callback
from tests.support.harness import Harness, claim, delivered

NOON = datetime(2026, 3, 19, 12, tzinfo=UTC)


def due(second: float, operator_id: str = "op_abc123") -> Callback:
    return a_callback(Method.BALANCE, operator_id=operator_id, due_at=NOON + timedelta(seconds=second))


def test_a_claim_starts_one_second_before_the_last_due_time_that_was_read() -> None:
    cursor = ClaimCursor()
    assert cursor.due_from("op_abc123") is None
    cursor.advance([due(5), due(9), due(7), due(60, "op_other")])
    assert cursor.due_from("op_abc123") == NOON + timedelta(seconds=8)
    cursor.advance([due(2)])
    assert cursor.due_from("op_abc123") == NOON + timedelta(seconds=8)
    assert cursor.due_from("op_other") == NOON + timedelta(seconds=59)


def test_claims_from_the_beginning_become_rarer_the_longer_they_take() -> None:
    cursor = ClaimCursor()
    assert cursor.begin_full_read(100.0)
    # One at a time: claims that begin meanwhile start at the cursor.
    assert not cursor.begin_full_read(100.5)
    cursor.end_full_read(101.0, duration_s=0.001)
    assert not cursor.begin_full_read(101.9)
    assert cursor.begin_full_read(102.0)
    cursor.end_full_read(102.0, duration_s=0.1)
    assert not cursor.begin_full_read(106.9)
    assert cursor.begin_full_read(107.0)
    cursor.end_full_read(107.0, duration_s=60.0)
    assert not cursor.begin_full_read(116.9)
    assert cursor.begin_full_read(117.0)


def test_a_restart_makes_the_next_claim_read_from_the_beginning_also_during_a_claim() -> None:
    cursor = ClaimCursor()
    assert cursor.begin_full_read(100.0)
    cursor.end_full_read(100.0, duration_s=0.001)
    cursor.restart()
    assert cursor.begin_full_read(100.1)
    cursor.restart()
    cursor.end_full_read(100.2, duration_s=0.001)
    assert cursor.begin_full_read(100.2)


async def test_a_claim_finds_nothing_due_before_its_start_and_everything_without_one(harness: Harness) -> None:
    early, late = await harness.place("b1"), await harness.place("b2")
    due_from = (await harness.callback(late))["due_at"]
    assert [lease["request_id"] for lease in await claim(harness.daemon, due_from=due_from)] == [late]
    [lease] = await claim(harness.daemon)
    assert lease["request_id"] == early
    await harness.settle(delivered(lease))
