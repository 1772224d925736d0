"""A bare aiohttp client without a queue."""

import asyncio

from common import Peer, callback, main, posting

_AT_ONCE = 64


async def _nothing(*_: object) -> None:
    """No store."""


async def _work(_store: str, url: str, count: int | None) -> None:
    """Send `count` POSTs with payloads made beforehand."""
    bodies = [callback()[1].encode() for _ in range(count or 0)]
    async with posting(url, _AT_ONCE) as post:

        async def post_on() -> None:
            while bodies:
                await post(bodies.pop())

        await asyncio.gather(*(post_on() for _ in range(_AT_ONCE)))


if __name__ == "__main__":
    main(Peer(prepare=_nothing, fill=_nothing, work=_work, enqueue=_nothing))
