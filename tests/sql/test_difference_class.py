"""The table of classes in core/difference_classes.py, and the same table in SQL."""

from dataclasses import astuple, fields
from itertools import product
from typing import Any

from predictu_dispatch.core.difference_classes import (
    RULES,
    TABLE,
    DifferenceClass,
    Facts,
    Knowledge,
    OtherEnd,
    class_of,
)
from tests.support.harness import Harness

_VALUES: dict[str, tuple[Any, ...]] = {
    "bool": (False, True),
    "int": (0, 1, 2),
    "Knowledge": tuple(Knowledge),
    "OtherEnd": tuple(OtherEnd),
}
_SQL_TYPES = {"bool": "boolean", "int": "bigint", "Knowledge": "text", "OtherEnd": "text"}


async def test_sql_finds_the_same_class_for_every_combination_of_facts(harness: Harness) -> None:
    types = [str(field.type) for field in fields(Facts)]
    names = [field.name for field in fields(Facts)]
    combinations = [
        Facts(**dict(zip(names, values, strict=True))) for values in product(*(_VALUES[one] for one in types))
    ]
    columns = [list(column) for column in zip(*map(astuple, combinations), strict=True)]
    arrays = ", ".join(f"${n}::{_SQL_TYPES[one]}[]" for n, one in enumerate(types, 1))
    found = await harness.owner.fetch(
        f"select predictu_dispatch.difference_class({', '.join(f'facts.{name}' for name in names)}) as class"  # noqa: S608
        f"  from unnest({arrays}) with ordinality as facts ({', '.join(names)}, position) order by position",
        *columns,
    )
    assert [row["class"] for row in found] == [class_of(facts) for facts in combinations]
    assert {row["class"] for row in found} == set(DifferenceClass), "every class is reached"


async def test_sql_has_the_same_kinds(harness: Harness) -> None:
    kinds = await harness.owner.fetch(
        "select class, predictu_dispatch.difference_kind(class) as kind from unnest($1::text[]) as class",
        [rule.name for rule in TABLE],
    )
    assert {row["class"]: row["kind"] for row in kinds} == {name: rule.kind for name, rule in RULES.items()}
