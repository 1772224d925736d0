"""The options of the command line, checked and typed."""

from __future__ import annotations

import argparse
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from .callback import is_text
from .checkpoint import LogKey
from .faults import Fault, FaultSource, parse_rates
from .keys import Algorithm, Keyring, read_keyring
from .money import DIGITS_MAX, SUBUNITS_MAX, AmountFormat, Money
from .verify import TOKEN_TTL_MAX_S
from .wallet import NewPlayer

PORT_MAX = 65535
TOKEN_TTL_LIMIT_S = 3600
"""The longest lifetime that Predictu can be configured to use."""
PROGRAM = "reference-operator"

LogFormat = Literal["json", "plain", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen; with port 0 the system chooses one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this host can reach it. Of names, only localhost is known to be loopback."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything one operator runs with."""

    operator_id: str
    audience: str
    token_ttl_max_s: int
    listen: Address
    path: str
    admin_listen: Address | None
    database: Path
    keyring: Keyring
    money: Money
    faults: FaultSource
    seed_players: tuple[NewPlayer, ...]
    tls: ssl.SSLContext | None
    log: LogFormat
    log_keys: tuple[LogKey, ...]
    """Of Predictu's audit log of this operator; without any, its checkpoints are not cosigned."""
    witness_name: str
    witness_key_file: Path


def parse_settings(arguments: Sequence[str]) -> Settings:
    """Reads the arguments. Raises SystemExit, KeyFileError, FaultError or ValueError if bad."""
    options = _parser().parse_args(arguments)
    admin_listen: Address | None = options.admin_listen
    if admin_listen is not None and not admin_listen.is_loopback:
        raise ValueError(f"--admin-listen: {admin_listen.host} is not loopback; anyone who reaches it can create money")
    if not options.path.startswith("/"):
        raise ValueError(f'--path: "{options.path}" does not begin with /')
    if not options.stall_s >= 0:
        raise ValueError(f"--stall-s: {options.stall_s:g} is below 0")
    if options.seed_players < 0 or not 0 <= options.seed_balance <= SUBUNITS_MAX:
        raise ValueError(
            f"--seed-players and --seed-balance must be 0 or more, a balance at most {SUBUNITS_MAX} subunits"
        )
    if not (is_text(options.seed_currency) and is_text(options.operator_id)):
        raise ValueError("--seed-currency and --operator-id must be strings of 1 to 200 characters")
    if not 1 <= options.token_ttl_max <= TOKEN_TTL_LIMIT_S:
        raise ValueError(f"--token-ttl-max: {options.token_ttl_max} is not between 1 and {TOKEN_TTL_LIMIT_S} seconds")
    if options.tls_key and not options.tls_cert:
        raise ValueError("--tls-key needs --tls-cert")
    witness_name: str = options.witness_name or f"reference-operator/{options.operator_id}"
    if "+" in witness_name or any(character.isspace() or not character.isprintable() for character in witness_name):
        raise ValueError(f'--witness-name: "{witness_name}" has a space or a plus')
    return Settings(
        operator_id=options.operator_id,
        audience=options.audience,
        token_ttl_max_s=options.token_ttl_max,
        listen=options.listen,
        path=options.path,
        admin_listen=admin_listen,
        database=options.database,
        keyring=read_keyring(options.algorithm, pem_files=options.public_key, jwks_files=options.jwks),
        money=Money(amount_format=AmountFormat(options.amount_format), further_digits=dict(options.currency_digits)),
        faults=FaultSource(parse_rates(options.faults), seed=options.fault_seed, stall_s=options.stall_s),
        seed_players=tuple(
            NewPlayer(player_id=f"player-{number}", currency=options.seed_currency, balance=options.seed_balance)
            for number in range(1, options.seed_players + 1)
        ),
        tls=_tls(options.tls_cert, options.tls_key) if options.tls_cert else None,
        log=options.log,
        log_keys=tuple(map(LogKey.parse, options.log_vkey)),
        witness_name=witness_name,
        witness_key_file=options.database.with_name(f"{options.database.name}-witness.pem"),
    )


def parse_address(text: str) -> Address:
    """Parses `127.0.0.1:8080`, `[::1]:8080` or `localhost:0`. Raises argparse.ArgumentTypeError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > PORT_MAX:
        raise argparse.ArgumentTypeError(f'"{text}" is not of the form host:port with a port between 0 and {PORT_MAX}')
    return Address(host=host.removeprefix("[").removesuffix("]"), port=int(port))


def parse_currency_digits(text: str) -> tuple[str, int]:
    """Parses `USDT=6`. Raises argparse.ArgumentTypeError."""
    code, _, digits = text.rpartition("=")
    if not is_text(code) or not (digits.isascii() and digits.isdigit()) or int(digits) > DIGITS_MAX:
        raise argparse.ArgumentTypeError(f'"{text}" is not of the form CODE=DIGITS with 0 to {DIGITS_MAX} digits')
    return code, int(digits)


def _tls(certificate: Path, key: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as fault:
        raise ValueError(f"--tls-cert {certificate}, --tls-key {key}: {fault}") from None
    return context


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="An operator's wallet backend for Predictu's callbacks.",
        epilog=f"`{PROGRAM} try` runs it with throwaway keys and two players, and prints how to certify it."
        f" `{PROGRAM} ledger` writes the bookings of a period as CSV.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--operator-id", required=True, metavar="ID", help="your operator id at Predictu, for example op_abc123")
    add("--audience", default="", metavar="AUD", help="the audience agreed with Predictu, if any (default none)")
    add("--database", required=True, type=Path, metavar="FILE", help="the SQLite file; created if missing")
    add("--public-key", action="append", default=[], type=Path, metavar="FILE", help="Predictu's key, PEM; repeatable")
    add("--jwks", action="append", default=[], type=Path, metavar="FILE", help="Predictu's keys, JWKS; repeatable")
    add(
        "--algorithm", choices=get_args(Algorithm), default="EdDSA", help="the accepted algorithm (default %(default)s)"
    )
    add(
        "--token-ttl-max",
        type=int,
        default=TOKEN_TTL_MAX_S,
        metavar="SECONDS",
        help="refuse a token that is valid for longer (default %(default)s)",
    )
    add(
        "--listen",
        type=parse_address,
        default="127.0.0.1:8080",
        metavar="HOST:PORT",
        help="where to listen; port 0: any free port (default %(default)s)",
    )
    add("--path", default="/predictu", help="the URL path of callbacks (default %(default)s)")
    add(
        "--amount-format",
        choices=[*AmountFormat],
        default=AmountFormat.SUBUNITS,
        help="as agreed with Predictu (default %(default)s)",
    )
    add(
        "--currency-digits",
        action="append",
        default=[],
        type=parse_currency_digits,
        metavar="CODE=DIGITS",
        help="the minor digits of a currency that ISO 4217 lacks, such as USDT=6; repeatable",
    )
    add("--tls-cert", type=Path, metavar="FILE", help="serve HTTPS with this certificate chain, PEM")
    add("--tls-key", type=Path, metavar="FILE", help="the certificate's key, if it is in another file")
    add("--log", choices=get_args(LogFormat), default="plain", help="one line per callback on stderr (default plain)")
    add(
        "--log-vkey",
        action="append",
        default=[],
        metavar="VKEY",
        help="the public key of Predictu's audit log of this operator: cosign its checkpoints; repeatable",
    )
    add("--witness-name", default="", metavar="NAME", help="who cosigns (default reference-operator/ID)")
    add = parser.add_argument_group("for tests").add_argument
    add("--seed-players", type=int, default=0, metavar="N", help="create player-1 to player-N if missing")
    add("--seed-balance", type=int, default=0, metavar="SUBUNITS", help="the balance of each created player")
    add("--seed-currency", default="EUR", metavar="CODE", help="the currency of each created player (default EUR)")
    add("--faults", default="", metavar="NAME=RATE,…", help=f"rates of faults, each from 0 to 1: {', '.join(Fault)}")
    add("--fault-seed", type=int, metavar="N", help="makes the faults repeatable for the same order of arrival")
    add("--stall-s", type=float, default=30.0, metavar="SECONDS", help="how long a stalled reply waits (default 30)")
    add(
        "--admin-listen",
        type=parse_address,
        metavar="HOST:PORT",
        help="a loopback address for the /_admin routes (default off)",
    )
    return parser
