"""The figures on which alerts stand are true: ages, faults of configuration, leases, pauses, certificates, keys."""

import os
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.config.loader import load_config
from predictu_dispatch.edge.config.operator_file import first_expiry
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment, open_environment
from tests.support.harness import OPERATOR
from tests.support.postgres import Database

HOUR_S = 3600.0
SLACK_S = 120.0
LATER = {"initial_delay_s": 200.0, "max_delay_s": 300.0}
"""What fails is not tried again while a test runs."""


@pytest.fixture
async def environment(tmp_path: Path, database: Database) -> AsyncIterator[Environment]:
    async with open_environment(tmp_path, database) as environment:
        yield environment


def shows(daemon: Daemon, name: str, value: float, *labels: str) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        return await daemon.metric(name, *labels) == value

    return is_so


async def age(environment: Environment, bet_id: str, column: str, age_s: float) -> None:
    """The terminal of the bet is so old in this respect."""
    await environment.harness.owner.execute("alter table predictu_dispatch.callback disable trigger user")
    done = await environment.harness.owner.execute(
        f"update predictu_dispatch.callback set {column} = now() - $2::interval"  # noqa: S608 - a name of this file
        " where bet_id = $1 and method <> 'BET_MAKE'",
        *(bet_id, timedelta(seconds=age_s)),
    )
    assert done == "UPDATE 1"
    await environment.harness.owner.execute("alter table predictu_dispatch.callback enable trigger user")


async def test_ages_count_from_enqueueing_and_are_those_of_the_oldest(environment: Environment) -> None:
    """Two rollbacks nobody confirms, a credit of unknown fate, a refused one: each with an age of its own."""
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
    await until("three are to be tried again", lambda: len(daemon.lines("callback.retried")) == 3)
    await age(environment, "b-1", "created_at", 2 * HOUR_S)
    await age(environment, "b-2", "created_at", HOUR_S)
    await age(environment, "b-3", "created_at", 3 * HOUR_S)
    await age(environment, "b-4", "review_since", 4 * HOUR_S)

    async def all_ages_are_seen() -> bool:
        ages = [
            await daemon.metric(f"{name}_oldest_seconds", OPERATOR)
            for name in ("rollback", "unknown_effect", "needs_review")
        ]
        assert None not in ages
        return all((one or 0) >= 2 * HOUR_S for one in ages)

    await until("the ages are seen", all_ages_are_seen)
    figures = await daemon.metrics()
    assert figures["rollback_oldest_seconds"][OPERATOR,] == pytest.approx(2 * HOUR_S, abs=SLACK_S)
    assert figures["unknown_effect_oldest_seconds"][OPERATOR,] == pytest.approx(3 * HOUR_S, abs=SLACK_S)
    assert figures["needs_review_oldest_seconds"][OPERATOR,] == pytest.approx(4 * HOUR_S, abs=SLACK_S)
    assert figures["rollbacks_unconfirmed"][OPERATOR,] == 2
    assert figures["unknown_effect"][OPERATOR,] == 3
    assert figures["needs_review"][OPERATOR,] == 1


async def test_an_answer_that_says_that_the_address_is_wrong_is_counted_from_nought_on(
    environment: Environment,
) -> None:
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


async def test_what_a_vanished_daemon_left_is_counted_by_who_settles_it(environment: Environment) -> None:
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


async def test_a_pause_is_seen_and_a_draining_daemon_is_not_ready(environment: Environment) -> None:
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


async def test_a_daemon_says_what_it_costs_its_host(environment: Environment) -> None:
    daemon = await environment.fleet.start("host-1")
    figures = await daemon.metrics()
    assert figures["process_resident_memory_bytes"][()] > 10_000_000
    assert 0 < figures["process_open_fds"][()] < figures["process_max_fds"][()]


def issued(authority: trustme.CA, in_days: float) -> bytes:
    until_then = datetime.now(UTC) + timedelta(days=in_days)
    return authority.issue_cert("dispatch.example.com", not_after=until_then).cert_chain_pems[0].bytes()


def test_of_several_certificates_the_first_to_end_counts() -> None:
    authority = trustme.CA()
    chain = issued(authority, 30) + issued(authority, 10) + issued(authority, 20)
    assert first_expiry(chain) == pytest.approx(time.time() + 10 * 86_400, abs=SLACK_S)


@pytest.mark.parametrize(
    "pem", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_has_no_end(pem: bytes) -> None:
    assert first_expiry(pem) is None


def configured(folder: Path, *, tls: str = "") -> Path:
    """A configuration of one operator; its key lies beside its file."""
    (folder / "operators").mkdir()
    (folder / "dispatcher.toml").write_text("")
    (folder / "operators" / "op_a.toml").write_text(
        f'operator_id = "op_a"\ncallback_url = "https://h/"\n[signing]\nkey_file = "op_a.pem"\n{tls}'
    )
    return folder / "dispatcher.toml"


def test_the_configuration_knows_when_its_first_expiry_and_its_key_was_made(tmp_path: Path) -> None:
    path = configured(
        tmp_path, tls="[tls]\nca_file = 'ca.pem'\nclient_cert_file = 'client.pem'\nclient_key_file = 'client.key'\n"
    )
    operators = path.parent / "operators"
    create_key_file(operators / "op_a.pem", "EdDSA")
    os.utime(operators / "op_a.pem", (1_700_000_000, 1_700_000_000))
    authority = trustme.CA()
    ours = authority.issue_cert("dispatch.example.com", not_after=datetime.now(UTC) + timedelta(days=40))
    authority.cert_pem.write_to_path(operators / "ca.pem")
    ours.private_key_pem.write_to_path(operators / "client.key")
    ours.cert_chain_pems[0].write_to_path(operators / "client.pem")
    operator = load_config(path, {}).operators["op_a"]
    assert operator.key_made_at == 1_700_000_000
    assert operator.certificate_ends == {
        "ca": first_expiry(authority.cert_pem.bytes()),
        "client": pytest.approx(time.time() + 40 * 86_400, abs=SLACK_S),
    }


def test_a_key_that_systemd_hands_over_has_no_age_because_its_file_is_always_new(tmp_path: Path) -> None:
    path = configured(tmp_path)
    create_key_file(tmp_path / "credentials" / "op_a.pem", "EdDSA")
    operator = load_config(path, {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}).operators["op_a"]
    assert operator.key_made_at is None


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
    await until("it is seen", shows(daemon, "signing_key_created_timestamp_seconds", 1_700_000_000, OPERATOR))
