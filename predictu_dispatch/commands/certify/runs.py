"""A run of `certify`, or the cleaning of one: signals, progress, reports and the exit code."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from predictu_dispatch.certification import report
from predictu_dispatch.certification.expected import Expected, judged
from predictu_dispatch.certification.journal import RunRefusedError
from predictu_dispatch.certification.result import Reversal, RunResult
from predictu_dispatch.certification.reversal import clean
from predictu_dispatch.certification.run_verdict import why_not_passed
from predictu_dispatch.certification.runner import play
from predictu_dispatch.certification.scenario import Scenario
from predictu_dispatch.certification.steps import Pause, ReadLedger
from predictu_dispatch.commands.certify.certificates import signer_of
from predictu_dispatch.commands.certify.lines import (
    Progress,
    print_clean_line,
    print_cleaned,
    print_reports,
    print_summary,
    result_json,
    reversal_json,
)
from predictu_dispatch.commands.certify.targets import Chosen
from predictu_dispatch.commands.invocation import EXIT_FAILED, EXIT_MISCONFIGURED, Invocation
from predictu_dispatch.commands.keys.common import refuse
from predictu_dispatch.commands.output import count, print_error, print_json, print_line, wrapped
from predictu_dispatch.edge.config.files import system_message

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGNALLED: Final = 128
"""A process that a signal ended has this exit code plus the signal's number."""


def run_id(now: datetime, random: bytes) -> str:
    """The name of a run: its UTC time, and two random bytes as hex."""
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{random.hex()}"


