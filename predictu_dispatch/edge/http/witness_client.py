"""POSTs checkpoints to witnesses. Their URLs are from our own configuration."""

from __future__ import annotations

import ssl
from typing import Final

import aiohttp

from predictu_dispatch.core.witness import ANSWER_BYTES_MAX, Answer, Silence, Witness, one_line

_TIMEOUT_S: Final = 10.0
_CONNECT_TIMEOUT_S: Final = 5.0
_CONNECTIONS_PER_WITNESS: Final = 2


class WitnessClient:
    """Keeps connections to each witness. Follows no redirect, keeps no cookie, uses no proxy."""

    def __init__(self, tls: ssl.SSLContext | None = None, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._tls = tls
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None

    async def add_checkpoint(self, witness: Witness, body: str) -> Answer | Silence:
        """Returns the answer, truncated to ANSWER_BYTES_MAX, or the reason why there is none."""
        url = f"{witness.url.rstrip('/')}/add-checkpoint"
        headers = {"Content-Type": "text/plain; charset=utf-8", "Accept-Encoding": "identity"}
        try:
            async with self._opened().post(url, data=body.encode(), headers=headers, allow_redirects=False) as answer:
                return Answer(answer.status, await _read(answer.content))
        except TimeoutError:
            return Silence(f"no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Silence(f"no answer: {one_line(str(error)) or type(error).__name__}")

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._timeout_s, connect=min(_CONNECT_TIMEOUT_S, self._timeout_s)),
                connector=aiohttp.TCPConnector(ssl=self._tls or True, limit_per_host=_CONNECTIONS_PER_WITNESS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
        return self._session


async def _read(content: aiohttp.StreamReader) -> bytes:
    body = b""
    while chunk := await content.read(ANSWER_BYTES_MAX - len(body)):
        body += chunk
    return body
