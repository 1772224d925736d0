"""The daemons on a screen: first their problems, then those that run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from predictu_dispatch.commands import advice
from predictu_dispatch.commands.output import Row, count, duration, styled, timestamp, wrapped
from predictu_dispatch.commands.texts import clock_text


def silent_daemon_lines(daemons: Sequence[Row], *, columns: int, daemons_max: int | None = None) -> Iterator[str]:
    """What comes first: that no daemon is running, and which ones stopped in the last day."""
    if not any(daemon["is_live"] for daemon in daemons):
        for line in wrapped(advice.NO_DAEMON, hanging="  ", columns=columns):
            yield styled(line, colour="red", bold=True)
        for line in wrapped(f"→ {advice.START_DAEMON}", indent="  ", hanging="    ", columns=columns):
            yield styled(line, colour="red")
    silent = [daemon for daemon in daemons if not daemon["is_live"]]
    for daemon in silent[:daemons_max]:
        ago = f"{duration(daemon['seen_s_ago'])} ago ({timestamp(daemon['seen_at'], timespec='seconds')})"
        text = f"daemon {daemon['instance']} on {daemon['host']}: last heartbeat {ago}"
        for line in wrapped(text, hanging="  ", columns=columns):
            yield styled(line, colour="red")
    if daemons_max is not None and len(silent) > daemons_max:
        yield styled(f"… and {count(len(silent) - daemons_max, 'more daemon')} without heartbeats", colour="red")


def daemon_lines(daemons: Sequence[Row], *, columns: int, daemons_max: int | None = None) -> Iterator[str]:
    """A line for each running daemon."""
    live = [daemon for daemon in daemons if daemon["is_live"]]
    if live:
        yield styled("daemons", bold=True)
    for daemon in live[:daemons_max]:
        seen = f"seen {duration(daemon['seen_s_ago'])} ago, version {daemon['version']}"
        text = f"{daemon['instance']} on {daemon['host']}, {seen}"
        yield from wrapped(text, indent="  ", hanging="    ", columns=columns)
        if clock := clock_text(daemon["clock_ahead_s"]):
            for line in wrapped(clock, indent="    ", columns=columns):
                yield styled(line, colour="red")
    if daemons_max is not None and len(live) > daemons_max:
        yield f"  … and {count(len(live) - daemons_max, 'more daemon')}"
