"""A request id is given whole or by its beginning, with or without dashes."""

from uuid import UUID

import pytest

from predictu_dispatch.core.request_id import parse_beginning

WHOLE = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


@pytest.mark.parametrize("length", range(4, 36))
def test_every_id_that_begins_so_and_no_other_one_is_in_the_range(length: int) -> None:
    beginning = parse_beginning(WHOLE[:length])
    assert beginning == parse_beginning(WHOLE[:length].replace("-", "").upper())
    assert beginning.first <= UUID(WHOLE) <= beginning.last
    assert not beginning.is_whole
    assert str(beginning.first).startswith(beginning.text)
    assert beginning.text == WHOLE[:length].rstrip("-")
    digits = len(WHOLE[:length].replace("-", ""))
    assert beginning.last.int - beginning.first.int == 16 ** (32 - digits) - 1


@pytest.mark.parametrize("text", [WHOLE, WHOLE.upper(), WHOLE.replace("-", ""), f"{{{WHOLE}}}"])
def test_a_whole_id_is_a_range_of_one(text: str) -> None:
    beginning = parse_beginning(text)
    assert (beginning.is_whole, beginning.first, beginning.text) == (True, UUID(WHOLE), WHOLE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("019", "at least 4"),
        ("0-1-9-", "at least 4"),
        ("", "not a valid UUID"),
        ("019x", "not a valid UUID"),
        (f"{WHOLE}0", "not a valid UUID"),
        ("0190%", "not a valid UUID"),
    ],
)
def test_what_is_no_beginning_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_beginning(text)
