"""Policies (c2sp.org/tlog-policy): the quorum's arithmetic, and what is refused."""

import pytest

from predictu_dispatch.core.merkle.note import Algorithm, VerifierKey
from predictu_dispatch.verifier.policy import Policy, parse_policy


def witness(name: str) -> str:
    key = VerifierKey.of_seed(f"{name}.example", name.encode().ljust(32, b"\0"), Algorithm.COSIGNATURE_V1)
    return f"witness {name} {key}"


LOG = f"log {VerifierKey.of_seed('log.example', bytes(32))} https://log.example"
NAMES = ("X1", "X2", "X3", "Y1", "Y2", "Y3")
POLICY = f"""# A comment.
{LOG}
  {witness("X1")} https://witness.example/a
{witness("X2")}
{witness("X3")}
group X-witnesses 2 X1 X2 X3
\t{witness("Y1")}
{witness("Y2")}
{witness("Y3")}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def is_met(policy: Policy, *names: str) -> bool:
    return policy.is_met({policy.witnesses[name] for name in names})


def test_the_example_of_the_specification() -> None:
    policy = parse_policy(POLICY.encode())
    assert [key.name for key in policy.logs] == ["log.example"]
    assert tuple(policy.witnesses) == NAMES
    assert is_met(policy, "X1", "X3", "Y2")
    assert is_met(policy, *NAMES)
    for names in (("X1", "X2", "X3"), ("X1", "Y1", "Y2", "Y3"), ()):
        assert not is_met(policy, *names)


def test_a_single_witness_and_none() -> None:
    one = parse_policy(f"{witness('X1')}\n{witness('X2')}\nquorum X2\n".encode())
    assert is_met(one, "X2")
    assert not is_met(one, "X1")
    assert is_met(parse_policy(b"quorum none\n"))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("quorum X-and-Y\n", "", "no quorum"),
        ("quorum X-and-Y\n", "quorum none\nquorum none\n", "two quorum"),
        ("quorum X-and-Y", "quorum unknown", "unknown witness"),
        ("quorum X-and-Y", "quorum X1 X2", "1 to 1 words"),
        ("2 X1 X2 X3", "4 X1 X2 X3", "4 of 3"),
        ("2 X1 X2 X3", "0 X1 X2 X3", "neither all, any nor a number"),
        ("2 X1 X2 X3", "02 X1 X2 X3", "neither all, any nor a number"),
        ("2 X1 X2 X3", "2 X1 X2 Y1", "unknown witness"),
        ("2 X1 X2 X3", "2 X1 X2 X2", "twice"),
        ("any Y1 Y2 Y3", "any Y1 Y2 X3", "in two groups"),
        ("group X-and-Y all", "group X1 all", "used already"),
        ("group X-and-Y all", "group none all", "used already"),
        ("group X-and-Y all X-witnesses Y-witnesses", "group X-and-Y all", "3 to"),
        ("witness X2", "witness X1", "used already"),
        (witness("X2"), witness("X1").replace("witness X1", "witness X2"), "listed twice"),
        (LOG, f"{LOG}\n{LOG}", "listed twice"),
        (LOG, LOG.replace("log ", "log x", 1), "malformed base64|id"),
        (LOG, LOG.replace("+", "+0", 1), "has the id"),
        (LOG, "log " + witness("Y1").split()[2], "type 4, not 1"),
        ("# A comment.", "comment", "unknown word"),
        ("# A comment.", "\x00", "control character"),
        ("# A comment.", "#\r", "control character"),
    ],
)
def test_a_faulty_policy_is_refused(old: str, new: str, fault: str) -> None:
    assert old in POLICY
    with pytest.raises(ValueError, match=fault):
        parse_policy(POLICY.replace(old, new, 1).encode())
