"""Imports run one way: the contracts of pyproject.toml hold, and there is no cycle."""

import ast
import graphlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
PACKAGE = "predictu_dispatch"


def lint_imports(project: Path) -> subprocess.CompletedProcess[str]:
    """Run the linter in its own process: here it would find the package that is loaded."""
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
        ("core/breach.py", "predictu_dispatch.edge", "cli -> commands -> demo"),
        ("flow/breach.py", "predictu_dispatch.edge", "cli -> commands -> demo"),
        ("edge/breach.py", "predictu_dispatch.reference_operator", "never imports the reference operator"),
        ("reference_operator/breach.py", "predictu_dispatch.core", "shares no code with the rest"),
        ("verifier/breach.py", "predictu_dispatch.core", "The verifier shares no code"),
        ("flow/breach.py", "predictu_dispatch.verifier", "Only commands import the verifier"),
        ("books_check/breach.py", "predictu_dispatch.core", "import nothing of ours"),
        ("handler.py", "json", "cli -> commands -> demo"),
    ],
)
def test_a_breach_is_named(tmp_path: Path, module: str, imported: str, broken_contract: str) -> None:
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    package = tmp_path / "predictu_dispatch"
    for folder in ("", "books_check", "core", "edge", "flow", "reference_operator", "verifier"):
        (package / folder).mkdir()
        (package / folder / "__init__.py").touch()
    assert lint_imports(tmp_path).returncode == 0

    (package / module).write_text(f"import {imported}\n")

    answer = lint_imports(tmp_path)
    assert answer.returncode == 1, answer.stdout + answer.stderr
    broken = [line for line in answer.stdout.splitlines() if line.endswith("BROKEN")]
    assert [broken_contract in line for line in broken] == [True], answer.stdout


def imports_of(project: Path) -> dict[str, set[str]]:
    """Return what each module of the package imports, also under TYPE_CHECKING."""
    trees = {}
    for path in (project / PACKAGE).rglob("*.py"):
        parts = path.relative_to(project).with_suffix("").parts
        trees[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = ast.parse(path.read_text("utf-8"))
    found: dict[str, set[str]] = {}
    for module, tree in trees.items():
        found[module] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found[module] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                # `from package import module` names the module, `from module import name` the
                # module before the name.
                found[module] |= (names & trees.keys()) or {node.module}
        found[module] &= trees.keys() - {module}
    return found


def cycle_in(project: Path) -> list[str] | None:
    try:
        graphlib.TopologicalSorter(imports_of(project)).prepare()
    except graphlib.CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle
    return None


def test_no_modules_import_each_other_in_a_cycle() -> None:
    assert cycle_in(PROJECT) is None


def test_a_cycle_is_found_also_through_an_import_for_types(tmp_path: Path) -> None:
    package = tmp_path / PACKAGE
    (package / "core").mkdir(parents=True)
    (package / "core" / "one.py").write_text(f"from {PACKAGE}.core import two\n")
    (package / "core" / "two.py").write_text(f"if TYPE_CHECKING:\n    from {PACKAGE}.core.one import One\n")
    assert set(cycle_in(tmp_path) or []) == {f"{PACKAGE}.core.one", f"{PACKAGE}.core.two"}
