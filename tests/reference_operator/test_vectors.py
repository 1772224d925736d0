"""vectors.json comes from our signer; the reference operator and the README's code agree on it.

Each language's block is taken from the README and run by a program in tests/vectors.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
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
from tests.support.code_blocks import ROOT, code_under, examples

README = "predictu_dispatch/reference_operator/README.md"
PROGRAMS = ROOT / "tests" / "vectors"
VECTORS: dict[str, Any] = json.loads(made.FILE.read_text(encoding="utf-8"))
CASES: list[dict[str, Any]] = VECTORS["cases"]
TO_ACCEPT = [case["name"] for case in CASES if case["accept"]]
JACKSON = [Path(f"/usr/share/java/jackson-{part}.jar") for part in ("core", "annotations", "databind")]


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
                key, operator_id="op_abc123", body=body, issued_at_s=claims["iat"], ttl_s=30, **given
            )
            assert token == key.signed(unsigned), case["name"]


def test_both_algorithms_and_every_kind_of_refusal_are_there() -> None:
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert f"has {len(CASES)} tokens" in (ROOT / README).read_text(encoding="utf-8")
    for algorithm in ("EdDSA", "RS256"):
        for kind in ("wrong digest", "expired", "wrong kid", "wrong alg", "none", "tampered", "wrong sub"):
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


def test_every_language_of_the_readme_is_run() -> None:
    found = [(example.heading, example.language) for example in examples(README)]
    assert found == [("Python", "python"), ("JavaScript", "js"), ("PHP", "php"), ("Java", "java"), ("Go", "go")]


def test_the_python_agrees(at: Callable[[float], None]) -> None:
    names: dict[str, Any] = {}
    [code] = code_under(README, "Python", "python")
    exec(compile(code, README, "exec"), names)  # noqa: S102 # These lines are ours.
    accepted = []
    for case in CASES:
        at(case["now"])
        body = base64.b64decode(case["body_base64"])
        try:
            callback = names["verified_callback"](
                *(case["authorization"], body, VECTORS["jwks"], case["algorithm"], VECTORS["operator_id"])
            )
        except (jwt.InvalidTokenError, ValueError):
            continue
        assert callback == json.loads(body)
        accepted.append(case["name"])
    assert accepted == TO_ACCEPT


def put(folder: Path, heading: str, language: str, file: str) -> None:
    """Writes the README's block to that file, beside the program that calls it."""
    [code] = code_under(README, heading, language)
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).write_text(code, encoding="utf-8")


def run(folder: Path, *command: str | Path) -> str:
    """Returns the output of the command, which must succeed."""
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=150)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def needs(*programs: str, install: str, files: list[Path] | None = None) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    missing += [str(file) for file in files or () if not file.exists()]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} missing; on Debian: apt install {install}")


@pytest.mark.parametrize(
    ("heading", "language", "file"),
    [
        pytest.param("JavaScript", "js", "verify.mjs", marks=needs("node", install="nodejs")),
        pytest.param("PHP", "php", "verify.php", marks=needs("php", install="php-cli")),
    ],
)
def test_the_scripts_agree(tmp_path: Path, heading: str, language: str, file: str) -> None:
    put(tmp_path, heading, language, file)
    program = PROGRAMS / f"run{Path(file).suffix}"
    shutil.copy(program, tmp_path)
    assert json.loads(run(tmp_path, "node" if language == "js" else "php", program.name, made.FILE)) == TO_ACCEPT


@needs("java", "javac", install="openjdk-17-jdk-headless libjackson2-databind-java", files=JACKSON)
def test_the_java_agrees(tmp_path: Path) -> None:
    put(tmp_path, "Java", "java", "PredictuToken.java")
    shutil.copy(PROGRAMS / "RunVectors.java", tmp_path)
    path = ":".join(map(str, [tmp_path, *JACKSON]))
    run(tmp_path, "javac", "-cp", path, "-Xlint:all", "-Werror", "PredictuToken.java", "RunVectors.java")
    assert json.loads(run(tmp_path, "java", "-cp", path, "RunVectors", made.FILE)) == TO_ACCEPT


@needs("go", install="golang-go")
def test_the_go_agrees(tmp_path: Path) -> None:
    put(tmp_path, "Go", "go", "predictu/verify.go")
    shutil.copy(PROGRAMS / "main.go", tmp_path)
    (tmp_path / "go.mod").write_text("module vectors\n\ngo 1.19\n")
    assert run(tmp_path, "gofmt", "-l", ".") == ""
    run(tmp_path, "go", "vet", "./...")
    assert json.loads(run(tmp_path, "go", "run", ".", made.FILE)) == TO_ACCEPT
