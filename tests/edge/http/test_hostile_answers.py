"""Bad answers on real sockets: the verdict of each, and a daemon that receives all of them.

The corpus is in tests/hostile. Each entry has the expected result.
"""

import asyncio
import ssl
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.verdict import Statuses, Verdict, judge
from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.http.transport import _printable
from tests.core.test_callback_body import a_callback
from tests.core.test_verdict import assert_storable
from tests.edge.http.test_tls import ca_file, server_tls
from tests.hostile.bodies import CAP
from tests.hostile.corpus import CORPUS, WELL, EntryScript, first_then_well
from tests.hostile.entry import Entry, Expected, assert_can_be_stored
from tests.hostile.outcome import HOSTILE, SPOILT, assert_broken_tls_has_its_results, assert_every_entry_has_its_result
from tests.hostile.scripts import AFTER_TURNS, AFTERTHOUGHTS, GREETED, GREETINGS
from tests.hostile.tls import HANDSHAKES, TLS_ENTRIES, UNSENT, TlsEntry, over_tls
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment, open_environment
from tests.support.harness import enqueue, placement_params, terminal_params
from tests.support.postgres import Database
from tests.support.raw_server import TIMEOUT_S, Peer, RawServer, Script, post, transport_to

NOW = datetime(2026, 3, 19, 14, 30, tzinfo=UTC)
BUILT_IN = Statuses.of()
ENDLESS_TIMEOUT_S = 0.5
"""The timeout of attempts with an endless answer."""


def end_of(exchange: Exchange, method: Method) -> Expected:
    """The result of the attempt."""
    judgement = judge(a_callback(method), exchange, BUILT_IN, now=NOW)
    assert_storable(judgement)
    return Expected(
        evidence=exchange.evidence, reason=judgement.reason, verdict=judgement.verdict, effect=judgement.effect
    )


async def exchanges_with(script: Script, *, timeout_s: float, **tables: Any) -> tuple[Exchange, Exchange, RawServer]:
    """Two exchanges on one transport; the first request gets the bad answer."""
    async with RawServer(script).running() as server, transport_to(server.url, **tables) as transport:
        async with asyncio.timeout(2 * TIMEOUT_S):
            first = await post(transport, timeout_s=timeout_s)
            for _ in range(3 * AFTER_TURNS):
                # Each turn polls the sockets, so that unsolicited data arrives.
                await asyncio.sleep(0)
            second = await post(transport, timeout_s=timeout_s)
        return first, second, server


ONE_BY_ONE = CORPUS | {entry.name: entry for entry in AFTERTHOUGHTS}


@pytest.mark.parametrize("name", ONE_BY_ONE)
async def test_a_bad_answer_has_its_verdict_and_does_not_affect_the_next(name: str) -> None:
    entry = ONE_BY_ONE[name]
    timeout_s = ENDLESS_TIMEOUT_S if entry.ends_by_timeout else TIMEOUT_S
    first, second, server = await exchanges_with(first_then_well(entry), timeout_s=timeout_s)
    for method in Method:
        assert end_of(first, method) in entry.expected_for(method), f"{method}: {first}"
        assert_balance(entry, method, first)
    assert_can_be_stored(first, bytes_max=CAP)
    assert first.total_ms < timeout_s * 1000 + 5000
    if first.evidence is Evidence.ANSWERED and entry.body is not None:
        assert first.body == entry.body
    # Never the rest of the first answer.
    assert second.body == WELL if second.evidence is Evidence.ANSWERED else not second.body
    # An endless answer is not read to its end.
    assert server.bytes_sent < 30_000_000
    # No redirect is followed, no request is sent twice.
    arrived = {Evidence.ANSWERED: {2}, Evidence.UNANSWERED: {1, 2}, Evidence.NOT_SENT: {1}}
    assert len(server.requests) in arrived[second.evidence]
    assert all(request.startswith(b"POST /predictu HTTP/1.1\r\n") for request in server.requests)


