"""The demo's check of the audit: each row is in its operator's signed log, and no other row."""

from __future__ import annotations

import asyncio
import time
from typing import Final

import asyncpg

from predictu_dispatch.books_check.check import Check
from predictu_dispatch.edge.postgres.audit_reader import open_audit_reader
from predictu_dispatch.evidence.trusted_keys import TrustedKeys
from predictu_dispatch.evidence.verification import verify
from predictu_dispatch.evidence.verification_result import NotVerifiableError, Request

_NAME: Final = "each row is in its signed log"
_TIMEOUT_S: Final = 10.0
_POLL_S: Final = 0.05
_IS_SEALED: Final = "select coalesce(max(sealed_at), '-infinity') >= $1 from predictu_dispatch.audit_position"


async def is_sealed_soon(dsn: str) -> bool:
    """Wait until the daemon has sealed what there is now. False if that takes too long."""
    auditor = await asyncpg.connect(dsn)
    try:
        now = await auditor.fetchval("select clock_timestamp()")
        give_up_at_s = time.monotonic() + _TIMEOUT_S
        while not await auditor.fetchval(_IS_SEALED, now):
            if time.monotonic() > give_up_at_s:
                return False
            await asyncio.sleep(_POLL_S)
        return True
    finally:
        await auditor.close()


async def logs_check(dsn: str, public_key: bytes, *, is_sealed: bool) -> Check:
    """What `audit verify` finds. `is_sealed` is the result of is_sealed_soon()."""
    request = Request(operator_id=None, keys=TrustedKeys(public_keys=(public_key,)))
    try:
        async with open_audit_reader(dsn, application_name="demo") as reader:
            result = await verify(reader, request)
    except NotVerifiableError as error:
        return Check(name=_NAME, rows=0, figures="no log", faults=(str(error),))
    faults = [fault.text for first in result.faults.first.values() for fault in first]
    if not is_sealed:
        faults.append(f"the daemon did not seal everything within {_TIMEOUT_S:g} s")
    checkpoints = sum(log.checkpoints for log in result.logs.values())
    return Check(
        name=_NAME,
        rows=result.rows,
        figures=f"{result.rows} rows, {len(result.logs)} logs, {checkpoints} checkpoints",
        faults=(*faults, *result.warnings),
    )
