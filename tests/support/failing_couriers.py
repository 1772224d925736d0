"""A daemon that cannot make connections for a callback_url with the path /cannot-be-made.

    python -m tests.support.failing_couriers run --config FILE

No valid configuration is known with which this fails, so it fails here by the path.
"""

import runpy
from typing import Any

from predictu_dispatch.edge.http.connector import Connector

_init = Connector.__init__


def _fail(self: Connector, settings: Any, *arguments: Any, **more: Any) -> None:
    if settings.callback_url.endswith("/cannot-be-made"):
        raise ValueError("the connections cannot be made")
    _init(self, settings, *arguments, **more)


if __name__ == "__main__":
    Connector.__init__ = _fail  # type: ignore[method-assign]
    runpy.run_module("predictu_dispatch", run_name="__main__")
