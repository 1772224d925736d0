"""The verb `certify`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import click

from predictu_dispatch.commands.certify.options import OPTIONS, Options, refuse_contradictions
from predictu_dispatch.commands.invocation import Invocation, common_options
from predictu_dispatch.commands.output import print_json, print_line

if TYPE_CHECKING:
    from predictu_dispatch.certification.scenario import Scenario

_F = TypeVar("_F", bound=Callable[..., Any])


def _with_options(command: _F) -> _F:
    return reduce(lambda decorated, option: option(decorated), reversed(OPTIONS), command)


@click.command(short_help="Test an operator's sandbox before its first bet.")
@click.argument("operator", required=False)
@_with_options
@common_options
def certify(invocation: Invocation, operator: str | None, **options: Unpack[Options]) -> None:
    """Play the certification against the sandbox of OPERATOR, or against --url.

    It sends repetitions, cut connections, wrong tokens and rollbacks of unknown bets. It judges by
    the balances before and after, says what each fault would cost, and undoes what it booked. A
    live URL or key of the configuration is refused, and nothing is sent.

    Nobody else may use the test players during a run. All scenarios together take 70 s or more.
    """
    refuse_contradictions(operator, options)
    if options["is_list"]:
        _list(invocation)
    elif (note := options["check"]) is not None:
        from predictu_dispatch.commands.certify.certificates import check  # noqa: PLC0415 - loaded only where used

        check(invocation, note, options["vkey"])
    else:
        _run(invocation, operator, options)


def _list(invocation: Invocation) -> None:
    from predictu_dispatch.certification.scenarios import ALL  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.commands.certify.lines import scenario_lines  # noqa: PLC0415

    if invocation.json:
        keys = ("id", "group", "title", "why", "fix")
        print_json([{key: getattr(one, key) for key in keys} | {"needs": sorted(one.needs)} for one in ALL])
        return
    for line in scenario_lines(ALL):
        print_line(line)


def _run(invocation: Invocation, operator: str | None, options: Options) -> None:
    from predictu_dispatch.certification.expected import read_expected  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.certification.scenarios import ALL  # noqa: PLC0415
    from predictu_dispatch.commands.certify.runs import clean_run, play_run  # noqa: PLC0415
    from predictu_dispatch.commands.certify.targets import from_file, from_url  # noqa: PLC0415
    from predictu_dispatch.edge.config.files import ConfigError  # noqa: PLC0415

    scenarios = chosen_scenarios(options["only"], ALL)
    try:
        file = options["expect"]
        expected = () if file is None else read_expected(file, [one.id for one in ALL])
    except ConfigError as error:
        invocation.refuse(error)
    chosen = from_url(invocation, options) if operator is None else from_file(invocation, operator, options)
    if options["clean"] is not None:
        clean_run(invocation, chosen, options["clean"], options["reports"])
    play_run(
        invocation,
        chosen,
        scenarios,
        expected=expected,
        reports=options["reports"],
        only=options["only"],
    )


def chosen_scenarios(only: Sequence[str], scenarios: Sequence[Scenario]) -> tuple[Scenario, ...]:
    """Return the scenarios that `--only` names, by id or by group; all without it."""
    known = {one.id for one in scenarios} | {str(one.group) for one in scenarios}
    for word in only:
        if word not in known:
            from difflib import get_close_matches  # noqa: PLC0415 - loaded only where used

            near = get_close_matches(word, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "certify --list prints all."
            raise click.UsageError(f"--only {word}: no scenario or group has this name. {hint}")
    return tuple(one for one in scenarios if not only or one.id in only or one.group in only)
