"""Tiles, their paths and entry bundles are those of tlog-tiles."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.core.merkle.tiles import (
    ProofError,
    Tile,
    bundle_of,
    bundle_path,
    tile_path,
    tiles_of,
    width_of,
)


def test_the_tiles_are_those_of_the_specification() -> None:
    widths = Counter((tile.level, tile.width) for tile in tiles_of(70_000))
    assert widths == {(0, 256): 273, (0, 112): 1, (1, 256): 1, (1, 17): 1, (2, 1): 1}
    assert list(tiles_of(256)) == [Tile(0, 0, 256), Tile(1, 0, 1)]
    assert list(tiles_of(0)) == []


@given(st.integers(0, 200_000), st.integers(0, 3_000))
def test_what_a_tree_gains_and_what_it_had_is_all_that_it_has(since: int, gained: int) -> None:
    size = since + gained
    new = list(tiles_of(size, since=since))
    assert all(width_of(*tile[:2], size) == tile.width > width_of(*tile[:2], since) for tile in new)
    assert set(tiles_of(size)) == {tile for tile in tiles_of(since) if width_of(*tile[:2], size) == tile.width} | set(
        new
    )


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        ((0, 0, 256), "tile/0/000"),
        ((0, 999, 1), "tile/0/999.p/1"),
        ((0, 1_067, 12), "tile/0/x001/067.p/12"),
        ((2, 1_234_067, 256), "tile/2/x001/x234/067"),
        ((63, 1_000_000, 255), "tile/63/x001/x000/000.p/255"),
    ],
)
def test_a_path_is_as_specified(tile: tuple[int, int, int], path: str) -> None:
    assert tile_path(*tile) == path
    assert bundle_path(*tile[1:]) == path.replace(f"tile/{tile[0]}/", "tile/entries/")


@pytest.mark.parametrize("tile", [(-1, 0, 1), (64, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)])
def test_no_other_tile_has_a_path(tile: tuple[int, int, int]) -> None:
    with pytest.raises(ProofError, match="no tile has"):
        tile_path(*tile)


def test_a_bundle_has_each_entry_behind_its_length() -> None:
    assert bundle_of([b"a", b"", b"bc" * 200]) == b"\x00\x01a" + b"\x00\x00" + b"\x01\x90" + b"bc" * 200
    assert bundle_of([bytes(65_535)]) == b"\xff\xff" + bytes(65_535)


def test_a_bundle_has_limits() -> None:
    with pytest.raises(ProofError, match="65536 bytes"):
        bundle_of([b"", bytes(65_536)])
    for count in (0, 257):
        with pytest.raises(ProofError, match="1 to 256"):
            bundle_of([b""] * count)
