"""Requests that an operator puts off by 429 or 503 are sent again later, as production does."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from predictu_dispatch.certification.entries import RequestEntry
from predictu_dispatch.certification.expectations import confirmed, confirmed_or_put_off
from predictu_dispatch.certification.journal import FILE_NAME, read_entries
from predictu_dispatch.certification.run_verdict import why_not_passed
from predictu_dispatch.certification.scenario import ScenarioVerdict
from predictu_dispatch.certification.steps import Again, Batch
from predictu_dispatch.core.methods import Method
from tests.certification.mutants.mutant import before
from tests.certification.playing import described, played, verdicts
from tests.certification.sandbox import UNTOUCHED, changed_operator
from tests.certification.small_scenarios import debit, end, small

_RECEIVED = "        started = time.perf_counter()\n"
_LIMITED = before(
    "receiver.py",
    _RECEIVED,
    """        bucket = self.__class__.__dict__["BUCKET"]
        now = time.monotonic()
        bucket[0], bucket[1] = min(5.0, bucket[0] + (now - bucket[1]) * 80), now
        if bucket[0] < 1:
            return web.Response(status=429, text="slow down", headers={"Retry-After": "1"})
        bucket[0] -= 1
""",
)
_BUCKET = before("receiver.py", "    async def receive(", "    BUCKET: typing.ClassVar = [5.0, 0.0]\n\n")
_TYPING = before("receiver.py", "import time\n", "import typing\n")
LIMITS_THE_RATE = (_LIMITED, _BUCKET, _TYPING)
"""At most 5 requests at once and 80 a second; others get 429 and Retry-After: 1."""


def _stakes(name: str, again: str = "") -> Batch:
    return Batch(name=name, methods=(Method.BET_MAKE,), amounts=(10,), count=30, in_flight=15, again=again)


VOLLEY = replace(
    small("small-batch", _stakes("stakes"), _stakes("stakes-again", again="stakes"), players=(0,)),
    expectations=(confirmed("stakes", "stakes-again"),),
)
ONE = replace(
    small("small-one", debit("one"), Again(name="again", of="debit-one"), end("one", Method.BET_WIN, 600)),
    expectations=(confirmed("debit-one", "again", "end-one"),),
)


async def test_an_operator_that_limits_the_rate_passes_with_a_warning(tmp_path: Path) -> None:
    async with changed_operator(tmp_path, LIMITS_THE_RATE) as sandbox:
        result = await played(sandbox, [VOLLEY, ONE])
        assert sandbox.balances() == UNTOUCHED
    assert verdicts(result)["small-batch"] is ScenarioVerdict.WARNING, described(result)
    assert not why_not_passed(result), described(result)
    [finding] = result.results[0].findings
    assert "got HTTP 429 and had to be sent again later" in finding.observed
    # Every sending has a number of its own, which is in its jti if the operator wants that.
    entries, _, _ = read_entries((tmp_path / "reports" / result.run / FILE_NAME).read_bytes())
    sendings = Counter(
        (entry.prepared.request_id, entry.prepared.number) for entry in entries if isinstance(entry, RequestEntry)
    )
    assert set(sendings.values()) == {1}


async def test_a_debit_that_is_put_off_for_too_long_fails(tmp_path: Path) -> None:
    busy = before(
        "receiver.py",
        "        fault = self.settings.faults.draw()",
        """        if body and b"BET_MAKE" in body:
            return web.Response(status=503, headers={"Retry-After": "31"})
""",
    )
    async with changed_operator(tmp_path, (busy,)) as sandbox:
        result = await played(sandbox, [VOLLEY, ONE])
        assert sandbox.balances() == UNTOUCHED
    assert set(verdicts(result).values()) == {ScenarioVerdict.FAILED}, described(result)


async def test_a_request_that_may_be_put_off_is_not_sent_again(tmp_path: Path) -> None:
    """503 is a right answer to a copy while the first one is being booked."""
    again = replace(ONE, expectations=(confirmed_or_put_off("again"),))
    busy = before(
        "receiver.py",
        "        fault = self.settings.faults.draw()",
        """        if body in self.__class__.__dict__["SEEN"]:
            return web.Response(status=503, headers={"Retry-After": "1"})
        if body and b"BET_MAKE" in body:
            self.__class__.__dict__["SEEN"].add(body)
""",
    )
    seen = before("receiver.py", "    async def receive(", "    SEEN: typing.ClassVar = set()\n\n")
    async with changed_operator(tmp_path, (busy, seen, _TYPING)) as sandbox:
        result = await played(sandbox, [again])
        assert sandbox.balances() == UNTOUCHED
    assert verdicts(result) == {"small-one": ScenarioVerdict.PASSED}, described(result)
