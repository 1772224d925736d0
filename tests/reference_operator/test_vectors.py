"""vectors.json comes from our signer; the reference operator and the README's code agree on it.

The README's blocks are the files in reference_operator/vectors, which the programs beside them run.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import jwt
import pytest
from typing_extensions import override

from predictu_dispatch.core.signing import unsigned_token
from predictu_dispatch.reference_operator.answer import Answer
from predictu_dispatch.reference_operator.keys import read_keyring
from predictu_dispatch.reference_operator.money import Money
from predictu_dispatch.reference_operator.verify import verified_callback
from tests.support import vectors as made
from tests.support.code_blocks import ROOT, examples

README = "predictu_dispatch/reference_operator/README.md"
PROGRAMS = ROOT / "predictu_dispatch" / "reference_operator" / "vectors"
VECTORS: dict[str, Any] = json.loads(made.FILE.read_text(encoding="utf-8"))
CASES: list[dict[str, Any]] = VECTORS["cases"]
JACKSON = [Path(f"/usr/share/java/jackson-{part}.jar") for part in ("core", "annotations", "databind")]
JACKSON_PATH = ":".join(map(str, JACKSON))


def test_the_file_is_what_our_signer_makes() -> None:
    assert made.FILE.read_text(encoding="utf-8") == made.as_text(), "run `python -m tests.support.vectors`"


def test_each_accepted_token_is_one_of_our_signer() -> None:
    for case in CASES:
        if case["accept"]:
            body, token = base64.b64decode(case["body_base64"]), case["authorization"].removeprefix("Bearer ")
            header, claims = jwt.get_unverified_header(token), jwt.decode(token, options={"verify_signature": False})
            [key] = [key for key in made.PUBLISHED if key.kid == header["kid"]]
            given = {name: claims[name] for name in ("method", "jti")}
            unsigned = unsigned_token(
                key,
                operator_id="op_abc123",
                body=body,
                issued_at_s=claims["iat"],
                ttl_s=claims["exp"] - claims["iat"],
                **given,
            )
            assert token == key.signed(unsigned), case["name"]


def test_both_algorithms_and_every_kind_of_refusal_are_there() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert f"has {len(CASES)} tokens" in (ROOT / README).read_text(encoding="utf-8")
    for algorithm in ("EdDSA", "RS256"):
        for kind in (
            "wrong digest",
            "expired",
            "too long a lifetime",
            "wrong kid",
            "wrong alg",
            "none",
            "tampered",
            "wrong sub",
        ):
            found = [case for case in CASES if case["name"].startswith(f"{algorithm}: {kind}")]
            assert found, (algorithm, kind)
            assert not any(case["accept"] for case in found)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock of PyJWT."""

    def set_clock(now_s: float) -> None:
        class Clock(datetime):
            @classmethod
            @override
            def now(cls, tz: tzinfo | None = None) -> Clock:
                return cls.fromtimestamp(now_s, tz or UTC)

        monkeypatch.setattr("jwt.api_jwt.datetime", Clock)

    return set_clock


def test_the_reference_operator_agrees(tmp_path: Path, at: Callable[[float], None]) -> None:
    (tmp_path / "jwks.json").write_text(json.dumps(VECTORS["jwks"]))
    (tmp_path / "pem").mkdir()
    for kid, pem in VECTORS["pems"].items():
        (tmp_path / "pem" / kid).write_text(pem)
    for case in CASES:
        at(case["now"])
        keyring = read_keyring(case["algorithm"], pem_files=[], jwks_files=[tmp_path / "jwks.json"])
        verified = verified_callback(
            [case["authorization"]] if case["authorization"] else [],
            base64.b64decode(case["body_base64"]),
            keyring=keyring,
            operator_id=VECTORS["operator_id"],
            money=Money(),
        )
        refused = isinstance(verified.content, Answer)
        assert refused != case["accept"], (case["name"], verified)
        assert not refused or verified.content.http_status == 401, (case["name"], verified)  # type: ignore[union-attr]


def test_the_pems_and_the_jwks_are_the_same_keys(tmp_path: Path) -> None:
    for key in VECTORS["jwks"]["keys"]:
        (tmp_path / "pem").write_text(VECTORS["pems"][key["kid"]])
        assert [*read_keyring(key["alg"], pem_files=[tmp_path / "pem"], jwks_files=[]).keys] == [key["kid"]]
    assert VECTORS["pems"].keys() == {key["kid"] for key in VECTORS["jwks"]["keys"]}


