"""The names of all log events, as noun.verb_past. Dashboards and searches depend on them."""

from __future__ import annotations

from enum import StrEnum


class Event(StrEnum):
    """Every value of the log line's key `event`."""

    CALLBACK_DELIVERED = "callback.delivered"
    CALLBACK_REJECTED = "callback.rejected"
    CALLBACK_RETRIED = "callback.retried"
    CALLBACK_EXHAUSTED = "callback.exhausted"
    CALLBACK_RELEASED = "callback.released"
    CALLBACK_CANCELLED = "callback.cancelled"
    CALLBACK_SET_ASIDE = "callback.set_aside"
    ROLLBACK_ENQUEUED = "rollback.enqueued"
    LEASE_LOST = "lease.lost"
    REPORT_REFUSED = "report.refused"
    CHANGE_UNREADABLE = "change.unreadable"
    CIRCUIT_OPENED = "circuit.opened"
    CIRCUIT_CLOSED = "circuit.closed"
    CONFIG_REFUSED = "config.refused"
    CONFIG_RELOADED = "config.reloaded"
    CONFIG_RELOAD_IGNORED = "config.reload_ignored"
    DAEMON_STARTED = "daemon.started"
    DAEMON_STOPPED = "daemon.stopped"
    DRAIN_STARTED = "drain.started"
    DRAIN_TIMED_OUT = "drain.timed_out"
    DATABASE_LOST = "database.lost"
    DATABASE_RECOVERED = "database.recovered"
    LISTENER_LOST = "listener.lost"
    LISTENER_FLOODED = "listener.flooded"
    INSTANCE_TAKEN = "instance.taken"
    CLOCK_STEPPED = "clock.stepped"
    TIMES_CORRECTED = "times.corrected"
    HEARTBEAT_FAILED = "heartbeat.failed"
    HEARTBEAT_RECOVERED = "heartbeat.recovered"
    CHORE_FAILED = "chore.failed"
    CHORE_RECOVERED = "chore.recovered"
    WATCHDOG_WITHHELD = "watchdog.withheld"
    LOG_LINES_LOST = "log.lines_lost"
    LIBRARY_LOGGED = "library.logged"
