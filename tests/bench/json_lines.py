"""A child process that reads requests as JSON lines and answers each with a JSON line.

The child ends when its stdin closes, so it also ends if its parent is killed.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from math import inf
from pathlib import Path
from typing import Any

import uvloop

_LINE_BYTES_MAX = 64 * 1024 * 1024
"""Maximum length of a line; the largest has four numbers per request of a segment."""
_END_TIMEOUT_S = 10.0
_ARRIVAL_GRACE_S = 20.0
"""Longer than the interactive deadline_s of 15 s, after which nothing arrives."""
_ROOT = Path(__file__).parents[2]

Question = Mapping[str, Any]


def answer_lines(answer: Callable[[Question], Awaitable[Any]]) -> None:
    """Run in the child: answer every line of stdin until it ends."""
    # Garbage collection would disturb the measurement, and children do not live long enough to need
    # it.
    gc.disable()
    uvloop.run(_answer_lines(answer))


async def _answer_lines(answer: Callable[[Question], Awaitable[Any]]) -> None:
    questions = asyncio.StreamReader(limit=_LINE_BYTES_MAX)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(questions), sys.stdin)
    while line := await questions.readline():
        sys.stdout.write(json.dumps(await answer(json.loads(line))) + "\n")
        sys.stdout.flush()


class JsonLinesProcess:
    """The parent's side of one child."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._owes_an_answer = False

    @classmethod
    async def start(cls, module: str) -> "JsonLinesProcess":
        """Start a module of this tree as the child."""
        return await cls.start_command(sys.executable, "-m", module, cwd=_ROOT)

    @classmethod
    async def start_command(cls, *command: str, cwd: Path) -> "JsonLinesProcess":
        """Start the child; its stderr is ours."""
        return cls(
            await asyncio.create_subprocess_exec(
                *command,
                cwd=cwd,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES_MAX,
                # Ctrl-C must not reach the child; it ends with its stdin.
                start_new_session=True,
            )
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ask(self, **question: Any) -> Any:
        """The child's answer. Raises RuntimeError if the child has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._owes_an_answer = True
        self._process.stdin.write(json.dumps(question).encode() + b"\n")
        if not (line := await self._process.stdout.readline()):
            raise RuntimeError(f"the child ended with {await self._process.wait()} when it was asked {question}"[:300])
        self._owes_an_answer = False
        return json.loads(line)

    async def times(self, what: str, request_ids: list[str]) -> list[float]:
        """The sink's `arrivals` or `answers` in seconds; infinity if there is none."""
        give_up_at_s = time.monotonic() + _ARRIVAL_GRACE_S
        while True:
            times_s = await self.ask(do=what, request_ids=request_ids)
            if None not in times_s or time.monotonic() > give_up_at_s:
                return [inf if time_s is None else time_s for time_s in times_s]
            await asyncio.sleep(0.1)

    async def close(self) -> None:
        """Stop the child; kill it if it does not stop in time."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        if self._owes_an_answer and self._process.returncode is None:
            self._process.kill()
        try:
            await asyncio.wait_for(self._process.wait(), _END_TIMEOUT_S)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
