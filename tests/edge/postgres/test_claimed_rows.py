"""A claimed row becomes a Callback by the order of its columns."""

import pytest

from predictu_dispatch.core.callback import Callback
from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.harness import Harness


@pytest.mark.parametrize(("name", "more"), [("claim", ()), ("expired_leases", ("leased_by", "reaped_at"))])
async def test_the_columns_are_the_fields_of_a_callback_in_order(
    harness: Harness, name: str, more: tuple[str, ...]
) -> None:
    prepared = await harness.owner.prepare(query(name))
    # The last field is this process's own time.
    assert (*(column.name for column in prepared.get_attributes()), "leased_at_s") == (
        *Callback._fields[:-1],
        *more,
        Callback._fields[-1],
    )
