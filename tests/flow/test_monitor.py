"""What the monitor writes after an outage, with a fake database."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast
from uuid import uuid4

import pytest

from predictu_dispatch.core.breaker import Breaker
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.database import DatabaseUnavailable
from predictu_dispatch.core.fleet import CircuitWrite, OperatorState
from predictu_dispatch.core.lifecycle import Attempt, CallbackState, Outcome
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.verdict import Statuses, Verdict, judge
from predictu_dispatch.flow.admission import Admission
from predictu_dispatch.flow.monitor import Monitor
from tests.core.test_callback_body import a_callback

NOW = datetime(2026, 3, 19, 12, tzinfo=UTC)
SETTINGS = [
    OperatorSettings.model_validate(
        {
            "operator_id": operator_id,
            "callback_url": "https://wallet.example.com",
            "signing": {"key_file": "key.pem"},
            "health": {"ping_interval_s": 0.0},
        }
    )
    for operator_id in ("op_paused", "op_working")
]


class FakeFleetStore:
    def __init__(self) -> None:
        self.is_available = True
        self.is_paused = True
        self.writes: dict[str, CircuitWrite] = {}

    async def operator_states(self, _: Sequence[str]) -> list[OperatorState]:
        return [
            OperatorState(
                operator_id=one.operator_id,
                revision=1,
                breaker=Breaker(),
                circuit_age_s=None,
                ping_request_id=None,
                is_paused=self.is_paused and one.operator_id == "op_paused",
                interactive_backoff_s=0.0,
                settlement_backoff_s=0.0,
            )
            for one in SETTINGS
        ]

    async def write_circuits(self, writes: Sequence[CircuitWrite]) -> set[str]:
        if not self.is_available:
            raise DatabaseUnavailable("test")
        self.writes |= {write.operator_id: write for write in writes}
        return {write.operator_id for write in writes}


class SilentObserver:
    def operators_read(self, _: Sequence[OperatorState]) -> None: ...
    def chore_succeeded(self, chore: str) -> None: ...


def failed_attempt(operator_id: str) -> Attempt:
    callback = a_callback(Method.BALANCE, operator_id=operator_id)
    exchange = Exchange(evidence=Evidence.UNANSWERED, reason="timeout", total_ms=5000.0)
    judgement = judge(callback, exchange, Statuses.of(), now=NOW)
    return Attempt(
        callback=callback,
        instance="host-1",
        finished_at=NOW,
        exchange=exchange,
        judgement=judgement,
        outcome=Outcome(Verdict.RETRY, CallbackState.READY, "timeout", callback.effect, 1.0),
        report_id=uuid4(),
    )


async def test_attempts_of_a_paused_operator_count_once_although_a_poll_failed() -> None:
    store = FakeFleetStore()
    monitor = Monitor(
        cast("Any", store),
        Admission(SETTINGS),
        cast("Any", SilentObserver()),
        check_connection=lambda _: None,
        wake=lambda: None,
    )
    monitor.configure(SETTINGS)
    for settings in SETTINGS:
        monitor.observe(failed_attempt(settings.operator_id))
    store.is_available = False
    observed, monitor._pending = monitor._pending, {}
    with pytest.raises(DatabaseUnavailable):
        await monitor._poll(observed)
    monitor._keep(observed)
    store.is_available, store.is_paused = True, False
    observed, monitor._pending = monitor._pending, {}
    await monitor._poll(observed)
    assert {name: write.breaker.consecutive_failures for name, write in store.writes.items()} == {
        "op_paused": 1,
        "op_working": 1,
    }
