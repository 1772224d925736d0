"""The tests of the transport and of the server run on both event loops."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

Loops = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]
LOOPS: Loops = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
"""The daemon runs on uvloop, which writes, closes and reports errors differently."""


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> Loops:
    del config
    return LOOPS if item.path.name.startswith(("test_transport", "test_server")) else {"asyncio": LOOPS["asyncio"]}
