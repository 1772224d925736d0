"""An id as people give it: whole, or its beginning."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from uuid import UUID

DIGITS_MIN: Final = 4
"""A shorter beginning would match nearly everything."""
_DIGITS: Final = 32
_HEX: Final = re.compile(r"[0-9a-f]+")


class Beginning(NamedTuple):
    """The ids from `first` to `last`: those that begin with the same digits."""

    first: UUID
    last: UUID

    @property
    def is_whole(self) -> bool:
        """True if it names one id."""
        return self.first == self.last

    @property
    def text(self) -> str:
        """The given digits, with the dashes of an id."""
        shown = [digit for digit, last in zip(str(self.first), str(self.last), strict=True) if digit == last]
        # The dashes after the given digits are equal too.
        return str(self.first) if self.is_whole else "".join(shown).rstrip("-")


def parse_beginning(text: str) -> Beginning:
    """The ids that begin with these hex digits, with or without dashes; raises ValueError."""
    try:
        whole = UUID(text)
    except ValueError:
        pass
    else:
        return Beginning(whole, whole)
    digits = text.strip().lower().replace("-", "")
    if not _HEX.fullmatch(digits) or len(digits) > _DIGITS:
        raise ValueError("not a valid UUID, nor the beginning of one")
    if len(digits) < DIGITS_MIN:
        raise ValueError(f"give at least {DIGITS_MIN} hex digits of the id")
    return Beginning(UUID(digits.ljust(_DIGITS, "0")), UUID(digits.ljust(_DIGITS, "f")))
