"""Settles that take longer than a statement may: everything is settled, and the daemon says so."""

from tests.flow.test_recorder_failures import break_audit, mend_audit
from tests.support.daemons import until
from tests.support.environment import Environment

COUNT = 40
ROW_S = 0.4
"""A batch of all takes 16 s; a statement of the daemon may take 10 s."""


async def test_a_batch_that_takes_longer_than_the_timeout_blocks_no_lane(environment: Environment) -> None:
    daemon = await environment.fleet.start("host-1")
    environment.operator.hold()
    placements = [await environment.harness.place(f"b-{n}") for n in range(COUNT)]
    await environment.until_in_flight(COUNT)
    await break_audit(environment.harness, f"perform pg_sleep({ROW_S})")
    environment.operator.release()

    async def it_says_why() -> bool:
        status, text = await daemon.get("/readyz")
        return status == 503 and text.startswith("an answer of the interactive lane has not been settled for ")

    await until("readyz names the age of the oldest answer", it_says_why)
    assert (await daemon.metric("unsettled_oldest_seconds", "interactive") or 0) > 10
    await environment.until_all_final(within_s=55.0)
    await mend_audit(environment.harness)
    await until("the daemon is ready again", daemon.is_ready)
    assert daemon.process.poll() is None
    for placement in placements:
        assert await environment.audit(placement) == [(1, "delivered", "answered", None, "host-1")]
    assert len(environment.operator.requests) == COUNT
    assert environment.operator.faults == await environment.audit_faults() == []
