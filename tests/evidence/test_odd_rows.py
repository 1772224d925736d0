"""The database and the verifier build the same entry of every row, and no odd row stops the logs.

The two share no code: sql/functions/audit/ and predictu_dispatch/verifier/entries.py.
"""

import asyncio
import json
import uuid
from contextlib import AsyncExitStack
from datetime import UTC
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from predictu_dispatch.verifier.entries import entry_of
from tests.support.harness import OPERATOR, connected
from tests.support.postgres import Server, cloned_database
from tests.support.sealing import check_logs, open_sealer

_ODD_TIMES = {
    "infinity": "infinity",
    "-infinity": "-infinity",
    "4714-11-24 00:00:00+00 BC": "4714-11-24T00:00:00.000000Z BC",
    "0001-12-31 23:59:59.999999+00 BC": "0001-12-31T23:59:59.999999Z BC",
    "0001-01-01 00:00:00+00": "0001-01-01T00:00:00.000000Z",
    "10000-01-01 00:00:00.5+00": "10000-01-01T00:00:00.500000Z",
    "294276-12-31 23:59:59.999999+00": "294276-12-31T23:59:59.999999Z",
}
"""As Postgres reads them, and as they are in an entry."""
_TIMES = ("started_at", "finished_at")
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
_INT4 = st.integers(-(2**31), 2**31 - 1)
_HASH = st.binary(min_size=0, max_size=40)
_DURATION = st.none() | st.floats() | st.sampled_from([0.0005, 0.0015, -0.0, 9e12, 9e12 + 1, -9e12, 1e308, 5e-324])
_TIME = st.datetimes(timezones=st.just(UTC)) | st.sampled_from([*_ODD_TIMES])
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_IDS = [uuid.UUID(int=0), uuid.UUID(int=2**128 - 1), uuid.UUID(int=7)]
_ATTEMPT = st.fixed_dictionaries(
    {
        "operator_id": st.sampled_from([OPERATOR, "op_never_seen", "", 'é \\ "']),
        "method": _TEXT,
        "attempt": st.integers(2, 2**31 - 1),
        "evidence": st.sampled_from(["not_sent", "unanswered", "answered"]),
        "verdict": st.sampled_from(["delivered", "rejected", "retry", "late"]),
        "reason": st.none() | _TEXT,
        "instance": _TEXT,
        "started_at": _TIME,
        "finished_at": _TIME,
        "url": st.none() | _TEXT,
        "key_id": st.none() | _TEXT,
        "request_headers": st.none() | _JSON | st.just({"Authorization": "Bearer a.b.[signature withheld]"}),
        "request_body": st.none() | _TEXT,
        "response_status": st.none() | _INT4,
        "response_headers": st.none() | _JSON,
        "response_body": st.none() | st.binary(max_size=40),
        "response_truncated": st.booleans(),
        "connect_ms": _DURATION,
        "first_byte_ms": _DURATION,
        "total_ms": _DURATION,
        "error": st.none() | _TEXT,
        "report_id": st.uuids() | st.sampled_from(_IDS),
        "peer": st.none() | _TEXT,
        "peer_certificate_sha256": st.none() | _HASH,
        "token_signature": st.none() | st.binary(max_size=70),
        "written_in": st.none() | st.sampled_from([-(2**63), -1, 0, 2**53 + 1, 2**63 - 1]),
    }
)
_BEFORE = 60
"""Examples before the logs begin. Later on a row that was not written by its transaction is never
sealed, and `audit verify` finds it."""
_REPEATED = st.none() | _HASH


class _Database:
    """One database for all examples, whose rows stay."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._stack = AsyncExitStack()

    def open(self, postgres: Server, template: str) -> None:
        self._runner.run(self._open(postgres, template))

    async def _open(self, postgres: Server, template: str) -> None:
        database = await self._stack.enter_async_context(cloned_database(postgres, template))
        [self._owner] = await self._stack.enter_async_context(connected(database.owner, 1))
        self._sealer = await self._stack.enter_async_context(open_sealer(database.dispatcher))
        self._examples = 0

    def close(self) -> None:
        self._runner.run(self._stack.aclose())

    def build(self, row: dict[str, Any], repeated: bytes | None) -> None:
        self._runner.run(self._build(row, repeated))

    def check(self) -> dict[str, int]:
        return self._runner.run(self._check())

    async def _build(self, row: dict[str, Any], repeated: bytes | None) -> None:
        self._examples += 1
        given = {**row, "request_id": uuid.uuid4()}
        if self._examples > _BEFORE:
            del given["written_in"]
        given |= {"response_body_sha256": repeated, "response_body_repeats": None if repeated is None else 1}
        values = [_parameter(name, value) for name, value in given.items()]
        casts = ", ".join(_cast(name, number) for number, name in enumerate(given, 1))
        await self._owner.execute(
            f"insert into predictu_dispatch.attempt_record ({', '.join(given)}) values ({casts})",  # noqa: S608
            *values,
        )
        columns = [*(name for name in row if name not in _TIMES), "request_id", "token_sha256", "response_body_sha256"]
        # The driver does not know all times.
        times = [f"case when {name} between '0001-01-02' and '9999-12-30' then {name} end as {name}" for name in _TIMES]
        columns = [name for name in columns if name != "token_signature"] + ["response_body_repeats", *times]
        found = await self._owner.fetchrow(
            f"select {', '.join(columns)}, predictu_dispatch.audit_entry(a) as entry"  # noqa: S608
            " from predictu_dispatch.attempt a where request_id = $1",
            given["request_id"],
        )
        assert found is not None
        stored = dict(found)
        entry = stored.pop("entry")
        odd = {name: _ODD_TIMES[row[name]] if isinstance(row[name], str) else row[name] for name in _TIMES}
        assert entry.decode() == entry_of("attempt", stored | odd).decode()
        if self._examples >= _BEFORE and self._examples % 20 == 0:
            await self._sealer.seal_all()

    async def _check(self) -> dict[str, int]:
        await self._sealer.seal_all()
        # No transaction has such an id, so these rows are sealed neither.
        await self._owner.execute(
            "alter table predictu_dispatch.attempt_record disable trigger attempt_append_only;"
            "delete from predictu_dispatch.attempt_record where written_in > 9007199254740992"
        )
        await self._sealer.seal_all()
        return await check_logs(self._owner)


def _parameter(name: str, value: object) -> object:
    if name in ("request_headers", "response_headers"):
        return None if value is None else json.dumps(value).replace("\\u0000", "")
    return str(value) if name in _TIMES else value


def _cast(name: str, number: int) -> str:
    return f"${number}::text::timestamptz" if name in _TIMES else f"${number}"


def test_both_build_the_same_entry_of_any_attempt_and_all_of_them_are_sealed(postgres: Server, template: str) -> None:
    with asyncio.Runner() as runner:
        database = _Database(runner)
        database.open(postgres, template)
        try:

            @settings(max_examples=300)
            @given(_ATTEMPT, _REPEATED)
            def builds_the_same(row: dict[str, Any], repeated: bytes | None) -> None:
                database.build(row, repeated)

            builds_the_same()
            assert sum(database.check().values()) > 50
        finally:
            database.close()
