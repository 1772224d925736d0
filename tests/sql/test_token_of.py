"""A token is a credential until it expires: until then only the owner can read its signature."""

import json
import re
import time
import uuid
from base64 import b64encode, urlsafe_b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import jwt
import pytest

from predictu_dispatch.core.operator_settings import SigningAlgorithm
from predictu_dispatch.core.signing import SigningKey, unsigned_token
from predictu_dispatch.edge.config.keys import new_private_pem
from tests.support.command_line import command_line_for
from tests.support.harness import OPERATOR, Connection, Harness, connected, delivered, reaped, retried
from tests.support.postgres import LOGINS, Database, Server

TOKEN_OF = "select predictu_dispatch.token_of($1, $2, $3, $4)"
KEYS = {algorithm: SigningKey.from_pem(new_private_pem(algorithm), algorithm) for algorithm in ("EdDSA", "RS256")}


def signed(expired_s_ago: float, algorithm: SigningAlgorithm = "EdDSA") -> dict[str, Any]:
    """The fields of a report whose token expired this long ago."""
    key = KEYS[algorithm]
    unsigned = unsigned_token(
        key,
        operator_id=OPERATOR,
        method="BET_MAKE",
        jti="1",
        body=b"{}",
        issued_at_s=int(time.time() - expired_s_ago - 30),
        ttl_s=30,
    )
    return sent(unsigned, key.signature(unsigned.encode()))


def sent(unsigned: str, signature: bytes | None) -> dict[str, Any]:
    headers = json.dumps({"Accept": "*/*", "Authorization": f"Bearer {unsigned}.[signature withheld]"})
    return {"request_headers": headers, "token_signature": signature}


def with_claims(claims: str) -> dict[str, Any]:
    return sent(f"eyJ9.{urlsafe_b64encode(claims.encode()).decode().rstrip('=')}", b"s" * 64)


async def refusal(auditor: Connection, *arguments: Any) -> asyncpg.PostgresError:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await auditor.fetchval(TOKEN_OF, *arguments)
    return refused.value


@pytest.fixture
async def auditor(database: Database) -> Any:
    async with connected(database.auditor, 1) as [connection]:
        yield connection


@pytest.mark.parametrize("algorithm", KEYS)
async def test_the_auditor_reads_the_token_that_was_sent_once_it_has_expired(
    harness: Harness, auditor: Connection, algorithm: SigningAlgorithm
) -> None:
    request_id = await harness.place()
    await harness.attempt(request_id, delivered, **signed(62, algorithm))
    token = await auditor.fetchval(TOKEN_OF, OPERATOR, request_id, 1, None)
    claims = jwt.decode(token, KEYS[algorithm].public_pem(), algorithms=[algorithm], options={"verify_exp": False})
    assert claims["sub"] == OPERATOR
    sha256 = "select token_sha256 = sha256(convert_to($1, 'UTF8')) from predictu_dispatch.attempt"
    assert await auditor.fetchval(sha256, token)


async def test_a_token_that_may_be_valid_is_refused_with_the_time_from_which_it_may_be_read(
    harness: Harness, auditor: Connection
) -> None:
    request_id = await harness.place()
    # A second before the end of the minute after exp, less what the test takes.
    fields = signed(50)
    await harness.attempt(request_id, delivered, **fields)
    claims = json.loads(fields["request_headers"])["Authorization"].split(".")[1]
    exp = json.loads(jwt.utils.base64url_decode(claims))["exp"]
    error = await refusal(auditor, OPERATOR, request_id, 1, None)
    assert error.sqlstate == "PD009"
    assert f"{datetime.fromtimestamp(exp + 60, UTC):%Y-%m-%dT%H:%M:%S}.000Z" in str(error)


async def test_what_has_no_readable_token_is_refused(harness: Harness, auditor: Connection) -> None:
    unknown = uuid.uuid4()
    assert "there is no such attempt" in str(await refusal(auditor, OPERATOR, unknown, 1, None))
    cases = [
        ({}, "this row of the attempt has no token"),
        (sent("a.b", None), "this row of the attempt has no token"),
        ({"request_headers": "{}", "token_signature": b"s"}, "this row of the attempt has no token"),
        (sent("eyJ9.%%%", b"s"), "the exp of this token cannot be read"),
        *(
            (with_claims(claims), "the exp of this token cannot be read")
            for claims in (
                "{}",
                "[]",
                "{",
                '{"exp": "1"}',
                '{"exp": null}',
                '{"exp": 1e400}',
                '{"exp": -1e300}',
                "\u0080",
            )
        ),
    ]
    for number, (fields, said) in enumerate(cases):
        request_id = await harness.place(f"b-{number}")
        await harness.attempt(request_id, delivered, **fields)
        for arguments in (
            (OPERATOR, request_id, 1, None),
            (OPERATOR, request_id, 2, None),
            ("op_b", request_id, 1, None),
        ):
            error = await refusal(auditor, *arguments)
            is_it = arguments[0] == OPERATOR and arguments[2] == 1
            assert error.sqlstate == "PD003"
            assert (said if is_it else "there is no such attempt") in str(error), fields


