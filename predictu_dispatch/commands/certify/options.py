"""The options of `certify`, and which of them go together."""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypedDict

import click

_FILE: Final = click.Path(path_type=Path, dir_okay=False)


class Options(TypedDict):
    """What was given. Those of `URL_ONLY` are None or empty with OPERATOR."""

    url: str | None
    key: Path | None
    players: tuple[str, ...]
    operator_id: str | None
    currency: str | None
    amount_format: str | None
    algorithm: str | None
    allow_insecure_http: bool
    allow_private_addresses: bool
    ca_file: Path | None
    success: tuple[str, ...]
    rejected: tuple[str, ...]
    nothing_to_reverse: tuple[str, ...]
    retry: tuple[str, ...]
    digits: int | None
    ledger: str | None
    only: tuple[str, ...]
    expect: Path | None
    reports: Path
    clean: str | None
    max_requests: int
    max_rate: float
    is_list: bool
    check: Path | None
    vkey: str | None


DEFAULT_OPERATOR_ID: Final = "op_throwaway"
"""That of `reference-operator try`."""
DEFAULT_REPORTS: Final = "certify-reports"
REQUESTS_MAX: Final = 10_000
RATE_MAX: Final = 200.0
"""Those of certification/target.py, because importing it slows `--help`; a test compares them."""

URL_ONLY: Final = {
    "key": "--key",
    "players": "--player",
    "operator_id": "--operator-id",
    "currency": "--currency",
    "amount_format": "--amount-format",
    "algorithm": "--algorithm",
    "allow_insecure_http": "--allow-insecure-http",
    "allow_private_addresses": "--allow-private-addresses",
    "ca_file": "--ca-file",
    "success": "--success",
    "rejected": "--rejected",
    "nothing_to_reverse": "--nothing-to-reverse",
    "retry": "--retry",
}
"""Options that say what an operator's file says otherwise."""


def _scenarios(_ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    from predictu_dispatch.certification.scenarios import ALL  # noqa: PLC0415 - loaded only where used

    names = dict.fromkeys([str(one.group) for one in ALL] + [one.id for one in ALL])
    return [name for name in names if name.startswith(incomplete)]


def _runs(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """The runs in the folder of the reports, the newest first."""
    folder = Path(ctx.params.get("reports") or DEFAULT_REPORTS)
    try:
        return sorted((file.parent.name for file in folder.glob(f"{incomplete}*/journal.ndjson")), reverse=True)
    except (OSError, ValueError):
        return []


_STATUSES: Final = {
    "success": "a success",
    "rejected": "a business rejection",
    "nothing-to-reverse": "the answer to a rollback of an unknown bet",
    "retry": "a temporary condition",
}

OPTIONS: Final = (
    click.option("--url", metavar="URL", help="Certify this URL instead of an operator's [sandbox]."),
    click.option("--key", metavar="FILE", type=_FILE, help="With --url: the private key that signs as Predictu."),
    click.option(
        "--player", "players", metavar="PLAYER", multiple=True, help="With --url: a test player; once or twice."
    ),
    click.option(
        "--operator-id",
        metavar="ID",
        help=f"With --url: the operator's id, the tokens' `sub`. Default: {DEFAULT_OPERATOR_ID}.",
    ),
    click.option("--currency", metavar="CODE", help="With --url: the players' currency. Default: EUR."),
    click.option("--amount-format", type=click.Choice(("subunits", "decimal")), help="With --url. Default: subunits."),
    click.option("--algorithm", type=click.Choice(("EdDSA", "RS256")), help="With --url. Default: the key's."),
    click.option("--allow-insecure-http", is_flag=True, help="With --url: allow http://."),
    click.option("--allow-private-addresses", is_flag=True, help="With --url: allow this host and private networks."),
    click.option("--ca-file", metavar="FILE", type=_FILE, help="With --url: trust this authority only."),
    *(
        click.option(f"--{name}", metavar="STATUS", multiple=True, help=f"With --url: this status is {meaning}.")
        for name, meaning in _STATUSES.items()
    ),
    click.option(
        "--digits",
        type=click.IntRange(0, 18),
        metavar="N",
        help="The currency's minor digits. Default: those of ISO 4217.",
    ),
    click.option("--ledger", metavar="URL", help="Compare the operator's ledger, which this URL serves."),
    click.option(
        "--only",
        metavar="ID",
        multiple=True,
        shell_complete=_scenarios,
        help="Play this scenario or group only. May be repeated.",
    ),
    click.option("--expect", metavar="FILE", type=_FILE, help="Known failures, each with a reason and a last day."),
    click.option(
        "--reports",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        default=DEFAULT_REPORTS,
        show_default=True,
        help="Where each run gets a folder.",
    ),
    click.option(
        "--clean", metavar="RUN", shell_complete=_runs, help="Undo what an earlier run left open, and play nothing."
    ),
    click.option(
        "--max-requests",
        type=click.IntRange(min=1),
        metavar="N",
        default=REQUESTS_MAX,
        show_default=True,
        help="Stop the run after this many requests.",
    ),
    click.option(
        "--max-rate",
        type=click.FloatRange(min=1),
        metavar="N",
        default=RATE_MAX,
        show_default=True,
        help="The most requests a second.",
    ),
    click.option("--list", "is_list", is_flag=True, help="List the scenarios, and send nothing."),
    click.option("--check", metavar="NOTE", type=_FILE, help="Verify a certificate, and send nothing."),
    click.option("--vkey", metavar="VKEY", help="With --check: the key. Default: that of [certify] key_file."),
)


def refuse_contradictions(operator: str | None, options: Options) -> None:
    """Raise UsageError if the options do not name exactly one thing to do."""
    doing = [
        name
        for name, is_given in {
            "OPERATOR": operator is not None,
            "--url": options["url"] is not None,
            "--list": options["is_list"],
            "--check": options["check"] is not None,
        }.items()
        if is_given
    ]
    if len(doing) != 1:
        raise click.UsageError("name one OPERATOR, or give --url, --list or --check")
    if options["url"] is None:
        given = [option for name, option in URL_ONLY.items() if options[name]]  # type: ignore[literal-required]
        if given:
            raise click.UsageError(f"{given[0]} goes with --url; with OPERATOR, the operator's file has it")
    elif options["key"] is None or not options["players"]:
        raise click.UsageError("--url needs --key FILE and --player PLAYER")
    elif len(options["players"]) > 2 or len(set(options["players"])) != len(options["players"]):  # noqa: PLR2004 - the scenarios know two
        raise click.UsageError("give one --player, or two different ones")
    if options["vkey"] is not None and options["check"] is None:
        raise click.UsageError("--vkey goes with --check")
    if options["clean"] is not None and (options["only"] or options["expect"]):
        raise click.UsageError("--clean plays nothing; omit --only and --expect")
