"""A cache of compiled imports, for this process and for those that it starts.

A test run starts hundreds of Python processes. Without a cache each one compiles all its imports,
which doubles its start. Packages that uv installed have no cache, and some environments set
PYTHONDONTWRITEBYTECODE.
"""

import os
import subprocess
import sys
from pathlib import Path

_FOLDER = Path(sys.prefix) / "bytecode"
"""It stays in the virtual environment for the next run."""


def use_bytecode_cache() -> None:
    """Reads and writes the cache from now on; fills it first if there is none."""
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(_FOLDER)
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(_FOLDER)
    if not _FOLDER.exists():
        # Before the first daemon starts, because a loaded machine compiles slowly.
        subprocess.run([sys.executable, "-c", "import predictu_dispatch.daemon"], check=True)
