"""What a stranger wrote cannot drive a terminal."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from lab.text import shortened, visible


@given(st.text())
def test_nothing_that_a_terminal_acts_on_is_left(text: str) -> None:
    assert not {unicodedata.category(character) for character in visible(text)} & {"Cc", "Cs", "Zl", "Zp"}
    assert not set(visible(text)) & set("\u202a\u202e\u2066\u2069\u200f\ufeff")


@given(st.text(alphabet=st.characters(categories=["L", "N", "P", "S", "Zs"])))
def test_what_people_write_stays(text: str) -> None:
    assert visible(text) == text


def test_characters_are_written_out() -> None:
    assert visible("a\x1b[31m\r\u202e\x07") == "a\\x1b[31m\\x0d\\u202e\\x07"
    assert visible("a\n\tb\x7f", keep="\n\t") == "a\n\tb\\x7f"


def test_what_is_long_is_cut() -> None:
    assert shortened("abc", 3) == "abc"
    assert shortened("abcdef", 3) == "abc... (3 more characters)"
