"""The daemon: constructs core, flow and edge, runs them and stops them in order.

Stopping: claim nothing more; after `drain_s` interrupt the attempts in flight; settle; close.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import structlog

from predictu_dispatch.audit_logs import AuditLogs
from predictu_dispatch.core.clock import DatabaseClock
from predictu_dispatch.core.events import Event
from predictu_dispatch.core.fleet import InstanceTakenError
from predictu_dispatch.core.lifecycle import Attempt
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.edge.config.loader import Config, reload_config, take_back
from predictu_dispatch.edge.config.operator_file import OperatorConfig
from predictu_dispatch.edge.config.retirement import reload_without_retired, without_retired
from predictu_dispatch.edge.http.server import HttpServer, ListenError
from predictu_dispatch.edge.http.transport import Transport
from predictu_dispatch.edge.postgres.connections import listen
from predictu_dispatch.edge.postgres.database import Database
from predictu_dispatch.edge.postgres.fleet_store import FleetStore
from predictu_dispatch.edge.postgres.outbox import Outbox
from predictu_dispatch.edge.postgres.sql_files import read_queries
from predictu_dispatch.edge.systemd import ServiceManager
from predictu_dispatch.edge.telemetry.families import ProcessStats
from predictu_dispatch.edge.telemetry.log import lines_lost
from predictu_dispatch.edge.telemetry.observer import Telemetry
from predictu_dispatch.flow.admission import Admission
from predictu_dispatch.flow.clock_watch import ClockWatch
from predictu_dispatch.flow.courier import Courier, CourierPool, NewCouriers
from predictu_dispatch.flow.dispatcher import Dispatcher
from predictu_dispatch.flow.fleet import Fleet
from predictu_dispatch.flow.health import Health
from predictu_dispatch.flow.isolation import IsolatingOutbox
from predictu_dispatch.flow.loops import keep_running
from predictu_dispatch.flow.maintenance import Maintenance
from predictu_dispatch.flow.monitor import Monitor
from predictu_dispatch.flow.reachability import Reachability
from predictu_dispatch.flow.reaper import Reaper
from predictu_dispatch.flow.recorder import Recorder
from predictu_dispatch.flow.wakeups import OPERATOR_CHANNEL, WORK_CHANNEL, Wakeups

_SETTLE_AFTER_DRAIN_S = 5.0
"""For attempts interrupted after drain_s; in an outage the leases expire and are reaped."""
_CLOSE_S = 5.0
"""More than closing takes if nothing answers: HTTP server 1 s, listener 1 s, pool 2 s."""
_RELOAD_RETRY_S = 1.0

log = structlog.get_logger()


class Daemon:
    """One running daemon."""

    def __init__(self, config: Config) -> None:
        self._config = config
        settings = config.dispatcher
        self._instance = settings.daemon.instance
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._taken: InstanceTakenError | None = None
        self._service_manager = ServiceManager(os.environ)
        dsn = settings.database.dsn.get_secret_value()
        self._listen_dsn = settings.database.listen_dsn.get_secret_value() or dsn
        self._database = Database(
            dsn,
            pool_size=settings.database.pool_size,
            application_name=f"predictu-dispatch {self._instance}"[:63],
            # listen_dsn names a direct connection if dsn leads through a pooling proxy.
            through_pooler=self._listen_dsn != dsn,
        )
        store = Outbox(self._database, instance=self._instance)
        fleet_store = FleetStore(self._database, instance=self._instance)
        self._telemetry = Telemetry(process_stats=self._process_stats)
        self._outbox = IsolatingOutbox(store, self._telemetry)
        self._admission = Admission(self._settings())
        self._wakeups = Wakeups(self._admission)
        self._clock = DatabaseClock()
        self._fleet = Fleet(
            fleet_store,
            self._admission,
            self._telemetry,
            wake=self._wakeups.limits_changed,
            clock=self._clock,
            signing_keys=self._signing_keys,
        )
        self._monitor = Monitor(
            fleet_store,
            self._admission,
            self._telemetry,
            wake=self._wakeups.limits_changed,
            check_connection=self._check_connection,
        )
        self._maintenance = Maintenance(store, self._telemetry)
        self._recorders = {lane: self._recorder(lane) for lane in Lane}
        self._dispatchers = {lane: self._dispatcher(lane) for lane in Lane}
        self._couriers = CourierPool(self._courier, self._dispatchers)
        self._reaper = Reaper(
            self._outbox,
            self._recorders,
            self._telemetry,
            lambda: self._config.operators,
            instance=self._instance,
            wake=self._wakeups.callback_due,
            clock=self._clock,
        )
        self._clock_watch = ClockWatch(
            self._outbox,
            self._clock,
            self._telemetry,
            lambda: self._config.operators,
            stepped=self._on_clock_step,
            wake=self._wakeups.limits_changed,
        )
        self._reachability = Reachability(
            fleet_store, self._admission, self._telemetry, connect=self._couriers.connect, changed=self._reach_changed
        )
        self._audit_logs = AuditLogs(lambda: self._config, self._database, self._telemetry, instance=self._instance)
        self._wakeups.connect(self._dispatchers, self._reaper, self._monitor)
        self._health = Health(
            self._dispatchers.values(),
            self._recorders.values(),
            self._admission,
            poll_interval_s=settings.daemon.poll_interval_s,
            database_outage=lambda: self._database.outage,
            database_blocked=self._database.lock_watch.blocked,
            heartbeat_failure=self._fleet.failure,
            is_draining=self._stop.is_set,
        )
        self._http = HttpServer(
            registry=self._telemetry.registry,
            refresh=self._telemetry.gauges.refresh,
            unready=self._health.unready,
            signing_keys=lambda: {name: one.published_keys for name, one in self._config.operators.items()},
            checkpoints=self._audit_logs.checkpoints,
        )

    def _recorder(self, lane: Lane) -> Recorder:
        gather_s = self._admission.settlement_gather_s if lane is Lane.SETTLEMENT else None
        return Recorder(lane, self._outbox, self._telemetry, self._wakeups.callback_due, gather_s=gather_s)

    def _dispatcher(self, lane: Lane) -> Dispatcher:
        return Dispatcher(
            lane,
            self._outbox,
            self._recorders[lane],
            self._telemetry,
            self._admission,
            attempt_ended=self._attempt_ended,
            poll_interval_s=self._config.dispatcher.daemon.poll_interval_s,
        )

    def _attempt_ended(self, attempt: Attempt) -> None:
        self._reachability.observe(attempt)
        self._monitor.observe(attempt)

    def _check_connection(self, operator_id: str) -> None:
        self._reachability.check(operator_id)

    def _reach_changed(self) -> None:
        """This daemon returns or takes a share, or an operator's circuit may open."""
        self._fleet.operators_changed()
        self._monitor.wake()
        self._wakeups.limits_changed()

    def _courier(self, operator: OperatorConfig, lane: Lane) -> Courier:
        connections = self._telemetry.connections.labels(operator.settings.operator_id)
        transport = Transport(operator.settings, operator.ssl_context, connecting=connections.inc)
        return Courier(operator, transport, lane=lane, instance=self._instance, clock=self._clock)

    def _settings(self) -> list[OperatorSettings]:
        return [operator.settings for operator in self._config.operators.values()]

    def _signing_keys(self) -> dict[str, str]:
        """The key_id that signs, by operator."""
        return {name: key.kid for name, key in _active_keys(self._config).items()}

    def _process_stats(self) -> ProcessStats:
        return ProcessStats(
            in_flight=self._admission.in_flight,
            is_database_up=self._database.is_up,
            database_blocked_s=self._database.lock_watch.blocked_s(),
            is_ready=self._health.unready() is None,
            heartbeat_age_s=self._fleet.age_s(),
            log_lines_lost=lines_lost(),
            set_aside=self._outbox.set_aside(),
            unsettled_oldest_s={lane: one.unsettled.oldest_s() for lane, one in self._recorders.items()},
            unsettled_failing={lane: one.unsettled.failing for lane, one in self._recorders.items()},
        )

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT.

        Raises SchemaError and what connecting raises, InstanceTakenError, ListenError, and bugs.
        """
        loop = asyncio.get_running_loop()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        try:
            read_queries()
            await self._database.open()
            # The first tokens need it.
            await self._clock_watch.read()
            retired = await self._maintenance.retired_operators(self._config.operators)
            self._config, faults = without_retired(self._config, retired)
            self._telemetry.files_refused(faults)
            self._admission.configure(self._settings())
            await self._fleet.join()
            await self._apply(self._config, self._couriers.prepare(self._config.operators))
            await self._maintenance.prepare_partitions()
            http = self._config.dispatcher.http
            try:
                [address, *keys_address] = await self._http.start(http.address, http.keys_address)
            except ListenError:
                # Without this the other daemons would wait for its shares to lapse.
                await self._fleet.deregister()
                raise
            log.info(
                Event.DAEMON_STARTED,
                instance=self._instance,
                operators=len(self._config.operators),
                http=address,
                **({"keys_http": keys_address[0]} if keys_address else {}),
            )
            await self._work()
        finally:
            self._http.stop()
            await self._couriers.close()
            await self._audit_logs.close()
            await self._database.close()
        log.info(Event.DAEMON_STOPPED, instance=self._instance)

    async def _apply(self, config: Config, new: NewCouriers[OperatorConfig]) -> int | None:
        """Run by `config` from now on; return how many operators are new, changed or removed.

        If it raises, or returns None because this daemon is stopping, everything is as it was: what
        may fail and what takes time comes first, and the switch is one turn of the event loop.
        """
        is_served = False
        try:
            for error in new.failed.values():
                raise error
            await self._maintenance.sync_operators(
                [(one.settings, one.fingerprint) for one in config.operators.values()]
            )
            await self._maintenance.register_signing_keys(_active_keys(config))
            if self._stop.is_set():
                return None
            changed, is_served = self._couriers.serve(new), True
        finally:
            if not is_served:
                await new.close()
        self._config = config
        self._admission.configure(self._settings())
        self._monitor.configure(self._settings())
        self._reachability.configure(self._settings())
        self._fleet.operators_changed()
        self._telemetry.operators_loaded(config.operators.values())
        return changed

    async def _reload_on_request(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            try:
                reloaded = await asyncio.to_thread(reload_config, self._config, os.environ)
                retired = await self._maintenance.retired_operators(reloaded.config.operators)
                reloaded = reload_without_retired(reloaded, retired)
                new = self._couriers.prepare(reloaded.config.operators)
                while new.failed:
                    await new.close()
                    reloaded = take_back(reloaded, self._config, new.failed)
                    new = self._couriers.prepare(reloaded.config.operators)
                changed = await self._apply(reloaded.config, new)
            except Exception as error:  # noqa: BLE001 - the running settings stay, and the files are read again soon
                self._telemetry.chore_failed("reload", error)
                self._reload.set()
                await asyncio.sleep(_RELOAD_RETRY_S)
            else:
                if changed is None:
                    log.warning(Event.CONFIG_RELOAD_IGNORED, reason="this daemon is stopping")
                else:
                    self._telemetry.config_reloaded(reloaded, changed=changed)

    async def _work(self) -> None:
        channels = [WORK_CHANNEL, OPERATOR_CHANNEL]
        async with asyncio.TaskGroup() as tasks:
            loops: dict[str, Callable[[], Awaitable[None]]] = {
                **{f"recorder {lane}": one.run for lane, one in self._recorders.items()},
                "lock watch": self._database.lock_watch.run,
                "reaper": self._reaper.run,
                "clock": self._clock_watch.run,
                "fleet": self._heartbeat,
                "monitor": self._monitor.run,
                "reachability": self._reachability.run,
                "listener": lambda: listen(self._listen_dsn, channels, self._wakeups.on_notification),
                "maintenance": self._maintenance.run,
                "reload": self._reload_on_request,
                "health": lambda: self._health.report(self._service_manager),
                **self._audit_logs.loops,
            }
            background = [
                tasks.create_task(keep_running(name, loop, self._telemetry), name=name) for name, loop in loops.items()
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

    def _on_clock_step(self) -> None:
        for dispatcher in self._dispatchers.values():
            dispatcher.on_clock_step()
        self._maintenance.prepare_partitions_soon()

    async def _heartbeat(self) -> None:
        """Send heartbeats; if another process took this daemon's name, drain and then stop."""
        try:
            await self._fleet.run()
        except InstanceTakenError as taken:
            self._taken = taken
            self._stop.set()

    async def _drain(self, dispatching: set[asyncio.Task[None]]) -> None:
        """Settle what is in flight. In an outage, leave it to the reaper of another daemon."""
        drain_s = self._config.dispatcher.daemon.drain_s
        log.info(Event.DRAIN_STARTED, in_flight=sum(self._admission.in_flight.values()), drain_s=drain_s)
        self._service_manager.stopping(within_s=drain_s + 2 * _SETTLE_AFTER_DRAIN_S + _CLOSE_S)
        self._admission.drain()
        self._fleet.operators_changed()
        for dispatcher in self._dispatchers.values():
            dispatcher.stop()
        for recorder in self._recorders.values():
            recorder.hurry()
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
            for recorder in self._recorders.values():
                recorder.unsettled.log_as_lost()
            for task in unfinished:
                task.cancel()


def _active_keys(config: Config) -> dict[str, SigningKey]:
    """The key that signs, by operator."""
    return {name: one.signing_key for name, one in config.operators.items() if one.settings.enabled}
