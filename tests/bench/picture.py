"""Draw the picture of `make bench` in an environment that has matplotlib."""

import json
import math
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.peers import made_environment, run

_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "picture-requirements.txt"
_ENVIRONMENT = _HERE.parents[1] / ".bench-venv" / "picture"


def draw(found: Mapping[str, Any], target: Path) -> None:
    """Draw the picture to `target`; for `found` see picture_drawing.py.

    Raises PeersUnavailableError.
    """
    python = made_environment(sys.executable, _ENVIRONMENT, _REQUIREMENTS)
    # Broken rounds and infinite latencies cannot be drawn.
    bars = {
        name: [bar for bar in value if all(math.isfinite(n) for n in bar.values() if isinstance(n, float))]
        for name, value in found.items()
        if isinstance(value, list)
    }
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as given:
        json.dump({**found, **bars}, given)
        given.flush()
        run(str(python), str(_HERE / "picture_drawing.py"), given.name, str(target))
