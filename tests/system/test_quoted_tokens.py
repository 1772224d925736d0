"""An operator that quotes our token leaves its signature nowhere: no table, no view and no log."""

import json
from base64 import urlsafe_b64decode

from predictu_dispatch.core.redaction import PART_CHARS_MIN
from tests.support.environment import Environment
from tests.support.raw_server import Peer, RawServer

BODY_BYTES_MAX = 1024
RELATIONS = """
select c.oid::regclass::text from pg_class c
 where c.relnamespace = 'predictu_dispatch'::regnamespace and c.relkind in ('r', 'v')
   and c.relname not like 'attempt\\_%'
"""


def quotations(token: str) -> list[bytes]:
    """Answers of an operator that shows what it was sent, in the order of our attempts."""
    cut = b"<p>" + b" " * (BODY_BYTES_MAX - 3 - len(token) + 30) + token.encode()
    unknown = json.dumps({"status": token.rpartition(".")[2], "note": token}).encode()
    delivered = json.dumps({"status": "OK", "balance": 1, "transaction_id": token.rpartition(".")[2]}).encode()
    location = f"Location: https://login.example/?token={token}\r\nX-Authorization: Bearer {token}"
    heads = [
        ("302 Found", location, token.encode()),
        ("500 Broken", f"X-Token-{token.rpartition('.')[2]}: yes", b"Bearer " + token.encode() + b" is not known"),
        ("200 OK", "X-A: b", cut),
        ("503 Busy", "X-A: b", unknown),
        ("200 OK", f"X-Seen: {token}", delivered),
    ]
    return [
        f"HTTP/1.1 {status}\r\n{headers}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
        for status, headers, body in heads
    ]


async def test_the_signature_of_a_quoted_token_is_kept_nowhere(environment: Environment) -> None:
    signatures: list[str] = []

    async def script(peer: Peer) -> None:
        request = await peer.request()
        [token] = [line[22:].decode() for line in request.split(b"\r\n") if line.startswith(b"Authorization: Bearer ")]
        answer = quotations(token)[len(signatures)]
        signatures.append(token.rpartition(".")[2])
        await peer.send(answer)
        await peer.read_until_closed()

    async with RawServer(script).running() as server:
        environment.fleet.write_operator(
            server.url,
            limits={"max_response_bytes": BODY_BYTES_MAX},
            circuit={"failure_threshold": 100},
            health={"ping_interval_s": 0},
        )
        daemon = await environment.fleet.start("host-1")
        request_id = await environment.harness.place("b-1")
        await environment.until_all_final()
        daemon.terminate()
        assert await daemon.exited() == 0
    owner = environment.harness.owner
    rows = await owner.fetch("select * from predictu_dispatch.attempt_record order by attempt")
    assert [row["reason"] for row in rows] == ["misconfigured", "http_500", "too_large", "http_503", None]
    assert [row["token_signature"] for row in rows] == [urlsafe_b64decode(f"{one}==") for one in signatures]
    assert (await environment.harness.callback(request_id))["operator_transaction_id"] == "*" * len(signatures[-1])

    kept = [daemon.log_text]
    for relation in [row[0] for row in await owner.fetch(RELATIONS)]:
        kept += [row[0] for row in await owner.fetch(f"select t::text from {relation} t")]  # noqa: S608
    for row in rows:
        kept.append(repr({name: value for name, value in row.items() if name != "token_signature"}))
    everything = "\n".join(kept)
    assert "[signature withheld]" in everything
    for signature in signatures:
        for start in range(len(signature) - PART_CHARS_MIN):
            part = signature[start : start + PART_CHARS_MIN]
            assert part not in everything
            assert part.encode().hex() not in everything
        assert urlsafe_b64decode(f"{signature}==").hex() not in everything
