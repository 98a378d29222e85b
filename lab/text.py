"""Foreign text, made safe for a terminal. Pure."""

from __future__ import annotations

import unicodedata

MOST_CHARACTERS = 300


def visible(text: str, *, keep: str = "") -> str:
    r"""The same text with every character escaped that a terminal would act on, or that is invisible.

    Control characters drive a terminal; bidirectional and zero-width ones make a line read as another (Unicode
    Standard Annex 9; CVE-2021-42574); lone surrogates cannot be written at all. Spaces of any width stay.

    Args:
        text: any text.
        keep: characters that stay as they are, such as "\n\t".

    >>> visible("good\x1b[2J")
    'good\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep or unicodedata.category(c) == "Zs" else _written(c) for c in text)


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """`text`, cut after `most` characters, with the number of those left out."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most} more characters)"


def _written(character: str) -> str:
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
