"""`why` explains the state of a callback: ended, waiting for another, or in flight."""

import json
from typing import Any

import pytest

from tests.support.harness import OPERATOR, delivered, exhausted, rejected, retried
from tests.support.scene import Scene, in_order

pytestmark = pytest.mark.usefixtures("long_heartbeat_timeout")
RETRY = "predictu-dispatch retry"
TLS_ERROR = (
    "ClientConnectorCertificateError: Cannot connect to host w.example:443 ssl:True [SSLCertVerificationError:"
    " (1, '[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:1006)')]"
)


async def test_a_rejected_win_needs_review_until_it_is_resolved(scene: Scene) -> None:
    win = await scene.due_win()
    await scene.harness.attempt(win, rejected, operator_status="PLAYER_NOT_FOUND", state_reason="player_not_found")
    codes, text = await scene.why(win)
    assert codes == ["rejected", "needs_review"]
    in_order(
        text,
        "1. it was rejected by the operator",
        "the operator answered PLAYER_NOT_FOUND",
        "2. it has needed manual review since",
        f"predictu-dispatch retry {win}",
        f"predictu-dispatch resolve {win} --reason TEXT",
    )
    # A person at psql may have written anything as a reason.
    await scene.intervene(win, "resolve", "paid\x1b[2Jmanually")
    codes, text = await scene.why(win)
    assert codes == ["rejected", "resolved"]
    in_order(text, "ann@web-1 resolved it at", "paid\\x1b[2Jmanually", "never sent again")


async def test_an_exhausted_debit_names_its_rollback_and_its_cancelled_win(scene: Scene) -> None:
    placement = await scene.harness.place()
    lease = await scene.harness.lease(placement)
    win = await scene.harness.end("BET_WIN")
    await scene.harness.settle(exhausted(lease))
    (rollback,) = await scene.harness.rollbacks()
    codes, text = await scene.why(placement)
    assert codes == ["exhausted"]
    in_order(text, "all attempts were used", "may have applied it")
    named = f"BET_ROLLBACK {rollback['request_id']}"
    in_order(text, f"{named} (ready) is to take back what may have been debited")
    codes, text = await scene.why(win)
    assert codes == ["cancelled", "needs_review"]
    in_order(text, "a rollback of the bet was requested", f"{named} (ready) is to take back")
    in_order(text, "has needed manual review", f"predictu-dispatch resolve {win}")
    assert "predictu-dispatch retry" not in text


ROLLED_BACK: list[tuple[Any, dict[str, Any], str, str]] = [
    (None, {}, "(in_flight) is to take back what may have been debited", "rollback is not confirmed yet."),
    (delivered, {}, "is confirmed, so no debit stands", "The operator has confirmed the bet's rollback."),
    (
        delivered,
        {"state_reason": "nothing_to_reverse"},
        "is confirmed: the operator had no debit to reverse",
        "rollback is done: the operator had no debit to reverse.",
    ),
    (rejected, {}, "ended rejected, so a debit may stand", "the player may still be debited."),
    (exhausted, {}, "ended exhausted, so a debit may stand", "the player may still be debited."),
]


@pytest.mark.parametrize(("end", "fields", "said", "listed"), ROLLED_BACK)
async def test_a_rollback_is_said_to_be_under_way_only_until_it_has_ended(
    scene: Scene, end: Any, fields: dict[str, Any], said: str, listed: str
) -> None:
    """By the debit, by the cancelled win, and by the review list."""
    placement = await scene.harness.place()
    lease = await scene.harness.lease(placement)
    win = await scene.harness.end("BET_WIN")
    await scene.harness.settle(exhausted(lease))
    (rollback,) = await scene.harness.rollbacks()
    lease = await scene.harness.lease(rollback["request_id"])
    if end is not None:
        await scene.harness.settle(end(lease, **fields))
    for request_id in (placement, win):
        _, text = await scene.why(request_id)
        assert f"BET_ROLLBACK {rollback['request_id']} {said}" in text
        assert ("is to take back" in text) == (end is None)
    review = json.loads((await scene.desk.run("status", "--json"))[1])["needs_review"]
    [of_win] = [row for row in review if row["request_id"] == str(win)]
    assert of_win["reason"].endswith(listed)


