"""Gauges: ages, reloads, leases, pauses and keys have the values that alerts depend on."""

import os
import re
import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from aiohttp import web

from predictu_dispatch.edge.config.keys import create_key_file
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment
from tests.support.harness import OPERATOR

HOUR_S = 3600.0
SLACK_S = 120.0
LATER = {"initial_delay_s": 200.0, "max_delay_s": 300.0}
"""No retry while a test runs."""


def shows(daemon: Daemon, name: str, value: float, *labels: str) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        return await daemon.metric(name, *labels) == value

    return is_so


async def age(environment: Environment, bet_id: str, column: str, age_s: float) -> None:
    """Moves a time of the bet's terminal callback into the past."""
    await environment.harness.owner.execute("alter table predictu_dispatch.callback disable trigger user")
    done = await environment.harness.owner.execute(
        f"update predictu_dispatch.callback set {column} = now() - $2::interval"  # noqa: S608 - a name of this file
        " where bet_id = $1 and method <> 'BET_MAKE'",
        *(bet_id, timedelta(seconds=age_s)),
    )
    assert done == "UPDATE 1"
    await environment.harness.owner.execute("alter table predictu_dispatch.callback enable trigger user")


async def test_ages_are_those_of_the_oldest_since_enqueueing(environment: Environment) -> None:
    """Two unconfirmed rollbacks, a credit of unknown effect and a rejected one."""
    environment.fleet.write_operator(environment.operator.url, interactive=LATER, settlement=LATER)
    daemon = await environment.fleet.start("host-1")
    for name in ("unknown_effect_oldest_seconds", "rollback_oldest_seconds", "needs_review_oldest_seconds"):
        await until(f"{name} is there and 0", shows(daemon, name, 0.0, OPERATOR))
    for bet_id in ("b-1", "b-2", "b-3", "b-4"):
        await environment.adopt(bet_id)
    environment.operator.refuse("PLAYER_NOT_FOUND")
    await environment.harness.end("BET_SELL", "b-4")
    await environment.until_all_final()
    environment.operator.refuse(None)
    environment.operator.answer = lambda _: web.Response(status=500)
    await environment.harness.rollback("b-1")
    await environment.harness.rollback("b-2")
    await environment.harness.end("BET_WIN", "b-3")
    await until("three wait for a retry", lambda: len(daemon.lines("callback.retried")) == 3)
    await age(environment, "b-1", "created_at", 2 * HOUR_S)
    await age(environment, "b-2", "created_at", HOUR_S)
    await age(environment, "b-3", "created_at", 3 * HOUR_S)
    await age(environment, "b-4", "review_since", 4 * HOUR_S)

    async def all_ages_show() -> bool:
        ages = [
            await daemon.metric(f"{name}_oldest_seconds", OPERATOR)
            for name in ("rollback", "unknown_effect", "needs_review")
        ]
        assert None not in ages
        return all((one or 0) >= 2 * HOUR_S for one in ages)

    await until("the ages show", all_ages_show)
    figures = await daemon.metrics()
    assert figures["rollback_oldest_seconds"][OPERATOR,] == pytest.approx(2 * HOUR_S, abs=SLACK_S)
    assert figures["unknown_effect_oldest_seconds"][OPERATOR,] == pytest.approx(3 * HOUR_S, abs=SLACK_S)
    assert figures["needs_review_oldest_seconds"][OPERATOR,] == pytest.approx(4 * HOUR_S, abs=SLACK_S)
    assert figures["rollbacks_unconfirmed"][OPERATOR,] == 2
    assert figures["unknown_effect"][OPERATOR,] == 3
    assert figures["needs_review"][OPERATOR,] == 1


async def test_a_redirect_counts_as_misconfigured_and_the_counter_starts_at_0(environment: Environment) -> None:
    environment.fleet.write_operator(environment.operator.url, interactive=LATER, settlement=LATER)
    daemon = await environment.fleet.start("host-1")
    assert await daemon.metric("misconfigured_total", OPERATOR) == 0
    answers = iter([web.Response(status=302, headers={"Location": "/login"}), web.Response(status=500)])
    environment.operator.answer = lambda _: next(answers)
    for bet_id in ("b-1", "b-2"):
        await environment.adopt(bet_id)
        await environment.harness.end("BET_WIN", bet_id)
    await daemon.until_logged("callback.retried", times=2)
    assert await daemon.metric("misconfigured_total", OPERATOR) == 1


async def test_failed_attempts_are_counted_by_reason_and_rejections_are_not(environment: Environment) -> None:
    environment.fleet.write_operator(environment.operator.url, interactive=LATER, settlement=LATER)
    daemon = await environment.fleet.start("host-1")
    answers = [
        (web.Response(status=502), "http_502"),
        (web.Response(status=599), "http_5xx"),
        (web.Response(text="<html>"), "not_json"),
        (web.json_response({"status": "PLAYER_BLOCKED"}), "unknown_status"),
        (web.json_response({"status": "PLAYER_NOT_FOUND"}), None),
    ]
    to_send = iter([answer for answer, _ in answers])
    environment.operator.answer = lambda _: next(to_send)
    for number, _ in enumerate(answers):
        await environment.adopt(f"b-{number}")
        await environment.harness.end("BET_WIN", f"b-{number}")
    await daemon.until_logged("callback.retried", times=3)
    await daemon.until_logged("callback.rejected", times=2)
    figures = await daemon.metrics()
    assert figures["attempts_failed_total"] == {(OPERATOR, reason): 1 for _, reason in answers if reason}
    assert "confirmed_amount_subunits_total" not in figures


