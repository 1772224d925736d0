"""Retry-After: an operator's lane waits in the whole fleet, up to max_delay_s."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime

import pytest
from aiohttp import web

from tests.support.circuits import (
    OWN_TURN_S,
    enqueue_balance,
    operator_row,
    print_figures,
    until_final,
    until_heartbeats_sent,
    until_operator_is,
)
from tests.support.daemons import until
from tests.support.environment import OTHER, Environment, another_operator
from tests.support.operators import Request
from tests.support.postgres_proxy import Trick, proxied

TELL = "predictu_dispatch.write_circuits("
"""The monitor's write, as the proxy recognizes it."""


def asking_once_for(environment: Environment, code: int, retry_after: Callable[[], str]) -> list[str]:
    """Answer the first BALANCE with Retry-After and everything else normally.

    Returns that answer.
    """
    retry_afters: list[str] = []

    def answer(request: Request) -> web.Response | None:
        if retry_afters or request.method != "BALANCE":
            return None
        retry_afters.append(retry_after())
        return web.Response(status=code, headers={"Retry-After": retry_afters[0]})

    environment.operator.answer = answer
    return retry_afters


def in_three_seconds() -> str:
    """An HTTP date two to three seconds from now; it has whole seconds only."""
    return format_datetime(datetime.now(UTC) + timedelta(seconds=3), usegmt=True)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("form", ["seconds", "date", "for a day"])
async def test_retry_after_holds_for_the_whole_lane(environment: Environment, code: int, form: str) -> None:
    """One slot, so that the next BALANCE could follow immediately; the cap is max_delay_s."""
    max_delay_s = 1.5 if form == "for a day" else 60.0
    environment.fleet.write_operator(
        environment.operator.url, interactive={"max_in_flight": 1, "max_delay_s": max_delay_s}
    )
    async with another_operator(environment) as other:
        await environment.fleet.start("host-1")
        retry_afters = asking_once_for(
            environment, code, {"seconds": lambda: "1", "date": in_three_seconds, "for a day": lambda: "86400"}[form]
        )
        await environment.adopt("b-won")
        asked = [await enqueue_balance(environment) for _ in range(4)]
        await until("the operator asks for time", lambda: bool(retry_afters))
        # Neither the other lane nor another operator is affected.
        win = await environment.harness.end("BET_WIN", "b-won")
        elsewhere = await enqueue_balance(environment, OTHER)
        await until_final(environment, win, elsewhere)
        await until_final(environment, *asked)

    first, *later = [request.arrived_at_s for request in environment.operator.requests if request.method == "BALANCE"]
    over_at_s = {
        "seconds": first + 1.0,
        "date": parsedate_to_datetime(retry_afters[0]).timestamp() if form == "date" else 0.0,
        "for a day": first + 1.5,
    }[form]
    print_figures(
        f"the backoff ended after {over_at_s - first:.3f} s; later ones: {[round(s - first, 3) for s in later]}"
    )
    assert len(later) == len(asked)
    # A date is compared with the host's clock; the backoff uses the database's clock.
    assert min(later) >= over_at_s - 0.01
    assert min(later) < over_at_s + OWN_TURN_S + 0.5
    assert environment.operator.sent(win)[0].arrived_at_s < over_at_s
    assert other.sent(elsewhere)[0].arrived_at_s < over_at_s


async def test_retry_after_holds_even_if_it_cannot_be_written_to_the_database(environment: Environment) -> None:
    """The daemon that received it applies it before the slot is free again."""
    environment.fleet.write_operator(environment.operator.url, interactive={"max_in_flight": 1, "max_delay_s": 60.0})
    async with proxied(environment.fleet.dsn) as proxy:
        await environment.fleet.start("host-1", database={"dsn": proxy.dsn()})
        await until_final(environment, await enqueue_balance(environment))
        await until_operator_is(environment, health="healthy")
        asking_once_for(environment, 429, lambda: "1")
        proxy.on_next(TELL, Trick.LOSE_REQUEST)
        await until_final(environment, *[await enqueue_balance(environment) for _ in range(4)])
        assert (await operator_row(environment))["interactive_backoff_until"] is None
    _, first, *later = [request.arrived_at_s for request in environment.operator.requests]
    assert min(later) >= first + 1.0


async def test_retry_after_holds_for_the_whole_fleet(environment: Environment) -> None:
    environment.fleet.write_operator(environment.operator.url, interactive={"max_in_flight": 2, "max_delay_s": 60.0})
    for instance in ("host-1", "host-2"):
        await environment.fleet.start(instance)
    await until_heartbeats_sent(environment, 2)
    retry_afters = asking_once_for(environment, 429, lambda: "2")
    asked = [await enqueue_balance(environment) for _ in range(40)]
    await until("the operator asks for time", lambda: bool(retry_afters))
    await until_final(environment, *asked)
    first, *later = [request.arrived_at_s for request in environment.operator.requests]
    soon = [arrival for arrival in later if arrival < first + 2.0]
    print_figures(f"after the answer still came {len(soon)}: {[round((s - first) * 1000) for s in soon]} ms")
    # The other daemon learns of it by a notification, and sends what it has already claimed.
    assert max(soon, default=first) < first + OWN_TURN_S
    rows = await environment.harness.owner.fetch("select distinct instance from predictu_dispatch.attempt")
    assert {found["instance"] for found in rows} == {"host-1", "host-2"}
