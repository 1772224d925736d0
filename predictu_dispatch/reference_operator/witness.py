"""Cosigns the checkpoints of Predictu's audit log of this operator (c2sp.org/tlog-witness).

A cosignature says that the log was never shorter and never had other entries than before. So
Predictu cannot change an entry that it has shown to you. The route is `POST /add-checkpoint`.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from .checkpoint import EMPTY_ROOT, CheckpointError, LogKey, Submission, has_grown, key_id_of
from .database import BusyError, Writer, utc_now
from .receiver import READ_TIMEOUT_S

COSIGNATURE_V1 = 4
"""The signature type of a witness's key."""
_log = logging.getLogger("reference_operator")


class WitnessKeyError(Exception):
    """The key's file cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WitnessKey:
    """The key that cosigns, and the name under which it does."""

    name: str
    private_key: Ed25519PrivateKey

    @property
    def vkey(self) -> str:
        """What Predictu puts into its configuration."""
        return f"{self.name}+{self._key_id.hex()}+{base64.b64encode(self._typed_key).decode()}"

    def cosign(self, text: str, time_s: int) -> str:
        """Returns the signature line for a checkpoint's text that was seen at this time."""
        signature = self.private_key.sign(f"cosignature/v1\ntime {time_s}\n{text}".encode())
        value = self._key_id + time_s.to_bytes(8, "big") + signature
        return f"— {self.name} {base64.b64encode(value).decode()}\n"

    @property
    def _typed_key(self) -> bytes:
        public_key = self.private_key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        return bytes([COSIGNATURE_V1]) + public_key

    @property
    def _key_id(self) -> bytes:
        return key_id_of(self.name, self._typed_key)


def open_witness_key(file: Path, name: str) -> WitnessKey:
    """Reads the key, or makes it if the file is missing. Raises WitnessKeyError, OSError."""
    try:
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
            key = Ed25519PrivateKey.generate()
            new.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    except FileExistsError:
        try:
            loaded = load_pem_private_key(file.read_bytes(), password=None)
        except (ValueError, TypeError) as fault:
            raise WitnessKeyError(f"{file}: {fault}") from None
        if not isinstance(loaded, Ed25519PrivateKey):
            raise WitnessKeyError(f"{file} has no Ed25519 key") from None
        key = loaded
    return WitnessKey(name=name, private_key=key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """An answer of the witness."""

    http_status: int
    text: str
    content_type: str = "text/plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """Remembers the newest checkpoint of each log, and cosigns one that continues it."""

    key: WitnessKey
    log_keys: Sequence[LogKey]
    sql: sqlite3.Connection
    writer: Writer

    async def receive(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                submission = Submission.parse(await request.read())
        except (ConnectionError, web.RequestPayloadError):
            verdict = Verdict(http_status=400, text="the body ended too early\n")
        except TimeoutError:
            verdict = Verdict(http_status=408, text=f"the body is not complete within {READ_TIMEOUT_S:g} s\n")
        except CheckpointError as fault:
            verdict = Verdict(http_status=400, text=f"{fault}\n")
        else:
            verdict = await self._decide(submission)
            fields = {"origin": submission.origin, "size": submission.size, "http_status": verdict.http_status}
            _log.info("checkpoint.answered", extra={"fields": fields})
        return web.Response(status=verdict.http_status, text=verdict.text, content_type=verdict.content_type)

    async def _decide(self, submission: Submission) -> Verdict:
        keys = [key for key in self.log_keys if key.name == submission.origin]
        if not keys:
            return Verdict(http_status=404, text="unknown log\n")
        if not submission.is_signed_by(keys):
            return Verdict(http_status=403, text="no known key of the log signed it\n")
        if submission.old_size > submission.size:
            return Verdict(http_status=400, text="the old size is above the new one\n")
        try:
            # Checked and stored in one transaction: two submissions never both continue one size.
            return await self.writer.write(functools.partial(self._continue, submission))
        except (sqlite3.Error, BusyError):
            _log.exception("witness.failed", extra={"fields": {"origin": submission.origin}})
            return Verdict(http_status=503, text="the database is unavailable\n")

    def _continue(self, new: Submission) -> Verdict:
        row = self.sql.execute("select size, root from cosigned_logs where origin = ?", [new.origin]).fetchone()
        size, root = row or (0, EMPTY_ROOT)
        conflict = Verdict(http_status=409, text=f"{size}\n", content_type="text/x.tlog.size")
        if new.old_size != size:
            return conflict
        if new.size == size and new.root != root:
            return conflict
        is_proved = not new.proof if size in (0, new.size) else has_grown(size, root, new.size, new.root, new.proof)
        if not is_proved:
            return Verdict(http_status=422, text="the consistency proof does not lead from the old size\n")
        self.sql.execute(
            "insert into cosigned_logs (origin, size, root, cosigned_at) values (?, ?, ?, ?)"
            " on conflict (origin) do update set size = excluded.size, root = excluded.root,"
            " cosigned_at = excluded.cosigned_at",
            [new.origin, new.size, new.root, utc_now()],
        )
        return Verdict(http_status=200, text=self.key.cosign(new.text, int(time.time())))
