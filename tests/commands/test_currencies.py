"""`currencies`: adds further ones, whose amounts then are exact on the wire and on screens."""

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from predictu_dispatch.core.answer import balance_of
from predictu_dispatch.core.callback import body
from predictu_dispatch.core.claim import ClaimRequest
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.edge.postgres.database import Database as Pool
from predictu_dispatch.edge.postgres.outbox import Outbox
from tests.support.command_line import CommandLine, command_line_for
from tests.support.harness import OPERATOR, Harness, delivered, enqueue, placement_params
from tests.support.postgres import Database
from tests.support.terminal import COLUMNS, terminal

LARGEST = 10**18 - 1


@pytest.fixture
def cli(tmp_path: Path, database: Database) -> CommandLine:
    return command_line_for(tmp_path, database.owner)


async def digits_of(harness: Harness, code: str | None) -> int | None:
    digits: int | None = await harness.producer.fetchval("select predictu_dispatch.currency_digits($1)", code)
    return digits


async def test_an_added_currency_is_known_to_producers_and_adding_it_again_changes_nothing(
    harness: Harness, cli: CommandLine
) -> None:
    assert await digits_of(harness, "USDT") is None
    code, stdout, stderr = await cli.run("currencies", "add", "USDT", "6")
    assert (code, stderr) == (0, "")
    assert stdout == "added USDT: 1 USDT is 1,000,000 subunits; the largest amount is 999,999,999,999.999999 USDT\n"
    assert await digits_of(harness, "USDT") == 6
    assert await cli.run("currencies", "add", "USDT", "6") == (0, "USDT is there already, with 6 minor digits\n", "")
    assert await cli.run("currencies", "add", "JPY", "0") == (0, "JPY is there already, with 0 minor digits\n", "")
    assert await cli.run_json("currencies", "add", "1INCH", "18") == (
        0,
        {"currency": "1INCH", "minor_digits": 18, "is_new": True},
    )


@pytest.mark.parametrize(
    ("code", "digits", "message"),
    [
        ("EUR", "3", "currency EUR has 2 minor digits, not 3"),
        *(
            (code, "6", f"'{code}' is no currency code")
            for code in ("usdt", "US", "978", "USD T", "USDTETHER12", "ÜSD")
        ),
    ],
)
async def test_a_known_code_with_other_digits_and_a_malformed_code_are_refused(
    harness: Harness, cli: CommandLine, code: str, digits: str, message: str
) -> None:
    before = await harness.owner.fetch("select * from predictu_dispatch.currency order by 1")
    exit_code, stdout, stderr = await cli.run("currencies", "add", code, digits)
    assert (exit_code, stdout) == (1, "")
    assert stderr.startswith(f"{message}\n    ")
    assert await harness.owner.fetch("select * from predictu_dispatch.currency order by 1") == before


@pytest.mark.parametrize("digits", ["-1", "19", "six"])
async def test_digits_out_of_bounds_are_wrong_usage(cli: CommandLine, digits: str) -> None:
    assert (await cli.run("currencies", "add", "--", "USDT", digits))[0] == 2


async def test_the_list_has_all_currencies_and_shows_who_added_which(harness: Harness, cli: CommandLine) -> None:
    code, listed = await cli.run_json("currencies")
    assert code == 0
    rows = await harness.owner.fetch("select currency, minor_digits from predictu_dispatch.currency order by currency")
    assert [(row["currency"], row["minor_digits"]) for row in listed] == [tuple(row) for row in rows]
    assert [await digits_of(harness, one) for one in ("EUR", "JPY", "BHD", "CLF", "XXX", "eur", None)] == [
        *(2, 0, 3, 4),
        *(None, None, None),
    ]
    _, stdout, _ = await cli.run("currencies", "list")
    assert "   3 digits  BHD IQD JOD KWD LYD OMR TND\n" in stdout
    assert stdout.endswith("Added: none; `predictu-dispatch currencies add CODE DIGITS` adds one\n")
    await cli.run("currencies", "add", "USDT", "6")
    assert (await cli.run("currencies"))[1].splitlines()[-1].startswith("   6 digits  USDT        20")
    assert max(map(len, stdout.splitlines())) <= 80