async def test_a_late_row_s_token_is_read_by_its_report_id(harness: Harness, auditor: Connection) -> None:
    """The daemon lost its lease, so the reaper's row decides, and has no token."""
    request_id = await harness.place()
    lease = await harness.lease(request_id)
    await harness.settle(reaped(lease))
    late = delivered(lease, **signed(62))
    [change] = await harness.settle(late)
    assert change["cause"] == "late"
    assert "give its report_id" in str((await refusal(auditor, OPERATOR, request_id, 1, None)).hint)
    token = await auditor.fetchval(TOKEN_OF, OPERATOR, request_id, 1, late["report_id"])
    assert jwt.decode(token, KEYS["EdDSA"].public_pem(), algorithms=["EdDSA"], options={"verify_exp": False})
    assert "no such attempt" in str(await refusal(auditor, OPERATOR, request_id, 2, late["report_id"]))


# ── Nobody reads a live token ─────────────────────────────────────────────────────────────────────

RELATIONS = """
select c.oid::regclass::text as name, array_agg(quote_ident(a.attname)) as columns
  from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
 where c.relnamespace = 'predictu_dispatch'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
 group by c.oid order by 1
"""
FUNCTIONS = """
select p.oid::regprocedure::text as name, p.proname,
       array(select format_type(t, null) from unnest(p.proargtypes) with ordinality as given (t, n)
              where n <= p.pronargs - p.pronargdefaults order by n) as types
  from pg_proc p
 where p.pronamespace = 'predictu_dispatch'::regnamespace and p.prorettype <> 'trigger'::regtype
   and has_function_privilege($1, p.oid, 'execute')
 order by 1
"""
VALUES = {
    "uuid": "'{request}'::uuid",
    "integer": "1",
    "bigint": "1",
    "boolean": "false",
    "double precision": "1",
    "jsonb": "'{{}}'::jsonb",
    "timestamp with time zone": "now()",
    "predictu_dispatch.attempt": "(select a from predictu_dispatch.attempt a limit 1)",
}


def call(function: asyncpg.Record, request_id: uuid.UUID) -> str:
    """A call of this function about the attempt with the live token, as far as its types allow."""

    def value(type_name: str) -> str:
        if type_name.endswith("[]"):
            element = value(type_name.removesuffix("[]"))
            return f"array[{element}]::{type_name}"
        if type_name == "text":
            return f"'{OPERATOR}'::text"
        return VALUES.get(type_name, f"null::{type_name}").format(request=request_id)

    arguments = ", ".join(map(value, function["types"]))
    return f"select f::text from predictu_dispatch.{function['proname']}({arguments}) f"  # noqa: S608


async def said(connection: Connection, statement: str) -> str:
    """What the statement returns or why it fails; it changes nothing."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        return "\n".join(str(row[0]) for row in await connection.fetch(statement))
    except asyncpg.PostgresError as error:
        return f"{error} {error.as_dict()}"
    finally:
        await transaction.rollback()


def quotes(signature: bytes, text: str) -> bool:
    forms = (signature.hex(), b64encode(signature).decode(), urlsafe_b64encode(signature).decode())
    # A part is enough for a test: nothing else is equal to 16 characters of it.
    return any(form[start : start + 16] in text for form in forms for start in range(0, len(form) - 16, 16))


@pytest.mark.parametrize("login", LOGINS)
async def test_no_login_gets_a_live_signature_out_of_any_table_view_or_function(
    harness: Harness, database: Database, postgres: Server, login: str
) -> None:
    request_id = await harness.place()
    live = signed(-3600)
    await harness.attempt(request_id, retried, **live, response_body=b"x" * 5000)
    signature = live["token_signature"]
    # The check finds it where it is.
    assert quotes(signature, await said(harness.owner, "select a::text from predictu_dispatch.attempt_record a"))
    relations = await harness.owner.fetch(RELATIONS)
    functions = await harness.owner.fetch(FUNCTIONS, login)
    answers: dict[str, str] = {}
    async with connected(postgres.dsn(database.name, login), 1) as [connection]:
        for relation in relations:
            for column in ("t", *relation["columns"]):
                answers[f"{relation['name']}.{column}"] = await said(
                    connection,
                    f"select {column}::text from {relation['name']} t",  # noqa: S608
                )
        for function in functions:
            answers[function["name"]] = await said(connection, call(function, request_id))
        for view in ("pg_stats", "pg_stats_ext", "pg_stat_activity", "pg_prepared_statements"):
            answers[view] = await said(connection, f"select v::text from {view} v")  # noqa: S608
    assert [name for name, answer in answers.items() if quotes(signature, answer)] == []
    assert "permission denied" in answers["predictu_dispatch.attempt_record.token_signature"]
    if login == "test_auditor":
        assert "may be valid" in answers["predictu_dispatch.token_of(text,uuid,integer,uuid)"]
        assert str(request_id) in answers["predictu_dispatch.attempt.t"]
    else:
        assert "predictu_dispatch.token_of(text,uuid,integer,uuid)" not in answers


@pytest.mark.parametrize("role", ["support", "operations", "auditor"])
async def test_no_command_prints_a_live_signature(
    harness: Harness, database: Database, tmp_path: Path, role: str
) -> None:
    request_id = await harness.place()
    live = signed(-3600)
    await harness.attempt(request_id, retried, **live, response_status=503, response_body=b"Busy")
    cli = command_line_for(tmp_path, getattr(database, role))
    for command in (
        ("show", str(request_id)),
        ("show", "--bet", OPERATOR, "b1"),
        ("why", str(request_id)),
        ("find", "--bet", "b1"),
        ("status",),
        ("interventions",),
    ):
        for options in ((), ("--json",)):
            text = "".join(map(str, (await cli.run(*command, *options))[1:]))
            assert not quotes(live["token_signature"], text), command
            assert not re.search(r"eyJ[\w-]+\.[\w-]+\.[\w-]", text), command
