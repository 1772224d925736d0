"""The wheel works, and can be installed as a service, without the repository."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
REPORT = ROOT / "predictu_dispatch" / "certification" / "report"
SHARE = "share/predictu-dispatch"
"""Where pip installs these files, below the environment's folder."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a wheel built now."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


@pytest.fixture
def share(installed: Path) -> Path:
    (data,) = installed.glob("*.data")
    return data / "data" / SHARE


def test_a_built_wheel_contains_what_an_installation_needs(share: Path) -> None:
    """Units, configuration, pinned requirements, alert rules and dashboards."""
    originals = {path.relative_to(DEPLOY): path for path in DEPLOY.rglob("*.*")}
    configuration = (ROOT / "config" / "dispatcher.toml", ROOT / "config" / "operators" / "op_example.toml.example")
    originals |= {Path(path.name): path for path in configuration}
    originals[Path("certification-report.schema.json")] = REPORT / "schema.json"
    files = {path.relative_to(share) for path in share.rglob("*") if path.is_file()}
    # Containers, pictures and tests belong to the repository.
    left_out = {str(name) for name in originals.keys() - files if name.suffix != ".svg"}
    assert left_out <= {"compose.yml", "requirements-dev.txt", "prometheus/predictu-dispatch.rules.test.yml"}
    assert [str(name) for name in files if (share / name).read_bytes() != originals[name].read_bytes()] == []


def test_the_installation_guide_names_only_files_of_the_wheel(share: Path) -> None:
    guide = (DEPLOY / "README.md").read_text(encoding="utf-8")
    named = re.findall(rf"(?:\$SHARE|{SHARE})/([\w@./*-]+)", guide)
    assert len(set(named)) >= len(("unit", "retention", "requirements", "dispatcher", "operator", "rules"))
    assert [name for name in named if not list(share.glob(name))] == []


def test_a_built_wheel_contains_every_sql_file_and_no_package_of_the_producers(installed: Path) -> None:
    """Whatever folders sql/ has: a missing one shows only when an installation migrates."""
    here, there = ROOT / "sql", installed / "predictu_dispatch" / "sql"
    files = {path.relative_to(here): path for path in here.glob("*/**/*.sql") if "clients" not in path.parts}
    assert {name.parts[0] for name in files} >= {"functions", "indexes", "migrations", "queries"}
    assert {path.relative_to(there) for path in there.rglob("*") if path.is_file()} == files.keys()
    assert [str(name) for name, path in files.items() if (there / name).read_bytes() != path.read_bytes()] == []
    assert {path.name for path in installed.rglob("*client*")} == {"ledger_client.py", "witness_client.py"}


def test_a_built_wheel_contains_what_reports_are_made_of(installed: Path) -> None:
    report = installed / "predictu_dispatch" / "certification" / "report"
    assert [file.name for file in REPORT.iterdir() if file.is_file() and not (report / file.name).exists()] == []


def test_a_built_wheel_reads_its_own_sql(installed: Path, tmp_path: Path) -> None:
    """An editable install reads `sql/` from the repository, a wheel from its resources."""
    program = "{}import predictu_dispatch.edge.postgres.sql_files as sql\nprint({})\n"
    values = "*(m.sha256 for m in sql.migrations()), *(i.name for i in sql.indexes()), len(sql.definitions())"

    def run(inserted: str, values: str) -> str:
        command = [sys.executable, "-c", program.format(inserted, values)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    of_the_wheel = f"import sys; sys.path.insert(0, {str(installed)!r})\n"
    assert run(of_the_wheel, "sql.__file__").startswith(str(installed))
    assert run(of_the_wheel, values) == run("", values)