def assert_balance(entry: Entry, method: Method, exchange: Exchange) -> None:
    """Checks the balance of a delivery, and the anomaly if the balance is invalid."""
    judgement = judge(a_callback(method), exchange, BUILT_IN, now=NOW)
    if judgement.verdict is not Verdict.DELIVERED or judgement.reason is not None:
        return
    assert judgement.balance == entry.balance
    if entry.anomaly is None or (entry.anomaly == "balance is missing" and method is Method.PING):
        assert judgement.anomaly is None
    else:
        assert entry.anomaly in (judgement.anomaly or "")


@pytest.mark.parametrize("name", GREETINGS)
async def test_data_sent_before_the_request_affects_nothing(name: str) -> None:
    async def sends_first(peer: Peer) -> None:
        await peer.send(GREETINGS[name])
        await peer.read_until_closed()

    first, second, server = await exchanges_with(sends_first, timeout_s=ENDLESS_TIMEOUT_S)
    assert end_of(first, Method.BET_MAKE) in GREETED, first
    assert_can_be_stored(first, bytes_max=CAP)
    if {first.evidence, second.evidence} == {Evidence.NOT_SENT}:
        assert server.unexpected_bytes == b""


@pytest.mark.parametrize("error", ["a\0b", "\ud800\0", "\U0001f600"])
def test_the_stored_texts_of_errors_are_valid_in_postgres(error: str) -> None:
    text = _printable(error)
    assert "\0" not in text
    text.encode()


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("entry", TLS_ENTRIES, ids=[entry.name for entry in TLS_ENTRIES])
async def test_truncated_or_corrupt_tls_is_never_an_answer(
    authority: trustme.CA, tmp_path: Path, entry: TlsEntry, version: ssl.TLSVersion
) -> None:
    context = server_tls(authority)
    context.maximum_version = version
    async with (
        RawServer(over_tls(context, entry.play)).running() as server,
        transport_to(server.url.replace("http:", "https:"), tls={"ca_file": ca_file(authority, tmp_path)}) as transport,
    ):
        exchange = await post(transport)
    assert end_of(exchange, Method.BET_MAKE) in entry.expected, exchange
    assert_can_be_stored(exchange, bytes_max=CAP)
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", HANDSHAKES)
async def test_nothing_is_sent_after_an_invalid_handshake(name: str) -> None:
    async def answers_the_hello(peer: Peer) -> None:
        await peer.reader.read(65_536)
        await peer.send(HANDSHAKES[name])

    async with (
        RawServer(answers_the_hello).running() as server,
        transport_to(server.url.replace("http:", "https:")) as transport,
    ):
        exchange = await post(transport)
    assert end_of(exchange, Method.BET_MAKE) in UNSENT, exchange
    assert server.requests == []
    assert_can_be_stored(exchange, bytes_max=CAP)


# A daemon that receives all

GROWTH_MAX_KB = 60 * 1024
"""The limit of the daemon's growth, with endless answers and 120 requests in flight."""
WARM_UP = 40
LANE = {"attempt_timeout_s": 2.0, "connect_timeout_s": 1.0, "max_attempts": 3}
FINAL = "('delivered', 'rejected', 'exhausted', 'cancelled')"