@dataclass(kw_only=True)
class _Interruption:
    """The first signal asks the run to stop and to undo; the second one ends the process."""

    clean_line: str
    can_stop: bool = True
    """False: already the first signal ends the process."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    number: int = 0

    def on_signal(self, number: int) -> None:
        is_end = self.number > 0 or not self.can_stop
        # The terminal may be gone, which must not keep the run from being undone.
        with suppress(OSError):
            if is_end:
                print_error(f"ended at once; what was booked may not be undone. To undo it: {self.clean_line}")
            else:
                print_error("interrupted: what was booked is undone now; a second signal ends at once")
        if is_end:
            os._exit(_SIGNALLED + number)
        self.number = number
        self.stop.set()


def _listen_for_signals(clean_line: str, *, can_stop: bool = True) -> _Interruption:
    """React to signals from now on, until the event loop ends."""
    interruption = _Interruption(clean_line=clean_line, can_stop=can_stop)
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        # Under nohup, SIGHUP stays ignored. Outside of the main thread there are no handlers.
        if signal.getsignal(number) is not signal.SIG_IGN:
            with suppress(RuntimeError, ValueError):
                loop.add_signal_handler(number, interruption.on_signal, number)
    return interruption


def play_run(
    invocation: Invocation,
    chosen: Chosen,
    scenarios: Sequence[Scenario],
    *,
    expected: Sequence[Expected],
    reports: Path,
    only: Sequence[str],
) -> NoReturn:
    """Play the scenarios, write the reports, print the summary, and end the command.

    `only` are the names that chose the scenarios; empty for the whole suite.
    """
    run = run_id(datetime.now(UTC), secrets.token_bytes(2))
    folder, clean_line, progress = reports / run, chosen.line("--clean", run), Progress()

    async def played() -> tuple[RunResult, int]:
        interruption = _listen_for_signals(clean_line)
        result = await play(
            chosen.target,
            scenarios,
            folder,
            run=run,
            on_result=lambda one: _say(invocation, *progress.lines(one)),
            stop=interruption.stop,
            is_whole_suite=not only,
        )
        return result, interruption.number

    settings = chosen.target.settings
    next_key = chosen.target.next_key
    _say(
        invocation,
        f"Run {run}: {count(len(scenarios), 'scenario')} against {settings.callback_url}",
        *wrapped(f"Operator {settings.operator_id}, key {chosen.target.key.kid}"),
        *([f"Next key {next_key.kid}"] if next_key else []),
    )
    pause_s = max((step.seconds for one in scenarios for step in one.steps if isinstance(step, Pause)), default=0)
    if pause_s:
        _say(invocation, f"One of them waits {pause_s:.0f} s, so the run lasts longer than that.")
    with _refusals(invocation, clean_line):
        result, interrupted_by = asyncio.run(played())
    _say(invocation, *progress.rest())
    with _reporting(folder, clean_line):
        code = _reported(invocation, chosen, result, scenarios, expected=expected, only=only, folder=folder)
    sys.exit(_SIGNALLED + interrupted_by if interrupted_by else code)


@contextmanager
def _reporting(folder: Path, clean_line: str) -> Iterator[None]:
    """The run is undone by now: an interruption only leaves the reports incomplete."""
    try:
        yield
    except KeyboardInterrupt:
        print_error(f"interrupted: the reports in {folder} are not complete. If a bet is still open: {clean_line}")
        sys.exit(_SIGNALLED + signal.SIGINT)


def _reported(
    invocation: Invocation,
    chosen: Chosen,
    result: RunResult,
    scenarios: Sequence[Scenario],
    *,
    expected: Sequence[Expected],
    only: Sequence[str],
    folder: Path,
) -> int:
    """Write the reports, print the summary, and return the exit code."""
    clean_line = chosen.line("--clean", result.run)
    repeat_line = partial(_repeat_line, chosen, scenarios, only)
    known = judged(expected, result.results, result.ended_at.date())
    reasons = why_not_passed(result, known)
    sign, why_unsigned = signer_of(result, chosen, known)
    written: Sequence[Path] = ()
    unwritten = ""
    try:
        written = report.write_reports(
            result,
            folder,
            repeat_line=repeat_line,
            clean_line=clean_line,
            expected=known,
            notes=chosen.notes,
            certify=sign,
        )
    except OSError as error:
        unwritten = f"the reports cannot be written: {error.filename or folder}: {system_message(error)}"
    if invocation.json:
        print_json(
            {
                **result_json(result, known, reasons),
                "notes": list(chosen.notes),
                "reports": [str(file) for file in written],
                "why_no_certificate": why_unsigned,
                "clean_line": clean_line,
            }
        )
    else:
        print_summary(result, known, reasons, repeat_line=repeat_line)
        print_reports(written, why_unsigned, chosen.notes)
        print_clean_line(result.reversal, clean_line)
    if unwritten:
        print_error(unwritten)
    return EXIT_FAILED if reasons or unwritten else 0


def _repeat_line(chosen: Chosen, scenarios: Sequence[Scenario], only: Sequence[str], scenario_id: str) -> str:
    """The line that plays a scenario again; with the ledger, it plays all that the run played."""
    [steps] = (one.steps for one in scenarios if one.id == scenario_id)
    names = only if any(isinstance(step, ReadLedger) for step in steps) else [scenario_id]
    return chosen.line(*(word for name in names for word in ("--only", name)))


def clean_run(invocation: Invocation, chosen: Chosen, run: str, reports: Path) -> NoReturn:
    """Undo what an earlier run left open, print what was done, and end the command."""
    line = chosen.line("--clean", run)

    async def cleaned() -> Reversal:
        _listen_for_signals(line, can_stop=False)
        return await clean(chosen.target, reports / run, run=run)

    with _refusals(invocation, line):
        reversal = asyncio.run(cleaned())
    # Without a balance of the beginning, nothing was booked.
    is_undone = not reversal.unresolved and all(one.net == 0 or one.before is None for one in reversal.players)
    if invocation.json:
        print_json({"run": run, "clean": is_undone, **reversal_json(reversal)})
    else:
        print_cleaned(run, reversal, chosen)
    sys.exit(0 if is_undone else EXIT_FAILED)


def _say(invocation: Invocation, *lines: str) -> None:
    """Print progress. If the output is closed, the run goes on and is undone at its end."""
    with suppress(OSError):
        for line in lines:
            print_line(line, err=invocation.json)


@contextmanager
def _refusals(invocation: Invocation, clean_line: str) -> Iterator[None]:
    try:
        yield
    except RunRefusedError as error:
        refuse(invocation, str(error), EXIT_MISCONFIGURED)
    except OSError as error:
        refuse(
            invocation,
            f"{error.filename or 'certify'}: {system_message(error)}; to undo what was booked: {clean_line}",
        )
    except Exception:
        print_error(f"the run ended by a fault of this program; to undo what was booked: {clean_line}")
        raise
