"""Constructs the parts of a daemon that seal the audit and have its checkpoints cosigned."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from predictu_dispatch.core.merkle.note import VerifierKey
from predictu_dispatch.core.witness import Witness
from predictu_dispatch.edge.config.loader import Config
from predictu_dispatch.edge.http.witness_client import WitnessClient
from predictu_dispatch.edge.postgres.audit_store import AuditStore
from predictu_dispatch.edge.postgres.database import Database
from predictu_dispatch.edge.postgres.witness_store import WitnessStore
from predictu_dispatch.edge.telemetry.observer import Telemetry
from predictu_dispatch.edge.tls import client_context
from predictu_dispatch.flow.sealer import Sealer
from predictu_dispatch.flow.witnesses import Witnesses


class AuditLogs:
    """The sealer and the witness loop; without `[audit] origin` the first only reads the heads."""

    def __init__(
        self, config: Callable[[], Config], database: Database, telemetry: Telemetry, *, instance: str
    ) -> None:
        self._config = config
        self._witness_client: WitnessClient | None = None
        self.loops: dict[str, Callable[[], Awaitable[None]]] = {}
        """What runs until the daemon stops, by name."""
        audit = config().dispatcher.audit
        self._sealer = Sealer(
            AuditStore(database, instance=instance),
            telemetry,
            origin=audit.origin,
            seal_s=audit.seal_s,
            seeds=self._seeds,
        )
        self.loops["sealer"] = self._sealer.run
        if audit.origin and audit.witness:
            # Reading the system's authorities takes tens of milliseconds.
            self._witness_client = WitnessClient(client_context())
            witnesses = [
                Witness(name=one.name, key=VerifierKey.parse(one.vkey), url=one.url, operators=frozenset(one.operators))
                for one in audit.witness
            ]
            store = WitnessStore(database, instance=instance)
            self.loops["witnesses"] = Witnesses(witnesses, store, self._witness_client, telemetry.witnesses).run

    def checkpoints(self) -> Mapping[str, str]:
        """The newest checkpoint of each log with all known signatures, by operator_id."""
        return self._sealer.notes

    async def close(self) -> None:
        if self._witness_client is not None:
            await self._witness_client.close()

    def _seeds(self) -> tuple[bytes, ...]:
        """The keys that sign now: a reload reads their files again."""
        keys = self._config().audit_keys
        return () if keys is None else keys.seeds
