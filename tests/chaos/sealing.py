"""Whether the audit of a run is sealed, and what `audit verify` and Go's packages say about it."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg

from predictu_dispatch.books_check.check import Check
from predictu_dispatch.core.audit_settings import AuditSettings
from predictu_dispatch.core.merkle.note import VerifierKey
from predictu_dispatch.core.sealing import LogDamagedError
from predictu_dispatch.edge.config.audit_key import read_audit_keys
from tests.support.command_line import CommandLine
from tests.support.foreign_logs import ForeignClaims, refused
from tests.support.foreign_mutants import mutants
from tests.support.foreign_verifier import ACCEPTED, Claim, foreign_verifier, missing_for_go
from tests.support.sealing import open_sealer

ORIGIN: Final = "audit.chaos.example"
KEY_FILE: Final = "audit.pem"
SEAL_S: Final = 0.5
SETTINGS: Final = {"origin": ORIGIN, "key_file": KEY_FILE, "seal_s": SEAL_S}
"""The section [audit] of every daemon."""
SEALED_WITHIN_S: Final = 30.0
"""After the last bet has ended."""
MUTANTS: Final = 200

KEEP_EVERY_CHECKPOINT: Final = """
create schema chaos;
create table chaos.signed (operator_id text, size bigint, checkpoint text, primary key (operator_id, size, checkpoint));
create function chaos.keep() returns trigger language plpgsql as $$
begin
    insert into chaos.signed values (new.operator_id, new.size, new.checkpoint) on conflict do nothing;
    return null;
end $$;
create trigger chaos_keep after insert or update on predictu_dispatch.audit_head
    for each row execute function chaos.keep();
"""
"""A head is overwritten by the next one; its transaction keeps it here."""
_FORGET: Final = "drop trigger if exists chaos_keep on predictu_dispatch.audit_head"
_SEALED_AT: Final = "select coalesce(max(sealed_at), '-infinity') >= $1 from predictu_dispatch.audit_position"


class SealedAudit(NamedTuple):
    """What the checks of the logs compared; `missing` says what Go's packages lack, or is empty."""

    checks: tuple[Check, ...]
    entries: int
    checkpoints: int
    claims: int
    mutants: int
    missing: str

    @property
    def sentence(self) -> str:
        """The result in one line."""
        if any(not check.holds for check in self.checks):
            return "the logs FAILED"
        verified = f"audit verified: {self.entries:,} entries, {self.checkpoints:,} checkpoints"
        if self.missing:
            return f"{verified}; Go checked nothing: {self.missing}"
        return f"{verified}; Go accepts {self.claims:,} claims and refuses {self.mutants:,} mutants"


async def wait_until_sealed(owner: "asyncpg.Connection[asyncpg.Record]") -> float | None:
    """Seconds until all that is visible now is sealed; None if it is not in time."""
    began_s = time.monotonic()
    now = await owner.fetchval("select clock_timestamp()")
    while not await owner.fetchval(_SEALED_AT, now):
        if time.monotonic() > began_s + SEALED_WITHIN_S:
            return None
        await asyncio.sleep(0.1)
    return time.monotonic() - began_s


async def check_logs(
    owner: "asyncpg.Connection[asyncpg.Record]", folder: Path, *, seed: int, daemon_dsn: str, auditor_dsn: str
) -> SealedAudit:
    """Check the logs of a run whose daemons have stopped; `folder` has the key file."""
    # The daemons' last rows, such as a health check.
    keys = read_audit_keys(AuditSettings.model_validate(SETTINGS), folder / "dispatcher.toml", {})
    assert keys is not None
    try:
        async with open_sealer(daemon_dsn, seeds=keys.seeds) as sealer:
            await sealer.seal_all()
    except LogDamagedError as error:
        damaged = Check(name="every log can be continued", rows=1, figures="", faults=(str(error),))
        return SealedAudit((damaged,), 0, 0, 0, 0, "")
    await owner.execute(_FORGET)
    verified, entries = await _verified(folder, auditor_dsn)
    checkpoints, twice = await _signed(owner)
    verified = verified._replace(faults=(*verified.faults, *twice))
    foreign = ForeignClaims(
        vkey_of=lambda origin: str(VerifierKey.of_seed(origin, keys.seeds[0])),
        rng=random.Random(seed),
        checkpoints=checkpoints,
    )
    number = sum(map(len, checkpoints.values()))
    missing = missing_for_go()
    if missing or not verified.holds:
        return SealedAudit((verified,), entries, number, 0, 0, missing)
    claims = await foreign.read(owner)
    altered = list(islice(mutants(claims, random.Random(seed)), MUTANTS))
    accepted, refusals = await asyncio.to_thread(lambda: (_accepted(claims), _refused(altered)))
    return SealedAudit((verified, accepted, refusals), entries, number, len(claims), len(altered), "")


async def _verified(folder: Path, auditor_dsn: str) -> tuple[Check, int]:
    """The output of `audit verify` with the auditor's login."""
    command = CommandLine(folder=folder)
    audit = "".join(f"{name} = {json.dumps(value)}\n" for name, value in SETTINGS.items())
    command.config.write_text(f'[database]\ndsn = "{auditor_dsn}"\n[audit]\n{audit}', encoding="utf-8")
    code, result = await command.run_json("audit", "verify")
    logs = result["logs"]
    faults = [fault["message"] for log in logs for fault in log["first_faults"]] + result["warnings"]
    faults += [f"{log['operator_id']}: {log['pending']} rows are not sealed" for log in logs if log["pending"]]
    if code or not result["ok"] or not result["are_signatures_checked"]:
        faults.append(f"exit code {code}, {result['faults']} faults")
    entries = sum(log["size"] or 0 for log in logs)
    check = Check(
        name="audit verify finds nothing, and everything is sealed",
        rows=result["rows"],
        figures=f"{result['rows']} rows in {len(logs)} logs",
        faults=tuple(faults),
    )
    return check, entries


async def _signed(owner: "asyncpg.Connection[asyncpg.Record]") -> tuple[dict[str, dict[int, str]], list[str]]:
    """Every checkpoint that was ever signed and stored, by operator and size; and faults."""
    found: dict[str, dict[int, str]] = {}
    faults = []
    for row in await owner.fetch("select operator_id, size, checkpoint from chaos.signed"):
        of_log = found.setdefault(row["operator_id"], {})
        if row["size"] in of_log:
            faults.append(f"{row['operator_id']} has two histories: two checkpoints of size {row['size']}")
        of_log[row["size"]] = row["checkpoint"]
    return found, faults


def _accepted(claims: Sequence[Claim]) -> Check:
    kinds = Counter(claim["kind"] for claim in claims)
    return Check(
        name="Go's packages accept every checkpoint, its growth, and random entries",
        rows=len(claims),
        figures=", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items())),
        faults=tuple(f"{claim['kind']} of {_name(claim)}: {verdict}" for claim, verdict in refused(claims)),
    )


def _refused(altered: Sequence[tuple[str, Claim]]) -> Check:
    verdicts = foreign_verifier().verdicts(claim for _, claim in altered)
    return Check(
        name="Go's packages refuse altered claims",
        rows=len(altered),
        figures=f"{len(altered)} of {len({name for name, _ in altered})} kinds",
        faults=tuple(
            f"accepted: {name} of {_name(claim)}"
            for (name, claim), verdict in zip(altered, verdicts, strict=True)
            if verdict == ACCEPTED
        ),
    )


def _name(claim: Claim) -> str:
    """The log and its size."""
    return " ".join(claim["note"].split("\n")[:2])
