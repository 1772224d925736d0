"""DESIGN.md 9, "Imports run one way": the contracts of pyproject.toml hold, and they bite."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


def lint_imports(project: Path) -> subprocess.CompletedProcess[str]:
    """In a process of its own, because the linter looks for the package and would find the one that is loaded."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache", "--no-logo", "--config", "pyproject.toml"],
        cwd=project,
        env={"PYTHONPATH": str(project), "COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_no_module_imports_against_the_direction() -> None:
    answer = lint_imports(PROJECT)
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("module", "imported", "broken_contract"),
    [
        ("core/breach.py", "time", "The core is pure"),
        ("core/breach.py", "predictu_dispatch.edge", "cli -> demo -> daemon"),
        ("flow/breach.py", "predictu_dispatch.edge", "cli -> demo -> daemon"),
        ("edge/breach.py", "predictu_dispatch.reference_operator", "never imports the reference operator"),
        ("reference_operator/breach.py", "predictu_dispatch.core", "shares no code with the rest"),
        ("handler.py", "json", "cli -> demo -> daemon"),
    ],
)
def test_a_breach_is_named(tmp_path: Path, module: str, imported: str, broken_contract: str) -> None:
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    package = tmp_path / "predictu_dispatch"
    for folder in ("", "core", "edge", "flow", "reference_operator"):
        (package / folder).mkdir()
        (package / folder / "__init__.py").touch()
    assert lint_imports(tmp_path).returncode == 0

    (package / module).write_text(f"import {imported}\n")

    answer = lint_imports(tmp_path)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    broken = [line for line in answer.stdout.splitlines() if line.endswith("BROKEN")]
    assert [broken_contract in line for line in broken] == [True], answer.stdout
