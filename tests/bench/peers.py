"""The peers (other job queues) and their Python environments."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_ROOT = Path(__file__).parents[2]
_FOLDER = Path(__file__).with_name("peers")
_REQUIREMENTS = _FOLDER / "requirements.txt"
_ENVIRONMENTS = _ROOT / ".bench-venv"
_STAMP = "requirements.sha256"
_OURS = sys.version_info[:2]
_NEWEST_MINOR = 14
_TIMEOUT_S = 600.0
"""Seconds with uv, half a minute with pip, longer on a slow network."""
_SHOW_VERSIONS = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


class PeersUnavailableError(Exception):
    """A peer's environment cannot be created; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One peer; `peers/common.py` describes its script's commands."""

    name: str
    store: Literal["postgres", "redis", "none"]
    # Its packages; the first is the peer itself.
    packages: tuple[str, ...]
    # All peers run on our daemon's Python if they can, because minor versions differ in speed by up
    # to a third.
    python_min: tuple[int, int] = (3, 11)

    @property
    def script(self) -> Path:
        return _FOLDER / f"{self.name}_peer.py"


PEERS: tuple[Peer, ...] = (
    Peer(name="bare", store="none", packages=("aiohttp", "uvloop")),
    Peer(name="pgqueuer", store="postgres", packages=("pgqueuer", "asyncpg")),
    Peer(name="oban", store="postgres", packages=("oban", "psycopg"), python_min=(3, 12)),
    Peer(name="taskiq", store="redis", packages=("taskiq", "taskiq-redis", "redis")),
    Peer(name="procrastinate", store="postgres", packages=("procrastinate", "psycopg")),
)


def environment(peer: Peer | None = None) -> Path:
    """The Python of the peer's environment; creates the environment if needed.

    Raises PeersUnavailableError.
    """
    return _made(sys.executable if peer is None or peer.python_min <= _OURS else _newer_python(peer))


def versions() -> Mapping[str, str]:
    """Versions of each peer's packages, and the Python version of peers that do not run on ours.

    Leaves out peers that cannot run here. Raises PeersUnavailableError if none can.
    """
    found: dict[str, str] = {}
    ours = environment()
    for peer in PEERS:
        try:
            python = environment(peer)
        except PeersUnavailableError:
            continue
        found |= json.loads(run(str(python), "-c", _SHOW_VERSIONS, *peer.packages))
        if python != ours:
            found[f"Python for {peer.name}"] = run(str(python), "--version").split()[1]
    return found


def _newer_python(peer: Peer) -> str:
    """The oldest Python that supports the peer and starts, because it is nearest to ours."""
    version = peer.python_min
    for python in _pythons(version):
        try:
            shown = run(python, "-c", "import sys; print(*sys.version_info[:2])")
        except PeersUnavailableError:
            # A python on PATH may be a pyenv shim for a disabled version.
            continue
        if tuple(map(int, shown.split())) >= version:
            return python
    wanted = ".".join(map(str, version))
    raise PeersUnavailableError(
        f"{peer.name} needs Python {wanted} or newer; tried python{wanted} to python{version[0]}.{_NEWEST_MINOR}"
        " on PATH and in pyenv's folder"
    )


def _pythons(version: tuple[int, int]) -> Iterator[str]:
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(version[1], _NEWEST_MINOR + 1):
        name = f"python{version[0]}.{minor}"
        if found := shutil.which(name):
            yield found
        yield from map(str, sorted(pyenv.glob(f"*/bin/{name}")))


def _made(base: str) -> Path:
    minor = run(base, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").strip()
    return made_environment(base, _ENVIRONMENTS / f"python{minor}", _REQUIREMENTS)


def made_environment(base: str, folder: Path, requirements: Path) -> Path:
    """Create an environment with exactly these requirements; returns its Python."""
    python, stamp = folder / "bin" / "python", folder / _STAMP
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted and python.exists():
        return python
    install = ("install", "--quiet", "--require-hashes", "--requirement", str(requirements))
    if _has_uv():
        run(base, "-m", "venv", "--clear", "--without-pip", str(folder))
        run("uv", "pip", *install, "--python", str(python))
    else:
        run(base, "-m", "venv", "--clear", str(folder))
        run(str(python), "-m", "pip", "--disable-pip-version-check", *install)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def _has_uv() -> bool:
    try:
        return bool(run("uv", "--version"))
    except PeersUnavailableError:
        return False


def run(*command: str) -> str:
    """The command's output. Raises PeersUnavailableError with the end of the output if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=_TIMEOUT_S).stdout
    except subprocess.CalledProcessError as error:
        raise PeersUnavailableError(f"{' '.join(command)[:200]} failed: {error.stderr.strip()[-1000:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeersUnavailableError(f"{' '.join(command)[:200]} failed: {error}") from error
