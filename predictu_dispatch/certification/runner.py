"""Plays scenarios against a sandbox, one at a time, and undoes what they did.

A scenario with a Pause lets others be played meanwhile. Balances are read before its first step,
after a pause and after its last step, while nothing else is played.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from predictu_dispatch.certification.entries import JOURNAL_VERSION, RunEntry, VerdictEntry
from predictu_dispatch.certification.journal import Journal, RunRefusedError
from predictu_dispatch.certification.limits import Limits, RequestCapError
from predictu_dispatch.certification.observation import Sent
from predictu_dispatch.certification.playing import EndedError, Playing, Reach
from predictu_dispatch.certification.recording import RecordingSender
from predictu_dispatch.certification.result import Reversal, RunResult, ScenarioResult
from predictu_dispatch.certification.reversal import AFTER_RUN, Patience, Reverser
from predictu_dispatch.certification.scenario import (
    NEED_TEXTS,
    Finding,
    Group,
    Scenario,
    ScenarioVerdict,
)
from predictu_dispatch.certification.schedule import needs_of, parts, phases
from predictu_dispatch.certification.sender import Sender
from predictu_dispatch.certification.starts import Starts
from predictu_dispatch.certification.steps import BEFORE, Step
from predictu_dispatch.certification.target import Target

_SILENT_MAX: Final = 2
INTERRUPTED: Final = "it was interrupted"
RUN_S_MAX: Final = 3_600.0
"""A run takes a minute or two; half an hour if each answer takes half of the timeout."""
_WORST_LAST: Final = list(ScenarioVerdict)


async def play(
    target: Target,
    scenarios: Sequence[Scenario],
    folder: Path,
    *,
    run: str,
    on_result: Callable[[ScenarioResult], None] = lambda _: None,
    stop: asyncio.Event | None = None,
    is_whole_suite: bool = True,
    patience: Patience = AFTER_RUN,
) -> RunResult:
    """Play the scenarios and undo them; the run's folder is created, with its journal.

    If `stop` is set, the scenario in the middle is cut short, the others are skipped, and the run
    is undone as usual; the same holds if this task is cancelled, which is raised afterwards.
    `on_result` is called in the order in which the scenarios end. Raises RunRefusedError if the run
    must not begin, or if the journal cannot be written; `clean` then undoes what was sent.
    """
    started_at = datetime.now(UTC)
    with Journal.create(folder, _head_of(target, run, started_at)) as journal:
        sender = Sender(target, run=run)
        runner = _Runner(target, journal, sender, on_result=on_result, started_at=started_at)
        try:
            try:
                await _until_stopped(runner, scenarios, stop or asyncio.Event())
            except RunRefusedError:
                raise
            except BaseException:
                await _undone(runner, patience)
                raise
            reversal = await _undone(runner, patience)
        finally:
            await sender.close()
        return RunResult(
            run=run,
            operator_id=target.settings.operator_id,
            url=target.settings.callback_url,
            kid=target.key.kid,
            algorithm=target.settings.signing.algorithm,
            amount_format=target.settings.amount_format,
            currency=target.currency,
            digits=target.digits,
            players=target.players,
            started_at=started_at,
            ended_at=datetime.now(UTC),
            results=tuple(runner.results[scenario.id] for scenario in scenarios),
            reversal=reversal,
            requests_sent=journal.requests,
            is_whole_suite=is_whole_suite,
            stopped=runner.stopped,
        )


def _head_of(target: Target, run: str, now: datetime) -> RunEntry:
    return RunEntry(
        version=JOURNAL_VERSION,
        run=run,
        operator_id=target.settings.operator_id,
        url=target.settings.callback_url,
        kid=target.key.kid,
        players=target.players,
        currency=target.currency,
        digits=target.digits,
        amount_format=target.settings.amount_format,
        at=now.isoformat(timespec="milliseconds"),
    )


async def _until_stopped(runner: _Runner, scenarios: Sequence[Scenario], stop: asyncio.Event) -> None:
    """Play all scenarios, or those until `stop` is set, the task is cancelled or time is over."""
    playing = asyncio.create_task(runner.play_all(scenarios), name="scenarios")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    why = INTERRUPTED
    try:
        ended, _ = await asyncio.wait({playing, stopping}, timeout=RUN_S_MAX, return_when=asyncio.FIRST_COMPLETED)
        if not ended:
            why = f"it took more than {RUN_S_MAX / 60:g} minutes, because answers are slow or requests are put off"
    finally:
        stopping.cancel()
        if not playing.done():
            runner.stopped = runner.stopped or why
            playing.cancel()
            await asyncio.wait({playing})
    if not playing.cancelled():
        playing.result()
    runner.skip_the_rest(scenarios)


async def _undone(runner: _Runner, patience: Patience) -> Reversal:
    """Undo the run in a task of its own, which a cancellation does not stop."""
    return await asyncio.shield(asyncio.create_task(runner.reverser.reverse(patience), name="reversal"))


class _Runner:
    """The scenarios of one run, and their results."""

    def __init__(
        self,
        target: Target,
        journal: Journal,
        sender: Sender,
        *,
        on_result: Callable[[ScenarioResult], None],
        started_at: datetime,
    ) -> None:
        confirmed: list[Sent] = []
        limits = Limits(requests_max=target.requests_max, requests_per_s=target.requests_per_s)
        self.results: dict[str, ScenarioResult] = {}
        self.stopped = ""
        self.reverser = Reverser(target, journal, sender, confirmed=confirmed)
        self._recording = RecordingSender(sender, journal, limits, confirmed=confirmed)
        self._target = target
        self._run = journal.head.run
        self._journal = journal
        self._sender = sender
        self._on_result = on_result
        self._started_at = started_at
        self._starts = Starts(target, journal, self._recording)
        self._silent_in_a_row = 0
        """Scenarios, one after the other, whose balances had no answer."""
        self._turn = asyncio.Lock()
        """Held while something is sent; fair, so a scenario whose pause is over comes next."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused: RunRefusedError | None = None

    async def play_all(self, scenarios: Sequence[Scenario]) -> None:
        """Play the connection's first, those with a pause next, the ledger's at the end."""
        needs = needs_of(self._target)
        playable: list[Scenario] = []
        for scenario in scenarios:
            if missing := sorted(scenario.needs - needs):
                self._skip(scenario, "; ".join(NEED_TEXTS[need] for need in missing))
            else:
                playable.append(scenario)
        await self._starts.read()
        self._starts.check(playable)
        for phase in phases(playable):
            if self._starts.missing:
                await self._starts.read()
                self._starts.check(playable)
            async with asyncio.TaskGroup() as group:
                for scenario in phase:
                    if self.stopped:
                        break
                    goes_on = asyncio.Event()
                    task = group.create_task(self._play(scenario, goes_on), name=scenario.id)
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)
                    # Also if it is cancelled before its first line.
                    task.add_done_callback(partial(_go_on, goes_on))
                    await goes_on.wait()
            if self._refused is not None:
                raise self._refused

    def skip_the_rest(self, scenarios: Iterable[Scenario]) -> None:
        for scenario in scenarios:
            if scenario.id not in self.results:
                self._skip(scenario, f"the run was stopped: {self.stopped}")

    async def _play(self, scenario: Scenario, goes_on: asyncio.Event) -> None:
        """Play one scenario; `goes_on` is set when the next one may begin."""
        try:
            await self._play_parts(scenario, goes_on)
        except RequestCapError as error:
            self._stop(str(error))
        except RunRefusedError as error:
            self._refused = error
            self._stop(str(error))

    async def _play_parts(self, scenario: Scenario, goes_on: asyncio.Event) -> None:
        started_at, started_s = datetime.now(UTC), time.monotonic()
        playing = Playing(
            scenario,
            target=self._target,
            run=self._run,
            run_started_at=self._started_at,
            sender=self._sender,
            recording=self._recording,
        )
        for pause_s, steps, is_last in parts(scenario.steps):
            if pause_s is not None:
                goes_on.set()
                await asyncio.sleep(pause_s)
            async with self._turn:
                findings = await self._play_part(playing, steps, is_first=pause_s is None, is_last=is_last)
                if findings is None:
                    continue
                verdict = max(
                    (each.verdict for each in findings), key=_WORST_LAST.index, default=ScenarioVerdict.PASSED
                )
                self._journal.append([VerdictEntry(scenario=scenario.id, verdict=verdict)], is_synced=False)
                self._report(
                    ScenarioResult(
                        scenario=scenario,
                        verdict=verdict,
                        findings=findings,
                        observed=playing.observed,
                        started_at=started_at,
                        duration_s=time.monotonic() - started_s,
                    )
                )
                if not self.stopped:
                    await self.reverser.undo_scenario(scenario.id)
                return

    async def _play_part(
        self, playing: Playing, steps: Sequence[Step], *, is_first: bool, is_last: bool
    ) -> tuple[Finding, ...] | None:
        """Play the steps up to a pause or to the end; return the findings if it has ended."""
        try:
            if is_first:
                await self._begin(playing)
            else:
                await playing.resume()
            await playing.play(steps)
            findings = await playing.finish() if is_last else None
        except EndedError as ended:
            self._silent_in_a_row += ended.reach is Reach.SILENT
            if ended.stops_run:
                self._stop(ended.stops_run)
            elif ended.reach is Reach.DOWN or self._silent_in_a_row >= _SILENT_MAX:
                self._stop(f"the operator could not be reached: {ended.finding.observed}")
            return (ended.finding,)
        self._silent_in_a_row = 0
        return findings

    async def _begin(self, playing: Playing) -> None:
        """Read the balances ahead of the first step; nothing is debited from an unknown balance."""
        missing = self._starts.missing
        if not missing or playing.scenario.group is Group.CONNECTION:
            await playing.begin(playing.players)
            return
        try:
            await playing.begin(range(len(self._target.players)))
        except EndedError as ended:
            why = f"balances cannot be read: {ended.finding.observed}"
            raise EndedError(ended.finding, reach=ended.reach, stops_run=why) from None
        balances = playing.observed.balances[BEFORE]
        self._starts.add({player: balances[player] or 0 for player in missing})

    def _stop(self, reason: str) -> None:
        """Stop the run: no scenario begins, and those in the middle are cut short."""
        self.stopped = self.stopped or reason
        for task in self._tasks - {asyncio.current_task()}:
            task.cancel()

    def _skip(self, scenario: Scenario, reason: str) -> None:
        self._report(ScenarioResult(scenario=scenario, verdict=ScenarioVerdict.SKIPPED, reason=reason))

    def _report(self, result: ScenarioResult) -> None:
        self.results[result.scenario.id] = result
        self._on_result(result)


def _go_on(goes_on: asyncio.Event, _: asyncio.Task[None]) -> None:
    goes_on.set()
