"""Each function and view has one file, named after it."""

import re
from pathlib import Path

from predictu_dispatch.edge.postgres.sql_files import definitions


def test_every_definition_file_is_named_after_what_it_defines() -> None:
    for definition in definitions():
        kind = "view" if definition.is_view else "function"
        defined = re.findall(rf"^create or replace {kind} predictu_dispatch\.(\w+)", definition.sql, re.MULTILINE)
        assert defined == [Path(definition.name).stem], definition.name
        assert f" predictu_dispatch.{defined[0]} from public;" in definition.sql, definition.name
