"""The daemon: puts core, flow and edge together, runs them, and stops them in order. It decides nothing itself.

Stopping: no claim any more; what is in flight gets `drain_s`, then it is interrupted; everything is settled;
connections close.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import structlog

from predictu_dispatch.core.methods import Lane
from predictu_dispatch.edge.database import Database, is_outage, listen
from predictu_dispatch.edge.http_server import HttpServer
from predictu_dispatch.edge.outbox import Outbox
from predictu_dispatch.edge.telemetry import Telemetry
from predictu_dispatch.edge.transport import Transport
from predictu_dispatch.flow.courier import Courier
from predictu_dispatch.flow.dispatcher import Dispatcher
from predictu_dispatch.flow.reaper import Reaper
from predictu_dispatch.flow.recorder import Recorder

if TYPE_CHECKING:
    from predictu_dispatch.edge.config import Config

_SNAPSHOT_EVERY_S = 5.0
_CLAIM_AGE_MAX_S = 30.0
"""A daemon that has not claimed for so long, although it polls, is not ready, whatever the reason."""
_SETTLE_AFTER_DRAIN_S = 5.0
"""For what was interrupted at the end of drain_s; where the database is away, the leases run out and are reaped."""
WORK_CHANNEL = "predictu_dispatch_due"

log = structlog.get_logger()


class Daemon:
    """One running daemon."""

    def __init__(self, config: Config) -> None:
        self._config = config
        settings = config.dispatcher
        self._instance = settings.daemon.instance
        self._dsn = settings.database.dsn.get_secret_value()
        self._listen_dsn = settings.database.listen_dsn.get_secret_value() or self._dsn
        self._database = Database(
            self._dsn,
            pool_size=settings.database.pool_size,
            application_name=f"predictu-dispatch {self._instance}"[:63],
            # A direct connection for listening is named where the other one goes through a pooling proxy.
            through_pooler=self._listen_dsn != self._dsn,
        )
        self._outbox = Outbox(self._database, instance=self._instance)
        self._telemetry = Telemetry(
            in_flight=lambda: self._dispatcher.in_flight, database_up=lambda: self._database.is_up
        )
        self._transports: list[Transport] = []
        self._stop = asyncio.Event()
        self._http = HttpServer(
            registry=self._telemetry.registry,
            unready=self._unready,
            signing_keys=lambda: {name: operator.signing_key for name, operator in config.operators.items()},
        )
        self._recorder = Recorder(self._outbox, self._telemetry, self._wake)
        self._dispatcher = Dispatcher(
            self._outbox,
            self._recorder,
            self._telemetry,
            self._couriers(),
            poll_interval_s=settings.daemon.poll_interval_s,
            is_outage=is_outage,
        )
        self._reaper = Reaper(
            self._outbox,
            self._recorder,
            self._telemetry,
            config.operators,
            instance=self._instance,
            wake=self._dispatcher.wake,
            is_outage=is_outage,
        )

    def _wake(self, delay_s: float) -> None:
        self._dispatcher.wake(delay_s)

    def _couriers(self) -> list[Courier]:
        couriers = []
        for operator in self._config.operators.values():
            for lane in Lane:
                transport = Transport(operator.settings, operator.ssl_context)
                self._transports.append(transport)
                couriers.append(Courier(operator, transport, lane=lane, instance=self._instance))
        return couriers

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT. Raises what opening the database raised, and any bug of ours."""
        loop = asyncio.get_running_loop()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, self._stop.set)
        try:
            await self._database.open()
            await self._outbox.sync_operators(
                (operator.settings, operator.fingerprint) for operator in self._config.operators.values()
            )
            await self._outbox.prepare_partitions()
            listen_on = self._config.dispatcher.http
            address = await self._http.start(host=listen_on.host, port=listen_on.port)
            log.info("daemon.started", instance=self._instance, operators=len(self._config.operators), http=address)
            await self._work()
        finally:
            await self._http.stop()
            for transport in self._transports:
                await transport.close()
            await self._database.close()
        log.info("daemon.stopped", instance=self._instance)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._recorder.run(), name="recorder"),
                tasks.create_task(self._reaper.run(), name="reaper"),
                tasks.create_task(listen(self._listen_dsn, [WORK_CHANNEL], self._dispatcher.wake), name="listener"),
                tasks.create_task(self._take_snapshots(), name="snapshots"),
            ]
            dispatching = tasks.create_task(self._dispatcher.run(), name="dispatcher")
            await self._stop.wait()
            await self._drain(dispatching)
            for task in background:
                task.cancel()

    async def _drain(self, dispatching: asyncio.Task[None]) -> None:
        """What was in flight is settled, the rest back in the outbox; or left to the reaper if the database is away."""
        drain_s = self._config.dispatcher.daemon.drain_s
        log.info("daemon.draining", in_flight=sum(self._dispatcher.in_flight.values()), drain_s=drain_s)
        self._dispatcher.stop()
        await asyncio.wait([dispatching], timeout=drain_s)
        for transport in self._transports:
            transport.interrupt()
        await asyncio.wait([dispatching], timeout=_SETTLE_AFTER_DRAIN_S)
        try:
            async with asyncio.timeout(_SETTLE_AFTER_DRAIN_S if dispatching.done() else 0):
                await self._recorder.idle()
        except TimeoutError:
            log.warning("drain.unfinished", in_flight=sum(self._dispatcher.in_flight.values()))
            dispatching.cancel()

    async def _take_snapshots(self) -> None:
        while True:
            try:
                self._telemetry.snapshot.take(await self._outbox.backlog(), await self._outbox.review_counts())
            except Exception as error:  # noqa: BLE001 - figures that cannot be read are absent; callbacks go on
                if not is_outage(error):
                    self._telemetry.chore_failed("take_snapshot", error)
            await asyncio.sleep(_SNAPSHOT_EVERY_S)

    def _unready(self) -> str | None:
        if not self._database.is_up:
            return "the database cannot be reached"
        if self._stop.is_set():
            return "draining"
        claimed_at_s = self._dispatcher.claimed_at_s
        if claimed_at_s is None:
            return None if not self._config.operators else "nothing was claimed yet"
        age_s = asyncio.get_running_loop().time() - claimed_at_s
        return f"the last claim was {age_s:.0f} s ago" if age_s > _CLAIM_AGE_MAX_S else None
