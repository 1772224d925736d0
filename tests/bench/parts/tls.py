"""`tls`: the same work over TLS; connections must be reused."""

import trustme

from tests.bench.bench_environment import BenchEnvironment
from tests.bench.findings import Figure, Findings
from tests.bench.meter import Reading
from tests.bench.receiver import Receiver
from tests.bench.rounds import in_turn

_AT_LEAST = 0.90
_REUSE_AT_LEAST = 0.99
"""Required ratios."""
_TIMES = 2
"""Enough bets that the first connection of each slot does not lower the reuse noticeably."""
_CONNECTIONS, _ATTEMPTS = "connections_total", "attempts_total"


async def measure(environment: BenchEnvironment) -> Findings:
    authority = trustme.CA()
    folder = environment.folder / "tls"
    folder.mkdir()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    ours = authority.issue_cert("localhost")
    ours.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "key.pem").chmod(0o600)
    # nginx reads the chain from the certificate file.
    for pem in ours.cert_chain_pems:
        pem.write_to_path(folder / "cert.pem", append=True)
    bets = _TIMES * environment.bets
    full = await environment.filled("tls_full", bets=bets)
    with Receiver(folder / "nginx", certificate=folder / "cert.pem", key=folder / "key.pem") as receiver:
        plain = environment.files("tls-plain", receiver.url)
        tls = environment.files("tls-tls", receiver.tls_url, tls={"ca_file": str(folder / "ca.pem")})

        async def over_http() -> Reading:
            async with environment.copy(full, "tls_round") as database:
                return await environment.deliver(plain, database, bets, receiver=receiver)

        async def over_tls() -> Reading:
            async with environment.copy(full, "tls_round") as database:
                return await environment.deliver(tls, database, bets, receiver=receiver)

        rounds = await in_turn(environment, {"HTTP": over_http, "TLS": over_tls}, base="HTTP")
    reuse = Figure(name="TLS: reuse of connections", values=rounds.values("TLS", _reuse), at_least=_REUSE_AT_LEAST)
    has_metric = any(reading and _CONNECTIONS in reading.metrics for reading in rounds.readings["TLS"])
    return Findings(
        part="tls",
        title="throughput over TLS and over plain HTTP, both with keep-alive",
        figures=[rounds.ratio("TLS", "HTTP", at_least=_AT_LEAST), reuse],
        rates=rounds.rows(),
        notes=[
            f"Reuse is 1 - connections / requests, by {'our metrics' if has_metric else 'what nginx has accepted'}.",
            *rounds.all_notes,
        ],
    )


def _reuse(reading: Reading) -> float:
    """Share of the requests that reused a connection."""
    if _CONNECTIONS in reading.metrics:
        return 1 - reading.metrics[_CONNECTIONS] / reading.metrics[_ATTEMPTS]
    return 1 - reading.connections / reading.requests