def memory_max_kb(daemon: Daemon) -> int:
    """The daemon's peak memory."""
    status = Path(f"/proc/{daemon.process.pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0])


def broken_tls(context: ssl.SSLContext) -> Script:
    """Each connection gets the next TLS fault."""

    async def script(peer: Peer) -> None:
        turn = peer.server.connections % (len(TLS_ENTRIES) + len(HANDSHAKES))
        if turn < len(TLS_ENTRIES):
            await over_tls(context, TLS_ENTRIES[turn].play)(peer)
        else:
            await peer.reader.read(65_536)
            await peer.send(list(HANDSHAKES.values())[turn - len(TLS_ENTRIES)])

    return script


async def enqueue_everything(environment: Environment, *, broken_tls_count: int) -> None:
    """One BET_MAKE and one BET_WIN per entry, and BALANCEs for the operator with broken TLS."""
    producer = environment.harness.producer
    for name in CORPUS:
        await enqueue(producer, "BET_MAKE", placement_params(f"make:{name}"), operator_id=HOSTILE)
        bet = {"bet_id": f"win:{name}", "player_id": "p1", "currency": "EUR", "amount": 500}
        await producer.execute(
            "select predictu_dispatch.adopt_bet($1, $2, 'p1', 'EUR', 500, gen_random_uuid())", HOSTILE, bet["bet_id"]
        )
        await enqueue(producer, "BET_WIN", terminal_params("BET_WIN", bet), operator_id=HOSTILE)
    for _ in range(broken_tls_count):
        await enqueue(producer, "BALANCE", {"player_id": "p1", "currency": "EUR"}, operator_id=SPOILT)


async def warm_up(environment: Environment) -> None:
    """Exchanges with both operators, so that later growth is not that of the first use."""
    for n in range(WARM_UP):
        await environment.harness.place(f"warm-{n}")
        await enqueue(environment.harness.producer, "BET_MAKE", placement_params(f"warm-{n}"), operator_id=HOSTILE)
    await environment.until_all_final()


async def test_a_daemon_with_hostile_operators_delivers_to_others(
    tmp_path: Path, database: Database, authority: trustme.CA
) -> None:
    script = EntryScript()
    async with (
        RawServer(script).running() as hostile,
        RawServer(broken_tls(server_tls(authority))).running() as spoilt,
        open_environment(tmp_path, database) as environment,
    ):
        for operator_id, url in ((HOSTILE, hostile.url), (SPOILT, spoilt.url.replace("http:", "https:"))):
            create_key_file(tmp_path / f"{operator_id}.pem", "EdDSA")
            environment.fleet.write_operator(
                url,
                operator_id=operator_id,
                signing={"key_file": f"../{operator_id}.pem"},
                interactive=LANE,
                settlement=LANE,
                tls={"ca_file": ca_file(authority, tmp_path / "authority")} if operator_id == SPOILT else {},
            )
        daemon = await environment.fleet.start("host-1")
        await warm_up(environment)
        warm_kb = memory_max_kb(daemon)

        await enqueue_everything(environment, broken_tls_count=40)
        delivered_meanwhile = await deliver_until_all_is_final(environment)

        grown_kb = memory_max_kb(daemon) - warm_kb
        assert await daemon.is_ready()
        assert delivered_meanwhile >= 10
        # A token may be old when it is read, because all three operators share one process.
        assert [fault for fault in environment.operator.faults if not fault.startswith("token of ")] == []
        assert grown_kb < GROWTH_MAX_KB, f"{warm_kb} kB when warm, {grown_kb} kB more now"
        assert script.played.keys() == CORPUS.keys()
        assert await environment.audit_faults() == []
        await assert_every_entry_has_its_result(environment)
        await assert_broken_tls_has_its_results(environment)
        # The log is valid and has no token, not even the beginning of one.
        assert len(daemon.lines()) > len(CORPUS)
        assert daemon.lines("report.refused") == daemon.lines("chore.failed") == []
        log = daemon.log_text
        assert "[token withheld]" in log
        assert not [token for token in script.tokens if token.split(".")[1][:40] in log]


async def deliver_until_all_is_final(environment: Environment) -> int:
    """Delivers bets to the other operator until all hostile ones are final; returns how many."""
    delivered, started_s = 0, time.monotonic()
    while await environment.harness.owner.fetchval(
        f"select exists (select from predictu_dispatch.callback where state not in {FINAL})"  # noqa: S608
    ):
        placement = await environment.harness.place(f"good-{delivered}")

        async def is_delivered(placement: object = placement) -> bool:
            return await environment.harness.owner.fetchval(  # type: ignore[no-any-return]
                "select state = 'delivered' from predictu_dispatch.callback where request_id = $1", placement
            )

        await until("the good operator's bet is delivered", is_delivered, within_s=20.0)
        delivered += 1
        assert time.monotonic() - started_s < 120, "the hostile operator's callbacks did not become final"
    return delivered