async def test_a_currency_is_never_changed_or_removed_not_even_by_the_owner(harness: Harness) -> None:
    """Stored amounts are in its subunits."""
    for statement in (
        "update predictu_dispatch.currency set minor_digits = 3 where currency = 'EUR'",
        "delete from predictu_dispatch.currency where currency = 'EUR'",
        "truncate predictu_dispatch.currency",
        "set session_replication_role = replica; delete from predictu_dispatch.currency",
    ):
        with pytest.raises(asyncpg.PostgresError, match="currencies are only added") as refused:
            await harness.owner.execute(statement)
        assert refused.value.sqlstate == "PD900"
    for code, digits in (("EUR", 3), ("usdt", 6), ("USDT", 19), ("USDT", -1), ("978", 2)):
        with pytest.raises((asyncpg.UniqueViolationError, asyncpg.CheckViolationError)):
            await harness.owner.execute("insert into predictu_dispatch.currency values ($1, $2)", code, digits)


@pytest.mark.parametrize(("code", "digits"), [("USDT", 6), ("BTC", 8), ("ETH", 18), ("POINTS", 0)])
async def test_amounts_of_an_added_currency_go_out_and_come_back_as_exact_decimals(
    harness: Harness, database: Database, cli: CommandLine, code: str, digits: int
) -> None:
    """Up to the largest amount; the digits come from the database with each claimed callback."""
    refusal = await refused(harness, code)
    assert f'unknown currency "{code}"' in refusal
    await cli.run("currencies", "add", code, str(digits))
    await enqueue(harness.producer, "BET_MAKE", placement_params("b1", amount=LARGEST, currency=code))
    pool = Pool(database.dispatcher, pool_size=2, application_name="test")
    await pool.open()
    try:
        [callback] = await Outbox(pool, instance="host-1").claim([WANTED])
    finally:
        await pool.close()
    assert callback.minor_digits == digits
    amount = json.loads(body(callback), parse_float=Decimal, parse_int=Decimal)["params"]["amount"]
    assert (amount * 10**digits, -amount.as_tuple().exponent) == (LARGEST, digits)
    assert balance_of(callback, {"balance": amount}) == (LARGEST, None)
    assert balance_of(callback, {"balance": Decimal(1).scaleb(-digits - 1)})[0] is None, "less than a subunit"


WANTED = ClaimRequest(
    operator_id=OPERATOR,
    lane=Lane.INTERACTIVE,
    free_slots=1,
    lease_s=60.0,
    rollback_lease_s=60.0,
    amount_format="decimal",
)


async def refused(harness: Harness, code: str) -> str:
    with pytest.raises(asyncpg.PostgresError) as error:
        await enqueue(harness.producer, "BET_MAKE", placement_params("b1", currency=code))
    assert error.value.sqlstate == "PD003"
    return str(error.value)


async def test_screens_show_amounts_of_an_added_currency_in_units(harness: Harness, cli: CommandLine) -> None:
    await cli.run("currencies", "add", "USDT", "6")
    placement = await enqueue(harness.producer, "BET_MAKE", placement_params("b1", amount=12_500_000, currency="USDT"))
    await harness.attempt(placement, delivered)
    _, stdout, _ = await cli.run("show", "--bet", OPERATOR, "b1")
    assert "12.500000 USDT" in stdout


async def test_a_command_of_an_older_release_reads_the_digits_of_an_added_currency(
    harness: Harness, cli: CommandLine
) -> None:
    await cli.run("currencies", "add", "USDT", "6")
    for reader in (harness.daemon, harness.person):
        assert await reader.fetchval("select predictu_dispatch.minor_digits('USDT')") == 6


async def test_a_bet_that_was_opened_elsewhere_may_be_in_an_added_currency(harness: Harness, cli: CommandLine) -> None:
    adopt: Any = "select predictu_dispatch.adopt_bet($1, 'open', 'p1', 'USDT', 500, gen_random_uuid())"
    with pytest.raises(asyncpg.PostgresError, match="unknown currency"):
        await harness.producer.execute(adopt, OPERATOR)
    await cli.run("currencies", "add", "USDT", "6")
    await harness.producer.execute(adopt, OPERATOR)


async def test_an_error_and_its_hint_fit_a_terminal_and_are_one_line_each_in_a_pipe(cli: CommandLine) -> None:
    code, _, stderr = await cli.run("currencies", "add", "EUR", "3")
    assert (code, len(stderr.splitlines())) == (1, 2)
    assert max(map(len, stderr.splitlines())) > COLUMNS
    with terminal(cli, "currencies", "add", "EUR", "3") as screen:
        assert await asyncio.to_thread(screen.process.wait, 60) == 1
        assert screen.shows("add another")
        assert max(map(len, screen.text.splitlines())) <= COLUMNS
