"""Compare the database after the whole corpus with the expected results."""

import json
from collections import defaultdict
from typing import Any

import asyncpg

from predictu_dispatch.core.methods import Method
from tests.hostile.bodies import CAP
from tests.hostile.corpus import CORPUS
from tests.hostile.entry import Expected
from tests.hostile.tls import TLS_ENTRIES, UNSENT
from tests.support.environment import Environment

HOSTILE, SPOILT = "op_hostile", "op_spoilt"
ALSO_POSSIBLE = {
    ("not_sent", "connect_timeout"),
    ("not_sent", "unsolicited_data"),
    ("unanswered", "reset"),
    ("unanswered", "timeout"),
}
"""Further reasons: the connection of another entry was broken, or the machine was busy."""


async def attempts_by_callback(environment: Environment, operator_id: str) -> dict[Any, list[asyncpg.Record]]:
    rows = await environment.harness.owner.fetch(
        "select * from predictu_dispatch.attempt where operator_id = $1 order by request_id, attempt", operator_id
    )
    found = defaultdict(list)
    for row in rows:
        found[row["request_id"]].append(row)
    return found


def _may_be_applied(row: asyncpg.Record) -> bool:
    if row["verdict"] == "retry":
        return bool(row["evidence"] != "not_sent")
    return row["reason"] == "unknown_status" or (row["method"], row["reason"]) == ("BET_MAKE", "bet_not_found")


def assert_audited(callback: asyncpg.Record, rows: list[asyncpg.Record], expected: tuple[Expected, ...]) -> None:
    """Check that every attempt has a correct row and the callback the resulting state."""
    assert [row["attempt"] for row in rows] == list(range(1, callback["attempts"] + 1))
    allowed = {(str(one.evidence), one.reason, str(one.verdict)) for one in expected}
    found = [(row["evidence"], row["reason"], row["verdict"]) for row in rows]
    assert allowed & set(found), (found, allowed)
    for one in found:
        assert one in allowed or one[:2] in ALSO_POSSIBLE, (found, allowed)
    for row in rows:
        answered = row["evidence"] == "answered"
        assert not answered or (row["response_status"], row["response_truncated"]) != (None, True)
        # The received part of head and body is stored.
        assert (row["response_status"] is None) == (row["response_body"] is None) == (row["response_headers"] is None)
        if row["reason"] == "too_large":
            # Oversized headers are not stored, nor is the body after them.
            is_of_headers = row["error"].startswith("the answer's headers")
            is_of_body = row["error"].startswith("the answer is longer")
            assert row["response_truncated"] == (row["response_status"] is not None)
            assert not is_of_headers or row["response_headers"] in (None, "[]")
            # A repeated answer is stored with its first 4,096 bytes.
            stored_bytes = CAP if row["response_body_repeats"] is None else 4096
            assert (len(row["response_body"] or b"") == stored_bytes) == is_of_body
        if row["response_headers"] is not None:
            assert all(len(header) == 2 for header in json.loads(row["response_headers"]))
    state = {"delivered": "delivered", "rejected": "rejected", "retry": "exhausted"}[rows[-1]["verdict"]]
    effect = "unknown" if any(map(_may_be_applied, rows)) else "none"
    assert callback["state"] == state
    assert callback["effect"] == ("applied" if state == "delivered" else effect)


def bet_state(callback: asyncpg.Record) -> str | None:
    """Check the bet's state after its rollback, if any, is delivered."""
    state, effect = callback["state"], callback["effect"]
    if callback["method"] == "BET_MAKE":
        return "open" if state == "delivered" else "void" if effect == "none" else "closed"
    if callback["method"] == "BET_WIN":
        return "closed" if state == "delivered" else "closing"
    return None


async def assert_every_entry_has_its_result(environment: Environment) -> None:
    rows = await attempts_by_callback(environment, HOSTILE)
    callbacks = await environment.harness.owner.fetch(
        "select c.*, b.state as bet_state from predictu_dispatch.callback c"
        "  join predictu_dispatch.bet b using (operator_id, bet_id) where c.operator_id = $1",
        HOSTILE,
    )
    seen = 0
    for callback in callbacks:
        prefix, _, name = callback["bet_id"].partition(":")
        if callback["method"] == "BET_ROLLBACK":
            assert callback["state"] == "delivered", name
        elif name:
            seen += 1
            entry = CORPUS[name]
            assert_audited(callback, rows[callback["request_id"]], entry.expected_for(Method(callback["method"])))
            assert callback["bet_state"] == bet_state(callback), (prefix, name)
            if callback["state"] == "delivered":
                assert callback["balance"] == entry.balance, name
                for row in rows[callback["request_id"]]:
                    assert row["verdict"] != "delivered" or entry.body in (None, row["response_body"]), name
    assert seen == 2 * len(CORPUS)
    # Unconfirmed credits are on the review list.
    unsettled = {str(one["request_id"]) for one in callbacks if one["bet_state"] == "closing"}
    listed = await environment.harness.owner.fetch("select request_id from predictu_dispatch.needs_review")
    assert unsettled == {str(one["request_id"]) for one in listed}


async def assert_broken_tls_has_its_results(environment: Environment) -> None:
    expected = {(str(one.evidence), one.reason, str(one.verdict)) for entry in TLS_ENTRIES for one in entry.expected}
    expected |= {(str(one.evidence), one.reason, str(one.verdict)) for one in UNSENT}
    rows = [row for rows in (await attempts_by_callback(environment, SPOILT)).values() for row in rows]
    assert len(rows) > 40
    for row in rows:
        found = (row["evidence"], row["reason"], row["verdict"])
        assert found in expected or found[:2] in ALSO_POSSIBLE, (row["reason"], row["error"])
