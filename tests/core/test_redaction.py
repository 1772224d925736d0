"""An answer that quotes our token loses the signature, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.redaction import PART_CHARS_MIN, without_signature

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
SIGNATURES = st.text(ALPHABET, min_size=86, max_size=86)
# Of other characters, so that no text of the operator's equals a part of the signature by chance.
TEXTS = st.text(" .:{}/€*", max_size=40)


def exchange(
    body: bytes = b"",
    headers: tuple[tuple[str, str], ...] = (),
    error: str | None = None,
    *,
    truncated: bool = False,
) -> Exchange:
    return Exchange(Evidence.ANSWERED, 1.0, error=error, status=200, headers=headers, body=body, truncated=truncated)


@given(SIGNATURES, st.lists(TEXTS, min_size=2, max_size=4), st.booleans(), st.booleans())
def test_exactly_the_signature_is_replaced_wherever_it_is_quoted(
    signature: str,
    between: list[str],
    truncated: bool,  # noqa: FBT001
    fails: bool,  # noqa: FBT001
) -> None:
    quoting, hidden = signature.join(between), ("*" * 86).join(between)
    for name, value in (("Location", quoting), (quoting, "x")):
        given_ = exchange(quoting.encode(), ((name, value),), quoting if fails else None, truncated=truncated)
        [(hidden_name, hidden_value)] = [(name.replace(signature, "*" * 86), value.replace(signature, "*" * 86))]
        expected = given_._replace(
            body=hidden.encode(), headers=((hidden_name, hidden_value),), error=hidden if fails else None
        )
        assert without_signature(given_, signature) == expected


@given(SIGNATURES, TEXTS, st.integers(1, 86), TEXTS)
def test_a_beginning_that_is_long_enough_is_replaced_wherever_the_quotation_was_cut(
    signature: str, before: str, length: int, after: str
) -> None:
    part = signature[:length]
    cut = without_signature(
        exchange(f"{before}{part}{after}".encode(), (("Location", f"{part}{after}"),), f"{before}{part}{after}"),
        signature,
    )
    hidden = "*" * length if length >= PART_CHARS_MIN else part
    assert (cut.body, cut.headers[0][1]) == (f"{before}{hidden}{after}".encode(), f"{hidden}{after}")
    assert cut.error == f"{before}{hidden}{after}"


@given(SIGNATURES, TEXTS)
def test_an_answer_that_quotes_nothing_is_the_same_object(signature: str, text: str) -> None:
    answer = exchange(text.encode(), (("Server", text),))
    assert without_signature(answer, signature) is answer


@pytest.mark.parametrize("where", ["body", "header", "name"])
def test_one_quotation_in_one_place_is_found(where: str) -> None:
    signature = ALPHABET + ALPHABET[:22]
    quoting = {
        "body": exchange(signature.encode()),
        "header": exchange(headers=(("Location", f"https://x/?t={signature}"),)),
        "name": exchange(headers=((signature, ""),)),
    }[where]
    assert signature not in repr(without_signature(quoting, signature))
