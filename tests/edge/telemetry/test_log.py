"""A log line is one line of ASCII JSON, whatever a library or an operator's answer puts into it."""

import json

import pytest
from typing_extensions import override

from predictu_dispatch.edge.telemetry.log import json_line


class Strange:
    @override
    def __repr__(self) -> str:
        return "<Strange>"


@pytest.mark.parametrize(
    "value",
    ["bet-1", "\ud800", 2**80, -(2**63), "línea", "a\x85b\u2028c\x9b", 'q"\\\n\x00', 1.25, None, {"a": [True]}],
    ids=repr,
)
def test_a_log_line_is_ascii_json_with_every_value(value: object) -> None:
    line = json_line(None, "info", {"value": value, "strange": Strange(), "level": "info"})
    assert line.isascii()
    assert line.decode().splitlines(keepends=True) == [line.decode()]
    read = json.loads(line)
    assert read["value"] == value
    assert (list(read), read["strange"]) == (["value", "strange", "level", "timestamp"], "<Strange>")
    assert read["timestamp"].endswith("Z")
