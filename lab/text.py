"""Text that somebody else wrote, made fit for a terminal. Pure."""

from __future__ import annotations

import re

MOST_CHARACTERS = 300
# C0 and C1 controls and DEL drive a terminal; bidirectional and zero-width characters make a line read as another
# (Unicode Standard Annex 9; CVE-2021-42574); lone surrogates cannot be written at all.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


def visible(text: str, *, keep: str = "") -> str:
    r"""The same text with every character that a terminal would act on written out.

    Args:
        text: any text.
        keep: characters that stay as they are, such as "\n\t".

    >>> visible("good\x1b[2J")
    'good\\x1b[2J'
    """
    return _UNSEEN.sub(lambda found: found[0] if found[0] in keep else _written(found[0]), text)


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """`text`, cut after `most` characters; says how many are left out."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most} more characters)"


def _written(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
