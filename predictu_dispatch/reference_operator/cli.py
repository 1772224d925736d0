"""The command line: what the operator runs with, the line that says where it listens, a clean end on a signal."""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sqlite3
import ssl
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from .callback import is_text
from .database import WalletError
from .faults import Fault, FaultError, FaultSource, parse_rates
from .keys import Algorithm, KeyFileError, read_keyring
from .log import set_up_log
from .money import SUBUNITS_MAX, AmountFormat
from .server import serving
from .settings import Address, Settings, parse_address
from .wallet import NewPlayer

EXIT_FINE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def main(argv: Sequence[str]) -> int:
    """Runs until SIGTERM or SIGINT; the exit code is 0 fine, 1 failed, 2 wrong usage, with the fault on stderr."""
    parser = _parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_USAGE
    try:
        settings = _settings(options)
    except (KeyFileError, FaultError, ValueError) as fault:
        sys.stderr.write(f"{parser.prog}: {fault}\n")
        return EXIT_USAGE
    set_up_log(options.log)
    try:
        asyncio.run(_run(settings))
    except (OSError, sqlite3.Error, WalletError) as fault:
        sys.stderr.write(f"{parser.prog}: {fault}\n")
        return EXIT_FAILED
    return EXIT_FINE


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings) as listening:
        line = {"event": "operator.listening", "url": listening.url, "admin_url": listening.admin_url}
        # A parent process waits for this line, and would wait for ever while it lay in a buffer.
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        await stop.wait()


def _settings(options: argparse.Namespace) -> Settings:
    """The options as they are used. Raises KeyFileError, FaultError, ValueError, each with a message for a person."""
    admin_listen: Address | None = options.admin_listen
    if admin_listen is not None and not admin_listen.is_loopback:
        raise ValueError(f"--admin-listen: {admin_listen.host} is not loopback; whoever reaches this door makes money")
    if not options.path.startswith("/"):
        raise ValueError(f'--path: "{options.path}" does not begin with /')
    if not options.stall_s >= 0:
        raise ValueError(f"--stall-s: {options.stall_s:g} is below 0")
    if options.seed_players < 0 or not 0 <= options.seed_balance <= SUBUNITS_MAX:
        raise ValueError(
            f"--seed-players and --seed-balance must be 0 or more, a balance at most {SUBUNITS_MAX} subunits"
        )
    if not (is_text(options.seed_currency) and is_text(options.operator_id)):
        raise ValueError("--seed-currency and --operator-id must be texts of 1 to 200 characters")
    if options.tls_key and not options.tls_cert:
        raise ValueError("--tls-key: there is no --tls-cert to it")
    return Settings(
        operator_id=options.operator_id,
        listen=options.listen,
        path=options.path,
        admin_listen=admin_listen,
        database=options.database,
        keyring=read_keyring(options.algorithm, pem_files=options.public_key, jwks_files=options.jwks),
        amount_format=AmountFormat(options.amount_format),
        faults=FaultSource(parse_rates(options.faults), seed=options.fault_seed, stall_s=options.stall_s),
        seed_players=tuple(
            NewPlayer(player_id=f"player-{number}", currency=options.seed_currency, balance=options.seed_balance)
            for number in range(1, options.seed_players + 1)
        ),
        tls=_tls(options.tls_cert, options.tls_key) if options.tls_cert else None,
    )


def _tls(certificate: Path, key: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as fault:
        raise ValueError(f"--tls-cert {certificate}, --tls-key {key}: {fault}") from None
    return context


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as fault:
        raise argparse.ArgumentTypeError(str(fault)) from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reference-operator",
        description="An operator's wallet backend for Predictu's callbacks.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--operator-id", required=True, metavar="ID", help="our id with Predictu, for example op_abc123")
    add("--database", required=True, type=Path, metavar="FILE", help="the SQLite file; made if it is not there")
    add(
        "--public-key", action="append", default=[], type=Path, metavar="FILE", help="Predictu's key in PEM; repeatable"
    )
    add("--jwks", action="append", default=[], type=Path, metavar="FILE", help="Predictu's keys as JWKS; repeatable")
    add("--algorithm", choices=get_args(Algorithm), default="EdDSA", help="the one that is accepted (default EdDSA)")
    add(
        "--listen",
        type=_address,
        default="127.0.0.1:8080",
        metavar="HOST:PORT",
        help="port 0: any (default %(default)s)",
    )
    add("--path", default="/predictu", help="where callbacks are posted (default %(default)s)")
    add("--amount-format", choices=[*AmountFormat], default=AmountFormat.SUBUNITS, help="as agreed (default subunits)")
    add("--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate chain")
    add("--tls-key", type=Path, metavar="FILE", help="its key, where it is not in the same file")
    add(
        "--log",
        choices=["json", "plain", "off"],
        default="plain",
        help="one line per callback on stderr (default plain)",
    )
    trial = parser.add_argument_group("for trials")
    add = trial.add_argument
    add("--seed-players", type=int, default=0, metavar="N", help="make sure that player-1 to player-N exist")
    add("--seed-balance", type=int, default=0, metavar="SUBUNITS", help="what each of them begins with")
    add("--seed-currency", default="EUR", metavar="CODE", help="in which currency (default EUR)")
    add("--faults", default="", metavar="NAME=RATE,…", help=f"shares of callbacks to spoil: {', '.join(Fault)}")
    add("--fault-seed", type=int, metavar="N", help="the same seed and order of arrival give the same faults")
    add("--stall-s", type=float, default=30.0, metavar="SECONDS", help="how long a stalled answer is held (default 30)")
    add(
        "--admin-listen",
        type=_address,
        metavar="HOST:PORT",
        help="a loopback address for the /_admin routes (default off)",
    )
    return parser
