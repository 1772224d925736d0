"""A bet in the database with real bodies, tokens and answers, as daemons would have written it."""

from __future__ import annotations

import json
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from predictu_dispatch.core.merkle.note import Algorithm, VerifierKey, cosign, parse
from predictu_dispatch.core.signing import SigningKey, unsigned_token
from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.verifier.policy import Policy, parse_policy
from predictu_dispatch.verifier.records import Verdict
from predictu_dispatch.verifier.verify import Report, verify
from tests.support.command_line import CommandLine
from tests.support.harness import OPERATOR, Harness, delivered, retried
from tests.support.postgres import Database
from tests.support.sealing import ORIGIN, SEED, open_sealer

BET = "b-1"
PLAYER = "player-4711"
WITNESS = "witness.example/w1"
WITNESS_SEED = b"\x03" * 32
AGO = timedelta(minutes=5)
"""How old attempts are, so that their tokens are given out."""


@dataclass(kw_only=True)
class Disputes:
    """Makes attempts of bets; `key` signs."""

    harness: Harness
    key: SigningKey
    jtis: dict[uuid.UUID, str] = field(default_factory=dict)

    async def register_key(self, key: SigningKey, *, first_seen_ago: timedelta = timedelta(days=30)) -> None:
        await self.harness.owner.execute(
            "insert into predictu_dispatch.signing_key (operator_id, kid, algorithm, public_jwk, first_seen_at)"
            " values ($1, $2, $3, $4, now() - $5::interval)",
            *(OPERATOR, key.kid, key.algorithm, json.dumps(key.public_jwk()), first_seen_ago),
        )

    async def place(
        self, bet_id: str = BET, player_id: str = PLAYER, *, request_id: uuid.UUID | None = None
    ) -> uuid.UUID:
        wager = {"market_id": "m1", "outcome": "yes", "odds": 1.85, "shares": 10, "price": 50}
        params = {"player_id": player_id, "currency": "EUR", "amount": 500, "bet_id": bet_id, "bet": wager}
        found: uuid.UUID = await self.harness.producer.fetchval(
            "select predictu_dispatch.enqueue_callback($1, 'BET_MAKE', $2::text::jsonb, $3)",
            *(OPERATOR, json.dumps(params), request_id),
        )
        return found

    async def attempt(
        self,
        request_id: uuid.UUID,
        outcome: Callable[..., dict[str, Any]] = delivered,
        *,
        ago: timedelta = AGO,
        answer: bytes = b'{"status":"OK","balance":95000}',
        **fields: Any,
    ) -> None:
        """One attempt with a real token, sent `ago`."""
        now = await self.harness.owner.fetchval("select now()")
        lease = await self.harness.lease(request_id, leased_at=now - ago)
        await self.harness.settle(outcome(lease, **{**await self.sent(lease, answer), **fields}))

    async def sent(self, lease: Any, answer: bytes) -> dict[str, Any]:
        """The fields of a report about what was sent and answered."""
        callback = await self.harness.callback(lease["request_id"])
        envelope = {
            "method": callback["method"],
            "timestamp": "2026-11-30T10:00:05.000Z",
            "request_id": str(lease["request_id"]),
            "operator_id": OPERATOR,
            "params": json.loads(callback["params"]),
        }
        body = json.dumps(envelope, separators=(",", ":"))
        leased_at: datetime = lease["leased_at"]
        token = unsigned_token(
            self.key,
            operator_id=OPERATOR,
            method=callback["method"],
            jti=str(lease["request_id"]),
            body=body.encode(),
            issued_at_s=int(leased_at.timestamp()),
            ttl_s=30,
        )
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}.[signature withheld]"}
        return {
            "url": "https://wallet.example.com/predictu",
            "peer": "192.0.2.1:443",
            "peer_certificate_sha256": sha256(b"certificate").digest(),
            "key_id": self.key.kid,
            "request_headers": json.dumps(headers),
            "request_body": body,
            "token_signature": self.key.signature(token.encode()),
            "response_status": 200,
            "response_headers": json.dumps([["Content-Type", "application/json"]]),
            "response_body": answer,
            "connect_ms": 1.25,
            "first_byte_ms": 10.5,
            "total_ms": 12.125,
        }

    async def whole_bet(self, bet_id: str = BET, player_id: str = PLAYER) -> list[uuid.UUID]:
        """A placement that is answered at the second attempt, and a win; an intervention on it."""
        placement = await self.place(bet_id, player_id)
        failed: dict[str, Any] = {"reason": "http_503", "response_status": 503, "answer": b"busy"}
        await self.attempt(placement, retried, ago=AGO + timedelta(minutes=1), **failed)
        await self.attempt(placement)
        win = await self.harness.end("BET_WIN", bet_id)
        await self.attempt(win, rejected_by_them, answer=b'{"status":"ACCOUNT_CLOSED"}')
        await self.harness.person.execute("select predictu_dispatch.retry_callback($1, $2, 'ann@web-1')", OPERATOR, win)
        await self.attempt(win)
        return [placement, win]

    async def cosign(self, *, size: int | None = None, time_s: int = 1_796_000_000, seed: bytes = WITNESS_SEED) -> None:
        """A witness cosigns a stored checkpoint, by default the newest one."""
        row = await self.harness.owner.fetchrow(
            "select size, checkpoint from predictu_dispatch.audit_checkpoint"
            " where operator_id = $1 and ($2::bigint is null or size = $2) order by size desc limit 1",
            *(OPERATOR, size),
        )
        assert row is not None
        line = cosign(parse(row["checkpoint"]).text, WITNESS, seed, time_s).line.strip()
        await self.harness.owner.execute(
            "insert into predictu_dispatch.audit_cosignature (operator_id, size, witness, line)"
            " values ($1, $2, $3, $4)",
            *(OPERATOR, row["size"], "w1", line),
        )

    async def store_checkpoint(self) -> int:
        """Stores the head as a checkpoint, as the sealer does once a minute; returns its size."""
        await self.harness.owner.execute(
            "insert into predictu_dispatch.audit_checkpoint (operator_id, size, checkpoint)"
            " select operator_id, size, checkpoint from predictu_dispatch.audit_head where operator_id = $1"
            " on conflict do nothing",
            OPERATOR,
        )
        size: int = await self.harness.owner.fetchval(
            "select size from predictu_dispatch.audit_head where operator_id = $1", OPERATOR
        )
        return size


