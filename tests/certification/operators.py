"""Correct operators that differ from the reference operator: none of them may fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from predictu_dispatch.certification.result import RunResult
from predictu_dispatch.certification.scenario import ScenarioVerdict
from predictu_dispatch.core.operator_settings import StatusesSettings
from tests.certification.closing_proxy import closing_proxy
from tests.certification.example_operators import REJECTED, command
from tests.certification.mutants.mutant import Change
from tests.certification.sandbox import (
    BALANCE,
    PLAYERS,
    Sandbox,
    changed_operator,
    new_key,
    started,
)
from tests.reference_operator.client import OPERATOR_ID

_CONFLICT = Change(
    file="wallet.py",
    old="return replace(answer, status=Status.DUPLICATE) if answer.status is Status.OK else answer",
    new="return replace(answer, http_status=409, status=Status.DUPLICATE) if answer.status is Status.OK else answer",
)
_OTHER_NOT_FOUND = (
    Change(
        file="rules.py",
        old="        status=Status.TRANSACTION_NOT_FOUND,\n        http_status=404,\n",
        new="        status=Status.BET_NOT_FOUND,\n        http_status=200,\n",
    ),
    Change(
        file="answer.py",
        old="""            fields.append(f'"message":{json.dumps(self.message)}')\n""",
        new="""            fields.append(f'"error":{json.dumps({"code": 1042, "text": self.message})}')\n""",
    ),
)
_OWN_NAMES = {
    "OK": "SUCCESS",
    "DUPLICATE": "ALREADY_PROCESSED",
    "INSUFFICIENT_FUNDS": "NOT_ENOUGH_MONEY",
    "PLAYER_NOT_FOUND": "UNKNOWN_ACCOUNT",
    "TRANSACTION_NOT_FOUND": "NO_SUCH_DEBIT",
    "BET_NOT_FOUND": "NO_SUCH_BET",
    "BET_ALREADY_PLACED": "BET_EXISTS",
    "BET_ALREADY_SETTLED": "BET_CLOSED",
    "BET_ROLLED_BACK": "BET_CANCELLED",
    "BET_MISMATCH": "BET_DIFFERS",
    "REQUEST_ID_REUSED": "REQUEST_DIFFERS",
    "BAD_REQUEST": "INVALID",
}
_OWN_STATUSES = StatusesSettings(
    success=("SUCCESS", "ALREADY_PROCESSED"),
    rejected=(
        "NOT_ENOUGH_MONEY",
        "UNKNOWN_ACCOUNT",
        "BET_EXISTS",
        "BET_CLOSED",
        "BET_CANCELLED",
        "BET_DIFFERS",
        "REQUEST_DIFFERS",
        "WALLET_LIMIT",
    ),
    nothing_to_reverse=("NO_SUCH_DEBIT", "NO_SUCH_BET"),
    retry=("INVALID",),
)
_ON_SIGHT = Change(
    file="wallet.py",
    old="        return None if row is None else int(row[0])\n",
    new="        if row is None and currency:\n"
    "            self.create_players([NewPlayer(player_id=player_id, currency=currency, balance=0)])\n"
    "        return 0 if row is None else int(row[0])\n",
)


class Start(Protocol):
    """Starts an operator in an empty folder."""

    def __call__(self, folder: Path, /) -> AbstractAsyncContextManager[Sandbox]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CorrectOperator:
    """An operator that is certified; `warned` are the scenarios that may warn of it."""

    name: str
    start: Start
    warned: frozenset[str] = frozenset()


@asynccontextmanager
async def slow_behind_a_proxy(folder: Path, *, delay_s: float = 0.5) -> AsyncIterator[Sandbox]:
    """Run the reference operator behind a proxy that is slow and closes every connection."""
    async with changed_operator(folder) as sandbox, closing_proxy(sandbox.url, delay_s=delay_s) as url:
        yield replace(sandbox, url=url)


@asynccontextmanager
async def _example(language: str, folder: Path) -> AsyncIterator[Sandbox]:
    key, next_key = new_key(folder / "sandbox.pem"), new_key(folder / "sandbox-next.pem")
    arguments = (
        *("--operator-id", OPERATOR_ID, "--listen", "127.0.0.1:0", "--database", "wallet.ndjson"),
        *("--public-key", "sandbox.pub", "--public-key", "sandbox-next.pub"),
        *("--players", ",".join(f"{player}={BALANCE}" for player in PLAYERS)),
    )
    async with started((*command(language), *arguments), folder, {}) as url:
        yield Sandbox(url=url, folder=folder, key=key, next_key=next_key, statuses=StatusesSettings(rejected=REJECTED))


REFERENCE = CorrectOperator(name="reference", start=changed_operator)
NODE = CorrectOperator(name="node", start=lambda folder: _example("node", folder))
GO = CorrectOperator(name="go", start=lambda folder: _example("go", folder))
DIFFERENT = (
    CorrectOperator(name="decimal", start=lambda folder: changed_operator(folder, amount_format="decimal")),
    CorrectOperator(name="conflict-for-duplicates", start=lambda folder: changed_operator(folder, (_CONFLICT,))),
    CorrectOperator(name="other-not-found", start=lambda folder: changed_operator(folder, _OTHER_NOT_FOUND)),
    CorrectOperator(
        name="own-status-names",
        start=lambda folder: changed_operator(
            folder,
            tuple(
                Change(file="answer.py", old=f'    {name} = "{name}"\n', new=f'    {name} = "{own}"\n')
                for name, own in _OWN_NAMES.items()
            ),
            statuses=_OWN_STATUSES,
        ),
    ),
    CorrectOperator(name="players-on-sight", start=lambda folder: changed_operator(folder, (_ON_SIGHT,))),
    CorrectOperator(name="slow-and-closing", start=slow_behind_a_proxy, warned=frozenset({"connection-keep-alive"})),
)
"""The six operators that are correct and differ."""
EXAMPLES = (NODE, GO)
"""Operators in other languages, which share no code with the reference operator."""


def wrongly_found(operator: CorrectOperator, result: RunResult) -> list[str]:
    """Return what the run found in this correct operator, except allowed warnings."""
    return [
        f"{one.scenario.id} {one.verdict}"
        for one in result.results
        if one.verdict not in (ScenarioVerdict.PASSED, ScenarioVerdict.SKIPPED)
        and not (one.verdict is ScenarioVerdict.WARNING and one.scenario.id in operator.warned)
    ]
