"""Runs vectors.json against verify.py; exit code 1 if a verdict is wrong."""

from __future__ import annotations

import base64
import json
import sys
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from unittest import mock

import jwt
from verify import verified_callback


def main() -> int:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "vectors.json"
    vectors = json.loads(file.read_text(encoding="utf-8"))
    wrong = 0
    for case in vectors["cases"]:
        verdict = _verdict(case, vectors)
        if case["accept"] != (verdict == "accepted"):
            wrong += 1
            sys.stderr.write(f"{case['name']}: {verdict}\n")
    count = len(vectors["cases"])
    sys.stdout.write(f"{count - wrong} of {count} cases as expected\n")
    return 1 if wrong else 0


def _verdict(case: dict[str, object], vectors: dict[str, object]) -> str:
    body = base64.b64decode(str(case["body_base64"]))
    try:
        with mock.patch("jwt.api_jwt.datetime", _clock_at(float(str(case["now"])))):
            verified_callback(case["authorization"], body, vectors["jwks"], case["algorithm"], vectors["operator_id"])
    except (jwt.InvalidTokenError, ValueError) as fault:
        return f"refused: {fault}"
    return "accepted"


def _clock_at(now_s: float) -> type[datetime]:
    """Returns the clock that PyJWT reads, stopped at this time."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Clock:
            return cls.fromtimestamp(now_s, tz or UTC)

    return Clock


if __name__ == "__main__":
    sys.exit(main())
