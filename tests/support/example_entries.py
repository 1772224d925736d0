"""The rows whose entries evidence/FORMAT.md shows, as Postgres reads them from JSON."""

from typing import Any, Final

OPERATOR = "op_abc123"
_HASH = "\\x" + "ab" * 32
_ATTEMPT: Final[dict[str, Any]] = {
    "operator_id": OPERATOR,
    "request_id": "7f3c4a52-5d0e-4f0e-9a57-0c5a5f3c1a11",
    "method": "BET_MAKE",
    "attempt": 1,
    "evidence": "answered",
    "verdict": "delivered",
    "instance": "host-1",
    "started_at": "2026-11-29T10:00:05.1234Z",
    "finished_at": "2026-11-29T10:00:05.2+00:00",
    "url": "https://wallet.example.com/predictu",
    "key_id": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
    "request_headers": {"Content-Type": "application/json", "Authorization": "Bearer e30.e30.[signature withheld]"},
    "request_body": '{"method":"BET_MAKE"}',
    "response_status": 200,
    "response_headers": [["content-type", "application/json"]],
    "response_body": "\\x7b7d",
    "response_truncated": False,
    "connect_ms": 1.0005,
    "first_byte_ms": 2.5,
    "total_ms": 76.5995,
    "report_id": "0d6f9f0e-7a0b-4a53-8a0f-1f1f5f0b2c22",
    "peer": "[2001:db8::1]:443",
    "peer_certificate_sha256": _HASH,
    "written_in": 4711,
    "token_sha256": _HASH,
}
ROWS: Final[list[tuple[str, str, dict[str, Any]]]] = [
    (
        "audit_start_entry(e)",
        "audit_log",
        {
            "operator_id": OPERATOR,
            "origin": f"audit.predictu.example/{OPERATOR}",
            "start_id": "9a1b7c33-2e4d-4f5a-8b6c-7d8e9f0a3b33",
            "started_at": "2026-11-29T09:00:00Z",
            "attempts_before": 0,
            "interventions_before": 0,
            "system_identifier": 7578205398206488577,
            "written_in": 4700,
        },
    ),
    ("audit_entry(e)", "attempt", _ATTEMPT),
    # A repetition, with what no daemon writes: odd characters, times and durations.
    (
        "audit_entry(e)",
        "attempt",
        _ATTEMPT
        | {
            "attempt": 2,
            "reason": 'a "b" \\ / \t\n\r\b\f\u001f\u007f\u2028 é \U0001f3b2',
            "error": "é",
            "started_at": "0044-03-15 12:00:00+00 BC",
            "finished_at": "infinity",
            "response_body": "\\x7b",
            "response_body_sha256": _HASH,
            "response_body_repeats": 1,
            "connect_ms": "NaN",
            "first_byte_ms": -1e300,
            "total_ms": 0.0025,
            "written_in": None,
            "token_sha256": None,
            "peer": None,
        },
    ),
    (
        "audit_intervention_entry(e)",
        "intervention",
        {
            "operator_id": OPERATOR,
            "intervention_id": "11d3cc1a-6a3f-4d59-9d10-8a9c6c3c5e44",
            "request_id": "7f3c4a52-5d0e-4f0e-9a57-0c5a5f3c1a11",
            "action": "resolve",
            "reason": "settled with the operator",
            "done_by": "ada@host-1",
            "database_role": "ada",
            "done_at": "2026-11-29T11:00:00.000001Z",
            "bet_id": "b-1",
            "client_addr": "192.0.2.7",
            "before": {"state": "rejected", "attempts": 2},
            "after": {"state": "rejected", "attempts": 2, "review_since": None},
            "written_in": 4715,
        },
    ),
    (
        "audit_key_entry(e, 'retired')",
        "signing_key",
        {
            "operator_id": OPERATOR,
            "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            "algorithm": "EdDSA",
            "public_jwk": {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
            "first_seen_at": "2026-11-29T09:00:00Z",
            "retired_at": "2026-11-29T12:00:00Z",
            "first_seen_id": "22d3cc1a-6a3f-4d59-9d10-8a9c6c3c5e44",
            "retired_id": "33d3cc1a-6a3f-4d59-9d10-8a9c6c3c5e44",
            "written_in": 4690,
            "retired_in": 4720,
        },
    ),
    (
        "audit_removal_entry(e)",
        "audit_removal",
        {
            "operator_id": OPERATOR,
            "removal_id": "44d3cc1a-6a3f-4d59-9d10-8a9c6c3c5e44",
            "part": "2024_01",
            "cutoff": "2024-11-01T00:00:00Z",
            "attempts": 257,
            "leaf_indices": "{[0,256),[300,301)}",
            "leaf_indices_sha256": _HASH,
            "removed_at": "2026-11-29T03:00:00Z",
            "written_in": 4730,
        },
    ),
]
"""(the call, the row's type, the row)"""


def statement(call: str, row_type: str) -> str:
    """Returns a statement whose parameter is the row as JSON."""
    rows = f"jsonb_populate_record(null::predictu_dispatch.{row_type}, $1::jsonb) as e"
    return f"select predictu_dispatch.{call} from {rows}"  # noqa: S608
