"""`try`: runs the operator with throwaway keys and two players, and says how to certify it.

Every further option is one of the ordinary start. What it makes is in one folder and is kept: a
restarted operator knows the same keys and bets, so an interrupted certification can be cleaned.
"""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from .answer import REJECTED, RETRY
from .keys import RSA_BITS_MIN, KeyFileError
from .money import AmountFormat
from .settings import PROGRAM, Settings, parse_settings

OPERATOR_ID = "op_throwaway"
PLAYERS, BALANCE = 2, 100_000
KEY, NEXT_KEY, DATABASE = "throwaway.pem", "throwaway.next.pem", "throwaway.db"
"""`certify --key throwaway.pem` finds the next key by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A trial's settings and the private key that signs as Predictu."""

    settings: Settings
    key_file: Path

    def certify(self, url: str) -> tuple[str, ...]:
        """Returns the command that certifies the operator at this URL."""
        settings = self.settings
        # A certificate has no place for 0.0.0.0: it is every address of the machine.
        url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        scheme = () if url.startswith("https:") else ("--allow-insecure-http",)
        decimal = settings.money.amount_format is AmountFormat.DECIMAL
        algorithm = settings.keyring.algorithm
        return (
            *("predictu-dispatch", "certify", "--url", url, "--key", str(self.key_file)),
            *("--operator-id", settings.operator_id),
            *(part for player in settings.seed_players[:2] for part in ("--player", player.player_id)),
            *(("--algorithm", algorithm) if algorithm != "EdDSA" else ()),
            *(("--amount-format", AmountFormat.DECIMAL) if decimal else ()),
            *scheme,
            "--allow-private-addresses",
            *(part for status in REJECTED for part in ("--rejected", status)),
            *(part for status in RETRY for part in ("--retry", status)),
            *("--ledger", f"{url.rstrip('/')}/ledger"),
        )

    def advice(self, url: str) -> str:
        """Returns what to print on a terminal."""
        settings = self.settings
        wallets = [
            f"{player.player_id} with {settings.money.shown(player.balance, player.currency)}"
            for player in settings.seed_players
        ]
        command = shlex.join(self.certify(url)).replace(" --", " \\\n        --")
        return (
            f"The reference operator {settings.operator_id} listens on {url}\n"
            f"  keys     {self.key_file} and {NEXT_KEY} beside it; for trials only\n"
            f"  wallet   {settings.database}; a new one has {' and '.join(wallets)}\n\n"
            f"Certify it, in another terminal in the same folder:\n\n    {command}\n\n"
            "Ctrl-C stops it.\n"
        )


def parse_trial(arguments: Sequence[str]) -> Trial:
    """Makes what is missing in the folder and returns the trial.

    Raises SystemExit, KeyFileError, FaultError or ValueError if an option or a key is bad, and
    OSError if a file cannot be written.
    """
    options, further = _parser().parse_known_args(arguments)
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    public_keys = [_public_key(folder / name, options.algorithm) for name in (KEY, NEXT_KEY)]
    settings = parse_settings(
        [
            *("--operator-id", OPERATOR_ID, "--database", str(folder / DATABASE), "--algorithm", options.algorithm),
            *("--seed-players", str(PLAYERS), "--seed-balance", str(BALANCE)),
            *(part for file in public_keys for part in ("--public-key", str(file))),
            *further,
        ]
    )
    return Trial(settings=settings, key_file=folder / KEY)


def _public_key(file: Path, algorithm: str) -> Path:
    """Writes the public half of the key beside it, which is made if it is missing."""
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            made = (
                Ed25519PrivateKey.generate()
                if algorithm == "EdDSA"
                else rsa.generate_private_key(public_exponent=65_537, key_size=RSA_BITS_MIN)
            )
            new.write(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except FileExistsError:
        pass
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except (ValueError, TypeError):
        raise KeyFileError(f"{file}: not a private key in PEM; delete it, and a new one is made") from None
    public_file = file.with_suffix(".pub")
    public_file.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return public_file


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} try",
        description="Runs the operator with throwaway keys and two players, and prints how to certify it.",
        epilog="Every option of the ordinary start is accepted too, such as --listen or --amount-format.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--folder", type=Path, default=Path(), metavar="DIR", help="where keys and wallet are (default .)"
    )
    parser.add_argument(
        "--algorithm", choices=("EdDSA", "RS256"), default="EdDSA", help="the keys' algorithm (default EdDSA)"
    )
    return parser
