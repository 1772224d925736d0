"""A DSN's hosts."""

import pytest

from predictu_dispatch.core.database import has_valid_hosts, one_per_host


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("", [""]),
        ("h", ["h"]),
        ("h1:5432,h2", ["h1:5432", "h2"]),
        # urlsplit() refuses these two as a whole.
        ("h1:5432,[::1]:5432,h3", ["h1:5432", "[::1]:5432", "h3"]),
        ("[::1],[::2]:5432", ["[::1]", "[::2]:5432"]),
        ("%2Frun%2Fpg:5432", ["%2Frun%2Fpg:5432"]),
    ],
)
@pytest.mark.parametrize("login", ["", "u@", "u:p%40@"])
@pytest.mark.parametrize("rest", ["", "/db", "?sslmode=require", "/db?options=-c%20a=b@c,d"])
def test_each_host_gets_the_whole_dsn(login: str, hosts: str, rest: str, expected: list[str]) -> None:
    dsn = f"postgresql://{login}{hosts}{rest}"
    assert one_per_host(dsn) == [f"postgresql://{login}{host}{rest}" for host in expected]
    assert has_valid_hosts(dsn)


@pytest.mark.parametrize("hosts", ["rest@h", "h:5x", "[h", "h]", "[::1]x", "[zz]", "h1,[::1", "h:123456"])
def test_the_rest_of_a_password_is_no_host(hosts: str) -> None:
    assert not has_valid_hosts(f"postgresql://u:p@{hosts}/db")