FILES = {
    ("Python", "python"): "verify.py",
    ("JavaScript", "js"): "verify.mjs",
    ("PHP", "php"): "verify.php",
    ("Java", "java"): "PredictuToken.java",
    ("Go", "go"): "predictu/verify.go",
    ("C#", "csharp"): "PredictuToken.cs",
}
"""The file of each block of the README."""


def test_the_readme_shows_the_files_that_are_run() -> None:
    blocks = {(block.heading, block.language): block.code for block in examples(README)}
    assert blocks == {block: (PROGRAMS / file).read_text(encoding="utf-8") for block, file in FILES.items()}


def test_the_example_operators_verify_as_the_readme_does() -> None:
    for file, copy in (("verify.mjs", "node/verify.mjs"), ("predictu/verify.go", "go/predictu/verify.go")):
        assert (PROGRAMS.parent / "examples" / copy).read_bytes() == (PROGRAMS / file).read_bytes()


def needs(*programs: str, install: str, files: list[Path] | None = None) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    missing += [str(file) for file in files or () if not file.exists()]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} missing; {install}")


@pytest.mark.parametrize(
    ("steps", "run"),
    [
        pytest.param([], [sys.executable, "run.py"], id="Python"),
        pytest.param([], ["node", "run.mjs"], id="JavaScript", marks=needs("node", install="apt install nodejs")),
        pytest.param([], ["php", "run.php"], id="PHP", marks=needs("php", install="apt install php-cli")),
        pytest.param(
            [["javac", "-cp", JACKSON_PATH, "-Xlint:all", "-Werror", "Run.java", "PredictuToken.java"]],
            ["java", "-cp", f"{JACKSON_PATH}:.", "Run"],
            id="Java",
            marks=needs(
                *("java", "javac"),
                install="apt install openjdk-17-jdk-headless libjackson2-databind-java",
                files=JACKSON,
            ),
        ),
        pytest.param(
            [["gofmt", "-l", "."], ["go", "vet", "./..."], ["go", "build", "-o", "run", "."]],
            ["./run"],
            id="Go",
            marks=needs("go", install="apt install golang-go"),
        ),
        # Debian has no dotnet. By hand, this program gave 71 of 71 on .NET Core 3.1 with
        # BouncyCastle 1.9; on .NET 8 and with BouncyCastle.Cryptography 2 it was never run.
        pytest.param(
            [["dotnet", "build", "--output", "built"]],
            ["dotnet", "built/Run.dll"],
            id="C#",
            marks=needs("dotnet", install="install the .NET 8 SDK"),
        ),
    ],
)
def test_each_language_agrees_and_names_wrong_verdicts(tmp_path: Path, steps: list[list[str]], run: list[str]) -> None:
    shutil.copytree(PROGRAMS, tmp_path / "vectors")

    def done(command: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
        folder = tmp_path / "vectors"
        return subprocess.run(
            [*command, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=150
        )

    for step in steps:
        built = done(step)
        assert built.returncode == 0, built.stdout + built.stderr
        assert "gofmt" not in step or built.stdout == ""
    shutil.copy(made.FILE, tmp_path)
    good = done(run)
    assert (good.returncode, good.stdout, good.stderr) == (0, f"{len(CASES)} of {len(CASES)} cases as expected\n", "")

    wrong = {case["name"]: not case["accept"] for case in (CASES[0], CASES[-1])}
    cases = [case | {"accept": wrong.get(case["name"], case["accept"])} for case in CASES]
    other_file = tmp_path / "other.json"
    other_file.write_text(json.dumps(VECTORS | {"cases": cases}))
    bad = done(run, str(other_file))
    assert (bad.returncode, bad.stdout) == (1, f"{len(CASES) - 2} of {len(CASES)} cases as expected\n")
    assert bad.stderr.splitlines()[0] == f"{CASES[0]['name']}: accepted"
    assert bad.stderr.splitlines()[1].startswith(f"{CASES[-1]['name']}: refused: ")


def test_the_python_returns_the_callback(at: Callable[[float], None]) -> None:
    names: dict[str, Any] = {}
    exec(compile((PROGRAMS / "verify.py").read_text(encoding="utf-8"), "verify.py", "exec"), names)  # noqa: S102 # These lines are ours.
    case = CASES[0]
    at(case["now"])
    body = base64.b64decode(case["body_base64"])
    verified = names["verified_callback"](
        case["authorization"], body, VECTORS["jwks"], case["algorithm"], VECTORS["operator_id"]
    )
    assert verified == json.loads(body)
