"""`operator retire`: its output and exit codes, and what the other commands then show."""

from tests.support.command_line import CommandLine, one_line
from tests.support.harness import OPERATOR, Harness, delivered
from tests.support.interventions import terminal_in_review


async def test_an_operator_is_retired_once_everything_of_it_has_ended(
    harness: Harness, person_cli: CommandLine
) -> None:
    """Every refusal names what is left and the commands for it."""
    retire = ("operator", "retire", OPERATOR, "--reason", "contract ended", "--by", "alice")
    win = await terminal_in_review(harness)
    code, stdout, stderr = await person_cli.run(*retire)
    assert (code, stdout) == (1, "")
    assert f"operator {OPERATOR} is not retired: callbacks that need review: 1" in stderr
    assert "predictu-dispatch status" in stderr
    assert "predictu-dispatch resolve" in stderr
    assert (await person_cli.run("resolve", str(win), "--reason", "paid by hand"))[0] == 0
    placement = await harness.place("b2")
    assert f"predictu-dispatch find --operator {OPERATOR} --state ready" in (await person_cli.run(*retire))[2]
    await harness.attempt(placement, delivered)
    assert f"predictu-dispatch show --bet {OPERATOR} BET_ID" in (await person_cli.run(*retire))[2]
    await harness.attempt(await harness.end("BET_LOSE", "b2"), delivered)

    code, stdout, stderr = await person_cli.run(*retire)
    assert (code, stderr) == (0, "")
    assert f"operator {OPERATOR} was retired at 2" in stdout
    assert f"delete operators/{OPERATOR}.toml on every host" in one_line(stdout)
    code, again, _ = await person_cli.run(*retire[:-1], "bob")
    assert (code, again) == (0, stdout), "repeating it changes nothing"

    assert OPERATOR not in (await person_cli.run("status"))[1]
    code, stdout, _ = await person_cli.run("show", str(win))
    assert (code, "is exhausted" in stdout) == (0, True)
    code, _, stderr = await person_cli.run("ping", OPERATOR)
    assert (code, f"operator '{OPERATOR}' was retired at 2" in stderr) == (1, True)
    code, stdout, _ = await person_cli.run("interventions", "--action", "retire")
    assert f"retired operator {OPERATOR}" in stdout
    assert "retired_by none → alice" in one_line(stdout)


async def test_wrong_usage_and_an_unknown_operator(harness: Harness, person_cli: CommandLine) -> None:
    for arguments, code, phrase in (
        (["operator", "retire", OPERATOR], 2, "Missing option '--reason'"),
        (["operator", "retire", OPERATOR, "--reason", " "], 2, "--reason must not be empty"),
        (["operator", "retire", "op_new", "--reason", "x"], 1, "unknown operator 'op_new'"),
    ):
        assert (await person_cli.run(*arguments))[0] == code
        assert phrase in (await person_cli.run(*arguments))[2]
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.intervention") == 0
