"""The producer of the packages, in each language, with a daemon and an operator."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.clients.callers import Caller, python_caller, typescript_caller
from tests.support.code_blocks import code_under
from tests.support.market import Market, open_market
from tests.support.postgres import Database
from tests.support.typescript import build_application, needs_node

README = "sql/clients/typescript/README.md"
DRIVER = Path(__file__).parent / "drive.ts"


class OpenCaller(Protocol):
    """Opens a producer's process; without `listen_dsn` it only polls."""

    def __call__(self, dsn: str, listen_dsn: str | None, poll_s: float, /) -> AbstractAsyncContextManager[Caller]: ...


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """The compiled driver of the TypeScript package, built when it is first asked for."""
    built: list[Path] = []

    def build() -> Path:
        if not built:
            [readme] = code_under(README, "predictu-dispatch-client", "ts")
            sources = {"drive.ts": DRIVER.read_text(encoding="utf-8"), "readme.ts": readme}
            built.append(build_application(tmp_path_factory.mktemp("client"), sources) / "drive.js")
        return built[0]

    return build


@pytest.fixture(params=["python", pytest.param("typescript", marks=needs_node)])
def open_caller(request: pytest.FixtureRequest, program: Callable[[], Path]) -> OpenCaller:
    if request.param == "python":
        return python_caller

    def typescript(dsn: str, listen_dsn: str | None, poll_s: float, /) -> Any:
        return typescript_caller(program(), dsn, listen_dsn, poll_s)

    return typescript


@pytest.fixture
async def market(tmp_path: Path, database: Database) -> AsyncIterator[Market]:
    async with open_market(tmp_path, database) as market:
        yield market


@pytest.fixture
async def caller(open_caller: OpenCaller, market: Market) -> AsyncIterator[Caller]:
    """A producer that listens, and polls as the packages do by default."""
    async with open_caller(market.producer_dsn, market.producer_dsn, 0.5) as caller:
        yield caller