def rejected_by_them(lease: Any, **fields: Any) -> dict[str, Any]:
    rejection = {"state": "rejected", "verdict": "rejected", "effect": "none", "state_reason": "account_closed"}
    return delivered(lease, **{**rejection, "reason": "account_closed", "operator_status": "ACCOUNT_CLOSED", **fields})


def signing_key(folder: Path, name: str = "signing.pem") -> SigningKey:
    return create_key_file(folder / name, "EdDSA")


def policy(*, quorum: str = "none") -> bytes:
    """What the other side trusts."""
    log = VerifierKey.of_seed(f"{ORIGIN}/{OPERATOR}", SEED)
    witness = VerifierKey.of_seed(WITNESS, WITNESS_SEED, Algorithm.COSIGNATURE_V1)
    return f"log {log}\nwitness w1 {witness}\nquorum {quorum}\n".encode()


def verified(path: Path, trusted: bytes | None = None) -> Report:
    """The report, after a check that nothing is contradicted."""
    using: Policy = parse_policy(trusted or policy())
    report = verify(path, using)
    assert [(each.text, each.reason) for each in report.statements if each.verdict is Verdict.CONTRADICTED] == []
    return report


def proved(report: Report) -> list[str]:
    return [each.text for each in report.statements if each.verdict is Verdict.PROVED]


def names_in(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def content_of(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


async def bundle_of(auditor: CommandLine, name: str = "bundle.zip", *options: str, bet_id: str = BET) -> Path:
    """Make a bundle; its text fits the screen."""
    path = auditor.folder / name
    given = ("--policy", str(auditor.folder / "policy.txt"), "-o", str(path), *options)
    code, text, stderr = await auditor.run("dispute", "--bet", OPERATOR, bet_id, *given)
    assert (code, stderr) == (0, ""), stderr
    assert [line for line in text.splitlines() if len(line) > 80 and len(line.split()) > 1] == []
    return path


async def sealed(database: Database) -> None:
    async with open_sealer(database.dispatcher) as sealer:
        await sealer.seal_all()
