"""Each checkpoint is cosigned by its witnesses; one that refuses, fails or hangs is named."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from predictu_dispatch.core.merkle.checkpoint import open_checkpoint
from predictu_dispatch.core.merkle.note import Algorithm, VerifierKey
from predictu_dispatch.core.witness import Witness
from predictu_dispatch.edge.tls import client_context
from tests.reference_operator.client import Operator, running
from tests.support.foreign_verifier import checkpoint as claim
from tests.support.foreign_verifier import foreign_verifier
from tests.support.harness import OPERATOR, Harness, connected
from tests.support.postgres import Database, Server, cloned_database
from tests.support.raw_server import RawServer, answering
from tests.support.sealing import TestSealer, open_sealer
from tests.support.witnesses import LOG_VKEY, grow, open_witnesses

LOG_KEY = VerifierKey.parse(LOG_VKEY)
STATE = (
    "select size, cosigned_at is not null as has_cosigned, is_refused, failure, failures"
    " from predictu_dispatch.audit_witness where operator_id = $1 and witness = $2"
)
LATER = "update predictu_dispatch.audit_witness set failed_at = failed_at - interval '1 hour'"


def witness_of(operator: Operator, name: str = "one") -> Witness:
    return Witness(name=name, key=VerifierKey.parse(operator.witness_vkey), url=operator.url.removesuffix("/predictu"))


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    async with running(tmp_path, "--log-vkey", LOG_VKEY) as operator:
        yield operator


@pytest.fixture
async def sealer(database: Database, harness: Harness) -> AsyncIterator[TestSealer]:
    # Only one operator, so that the reference operator knows all logs.
    await harness.owner.execute("alter table predictu_dispatch.operator disable trigger user")
    await harness.owner.execute("delete from predictu_dispatch.operator where operator_id <> $1", OPERATOR)
    async with open_sealer(database.dispatcher) as sealer:
        yield sealer


async def test_every_stored_checkpoint_gets_a_cosignature_that_a_foreign_verifier_accepts(
    database: Database, harness: Harness, sealer: TestSealer, operator: Operator
) -> None:
    witness = witness_of(operator)
    async with open_witnesses(database.dispatcher, witness) as witnesses:
        for count in (1, 1, 5, 248, 1, 300):
            size = await grow(harness.owner, sealer, count)
            assert await witnesses.turn() == [("cosigned", "one", size)]
            assert await witnesses.turn() == [], "nothing is sent twice"
            assert (witnesses.observer.figures["one"].behind_s, witnesses.observer.figures["one"].is_refused) == (
                0,
                False,
            )
    await sealer._read_heads()
    served = sealer.notes[OPERATOR]
    opened = open_checkpoint(served, [LOG_KEY], [witness.key])
    assert [one.key for one in opened.cosignatures] == [witness.key]
    stored = await harness.owner.fetch(
        "select c.checkpoint || s.line || E'\\n' as note from predictu_dispatch.audit_checkpoint c"
        " join predictu_dispatch.audit_cosignature s using (operator_id, size)"
    )
    assert len(stored) == 6
    assert served in {row["note"] for row in stored}
    claims = [claim(row["note"], LOG_VKEY, witnesses=[operator.witness_vkey]) for row in stored]
    assert foreign_verifier().verdicts(claims) == ["accepted"] * 6


async def test_a_log_that_was_restored_from_an_older_state_is_refused_until_it_continues_the_seen_one(
    database: Database, harness: Harness, sealer: TestSealer, operator: Operator, postgres: Server
) -> None:
    witness = witness_of(operator)
    await grow(harness.owner, sealer, 10)
    async with open_witnesses(database.dispatcher, witness) as witnesses:
        assert [event for event, *_ in await witnesses.turn()] == ["cosigned"]
    await sealer.store._database.close()
    await harness.owner.close()
    for connection in (harness.producer, harness.daemon, harness.person):
        await connection.close()
    async with (
        cloned_database(postgres, database.name) as older,
        connected(database.owner, 1) as [owner],
        connected(older.owner, 1) as [older_owner],
        open_witnesses(database.dispatcher, witness) as witnesses,
        open_witnesses(older.dispatcher, witness) as restored,
        open_sealer(database.dispatcher) as going_on,
        open_sealer(older.dispatcher) as sealer_then,
    ):
        seen = await grow(owner, going_on, 50)
        assert await witnesses.turn() == [("cosigned", "one", seen)]
        # The older state, with other rows than were written after it.
        size = await grow(older_owner, sealer_then, 20)
        assert await restored.turn() == [("refused", "one", size)]
        assert restored.observer.reasons[0].startswith(f"it has cosigned {seen} entries, and our log has {size}")
        assert restored.observer.figures["one"].is_refused
        assert restored.observer.figures["one"].behind_s > 0
        assert await restored.turn() == [], "it is asked again later"
        # Once it is larger, it is another log; and as large, another one of the same size.
        await older_owner.execute(LATER)
        same = await grow(older_owner, sealer_then, seen - size)
        assert same == seen
        assert await restored.turn() == [("refused", "one", same)]
        assert restored.observer.reasons == [f"it has cosigned another log of {seen} entries"]
        await older_owner.execute(LATER)
        larger = await grow(older_owner, sealer_then, 7)
        assert await restored.turn() == [("refused", "one", larger)]
        assert restored.observer.reasons[0].startswith("the log does not continue what it cosigned before (422")
        state = await older_owner.fetchrow(STATE, OPERATOR, "one")
        assert state
        assert (state["is_refused"], state["failures"]) == (True, 3)
        # The true log goes on.
        size = await grow(owner, going_on, 2)
        assert await witnesses.turn() == [("cosigned", "one", size)]


async def test_after_a_conflict_the_proof_begins_where_the_witness_is(
    database: Database, harness: Harness, sealer: TestSealer, operator: Operator
) -> None:
    """Its answer was lost, or another daemon was faster."""
    first = await grow(harness.owner, sealer, 300)
    async with open_witnesses(database.dispatcher, witness_of(operator)) as witnesses:
        await witnesses.turn()
        # We forgot it; we think that it has less.
        await harness.owner.execute("delete from predictu_dispatch.audit_witness")
        size = await grow(harness.owner, sealer, 1)
        assert await witnesses.turn() == [("cosigned", "one", size)]
        assert witnesses.client.asked == [("one", 0), ("one", 0), ("one", first)]
        # Its answer to this very size was lost.
        await harness.owner.execute("update predictu_dispatch.audit_witness set size = $1", first)
        await harness.owner.execute("alter table predictu_dispatch.audit_cosignature disable trigger user")
        await harness.owner.execute("delete from predictu_dispatch.audit_cosignature where size = $1", size)
        assert await witnesses.turn() == [("cosigned", "one", size)]
        assert witnesses.client.asked[-2:] == [("one", first), ("one", size)]
    stored = await harness.owner.fetch("select size from predictu_dispatch.audit_cosignature order by size")
    assert [row["size"] for row in stored] == [first, size]


async def test_if_another_daemon_sends_a_newer_checkpoint_meanwhile_both_succeed(
    database: Database, harness: Harness, sealer: TestSealer, operator: Operator
) -> None:
    witness = witness_of(operator)
    sizes: list[int] = []

    async def other_daemon() -> None:
        if not sizes:
            sizes.append(await grow(harness.owner, sealer, 40))
            assert await faster.turn() == [("cosigned", "one", sizes[0])]

    await grow(harness.owner, sealer, 10)
    async with (
        open_witnesses(database.dispatcher, witness) as faster,
        open_witnesses(database.dispatcher, witness, before=other_daemon) as slower,
    ):
        assert await slower.turn() == [("cosigned", "one", sizes[0])]
    state = await harness.owner.fetchrow(STATE, OPERATOR, "one")
    assert state
    assert (state["size"], state["is_refused"], state["failures"]) == (sizes[0], False, 0)


async def test_a_witness_of_one_operator_is_not_asked_about_the_others(
    database: Database, harness: Harness, operator: Operator
) -> None:
    async with open_sealer(database.dispatcher) as sealer:
        size = await grow(harness.owner, sealer)
        one = replace(witness_of(operator), operators=frozenset({OPERATOR}))
        async with open_witnesses(database.dispatcher, one) as witnesses:
            assert await witnesses.turn() == [("cosigned", "one", size)]
            assert witnesses.observer.reasons == []
        async with open_witnesses(database.dispatcher, witness_of(operator, "all")) as witnesses:
            events = {event for event, *_ in await witnesses.turn()}
            assert events == {"cosigned", "refused"}
            assert any("it does not know our log" in reason for reason in witnesses.observer.reasons)


async def test_a_witness_that_hangs_or_is_down_delays_no_other_one_and_is_asked_less_often(
    database: Database, harness: Harness, sealer: TestSealer, operator: Operator
) -> None:
    key = VerifierKey.of_seed("down/1", b"d" * 32, Algorithm.COSIGNATURE_V1)

    async def hang(_: object) -> None:
        await asyncio.sleep(60)

    async with RawServer(hang).running() as hanging:
        down = Witness(name="down", key=key, url="http://127.0.0.1:9")
        hangs = Witness(name="hangs", key=key, url=hanging.url)
        async with open_witnesses(database.dispatcher, hangs, down, witness_of(operator), timeout_s=0.5) as witnesses:
            size = await grow(harness.owner, sealer)
            assert await witnesses.turn() == [
                ("cosigned", "one", size),
                ("failed", "down", size),
                ("failed", "hangs", size),
            ]
            assert "no answer within 0.5 s" in witnesses.observer.reasons
            size = await grow(harness.owner, sealer)
            assert await witnesses.turn() == [("cosigned", "one", size)]
            figures = witnesses.observer.figures
            assert (figures["one"].behind_s, figures["hangs"].is_refused, figures["down"].is_refused) == (
                0,
                False,
                False,
            )
            assert figures["hangs"].behind_s > 0
            assert figures["down"].behind_s > 0
            await harness.owner.execute(LATER)
            assert [event for event, *_ in await witnesses.turn()] == ["failed", "failed"]
            state = await harness.owner.fetchrow(STATE, OPERATOR, "down")
            assert state
            assert (state["has_cosigned"], state["failures"]) == (False, 2)


HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\n<htm>"


@pytest.mark.parametrize(
    ("answer", "event", "reason"),
    [
        (HTML, "failed", "it answered 200 without a cosignature"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n\xe2\x80\x94 other AAAA", "failed", "it answered 200 without"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n\xff\xfe\n", "failed", "it answered 200 without a cosignature"),
        (b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", "failed", "it answered 302"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops", "failed", "it answered 500: oops"),
        (b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\nx\n", "failed", "it answered 409: x"),
        (b"HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n0\n", "failed", "it answered 409: 0"),
        (b"HTTP/1.1 409 Conflict\r\nContent-Length: 5\r\n\r\n9999\n", "refused", "it has cosigned 9999 entries"),
        (
            b"HTTP/1.1 404 No\r\nContent-Length: 11\r\n\r\nunknown log",
            "refused",
            "it does not know our log (404: unknown log)",
        ),
        (
            b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n",
            "refused",
            "it does not know the key that signs our log (403)",
        ),
        (b"HTTP/1.1 422 No\r\nContent-Length: 0\r\n\r\n", "refused", "the log does not continue"),
        (b"HTTP/1.1 400 No\r\nContent-Length: 4\r\n\r\n\x1b[0m", "refused", "it calls the request malformed (400: "),
        (b"nonsense\r\n\r\n", "failed", "no answer: "),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n" + b"x" * 65536 + b"\r\n",
            "failed",
            "it answered 200 without",
        ),
    ],
)
async def test_any_answer_is_named_and_none_stops_the_turn(
    database: Database,
    harness: Harness,
    sealer: TestSealer,
    operator: Operator,
    *,
    answer: bytes,
    event: str,
    reason: str,
) -> None:
    size = await grow(harness.owner, sealer)
    async with RawServer(answering(answer)).running() as server:
        odd = Witness(name="odd", key=VerifierKey.parse(operator.witness_vkey), url=server.url)
        async with open_witnesses(database.dispatcher, odd, witness_of(operator), timeout_s=5.0) as witnesses:
            assert await witnesses.turn() == sorted([("cosigned", "one", size), (event, "odd", size)])
            assert witnesses.observer.reasons[0].startswith(reason)
            assert witnesses.observer.reasons[0].isprintable()
            assert witnesses.observer.figures["odd"].is_refused == (event == "refused")


async def test_a_cosignature_of_another_checkpoint_or_key_is_not_stored(
    database: Database, harness: Harness, sealer: TestSealer, operator: Operator
) -> None:
    async with open_witnesses(database.dispatcher, witness_of(operator)) as witnesses:
        await grow(harness.owner, sealer)
        await witnesses.turn()
        line = await harness.owner.fetchval("select line from predictu_dispatch.audit_cosignature")
        await grow(harness.owner, sealer)
    body = f"{line}\n".encode()
    repeated = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with RawServer(answering(repeated)).running() as server:
        for key in (
            VerifierKey.parse(operator.witness_vkey),
            VerifierKey.of_seed("x", b"x" * 32, Algorithm.COSIGNATURE_V1),
        ):
            replay = Witness(name=f"replay-{key.name[0]}", key=key, url=server.url)
            async with open_witnesses(database.dispatcher, replay) as witnesses:
                assert [event for event, *_ in await witnesses.turn()] == ["failed"]
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.audit_cosignature") == 1


async def test_a_missing_tile_is_a_refusal_of_our_own(
    database: Database, harness: Harness, sealer: TestSealer, operator: Operator
) -> None:
    async with open_witnesses(database.dispatcher, witness_of(operator)) as witnesses:
        await grow(harness.owner, sealer, 300)
        await witnesses.turn()
        await harness.owner.execute("alter table predictu_dispatch.audit_tile disable trigger user")
        await harness.owner.execute("delete from predictu_dispatch.audit_tile where tile = 1 and level = 0")
        await harness.owner.execute(
            "insert into predictu_dispatch.audit_checkpoint (operator_id, size, checkpoint)"
            " select operator_id, size + 50, checkpoint from predictu_dispatch.audit_head"
        )
        assert [event for event, *_ in await witnesses.turn()] == ["refused"]
        assert witnesses.observer.reasons[0].startswith("no proof from ")


async def test_a_witness_behind_tls_is_asked_only_if_its_certificate_verifies(
    database: Database, harness: Harness, sealer: TestSealer, tmp_path: Path
) -> None:
    authority = trustme.CA()
    certificate = tmp_path / "tls.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with running(tmp_path, "--log-vkey", LOG_VKEY, "--tls-cert", str(certificate)) as operator:
        witness, size = witness_of(operator), await grow(harness.owner, sealer)
        assert witness.url.startswith("https://")
        async with open_witnesses(database.dispatcher, witness, tls=client_context()) as witnesses:
            assert await witnesses.turn() == [("failed", "one", size)]
            assert "certificate verify failed" in witnesses.observer.reasons[0]
        await harness.owner.execute(LATER)
        async with open_witnesses(database.dispatcher, witness, tls=client_context(tmp_path / "ca.pem")) as witnesses:
            assert await witnesses.turn() == [("cosigned", "one", size)]


async def test_one_daemon_in_each_interval_asks_and_all_read_the_figures(
    database: Database, harness: Harness, sealer: TestSealer, operator: Operator
) -> None:
    size = await grow(harness.owner, sealer)
    async with (
        open_witnesses(database.dispatcher, witness_of(operator), is_eager=False) as first,
        open_witnesses(database.dispatcher, witness_of(operator), is_eager=False) as second,
    ):
        assert await first.turn() == [("cosigned", "one", size)]
        await grow(harness.owner, sealer)
        assert await second.turn() == await first.turn() == []
        assert second.observer.figures["one"].behind_s > 0
        assert first.observer.figures["one"].behind_s > 0
