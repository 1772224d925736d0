"""signing_key keeps every key that ever signed, and when it was retired."""

import json

import asyncpg
import pytest

from tests.support.harness import OPERATOR, Connection, Harness

REGISTER = "select predictu_dispatch.register_signing_keys($1, $2, $3, $4)"
RETIRE = "select predictu_dispatch.retire_signing_key($1, $2)"
KEYS = "select * from predictu_dispatch.signing_key order by operator_id, kid"


async def register(daemon: Connection, *kids: str, x: str = "1") -> None:
    jwks = [json.dumps({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid}) for kid in kids]
    await daemon.execute(REGISTER, [OPERATOR] * len(kids), [*kids], ["EdDSA"] * len(kids), jwks)


async def test_a_key_is_stored_once_and_keeps_its_first_time(harness: Harness) -> None:
    await register(harness.daemon, "a")
    [first] = await harness.owner.fetch(KEYS)
    await register(harness.daemon, "b", "a", x="2")
    again, other = await harness.owner.fetch(KEYS)
    assert again == first
    assert json.loads(other["public_jwk"])["x"] == "2"
    assert (other["retired_at"], other["retired_id"], other["retired_in"]) == (None, None, None)
    assert first["written_in"] < other["written_in"]


async def test_a_key_is_retired_once(harness: Harness) -> None:
    await register(harness.daemon, "a", "b")
    assert await harness.person.fetchval(RETIRE, OPERATOR, "a") is True
    retired, other = await harness.owner.fetch(KEYS)
    assert retired["first_seen_at"] <= retired["retired_at"]
    assert (retired["retired_id"] is not None, retired["retired_in"] > retired["written_in"]) == (True, True)
    assert other["retired_at"] is None
    assert await harness.person.fetchval(RETIRE, OPERATOR, "a") is True
    await register(harness.daemon, "a")
    assert await harness.owner.fetch(KEYS) == [retired, other]
    assert await harness.person.fetchval(RETIRE, OPERATOR, "unknown") is False


@pytest.mark.parametrize("replication_role", ["origin", "replica"])
async def test_nobody_changes_or_removes_a_key(harness: Harness, replication_role: str) -> None:
    """Not even the owner, a superuser here, nor a replica session, which skips triggers."""
    await register(harness.daemon, "a", "b")
    await harness.person.fetchval(RETIRE, OPERATOR, "a")
    before = await harness.owner.fetch(KEYS)
    await harness.owner.execute(f"set session_replication_role = {replication_role}")
    retires = (
        "update predictu_dispatch.signing_key set retired_at = now(), retired_id = gen_random_uuid(), retired_in = 1"
    )
    for statement in (
        f"{retires}, public_jwk = '{{}}' where kid = 'b'",
        f"{retires} where kid = 'a'",
        "update predictu_dispatch.signing_key set retired_at = null, retired_id = null, retired_in = null",
        "update predictu_dispatch.signing_key set first_seen_at = first_seen_at - interval '1 day'",
        "update predictu_dispatch.signing_key set written_in = 1",
        "delete from predictu_dispatch.signing_key",
        "truncate predictu_dispatch.signing_key",
    ):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await harness.owner.execute(statement)
        assert refused.value.sqlstate == "PD900", statement
    assert await harness.owner.fetch(KEYS) == before
