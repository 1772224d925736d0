"""story.txt: a bet in plain words as in `show`, without anything that changes with time."""

from __future__ import annotations

from collections.abc import Iterator

from predictu_dispatch.commands.money_line import money_line
from predictu_dispatch.commands.output import Row, money, timestamp, wrapped
from predictu_dispatch.commands.texts import (
    BET_STATES,
    EFFECTS,
    INTERVENTIONS,
    VERDICTS,
    changes_text,
    difference_text,
    fault,
    reason_text,
    state_text,
)
from predictu_dispatch.evidence.bundle import Facts, folder_of
from predictu_dispatch.evidence.bundle_texts import HIDDEN

_COLUMNS = 80


def story(facts: Facts) -> bytes:
    """The text. Nothing in it is proved: it is our reading of the records."""
    lines = []
    for text, indent in _paragraphs(facts):
        lines += wrapped(text, indent=indent, hanging=f"{indent}  ", columns=_COLUMNS) if text else [""]
    return ("\n".join(lines) + "\n").encode()


def _paragraphs(facts: Facts) -> Iterator[tuple[str, str]]:
    bet = facts.bet
    yield f"Bet {bet['bet_id']} of operator {bet['operator_id']} is {bet['state']}: {BET_STATES[bet['state']]}.", ""
    yield _shown(facts, money_line(facts.money)), ""
    by = "" if facts.player else f" by player {bet['player_id']}"
    yield f"stake: {money(bet['amount'], bet['currency'], bet['minor_digits'])}{by}", "  "
    yield f"placed: {timestamp(bet['created_at'])}", "  "
    for callback in facts.callbacks:
        yield "", ""
        yield from _callback(facts, callback)
    yield from _other_interventions(facts)


def _other_interventions(facts: Facts) -> Iterator[tuple[str, str]]:
    """What was said about a booking of the bet that has no callback here."""
    known = {callback["request_id"] for callback in facts.callbacks}
    others = [row for row in facts.interventions if row["request_id"] not in known]
    if others:
        yield "", ""
        yield "Bookings in the operator's ledger without a callback of ours:", ""
    for row in others:
        yield from _intervention(facts, row)


def _callback(facts: Facts, callback: Row) -> Iterator[tuple[str, str]]:
    yield f"{callback['method']} {callback['request_id']} is {callback['state']}:", ""
    state = state_text(callback["state"], callback["reason"], callback["operator_status"], facts.bet["operator_id"])
    yield _shown(facts, state), "  "
    # An attempt that is being sent may be applied at this moment.
    is_being_sent = callback["state"] == "in_flight" and callback["effect"] == "none"
    if callback["reason"] != "nothing_to_reverse" and not is_being_sent:
        yield EFFECTS[callback["effect"]], "  "
    if callback["amount"] is not None:
        currency = callback["currency"] or callback["bet_currency"]
        yield f"amount: {money(int(callback['amount']), currency, callback['minor_digits'])}", "  "
    finished = f", finished: {timestamp(callback['finished_at'])}" if callback["finished_at"] else ""
    yield f"enqueued: {timestamp(callback['created_at'])}{finished}", "  "
    answer = [callback["operator_status"] and f"status {callback['operator_status']}"]
    answer.append(callback["operator_transaction_id"] and f"transaction {callback['operator_transaction_id']}")
    if any(answer):
        yield _shown(facts, f"answer: {', '.join(filter(None, answer))}"), "  "
    for name in ("anomaly", "note"):
        if callback[name]:
            yield _shown(facts, f"{name}: {callback[name]}"), "  "
    if callback["review_since"]:
        yield f"has needed manual review since {timestamp(callback['review_since'])}", "  "
    yield from _events(facts, callback)


def _events(facts: Facts, callback: Row) -> Iterator[tuple[str, str]]:
    """The attempts and the interventions, in the order in which they happened."""
    attempts = [row for row in facts.attempts if row["request_id"] == callback["request_id"]]
    deciding = sum(row["verdict"] != "late" for row in attempts)
    if deciding < callback["attempts"]:
        missing = callback["attempts"] - deciding
        yield f"{missing} of {callback['attempts']} attempts have no record (yet)", "  "
    if not callback["attempts"]:
        yield "no attempt was made", "  "
    events = [(row["started_at"], 0, number, row) for number, row in enumerate(attempts)]
    ours = [row for row in facts.interventions if row["request_id"] == callback["request_id"]]
    events += [(row["done_at"], 1, number, row) for number, row in enumerate(ours)]
    for _, is_intervention, _, row in sorted(events, key=lambda event: event[:3]):
        yield from _intervention(facts, row) if is_intervention else _attempt(facts, row)


def _attempt(facts: Facts, row: Row) -> Iterator[tuple[str, str]]:
    when = f"{timestamp(row['started_at'])} to {timestamp(row['finished_at'])}"
    yield f"attempt {row['attempt']} by {row['instance']}, {when}: {VERDICTS[row['verdict']]}", "  "
    status = f"HTTP {row['response_status']}" if row["response_status"] is not None else ""
    reason = reason_text(row["reason"]) if row["verdict"] != "delivered" else ""
    error = fault(row["error"]) if row["error"] else ""
    said = "; ".join(filter(None, (status, reason, error)))
    if said:
        yield _shown(facts, said), "    "
    if row["url"]:
        peer = f" at {row['peer']}" if row["peer"] else ""
        yield f"to {row['url']}{peer}, signed with key {row['key_id']}", "    "
    yield f"in {folder_of(row)}", "    "


def _intervention(facts: Facts, row: Row) -> Iterator[tuple[str, str]]:
    client = f" from {row['client_addr']}" if row["client_addr"] else ""
    by = f"{row['done_by']} (database role {row['database_role']}{client})"
    of_what = difference_text(row["before"])
    action = f"{INTERVENTIONS[row['action']]} {of_what}".rstrip()
    yield f"{action} by {by} at {timestamp(row['done_at'])}", "  "
    if row["reason"]:
        yield f"reason: {_shown(facts, row['reason'])}", "    "
    if changes := changes_text(row["before"], row["after"]):
        yield _shown(facts, changes), "    "
    yield f"in interventions/{row['intervention_id']}", "    "


def _shown(facts: Facts, text: str) -> str:
    return HIDDEN if facts.player is not None and facts.player.is_named_in(text.encode()) else text