async def test_a_disabled_operator_has_no_circuit_and_no_health_but_its_money_is_counted(
    environment: Environment,
) -> None:
    """Although its circuit was open when it was disabled."""
    environment.fleet.write_operator(environment.operator.url, circuit={"failure_threshold": 1}, settlement=LATER)
    daemon = await environment.fleet.start("host-1")
    environment.operator.answer = lambda _: web.Response(status=500)
    await environment.adopt("b-1")
    await environment.harness.end("BET_WIN", "b-1")
    await until("its circuit is open", shows(daemon, "circuit_open", 1, OPERATOR))
    assert await daemon.metric("operator_up", OPERATOR) == 0
    assert await daemon.metric("operator_enabled", OPERATOR) == 1

    environment.fleet.write_operator(environment.operator.url, enabled=False, settlement=LATER)
    os.kill(daemon.process.pid, signal.SIGHUP)
    await until("it is disabled", shows(daemon, "operator_enabled", 0, OPERATOR))
    await until("its unknown effect is counted", shows(daemon, "unknown_effect", 1, OPERATOR))
    figures = await daemon.metrics()
    assert {"circuit_open", "operator_up"} & figures.keys() == set()
    assert figures["paused"] == {(OPERATOR,): 0}
    assert {"needs_review", "unknown_effect_oldest_seconds", "rollback_oldest_seconds", "backlog"} <= figures.keys()


async def test_attempts_of_a_killed_daemon_are_counted_by_the_daemon_that_reaps_them(environment: Environment) -> None:
    first = await environment.fleet.start("host-1")
    environment.operator.hold()
    await environment.harness.place()
    await environment.until_in_flight(1)
    first.kill()
    second = await environment.fleet.start("host-2")
    assert await second.metric("leases_reaped_total") == 0
    await environment.expire_leases("host-1")
    await until("the attempt is settled as interrupted", shows(second, "leases_reaped_total", 1))
    assert await second.metric("leases_lost_total") == 0


async def test_a_bad_reload_shows_until_a_good_one(environment: Environment) -> None:
    daemon = await environment.fleet.start("host-1")
    assert await daemon.metric("config_last_reload_successful") == 1
    file = environment.fleet.folder / "operators" / f"{OPERATOR}.toml"
    good = file.read_text(encoding="utf-8")
    for content, successful, failures in ((good + "\nnonsense = 1\n", 0, 1), (good, 1, 1)):
        file.write_text(content, encoding="utf-8")
        os.kill(daemon.process.pid, signal.SIGHUP)
        await until(f"the reload is {successful}", shows(daemon, "config_last_reload_successful", successful))
        assert await daemon.metric("config_reload_failures_total") == failures


async def test_a_pause_shows_and_a_draining_daemon_is_not_ready(environment: Environment) -> None:
    daemon = await environment.fleet.start("host-1")
    await until("it is not paused", shows(daemon, "paused", 0, OPERATOR))
    assert await daemon.metric("ready") == 1
    environment.operator.hold()
    await environment.harness.place()
    await environment.until_in_flight(1)
    await environment.harness.owner.fetch(
        "select predictu_dispatch.pause_operator($1, 'maintenance', 'a test')", OPERATOR
    )
    await until("it is paused", shows(daemon, "paused", 1, OPERATOR))
    daemon.terminate()
    await until("it is not ready any more", shows(daemon, "ready", 0))
    environment.operator.release()
    assert await daemon.exited() == 0


async def test_memory_and_descriptors_are_exposed(environment: Environment) -> None:
    daemon = await environment.fleet.start("host-1")
    figures = await daemon.metrics()
    assert figures["process_resident_memory_bytes"][()] > 10_000_000
    assert 0 < figures["process_open_fds"][()] < figures["process_max_fds"][()]


async def test_a_renewed_key_shows_at_the_next_reload(environment: Environment) -> None:
    daemon = await environment.fleet.start("host-1")
    key = environment.fleet.folder / "key.pem"
    made = await daemon.metric("signing_key_created_timestamp_seconds", OPERATOR)
    assert made == pytest.approx(key.stat().st_mtime, abs=1)
    assert "certificate_expires_timestamp_seconds" not in await daemon.metrics()
    create_key_file(key.with_name("other.pem"), "EdDSA")
    os.utime(key.with_name("other.pem"), (1_700_000_000, 1_700_000_000))
    file = environment.fleet.folder / "operators" / f"{OPERATOR}.toml"
    file.write_text(re.sub(r"key\.pem", "other.pem", file.read_text(encoding="utf-8")), encoding="utf-8")
    os.kill(daemon.process.pid, signal.SIGHUP)
    await until("it shows", shows(daemon, "signing_key_created_timestamp_seconds", 1_700_000_000, OPERATOR))
