"""The daemon's own HTTP: /metrics, /healthz, /readyz and each operator's public keys."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from aiohttp import web
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from typing_extensions import override

from predictu_dispatch.core.signing import PUBLISHED_KEYS_AGE_MAX_S, SigningKey

_SHUTDOWN_TIMEOUT_S = 1.0
"""A scraper that reads slowly must not delay the daemon's end by aiohttp's default of a minute."""


class ListenError(Exception):
    """The address cannot be used; the message says why."""


class HttpServer:
    """Listens once started. `unready()` returns why the daemon is not ready, or None.

    `signing_keys()` returns the published keys by operator_id. `refresh()` is called on the loop
    before a thread renders the metrics.
    """

    def __init__(
        self,
        *,
        registry: CollectorRegistry,
        refresh: Callable[[], None],
        unready: Callable[[], str | None],
        signing_keys: Callable[[], Mapping[str, Sequence[SigningKey]]],
    ) -> None:
        self._registry = registry
        self._refresh = refresh
        self._unready = unready
        self._signing_keys = signing_keys
        application = web.Application()
        application.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/keys/{operator_id}.json", self._keys),
            ]
        )
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=_SHUTDOWN_TIMEOUT_S)

    async def start(self, *, host: str, port: int) -> str:
        """Starts listening; returns the URL, with the system's port for 0. Raises ListenError."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except (OSError, UnicodeError) as error:
            # The command names the address and the key for this error.
            raise ListenError(getattr(error, "strerror", None) or str(error)) from error
        bound_host, bound_port = self._runner.addresses[0][:2]
        return f"http://[{bound_host}]:{bound_port}" if ":" in bound_host else f"http://{bound_host}:{bound_port}"

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        self._refresh()
        # Rendering 200 operators takes tenths of a second, writing them in one piece milliseconds;
        # both would block the loop (tests/bench/scrape.py).
        parts = await asyncio.to_thread(_rendered, self._registry)
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
        response.content_length = sum(map(len, parts))
        await response.prepare(request)
        for part in parts:
            await response.write(part)
        await response.write_eof()
        return response

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        fault = self._unready()
        return web.Response(text="ready\n") if fault is None else web.Response(text=f"{fault}\n", status=503)

    async def _keys(self, request: web.Request) -> web.Response:
        signing_keys = self._signing_keys().get(request.match_info["operator_id"])
        if signing_keys is None:
            return web.json_response({"error": f"unknown operator {request.match_info['operator_id']}"}, status=404)
        # Without this header, a cache would choose by itself how long a staged key stays unknown.
        return web.json_response(
            {"keys": [key.public_jwk() for key in signing_keys]},
            headers={"Cache-Control": f"public, max-age={PUBLISHED_KEYS_AGE_MAX_S}"},
        )


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
