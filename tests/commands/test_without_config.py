"""Commands on a host without configuration, where a person has a login and its DSN only."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from predictu_dispatch.cli import main
from predictu_dispatch.edge.config.loader import DSN_VARIABLE
from tests.support.harness import OPERATOR, Harness
from tests.support.postgres import Database


@pytest.fixture
def folder(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The person's folder, which is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(DSN_VARIABLE, database.support)
    return tmp_path


async def run(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, main, arguments)


@pytest.mark.usefixtures("folder")
async def test_the_dsn_is_enough_for_commands_that_need_only_the_database(harness: Harness) -> None:
    request_id = str(await harness.place("b1"))
    for arguments in (
        ("status",),
        ("find", "--bet", "b1"),
        ("show", request_id),
        ("show", "--bet", OPERATOR, "b1"),
        ("why", request_id),
        ("interventions",),
        ("currencies", "list"),
    ):
        result = await run(*arguments)
        assert (result.exit_code, result.stderr) == (0, ""), arguments
    # The operators' files are on other hosts, so nothing is said about them.
    assert "no file" not in (await run("why", request_id)).stdout


@pytest.mark.usefixtures("folder")
async def test_what_needs_the_file_refuses_without_it() -> None:
    """The file says how long history is kept: without it, `retain` could remove too much."""
    for verb in ("retain", "check"):
        result = await run(verb)
        assert result.exit_code == 2, verb
        assert "config/dispatcher.toml: no such file or directory" in result.stderr, verb


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("given", [lambda _: ("--config", "gone.toml"), lambda set_to: set_to("gone.toml") or ()])
async def test_a_given_file_must_exist(
    monkeypatch: pytest.MonkeyPatch, given: Callable[[Callable[[str], None]], tuple[str, ...]]
) -> None:
    arguments = given(lambda name: monkeypatch.setenv("PREDICTU_DISPATCH_CONFIG", name))
    result = await run("status", *arguments)
    assert result.exit_code == 2
    assert "gone.toml: no such file or directory" in result.stderr


@pytest.mark.usefixtures("folder")
async def test_without_file_and_variable_the_message_names_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(DSN_VARIABLE)
    result = await run("status")
    assert result.exit_code == 2
    assert result.stderr == (
        "config/dispatcher.toml: no such file or directory; must be a readable TOML file; set --config or"
        " PREDICTU_DISPATCH_CONFIG to its path, or PREDICTU_DISPATCH_DSN to a DSN\n"
    )


async def test_a_file_that_cannot_be_read_is_not_passed_over(folder: Path) -> None:
    (folder / "config").mkdir()
    (folder / "config" / "dispatcher.toml").write_text("[database")
    result = await run("status")
    assert result.exit_code == 2
    assert "not valid TOML" in result.stderr
