"""What `keys retire` reads from the database, and the text of each reason to refuse."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Final

from predictu_dispatch.commands.invocation import Invocation, database
from predictu_dispatch.core.key_retirement import (
    LastPing,
    Obstacle,
    OperatorFacts,
    Refusal,
    RetirementFacts,
    SigningDaemon,
)
from predictu_dispatch.edge.postgres.sql_files import query

_PING_WAIT_S: Final = 15.0
"""For a PING that the daemons sent just now."""
_POLL_S: Final = 0.2


async def read_facts(
    invocation: Invocation,
    operator: str,
    *,
    active_key_id: str,
    previous_key_id: str,
    activated_s_ago: float,
    token_ttl_s: float,
) -> RetirementFacts:
    """Read what the database knows about the keys; waits for a PING that is under way."""
    give_up_at_s = time.monotonic() + _PING_WAIT_S
    async with database(invocation) as db:
        while True:
            rows = await db.fetch(query("retirement_operator"), operator)
            if not rows or rows[0]["ping_state"] not in {"ready", "in_flight"} or time.monotonic() > give_up_at_s:
                break
            await asyncio.sleep(_POLL_S)
        daemons = await db.fetch(query("retirement_daemons"), operator)
    facts = None
    for row in rows:
        ping = row["ping_state"] and LastPing(
            state=row["ping_state"], key_id=row["ping_key_id"], instance=row["ping_instance"]
        )
        facts = OperatorFacts(enabled=row["enabled"], is_paused=row["is_paused"], last_ping=ping)
    return RetirementFacts(
        active_key_id=active_key_id,
        previous_key_id=previous_key_id,
        activated_s_ago=activated_s_ago,
        token_ttl_s=token_ttl_s,
        operator=facts,
        daemons=[SigningDaemon(**row) for row in daemons],
    )


async def record_retirement(invocation: Invocation, operator: str, key_id: str) -> None:
    """Record that the key signs nothing any more, before its file is removed; may be repeated."""
    async with database(invocation) as db:
        await db.fetch(query("retire_signing_key"), operator, key_id)


def obstacles_text(operator: str, facts: RetirementFacts, refusals: Sequence[Refusal]) -> list[str]:
    """What stands against a retirement, each with what to do."""
    return [_text(operator, facts, refusal) for refusal in refusals]


def _text(operator: str, facts: RetirementFacts, refusal: Refusal) -> str:
    daemon, ping = f"daemon {refusal.instance}", f"predictu-dispatch ping {operator}"
    ttl = f"{facts.token_ttl_s:g} s (token_ttl_s)"
    wait_s = math.ceil(refusal.wait_s or 0)
    texts = {
        Obstacle.UNKNOWN_OPERATOR: f"this database has no operator {operator}; check the DSN, or start a daemon that"
        " has its file",
        Obstacle.DAEMON_SIGNS_WITH_PREVIOUS: f"{daemon} still signs with it; reload that daemon, or restart it if keys"
        f" are systemd credentials, and run this again {ttl} later",
        Obstacle.DAEMON_SIGNS_WITH_ANOTHER: f"{daemon} signs with a key that is in none of these files; copy the key"
        " files to its host and reload it",
        Obstacle.DAEMON_DOES_NOT_TELL: f"{daemon} does not report which key it signs with; update it to this release",
        Obstacle.TOKENS_UNDER_WAY: f"its last tokens may be valid for {ttl}; run this again in {wait_s} s",
        Obstacle.NO_DAEMON: f"no running daemon serves {operator}, so no PING shows that the operator accepts the"
        f" active key; start one, then: {ping}",
        Obstacle.PAUSED: f"{operator} is paused, so no PING shows that it accepts the active key; to end the pause:"
        f" predictu-dispatch resume {operator}, then: {ping}",
        Obstacle.NO_PING: f"no PING was signed with the active key {facts.active_key_id} yet; to send one: {ping}",
        Obstacle.PING_UNDER_WAY: f"a PING is under way; run this again when it has ended, or see: {ping}",
        Obstacle.PING_FAILED: f"the last PING with the active key {facts.active_key_id} failed; for the cause: {ping};"
        f" to return to the previous key: predictu-dispatch keys revert {operator}",
    }
    return texts[refusal.obstacle]