async def test_a_rollback_that_waits_for_its_debit_is_named_by_both(scene: Scene) -> None:
    placement = await scene.harness.place()
    lease = await scene.harness.lease(placement)
    win = await scene.harness.end("BET_WIN")
    rollback = await scene.harness.rollback()
    _, text = await scene.why(win)
    assert f"BET_ROLLBACK {rollback} (waiting) is to take back what may have been debited" in text
    await scene.harness.settle(rejected(lease))
    _, text = await scene.why(win)
    assert f"BET_ROLLBACK {rollback} was cancelled, because no debit took place" in text


async def test_what_never_reached_the_operator_needs_no_question_to_it(scene: Scene) -> None:
    """No byte left, so the operator cannot know it: nothing was charged, and nothing credited."""
    await scene.daemon()
    win = await scene.due_win("b1")
    failure = {"evidence": "not_sent", "reason": "tls_failed", "error": TLS_ERROR}
    await scene.harness.attempt(win, exhausted, effect="none", **failure)
    codes, text = await scene.why(win)
    assert codes == ["exhausted", "needs_review"]
    in_order(
        text, "the operator has not applied it", "certificate verify failed: certificate has expired", "nothing of"
    )
    in_order(text, f"nothing of it reached the operator; to send it: predictu-dispatch retry {win}")
    assert "with the operator" not in text
    listed = " ".join((await scene.desk.run("status"))[1].split())
    assert (
        f"No attempt reached the operator, so it has certainly not applied it. → send it again: {RETRY} {win}" in listed
    )

    placement = await scene.harness.place("b2")
    await scene.harness.attempt(placement, exhausted, effect="none", **failure)
    assert "nothing was charged, and a debit is never sent again" in (await scene.why(placement))[1]


async def test_a_cancelled_callback_names_who_cancelled_it_and_why(scene: Scene) -> None:
    win = await scene.due_win()
    await scene.intervene(win, "cancel", "wrong market")
    codes, text = await scene.why(win)
    assert codes == ["cancelled"]
    in_order(text, "ann@web-1 cancelled it at", "wrong market", f"predictu-dispatch show --bet {OPERATOR} b1")


async def test_a_waiting_callback_lists_the_reasons_of_the_earlier_one(scene: Scene) -> None:
    await scene.daemon()
    placement = await scene.harness.place()
    win = await scene.harness.end("BET_WIN")
    await scene.harness.attempt(placement, retried, reason="connect_refused", due_in_s=600.0)
    codes, text = await scene.why(win)
    assert codes == ["waiting"]
    in_order(
        text,
        f"its bet's earlier callback is settled: BET_MAKE {placement} (ready)",
        "The earlier callback is not settled because:",
        "1. retry 1 is due at",
        "(in 10 min)",
        "attempt 1 ended at",
        "the operator's host refused the connection",
        "2. its deadline comes before that",
        "its debit, which may have been applied, is rolled back",
    )


async def test_an_in_flight_callback_names_its_daemon_and_lease(scene: Scene) -> None:
    placement = await scene.harness.place()
    await scene.daemon()
    await scene.harness.lease(placement)
    codes, text = await scene.why(placement)
    assert codes == ["in_flight"]
    in_order(text, "attempt 1 was claimed by daemon host-1, last seen", "its lease ends at", "(in ")

    assert await scene.harness.rollback() is not None
    codes, text = await scene.why(placement)
    assert codes == ["in_flight", "retry_stopped"]
    in_order(text, "a rollback of its bet was requested", "this attempt is the last one")


@pytest.mark.parametrize(
    ("seen_s_ago", "started_s_ago", "phrase"),
    [(500.0, 3000.0, "host-1 on host web-host-1, last seen"), (0.1, -60.0, "host-1, which claimed it, was restarted")],
)
async def test_the_lease_of_a_stopped_daemon_expires_and_is_recovered(
    scene: Scene, seen_s_ago: float, started_s_ago: float, phrase: str
) -> None:
    placement = await scene.harness.place()
    await scene.harness.lease(placement)
    await scene.daemon(seen_s_ago=seen_s_ago, started_s_ago=started_s_ago)
    await scene.daemon("host-2")
    codes, text = await scene.why(placement)
    assert codes == ["in_flight", "lease_owner_stopped"]
    in_order(text, phrase, "when the lease expires")
    await scene.callback(placement, "lease_until = now() - interval '3 seconds'")
    codes, text = await scene.why(placement)
    assert codes == ["lease_expired", "lease_owner_stopped"]
    in_order(text, "its lease expired at", "s ago)", "a running daemon recovers it")
