"""What the connector needs of aiohttp is checked, because aiohttp does not document it."""

from collections.abc import Iterator

import aiohttp
import pytest
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection

from predictu_dispatch.edge.http.connector import require_aiohttp


@pytest.fixture(autouse=True)
def _unchecked() -> Iterator[None]:
    require_aiohttp.cache_clear()
    yield
    require_aiohttp.cache_clear()


def test_the_pinned_aiohttp_has_every_part() -> None:
    require_aiohttp()


class OtherRequest:
    def __init__(self, url: str) -> None:
        raise NotImplementedError


async def other_connect(self: object, req: object) -> None:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("owner", "name", "other", "missing"),
    [
        (aiohttp.TCPConnector, "connect", other_connect, r"TCPConnector\.connect\(req, traces, timeout\)"),
        (aiohttp, "ClientRequest", OtherRequest, r"ClientRequest\(method, url\)"),
        (Connection, "protocol", None, r"Connection\.protocol"),
        (ResponseHandler, "should_close", None, r"ResponseHandler\.should_close"),
    ],
)
def test_an_aiohttp_without_a_part_is_refused_with_its_name(
    monkeypatch: pytest.MonkeyPatch, owner: object, name: str, other: object, missing: str
) -> None:
    if other is None:
        monkeypatch.delattr(owner, name)
    else:
        monkeypatch.setattr(owner, name, other)
    with pytest.raises(RuntimeError, match=rf"aiohttp 3\.\S+ has no {missing}; install the one in deploy/"):
        require_aiohttp()
