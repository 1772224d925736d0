"""Makes bundles with keys of a test, so that a test can make each thing in them false.

It shares no code with the verifier. A `Forge` has a log in memory; `bundle()` writes a ZIP of the
attempts, keys and interventions that were added, after the changes that the test asks for.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from nacl.signing import SigningKey

from predictu_dispatch.core.merkle.checkpoint import Checkpoint
from predictu_dispatch.core.merkle.note import Algorithm, Signature, VerifierKey, assemble, cosign, sign
from predictu_dispatch.core.merkle.tree import append, inclusion_proof, leaf_hash
from predictu_dispatch.evidence.stored_zip import StoredZip

OPERATOR = "op_abc123"
ORIGIN = f"audit.predictu.example/{OPERATOR}"
BET = "b-1"
REQUEST = "0190a6d1-7c3e-7c11-9a5b-1f0f6a2b9c55"
WIN = "0190a6d1-7c3e-7c11-9a5b-1f0f6a2b9c66"
IAT = 1_796_032_805
STARTED_AT = "2026-11-30T10:00:05.123456Z"
FIRST_SEEN_AT = "2026-11-29T00:00:00.000000Z"
COSIGNED_AT = IAT + 60
WITNESS = "witness.example/w1"

Json = dict[str, Any]


def canonical(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


def digest(content: bytes | None) -> str | None:
    return None if content is None else hashlib.sha256(content).hexdigest()


def base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def report_id(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012}"


@dataclass
class SenderKey:
    """A key that signs tokens."""

    algorithm: str = "EdDSA"
    seed: bytes = b"\x01" * 32
    rsa_key: rsa.RSAPrivateKey | None = None

    @property
    def members(self) -> Json:
        if self.rsa_key is not None:
            numbers = self.rsa_key.public_key().public_numbers()
            n, e = (value.to_bytes((value.bit_length() + 7) // 8, "big") for value in (numbers.n, numbers.e))
            return {"e": base64url(e), "kty": "RSA", "n": base64url(n)}
        return {"crv": "Ed25519", "kty": "OKP", "x": base64url(bytes(SigningKey(self.seed).verify_key))}

    @property
    def kid(self) -> str:
        return base64url(hashlib.sha256(canonical(self.members)).digest())

    @property
    def jwk(self) -> bytes:
        """As Postgres prints a jsonb."""
        return json.dumps({**self.members, "alg": self.algorithm, "kid": self.kid, "use": "sig"}).encode()

    def token(self, claims: Json, *, header: Json | None = None) -> bytes:
        header = header or {"alg": self.algorithm, "kid": self.kid, "typ": "JWT"}
        signed = f"{base64url(json.dumps(header).encode())}.{base64url(json.dumps(claims).encode())}".encode()
        if self.rsa_key is not None:
            signature = self.rsa_key.sign(signed, padding.PKCS1v15(), SHA256())
        else:
            signature = SigningKey(self.seed).sign(signed).signature
        return signed + b"." + base64url(signature).encode()


@dataclass
class Log:
    """A log in memory."""

    origin: str = ORIGIN
    seed: bytes = b"\x02" * 32
    witnesses: dict[str, bytes] = field(default_factory=lambda: {WITNESS: b"\x03" * 32})
    leaves: list[bytes] = field(default_factory=list)

    @property
    def key(self) -> VerifierKey:
        return VerifierKey.of_seed(self.origin, self.seed)

    @property
    def policy(self) -> bytes:
        lines = [f"log {self.key}"]
        for name, seed in self.witnesses.items():
            lines.append(f"witness {name} {VerifierKey.of_seed(name, seed, Algorithm.COSIGNATURE_V1)}")
        return "\n".join([*lines, "quorum none", ""]).encode()

    def add(self, entry: bytes) -> int:
        self.leaves.append(leaf_hash(entry))
        return len(self.leaves) - 1

    def note(self, size: int, *, time_s: int = COSIGNED_AT) -> str:
        text = Checkpoint(self.origin, size, append(0, {}, b"".join(self.leaves[:size])).root).text()
        signatures: list[Signature] = [sign(text, self.origin, self.seed)]
        signatures += [cosign(text, name, seed, time_s) for name, seed in self.witnesses.items()]
        return assemble(text, signatures)

    def proof(self, index: int, *, size: int | None = None, note: str | None = None) -> bytes:
        size = len(self.leaves) if size is None else size
        grown = {(t.level, t.number): t.hashes for t in append(0, {}, b"".join(self.leaves[:size])).tiles}
        hashes = inclusion_proof(index, size, lambda level, number, width: grown[level, number][: width * 32])
        lines = ["c2sp.org/tlog-proof@v1", f"index {index}", *(base64.b64encode(each).decode() for each in hashes)]
        return "\n".join([*lines, "", note or self.note(size)]).encode()


Files = dict[str, bytes]


@dataclass
class Forge:
    """A bundle that is being made. The test may change `files`, `manifest` and the log."""

    log: Log = field(default_factory=Log)
    files: Files = field(default_factory=dict)
    manifest: Json = field(default_factory=dict)
    places: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.manifest = {
            "format": "predictu-dispatch bundle",
            "version": 1,
            "made_by": "0.0",
            "without_player": False,
            "operator_id": OPERATOR,
            "bet_id": BET,
            "origin": ORIGIN,
            "attempts": [],
            "interventions": [],
            "keys": [],
            "start": folder("start"),
        }

    def start(self, **changes: Any) -> None:
        fields = {
            "attempts_before": 0,
            "interventions_before": 0,
            "kind": "start",
            "operator_id": OPERATOR,
            "version": 1,
            "origin": ORIGIN,
            "start_id": report_id(999),
            "started_at": "2026-11-01T00:00:00.000000Z",
            "system_identifier": "7578205398206488577",
            "written_in": 7,
            **changes,
        }
        self.seal("start/entry", fields)

    def key(self, key: SenderKey, *, event: str = "first_seen", at: str = FIRST_SEEN_AT, **changes: Any) -> None:
        path = f"keys/{key.kid}"
        fields = {
            "algorithm": key.algorithm,
            "at": at,
            "entry_id": report_id(len(self.log.leaves) + 500),
            "event": event,
            "kid": key.kid,
            "kind": "key",
            "operator_id": OPERATOR,
            "public_jwk_sha256": digest(key.jwk),
            "version": 1,
            "written_in": 8,
            **changes,
        }
        self.files[f"{path}/jwk.json"] = key.jwk
        self.seal(f"{path}/{event}", fields)
        if event == "first_seen":
            self.manifest["keys"].append(folder(path, "first_seen"))
        else:
            self.manifest["keys"][-1] = folder(path, "first_seen", "retired")

    def attempt(
        self,
        key: SenderKey,
        *,
        number: int = 1,
        method: str = "BET_MAKE",
        request_id: str = REQUEST,
        body: Json | None = None,
        answer: bytes = b'{"status":"OK","balance":95000}',
        claims: Json | None = None,
        token: Callable[[Json], bytes] | None = None,
        **changes: Any,
    ) -> str:
        """Add an attempt; returns its folder. `changes` are made in the entry that is sealed."""
        envelope: Json = {
            "method": method,
            "timestamp": "2026-11-30T10:00:05.000Z",
            "request_id": request_id,
            "operator_id": OPERATOR,
            "params": {"player_id": "player-1", "currency": "EUR", "amount": 500},
        }
        envelope["params"]["bet_id"] = BET
        raw = json.dumps({**envelope, **(body or {})}).encode()
        said = {
            "iss": "predictu",
            "sub": OPERATOR,
            "iat": IAT,
            "exp": IAT + 30,
            "jti": request_id,
            "method": method,
            "digest": digest(raw),
            **(claims or {}),
        }
        signed = (token or key.token)(said)
        headers = {
            "request.headers.json": json.dumps({"Authorization": "Bearer … [signature withheld]"}).encode(),
            "response.headers.json": json.dumps([["Content-Type", "application/json"]]).encode(),
        }
        path = f"attempts/{method}_{request_id}_{number:04}"
        contents = {"request.body": raw, "response.body": answer, "token.jwt": signed, **headers}
        fields = {
            "attempt": number,
            "connect_us": 1000,
            "error_sha256": None,
            "evidence": "answered",
            "finished_at": "2026-11-30T10:00:05.200000Z",
            "first_byte_us": 2500,
            "instance": "host-1",
            "key_id": key.kid,
            "kind": "attempt",
            "method": method,
            "operator_id": OPERATOR,
            "peer": "192.0.2.1:443",
            "peer_certificate_sha256": "ab" * 32,
            "reason": None,
            "report_id": report_id(len(self.log.leaves)),
            "request_id": request_id,
            "response_body_repeats": None,
            "request_body_sha256": digest(raw),
            "request_headers_sha256": digest(headers["request.headers.json"]),
            "response_body_sha256": digest(answer),
            "response_body_stored_sha256": digest(answer),
            "response_headers_sha256": digest(headers["response.headers.json"]),
            "response_status": 200,
            "response_truncated": False,
            "started_at": STARTED_AT,
            "token_sha256": digest(signed),
            "total_us": 76600,
            "url": "https://wallet.example.com/predictu",
            "verdict": "delivered",
            "version": 1,
            "written_in": 4711,
            **changes,
        }
        self.files |= {f"{path}/{name}": content for name, content in contents.items()}
        self.seal(f"{path}/entry", fields)
        self.manifest["attempts"].append(folder(path))
        return path

    def intervention(self, **changes: Any) -> str:
        before, after, reason = b'{"state": "rejected"}', b'{"state": "ready"}', b"their database was down"
        fields = {
            "action": "retry",
            "after_sha256": digest(after),
            "before_sha256": digest(before),
            "bet_id": BET,
            "client_addr": "192.0.2.7/32",
            "database_role": "ada",
            "done_at": STARTED_AT,
            "done_by": "ada@host-1",
            "intervention_id": report_id(700),
            "kind": "intervention",
            "operator_id": OPERATOR,
            "reason_sha256": digest(reason),
            "request_id": REQUEST,
            "version": 1,
            "written_in": 4715,
            **changes,
        }
        path = f"interventions/{report_id(700)}"
        contents = {"before.json": before, "after.json": after, "reason.txt": reason}
        self.files |= {f"{path}/{name}": content for name, content in contents.items()}
        self.seal(f"{path}/entry", fields)
        self.manifest["interventions"].append(folder(path))
        return path

    def seal(self, stem: str, fields: Json) -> None:
        """Append the entry to the log. Its proof is made when the bundle is written."""
        self.files[f"{stem}.json"] = canonical(fields)
        self.places.append((stem, self.log.add(canonical(fields))))

    def finish(self) -> Files:
        """Make what depends on the whole log; after this the test may change any file."""
        note = self.log.note(len(self.log.leaves))
        for stem, index in self.places:
            self.files[f"{stem}.tlog-proof"] = self.log.proof(index, note=note)
        self.files |= {"README.txt": b"read me\n", "story.txt": b"a story\n", "policy.txt": self.log.policy}
        return self.files

    def write(self, path: Path) -> Path:
        """Write the files as they are now, with their hashes in bundle.json."""
        path.write_bytes(zipped(self.files, self.manifest))
        return path


def folder(path: str, *entries: str, withheld: Json | None = None, sealed: list[str] | None = None) -> Json:
    names = list(entries or ("entry",))
    return {
        "folder": path,
        "entries": names,
        "sealed": names if sealed is None else sealed,
        "withheld": withheld or {},
    }


def zipped(files: Files, manifest: Json) -> bytes:
    """The archive of these files; bundle.json gets their hashes."""
    buffer = io.BytesIO()
    archive = StoredZip(buffer)
    for name in sorted(files):
        archive.add(name, files[name])
    archive.add("bundle.json", canonical({**manifest, "files": dict(archive.hashes)}))
    archive.close()
    return buffer.getvalue()


KEY = SenderKey()
OTHER_KEY = SenderKey(seed=b"\x09" * 32)


def good_bundle(**attempt: Any) -> Forge:
    """A start, a key, two attempts of a placement, a win and an intervention; not finished."""
    forge = Forge()
    forge.start()
    forge.key(KEY)
    forge.attempt(KEY, verdict="retry", reason="http_503", response_status=503, answer=b"busy")
    forge.attempt(KEY, number=2, **attempt)
    forge.attempt(KEY, method="BET_WIN", request_id=WIN)
    forge.intervention()
    return forge
