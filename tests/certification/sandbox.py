"""Sandboxes to play against: an operator as a process, most often a copy of the reference operator.

The copy may have changes: see mutants/ and operators.py.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from predictu_dispatch.certification.reversal import Patience
from predictu_dispatch.certification.target import Target
from predictu_dispatch.core.operator_settings import OperatorSettings, StatusesSettings
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.reference_operator.admin import read_ledger
from predictu_dispatch.reference_operator.answer import REJECTED, RETRY
from tests.certification.mutants.mutant import PACKAGE, Certificate, Change
from tests.reference_operator.client import OPERATOR_ID

PLAYERS = ("player-1", "player-2")
BALANCE = 10_000
"""Enough for the whole suite, in subunits."""
UNTOUCHED = dict.fromkeys(PLAYERS, BALANCE)
"""The balances of a sandbox whose runs were undone."""
SHORT = Patience(tries=2, first_delay_s=0.01, delay_max_s=0.01, limit_s=5.0)
STATUSES = StatusesSettings(rejected=tuple(map(str, REJECTED)), retry=tuple(map(str, RETRY)))
_START_S = 60.0
_STOP_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A running operator with its keys and the two test players."""

    url: str
    folder: Path
    key: SigningKey
    next_key: SigningKey | None = None
    amount_format: str = "subunits"
    statuses: StatusesSettings = STATUSES
    timeout_s: float = 5.0
    """How long an answer to a request of the interactive lane may take."""
    has_ledger: bool = False
    ssl_context: ssl.SSLContext | None = None

    @property
    def key_file(self) -> Path:
        return self.folder / "sandbox.pem"

    def balances(self) -> dict[str, int]:
        """Return the balances by the books of a copy of the reference operator."""
        rows = read_ledger(self.folder / "wallet.db")["balances"]
        assert isinstance(rows, list)
        return {row["player_id"]: row["balance"] for row in rows}

    def target(self) -> Target:
        """Return what a run is played against."""
        settings = OperatorSettings.model_validate(
            {
                "operator_id": OPERATOR_ID,
                "callback_url": self.url,
                "amount_format": self.amount_format,
                "allow_insecure_http": True,
                "allow_private_addresses": True,
                "signing": {"key_file": str(self.key_file)},
                "statuses": self.statuses.model_dump(),
                "interactive": {"attempt_timeout_s": self.timeout_s, "connect_timeout_s": min(2.0, self.timeout_s)},
            }
        )
        return Target(
            settings=settings,
            key=self.key,
            next_key=self.next_key,
            players=PLAYERS,
            currency="EUR",
            digits=2,
            ssl_context=self.ssl_context,
            ledger_url=f"{self.url}/ledger" if self.has_ledger else "",
        )


def new_key(file: Path) -> SigningKey:
    """Write a new private key as PEM and return it; its public half is beside it as `.pub`."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key = SigningKey.from_pem(pem, "EdDSA")
    file.write_bytes(pem)
    file.with_suffix(".pub").write_bytes(key.public_pem())
    return key


@asynccontextmanager
async def changed_operator(
    folder: Path,
    changes: Iterable[Change] = (),
    *,
    amount_format: str = "subunits",
    statuses: StatusesSettings = STATUSES,
    certificate: Certificate | None = None,
    options: Sequence[str] = (),
    variables: Mapping[str, str] | None = None,
) -> AsyncIterator[Sandbox]:
    """Run a copy of the reference operator with these changes; it ends with the block."""
    copy_changed(folder, changes)
    key, next_key = new_key(folder / "sandbox.pem"), new_key(folder / "sandbox-next.pem")
    context = None if certificate is None else issued(certificate, folder / "tls.pem")
    command = (
        *(sys.executable, "-m", PACKAGE.name, "--operator-id", OPERATOR_ID, "--listen", "127.0.0.1:0"),
        *("--public-key", "sandbox.pub", "--public-key", "sandbox-next.pub", "--database", "wallet.db"),
        *("--seed-players", str(len(PLAYERS)), "--seed-balance", str(BALANCE)),
        *("--amount-format", amount_format, *(("--tls-cert", "tls.pem") if certificate else ()), *options),
    )
    async with started(command, folder, variables or {}) as url:
        yield Sandbox(
            url=url,
            folder=folder,
            key=key,
            next_key=next_key,
            amount_format=amount_format,
            statuses=statuses,
            has_ledger=True,
            ssl_context=context,
        )


def issued(certificate: Certificate, file: Path) -> ssl.SSLContext:
    """Write the certificate and its key; return a context that trusts their authority only."""
    authority = trustme.CA()
    ends_at = datetime.now(UTC) + timedelta(days=certificate.days)
    leaf = authority.issue_cert(certificate.host, not_before=ends_at - timedelta(days=300), not_after=ends_at)
    leaf.private_key_and_cert_chain_pem.write_to_path(file)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def copy_changed(folder: Path, changes: Iterable[Change] = ()) -> None:
    """Copy the reference operator into the folder with these changes. Raises ValueError."""
    copy = folder / PACKAGE.name
    copy.mkdir()
    for file in PACKAGE.iterdir():
        if file.suffix in (".py", ".sql"):
            shutil.copy(file, copy)
    for change in changes:
        file = copy / change.file
        file.write_text(change.applied_to(file.read_text(encoding="utf-8")), encoding="utf-8")


@asynccontextmanager
async def started(command: Sequence[str], folder: Path, variables: Mapping[str, str]) -> AsyncIterator[str]:
    """Run an operator in the folder; yield the URL that its first line of output has."""
    # Compiled copies would only fill the tests' bytecode cache.
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    with (folder / "operator.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, env=environment, stdout=asyncio.subprocess.PIPE, stderr=log
        )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_START_S):
            line = await process.stdout.readline()
        assert line, (folder / "operator.log").read_text(encoding="utf-8")
        yield json.loads(line)["url"]
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
