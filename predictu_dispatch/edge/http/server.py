"""The daemon's own HTTP: /metrics, /healthz, /readyz, each operator's keys and checkpoint."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from typing_extensions import override

from predictu_dispatch.core.printable import printable
from predictu_dispatch.core.signing import PUBLISHED_KEYS_AGE_MAX_S, SigningKey
from predictu_dispatch.edge.http.listener import Answer, Listener

Address = tuple[str, int]
_KEYS = re.compile(r"/keys/([^/]+)\.json")
_CHECKPOINT = re.compile(r"/audit/([^/]+)/checkpoint")
_CHECKPOINT_AGE_MAX_S = 5
_NOT_FOUND = Answer(status=404, parts=[b"not found\n"])


class ListenError(Exception):
    """An address cannot be used; the message says why, `key` is its key in `[http]`."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class HttpServer:
    """Listens once started. `unready()` returns why the daemon is not ready, or None.

    `signing_keys()` returns the published keys by operator_id, `checkpoints()` each log's newest
    checkpoint. `refresh()` is called on the loop before a thread renders the metrics.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry,
        refresh: Callable[[], None],
        unready: Callable[[], str | None],
        signing_keys: Callable[[], Mapping[str, Sequence[SigningKey]]],
        checkpoints: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._registry = registry
        self._refresh = refresh
        self._unready = unready
        self._signing_keys = signing_keys
        self._checkpoints = checkpoints
        self._rendering: asyncio.Task[list[bytes]] | None = None
        self._listeners: list[Listener] = []

    async def start(self, listen: Address, keys_listen: Address | None = None) -> list[str]:
        """Starts listening; returns the URLs, with the system's port for 0. Raises ListenError.

        `keys_listen` serves only what others may see.
        """
        addresses = {"listen": (listen, self._respond)}
        if keys_listen is not None:
            addresses["keys_listen"] = (keys_listen, self._respond_published)
        urls = []
        for key, (address, respond) in addresses.items():
            listener = Listener(respond)
            try:
                urls.append(await listener.start(*address))
            except (OSError, UnicodeError) as error:
                # The command names the address for this error, so asyncio need not.
                message = getattr(error, "strerror", None) or str(error)
                raise ListenError(key, message.rpartition("): ")[2]) from error
            self._listeners.append(listener)
        return urls

    def stop(self) -> None:
        for listener in self._listeners:
            listener.stop()

    async def _respond(self, path: str) -> Answer:
        match path:
            case "/metrics":
                return Answer(content_type=CONTENT_TYPE_PLAIN_0_0_4, parts=await self._metrics())
            case "/healthz":
                return Answer(parts=[b"ok\n"])
            case "/readyz":
                fault = self._unready()
                return Answer(status=200 if fault is None else 503, parts=[f"{printable(fault or 'ready')}\n".encode()])
            case _:
                return await self._respond_published(path)

    async def _respond_published(self, path: str) -> Answer:
        if (log := _CHECKPOINT.fullmatch(path)) is not None:
            return self._checkpoint(log[1])
        if (keys := _KEYS.fullmatch(path)) is None:
            return _NOT_FOUND
        signing_keys = self._signing_keys().get(keys[1])
        if signing_keys is None:
            return _json({"error": f"unknown operator {keys[1]}"}, status=404)
        # Without this header, a cache would choose by itself how long a staged key stays unknown.
        return _json(
            {"keys": [key.public_jwk() for key in signing_keys]},
            headers={"Cache-Control": f"public, max-age={PUBLISHED_KEYS_AGE_MAX_S}"},
        )

    def _checkpoint(self, operator_id: str) -> Answer:
        if (note := self._checkpoints().get(operator_id)) is None:
            return Answer(status=404, parts=[b"no checkpoint\n"])
        return Answer(parts=[note.encode()], headers={"Cache-Control": f"public, max-age={_CHECKPOINT_AGE_MAX_S}"})

    async def _metrics(self) -> list[bytes]:
        """Returns the exposition text; all scrapes that come while it is rendered share it."""
        if self._rendering is None:
            self._rendering = asyncio.create_task(self._render(), name="render metrics")
        # A scraper that goes away does not end the others' rendering.
        return await asyncio.shield(self._rendering)

    async def _render(self) -> list[bytes]:
        try:
            self._refresh()
            # Rendering 200 operators takes tenths of a second, writing them in one piece
            # milliseconds; both would block the loop (tests/bench/scrape.py).
            return await asyncio.to_thread(_rendered, self._registry)
        finally:
            self._rendering = None


class _FamilyRegistry(CollectorRegistry):
    """A registry of a single metric family."""

    def __init__(self, family: Metric) -> None:
        super().__init__()
        self._family = family

    @override
    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def _rendered(registry: CollectorRegistry) -> list[bytes]:
    """Returns the exposition text, one part per family."""
    return [generate_latest(_FamilyRegistry(family)) for family in registry.collect()]


def _json(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
    return Answer(
        status=status,
        content_type="application/json; charset=utf-8",
        parts=[json.dumps(value).encode()],
        headers=headers or {},
    )
