"""A database whose rows a test of `why` changes, and what `why` says about it."""

import json
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from tests.support.command_line import CommandLine
from tests.support.harness import OPERATOR, Harness, delivered
from tests.support.postgres import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A database whose rows the test changes as its owner, in place of daemons and operators."""

    harness: Harness
    desk: CommandLine
    database: Database

    async def operator(self, changes: str) -> None:
        await self.harness.owner.execute(
            f"update predictu_dispatch.operator set {changes} where operator_id = $1",  # noqa: S608
            OPERATOR,
        )

    async def callback(self, request_id: uuid.UUID, changes: str) -> None:
        await self.harness.owner.execute(
            f"update predictu_dispatch.callback set {changes} where request_id = $1",  # noqa: S608
            request_id,
        )

    async def daemon(
        self, instance: str = "host-1", *, seen_s_ago: float = 0.2, started_s_ago: float = 3000, **share: Any
    ) -> None:
        """A daemon with the operator's file, unless `serves` is false."""
        await self.harness.owner.execute(
            "insert into predictu_dispatch.daemon"
            " (instance, session_id, host, pid, version, schema_version, started_at, seen_at)"
            " values ($1, gen_random_uuid(), 'web-' || $1, 4711, '0.1', 1, now() - $2::interval, now() - $3::interval)",
            *(instance, timedelta(seconds=started_s_ago), timedelta(seconds=seen_s_ago)),
        )
        if share.pop("serves", True):
            limits = {"slots": 4, "slots_max": 4, "per_s": 0.0, **share}
            await self.harness.owner.execute(
                "insert into predictu_dispatch.share values ($1, $2, $3, $3, null, $4, $4, $5)",
                *(OPERATOR, instance, limits["slots"], limits["slots_max"], limits["per_s"]),
            )

    async def due_win(self, bet_id: str = "b1") -> uuid.UUID:
        """A due win of a confirmed bet."""
        (win,) = await self.due_wins(bet_id)
        return win

    async def due_wins(self, *bet_ids: str) -> list[uuid.UUID]:
        """Wins that are due one after the other. The bets come first, because `attempt` claims."""
        for bet_id in bet_ids:
            await self.harness.attempt(await self.harness.place(bet_id), delivered)
        return [await self.harness.end("BET_WIN", bet_id) for bet_id in bet_ids]

    async def intervene(self, request_id: uuid.UUID, action: str, reason: str) -> None:
        await self.harness.person.execute(
            f"select predictu_dispatch.{action}_callback($1, $2, $3, 'ann@web-1')", OPERATOR, request_id, reason
        )

    async def why(self, request_id: uuid.UUID) -> tuple[list[str], str]:
        """The codes that `--json` lists, and the text for people on one line."""
        code, listed, stderr = await self.desk.run("why", str(request_id), "--json")
        assert (code, stderr) == (0, "")
        code, text, stderr = await self.desk.run("why", str(request_id))
        assert (code, stderr) == (0, "")
        assert [line for line in text.splitlines() if len(line) > 80 and len(line.split()) > 1] == []
        return [reason["code"] for reason in json.loads(listed)["reasons"]], " ".join(text.split())


def in_order(text: str, *phrases: str) -> None:
    """Assert that all phrases occur, in this order."""
    at = 0
    for phrase in phrases:
        assert phrase in text[at:], f"{phrase!r} is missing after {text[:at]!r} in {text[at:]!r}"
        at = text.index(phrase, at)
