"""The daemon: puts core, flow and edge together, runs them, and stops them in order. It decides nothing itself.

Stopping: no claim any more; what is in flight gets `drain_s`, then it is interrupted; everything is settled;
connections close.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from typing import TYPE_CHECKING

import structlog

from predictu_dispatch.core.events import Event
from predictu_dispatch.core.fleet import InstanceTakenError
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.edge.config.loader import reload_config
from predictu_dispatch.edge.http.server import HttpServer, ListenError
from predictu_dispatch.edge.http.transport import Transport
from predictu_dispatch.edge.postgres.database import Database
from predictu_dispatch.edge.postgres.fleet_store import FleetStore
from predictu_dispatch.edge.postgres.listener import listen
from predictu_dispatch.edge.postgres.outbox import Outbox
from predictu_dispatch.edge.postgres.sql_files import read_queries
from predictu_dispatch.edge.systemd import ServiceManager
from predictu_dispatch.edge.telemetry.gauges import ProcessStats
from predictu_dispatch.edge.telemetry.observer import Telemetry
from predictu_dispatch.flow.admission import Admission
from predictu_dispatch.flow.courier import Courier
from predictu_dispatch.flow.courier_pool import CourierPool
from predictu_dispatch.flow.dispatcher import Dispatcher
from predictu_dispatch.flow.fleet import Fleet
from predictu_dispatch.flow.health import Health
from predictu_dispatch.flow.loops import run_chore
from predictu_dispatch.flow.monitor import Monitor
from predictu_dispatch.flow.reaper import Reaper
from predictu_dispatch.flow.recorder import Recorder

if TYPE_CHECKING:
    from predictu_dispatch.core.operator_settings import OperatorSettings
    from predictu_dispatch.edge.config.loader import Config
    from predictu_dispatch.edge.config.operator_file import OperatorConfig

_SNAPSHOT_EVERY_S = 5.0
_SNAPSHOT_EVERY_MAX_S = 20.0
_SNAPSHOT_LOAD = 0.02
"""The part of one of the database's cores that counting may take: a backlog of a million takes a second to count."""
_SETTLE_AFTER_DRAIN_S = 5.0
"""For what was interrupted at the end of drain_s; where the database is away, the leases run out and are reaped."""
_CLOSE_S = 5.0
"""Above what closing takes where nobody answers: the HTTP server a second, the listener one, the pool two."""
_RELOAD_AGAIN_S = 1.0
WORK_CHANNEL = "predictu_dispatch_due"
OPERATOR_CHANNEL = "predictu_dispatch_operator"

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
            process_stats=lambda: ProcessStats(
                in_flight=self._admission.in_flight,
                is_database_up=self._database.is_up,
                is_ready=self._health.unready() is None,
            )
        )
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._taken: InstanceTakenError | None = None
        self._unsynced = False
        self._manager = ServiceManager(os.environ)
        self._admission = Admission(self._settings())
        fleet_store = FleetStore(self._database, instance=self._instance)
        self._fleet = Fleet(fleet_store, self._admission, self._telemetry, wake=self._wake_all)
        self._monitor = Monitor(fleet_store, self._admission, self._telemetry, wake=self._wake_all)
        self._recorders = {
            Lane.INTERACTIVE: Recorder(self._outbox, self._telemetry, self._wake),
            Lane.SETTLEMENT: Recorder(
                self._outbox, self._telemetry, self._wake, gather_s=self._admission.settlement_gather_s
            ),
        }
        self._dispatchers = {
            lane: Dispatcher(
                lane,
                self._outbox,
                self._recorders[lane],
                self._telemetry,
                self._admission,
                observe=self._monitor.observe,
                poll_interval_s=settings.daemon.poll_interval_s,
            )
            for lane in Lane
        }
        self._health = Health(
            self._dispatchers.values(),
            self._admission,
            poll_interval_s=settings.daemon.poll_interval_s,
            database_is_up=lambda: self._database.is_up,
            is_draining=self._stop.is_set,
        )
        self._http = HttpServer(
            registry=self._telemetry.registry,
            refresh=self._telemetry.gauges.refresh,
            unready=self._health.unready,
            signing_keys=lambda: {name: one.published_keys for name, one in self._config.operators.items()},
        )
        self._couriers = CourierPool(self._courier, self._dispatchers)
        self._reaper = Reaper(
            self._outbox,
            self._recorders,
            self._telemetry,
            lambda: self._config.operators,
            instance=self._instance,
            wake=self._wake,
        )

    def _courier(self, operator: OperatorConfig, lane: Lane) -> Courier:
        connections = self._telemetry.connections.labels(operator.settings.operator_id)
        transport = Transport(operator.settings, operator.ssl_context, connecting=connections.inc)
        return Courier(operator, transport, lane=lane, instance=self._instance)

    def _settings(self) -> list[OperatorSettings]:
        return [operator.settings for operator in self._config.operators.values()]

    def _wake(self, lane: Lane, delay_s: float, operator_id: str) -> None:
        self._dispatchers[lane].wake(delay_s, operator_id)
        if lane is Lane.INTERACTIVE and self._admission.blocks_any_bets():
            # What was in flight when the circuit opened, and would be tried again, ends instead.
            self._reaper.wake()

    def _wake_all(self) -> None:
        for dispatcher in self._dispatchers.values():
            dispatcher.wake()
        # Where nothing may be sent, bets end instead.
        self._reaper.wake()

    def _on_notification(self, channel: str, payload: str) -> None:
        if channel == OPERATOR_CHANNEL:
            self._monitor.wake()
            return
        operator_id, _, behind = payload.partition(" ")
        self._dispatchers[Lane.INTERACTIVE].on_work_notification(is_behind=bool(behind))
        if self._admission.blocks_bets(operator_id):
            self._reaper.wake()
        elif self._admission.blocks_any_bets():
            # Whoever notified may have done so for others as well; see notify_due().
            self._reaper.wake_soon()

    async def run(self) -> None:
        """Runs until SIGTERM or SIGINT.

        Raises what opening the database raised, InstanceTakenError, ListenError, and any bug of ours.
        """
        loop = asyncio.get_running_loop()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        try:
            read_queries()
            await self._database.open()
            await self._fleet.join()
            await self._take(self._config)
            await self._outbox.prepare_partitions()
            listen_on = self._config.dispatcher.http
            try:
                address = await self._http.start(host=listen_on.host, port=listen_on.port)
            except ListenError:
                # Or the others would wait for its shares, and a person would read that a daemon vanished.
                await self._fleet.deregister()
                raise
            log.info(Event.DAEMON_STARTED, instance=self._instance, operators=len(self._config.operators), http=address)
            await self._work()
        finally:
            await self._http.stop()
            await self._couriers.close()
            await self._database.close()
        log.info(Event.DAEMON_STOPPED, instance=self._instance)

    async def _take(self, config: Config) -> int:
        """`config` is what is run by from now on; returns how many operators are new, changed or gone."""
        # The database first: where it is away, everything stays as it was.
        await self._sync(config)
        self._config = config
        self._admission.configure(self._settings())
        self._monitor.configure(self._settings())
        self._fleet.operators_changed()
        self._telemetry.operators_loaded(config.operators.values())
        return await self._couriers.serve(config.operators)

    async def _sync(self, config: Config) -> None:
        """Producers may enqueue for these operators; those whose rows somebody holds follow at the next snapshot."""
        self._unsynced = bool(
            await self._outbox.sync_operators(
                (operator.settings, operator.fingerprint) for operator in config.operators.values()
            )
        )

    async def _reload_when_asked(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            reloaded = await asyncio.to_thread(reload_config, self._config, os.environ)
            try:
                changed = await self._take(reloaded.config)
            except Exception as error:  # noqa: BLE001 - what runs goes on; the files are read again in a moment
                self._telemetry.chore_failed("reload", error)
                self._reload.set()
                await asyncio.sleep(_RELOAD_AGAIN_S)
            else:
                self._telemetry.config_reloaded(reloaded, changed=changed)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            channels = [WORK_CHANNEL, OPERATOR_CHANNEL]
            background = [
                *(tasks.create_task(one.run(), name=f"recorder {lane}") for lane, one in self._recorders.items()),
                tasks.create_task(self._reaper.run(), name="reaper"),
                tasks.create_task(self._heartbeat(), name="fleet"),
                tasks.create_task(self._monitor.run(), name="monitor"),
                tasks.create_task(listen(self._listen_dsn, channels, self._on_notification), name="listener"),
                tasks.create_task(self._take_snapshots(), name="snapshots"),
                tasks.create_task(self._reload_when_asked(), name="reload"),
                tasks.create_task(self._health.tell(self._manager), name="health"),
            ]
            dispatching = {
                tasks.create_task(dispatcher.run(), name=f"dispatcher {lane}")
                for lane, dispatcher in self._dispatchers.items()
            }
            await self._stop.wait()
            await self._drain(dispatching)
            for task in background:
                task.cancel()
        if self._taken is not None:
            raise self._taken

    async def _heartbeat(self) -> None:
        """Where another process has taken our name, what is under way is finished first."""
        try:
            await self._fleet.run()
        except InstanceTakenError as taken:
            self._taken = taken
            self._stop.set()

    async def _drain(self, dispatching: set[asyncio.Task[None]]) -> None:
        """What was in flight is settled, the rest back in the outbox; or left to the reaper if the database is away."""
        drain_s = self._config.dispatcher.daemon.drain_s
        log.info(Event.DRAIN_STARTED, in_flight=sum(self._admission.in_flight.values()), drain_s=drain_s)
        self._manager.stopping(within_s=drain_s + 2 * _SETTLE_AFTER_DRAIN_S + _CLOSE_S)
        self._admission.drain()
        self._fleet.operators_changed()
        for dispatcher in self._dispatchers.values():
            dispatcher.stop()
        await asyncio.wait(dispatching, timeout=drain_s)
        self._couriers.interrupt()
        _, unfinished = await asyncio.wait(dispatching, timeout=_SETTLE_AFTER_DRAIN_S)
        try:
            async with asyncio.timeout(0 if unfinished else _SETTLE_AFTER_DRAIN_S):
                for recorder in self._recorders.values():
                    await recorder.idle()
                await self._fleet.deregister()
        except TimeoutError:
            log.warning(Event.DRAIN_TIMED_OUT, in_flight=sum(self._admission.in_flight.values()))
            for task in unfinished:
                task.cancel()

    async def _take_snapshot(self) -> None:
        if self._unsynced:
            await self._sync(self._config)
        self._telemetry.gauges.backlog_read(await self._outbox.backlog(), await self._outbox.review_counts())

    async def _take_snapshots(self) -> None:
        while True:
            began_s = time.monotonic()
            await run_chore("take_snapshot", self._take_snapshot(), self._telemetry)
            took_s = time.monotonic() - began_s
            await asyncio.sleep(max(_SNAPSHOT_EVERY_S, min(took_s / _SNAPSHOT_LOAD, _SNAPSHOT_EVERY_MAX_S)))
