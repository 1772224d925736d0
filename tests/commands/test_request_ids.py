"""Commands that read take any unambiguous beginning of a request id, those that act whole ids."""

import uuid
from pathlib import Path

import pytest

from tests.support.command_line import CommandLine, command_line_for
from tests.support.harness import DISABLED, OPERATOR, Harness
from tests.support.postgres import Database

ONE = uuid.UUID("0190a1b2-0000-7000-8000-000000000001")
OTHER = uuid.UUID("0190a1b2-ffff-7000-8000-000000000002")


@pytest.fixture
def support(tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    monkeypatch.setenv("COLUMNS", "80")
    return command_line_for(tmp_path, database.support)


@pytest.mark.parametrize("verb", ["show", "why"])
async def test_a_beginning_is_enough_and_an_ambiguous_one_lists_the_matches(
    harness: Harness, support: CommandLine, verb: str
) -> None:
    await harness.place("b1", request_id=ONE)
    await harness.place("b2", request_id=OTHER)
    for beginning in ("0190a1b2-0", "0190A1B20", str(ONE)[:35], ONE.hex):
        code, stdout, stderr = await support.run(verb, beginning)
        assert (code, stderr) == (0, ""), beginning
        assert f"BET_MAKE {ONE} of operator {OPERATOR}" in " ".join(stdout.split())

    code, stdout, stderr = await support.run(verb, "0190a1b2")
    assert (code, stdout) == (1, "")
    first, *lines = stderr.splitlines()
    assert first == "2 callbacks begin with 0190a1b2; give more digits, or one of these ids:"
    # The newest first, with all that tells them apart.
    assert [line.split()[:3] for line in lines] == [[str(one), OPERATOR, "BET_MAKE"] for one in (OTHER, ONE)]
    assert all(line.endswith("Z") for line in lines)

    code, _, stderr = await support.run(verb, "0190a1b3")
    assert (code, stderr) == (1, "no callback begins with 0190a1b3\n")
    code, _, stderr = await support.run(verb, "0190a1b2-0", "--operator", "op_x")
    assert code == 1
    assert "no callback begins with 0190a1b2-0: unknown operator op_x;" in stderr


async def test_one_id_of_two_operators_asks_for_the_operator(harness: Harness, support: CommandLine) -> None:
    await harness.place(request_id=ONE)
    await harness.owner.execute("update predictu_dispatch.operator set enabled = true")
    await harness.producer.execute(
        """select predictu_dispatch.enqueue_callback($1, 'BALANCE', '{"player_id": "p", "currency": "EUR"}', $2)""",
        *(DISABLED, ONE),
    )
    for given in (str(ONE), "0190"):
        code, _, stderr = await support.run("show", given)
        assert (code, stderr.startswith(f"several operators have {ONE}; add --operator ")) == (1, True)
        code, stdout, _ = await support.run("show", given, "--operator", DISABLED)
        assert (code, f"\nBALANCE {ONE} of operator {DISABLED}" in stdout) == (0, True)


@pytest.mark.parametrize("verb", [["retry"], ["cancel", "--reason", "x"], ["resolve", "--reason", "x"]])
async def test_a_command_that_changes_something_takes_whole_ids_only(
    harness: Harness, database: Database, tmp_path: Path, verb: list[str]
) -> None:
    await harness.place(request_id=ONE)
    before = await harness.everything()
    cli = command_line_for(tmp_path, database.operations)
    for given, message in (("0190a1b2", "takes whole ids only"), ("x", "'x' is not a valid UUID")):
        code, _, stderr = await cli.run(*verb, given)
        assert (code, message in stderr) == (2, True), stderr
    assert await harness.everything() == before
