"""Fills the audit with rows of every kind, as they would be after some weeks."""

from typing import Any

OPERATORS = ("op_a", "op_b")

_OPERATORS = """
insert into predictu_dispatch.operator
    (operator_id, enabled, interactive_deadline_s, settlement_deadline_s, config_fingerprint)
select unnest($1::text[]), true, 15, 3600, 'x'
"""
_ATTEMPTS = """
insert into predictu_dispatch.attempt_record (
    operator_id, request_id, method, attempt, evidence, verdict, reason, instance, started_at, finished_at, url, key_id,
    request_headers, request_body, response_status, response_headers, response_body, response_truncated, connect_ms,
    first_byte_ms, total_ms, error, report_id, peer, peer_certificate_sha256, token_signature, response_body_sha256,
    response_body_repeats)
select $1, gen_random_uuid(), 'BET_MAKE', 1 + n % 3, 'answered', 'delivered', 'http_503', 'host-1',
       now() - make_interval(days => 40 - (40 * n / $2)),
       now() - make_interval(days => 40 - (40 * n / $2)) + interval '12 ms',
       'https://wallet.example/predictu', 'key-1',
       jsonb_build_object('Authorization', 'Bearer eyJhbGciOiJFZERTQSJ9.eyJuIjoi' || n || '.[signature withheld]',
                          'Content-Type', 'application/json'),
       '{"request_id": "' || n || '", "method": "BET_MAKE", "params": {"player_id": "p-' || n || '", "amount": 1250}}',
       200, '[["Content-Type", "application/json"], ["Server", "nginx"]]',
       convert_to('{"status": "SUCCESS", "balance": ' || n || '}', 'UTF8'), n % 2 = 0, 1.5, 10.25, 12.125, 'an error',
       gen_random_uuid(), '192.0.2.1:443', sha256('certificate'), sha256('r'::bytea) || sha256('s'::bytea),
       case when n % 3 > 0 then sha256('whole') end, case when n % 3 > 0 then n % 3 end
  from generate_series(1, $2::integer) n
"""
_INTERVENTIONS = """
insert into predictu_dispatch.intervention
    (operator_id, request_id, action, reason, done_by, bet_id, client_addr, before, after)
select $1, gen_random_uuid(), 'resolve', 'paid by hand', 'ann', 'b-' || n, '192.0.2.7', '{"state": "rejected"}',
       '{"state": "rejected", "resolved": true}'
  from generate_series(1, 5) n
"""
_KEYS = """
insert into predictu_dispatch.signing_key (operator_id, kid, algorithm, public_jwk, retired_at, retired_id, retired_in)
select $1, 'key-' || n, 'EdDSA', jsonb_build_object('kty', 'OKP', 'crv', 'Ed25519', 'x', 'key ' || n),
       case when n = 1 then clock_timestamp() + interval '1 minute' end, case when n = 1 then gen_random_uuid() end,
       case when n = 1 then pg_current_xact_id()::text::bigint end
  from generate_series(1, 2) n
"""


async def know(owner: Any, operators: tuple[str, ...] = OPERATORS) -> None:
    """Add operators."""
    await owner.execute(_OPERATORS, list(operators))


async def fill(owner: Any, operator_id: str, attempts: int) -> None:
    """Add attempts of the last forty days, five interventions, and two keys, one retired."""
    await owner.execute(_ATTEMPTS, operator_id, attempts)
    await owner.execute(_INTERVENTIONS, operator_id)
    await owner.execute(_KEYS, operator_id)


async def add_attempts(owner: Any, operator_id: str, attempts: int) -> None:
    await owner.execute(_ATTEMPTS, operator_id, attempts)
