"""A simulation for Hypothesis: connections that all runs share, daemons that act step by step."""

import asyncio
import itertools
from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import Any, TypeVar

import asyncpg
import uvloop
from typing_extensions import override

from predictu_dispatch.core.callback import Callback
from predictu_dispatch.core.lifecycle import Attempt, CallbackChange
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.operator_settings import INTERACTIVE, SETTLEMENT, OperatorSettings, SigningSettings
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.edge.config.keys import new_private_pem
from predictu_dispatch.edge.postgres.database import Database as Pool
from predictu_dispatch.edge.postgres.outbox import Outbox
from predictu_dispatch.flow.courier import Courier
from predictu_dispatch.flow.reaper import Reaper
from predictu_dispatch.flow.recorder import Recorder
from tests.support.model import Configured, Network
from tests.support.postgres import Database
from tests.support.snapshot import AuditKey
from tests.support.stepped_clock import steady_clock

DAEMONS = ("host-1", "host-2")
T = TypeVar("T")


def sort_key(callback: Callback) -> tuple[str, datetime]:
    """Sorts rows that Postgres returns in any order, so that a run can be repeated."""
    return callback.bet_id or "", callback.created_at


class Simulation:
    """The connections that all runs share; each run has its own operator and sees no other rows."""

    def __init__(self, database: Database) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._names = itertools.count(1)
        # The audit of each run's operator as it was last observed.
        self.audits: dict[str, dict[AuditKey, str]] = {}
        self.key = SigningKey.from_pem(new_private_pem("EdDSA"), "EdDSA")
        self.owner = self.wait(asyncpg.connect(database.owner))
        self.producer = self.wait(asyncpg.connect(database.producer))
        self._pools = [Pool(database.dispatcher, pool_size=1, application_name=name) for name in DAEMONS]
        for pool in self._pools:
            self.wait(pool.open())
        self.outboxes = {name: Outbox(pool, instance=name) for name, pool in zip(DAEMONS, self._pools, strict=True)}

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def new_operator(self) -> OperatorSettings:
        """Retries are due at once, three attempts at most; deadlines leave time for two leases."""
        quick = {"max_attempts": 3, "initial_delay_s": 0.0, "max_delay_s": 0.0, "jitter": 0.0}
        return OperatorSettings(
            operator_id=f"op_{next(self._names)}",
            callback_url="https://wallet.example.com/predictu",
            signing=SigningSettings(key_file="unused"),
            interactive=INTERACTIVE.model_copy(update={**quick, "deadline_s": 40.0}),
            settlement=SETTLEMENT.model_copy(update={**quick, "deadline_s": 100.0}),
        )

    def close(self) -> None:
        for pool in self._pools:
            self.wait(pool.close())
        self.wait(self.owner.close())
        self.wait(self.producer.close())
        self._runner.close()


class HeldReports(Recorder):
    """Replaces the reaper's recorder: the run decides when, perhaps too late, to settle reports."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    @override
    def record(self, attempt: Attempt) -> asyncio.Future[None]:
        # Failed runs leave leases of other operators.
        if attempt.callback.operator_id == self._daemon.operator_id:
            self._daemon.reports.append(attempt)
        return asyncio.get_running_loop().create_future()

    @override
    def is_recording(self, callback: Callback) -> bool:
        # The reaper must not know the courier's reports, as if they were another daemon's.
        return any(
            (known.callback.request_id, known.callback.attempt) == (callback.request_id, callback.attempt)
            for known in self._daemon.reports
            if known.reaped
        )


class Daemon:
    """One daemon with its memory; a crash replaces it."""

    def __init__(self, outbox: Outbox, configured: Configured, network: Network, *, name: str) -> None:
        self.name = name
        self.operator_id = configured.settings.operator_id
        self.outbox = outbox
        self.leased: list[Callback] = []
        self.reports: list[Attempt] = []
        self.settled: list[Attempt] = []
        self.refused: list[Exception] = []
        self.courier = Courier(configured, network, lane=Lane.INTERACTIVE, instance=name)
        self.reaper = Reaper(
            outbox,
            dict.fromkeys(Lane, HeldReports(self)),
            self,
            lambda: {self.operator_id: configured},
            instance=name,
            wake=self.wake,
            clock=steady_clock(),
        )

    async def reap(self) -> None:
        """Adds the expired leases to the reports."""
        await self.reaper.reap_leases()
        self.reports.sort(key=lambda report: sort_key(report.callback))

    async def settle(self, reports: Sequence[Attempt]) -> None:
        """Settles all reports in one batch with the real recorder."""
        recorder = Recorder(Lane.INTERACTIVE, self.outbox, self, self.wake)
        running = asyncio.create_task(recorder.run())
        await asyncio.gather(*(recorder.record(report) for report in reports))
        running.cancel()
        await asyncio.wait([running])
        assert not self.refused, self.refused

    def wake(self, lane: Lane, delay_s: float, operator_id: str) -> None: ...

    def attempt_began(self, callback: Callback) -> None: ...

    def attempt_settled(self, attempt: Attempt, change: CallbackChange) -> None: ...

    def callback_changed(self, change: CallbackChange) -> None: ...

    def chore_failed(self, chore: str, error: Exception) -> None:  # noqa: ARG002 - the port's own signature
        self.refused.append(error)

    def chore_succeeded(self, chore: str) -> None: ...

    def report_refused(self, attempt: Attempt, error: Exception) -> None:  # noqa: ARG002 - the port's own signature
        self.refused.append(error)
