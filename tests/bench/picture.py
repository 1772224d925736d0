"""Draw the picture of `make bench` in an environment that has matplotlib."""

import hashlib
import json
import math
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.peers import _has_uv, _run

_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "picture-requirements.txt"
_ENVIRONMENT = _HERE.parents[1] / ".bench-venv" / "picture"


def draw(found: Mapping[str, Any], target: Path) -> None:
    """Draw the picture to `target`; for `found` see picture_drawing.py.

    Raises PeersUnavailableError.
    """
    python = _python()
    # Broken rounds and infinite latencies cannot be drawn.
    bars = {
        name: [bar for bar in value if all(math.isfinite(n) for n in bar.values() if isinstance(n, float))]
        for name, value in found.items()
        if isinstance(value, list)
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as given:
        json.dump({**found, **bars}, given)
        given.flush()
        _run(str(python), str(_HERE / "picture_drawing.py"), given.name, str(target))


def _python() -> Path:
    """The Python of the environment; creates the environment if needed."""
    python, stamp = _ENVIRONMENT / "bin" / "python", _ENVIRONMENT / "requirements.sha256"
    wanted = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()
    if not (stamp.exists() and stamp.read_text(encoding="utf-8") == wanted):
        requirements = ("--require-hashes", "--requirement", str(_REQUIREMENTS))
        if _has_uv():
            _run(sys.executable, "-m", "venv", "--clear", "--without-pip", str(_ENVIRONMENT))
            _run("uv", "pip", "install", "--quiet", "--python", str(python), *requirements)
        else:
            _run(sys.executable, "-m", "venv", "--clear", str(_ENVIRONMENT))
            _run(str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *requirements)
        stamp.write_text(wanted, encoding="utf-8")
    return python
