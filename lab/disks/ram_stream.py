"""Which parts two RAM images of one machine have in common, found by the guest's pages in QEMU's stream.

Nothing depends on the stream's format: what is not recognised as a page is not found, and what is found has been
compared. Source: QEMU, migration/ram.c (RAM_SAVE_FLAG_*), docs/devel/migration/main.rst.
"""

from __future__ import annotations

import mmap
import struct
from bisect import bisect
from collections.abc import Iterable, Iterator
from operator import itemgetter
from typing import NamedTuple

COMPARED = 1 << 16  # bytes that are compared at once, at most
PAGE = 4096
STREAM = b"QEVM"  # the stream's own magic; libvirt's header and the machine's definition are before it
# A page's header is its address with these flags in the lower bits; without CONTINUE its block's name follows.
_HEADER = struct.Struct(">Q")
_ZERO, _PAGE, _CONTINUE, _FLAGS = 0x02, 0x08, 0x20, 0xFFF
_BYTES = {_ZERO: _HEADER.size + 1, _PAGE: _HEADER.size + PAGE}  # of an entry, without a name
_HIGHEST = 1 << 40  # no guest has a terabyte
_LOST = 1 << 14  # after so many bytes of something else there are no pages any more


def common(new: mmap.mmap, old: mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """What both images hold: offset in the new one, offset in the old one, length; in order, none overlapping."""
    return _joined(_equal(new, old))


class _Run(NamedTuple):
    """Entries of a stream that follow one another: `length` of them of `size` bytes each, the first at `at`.

    `page` is what that one's page is known by; those of the others follow. Entries of zeros differ by their size.
    """

    page: int
    size: int
    length: int
    at: int

    def of(self, page: int) -> int:
        """Where the entry of a page is."""
        return self.at + (page - self.page) * self.size


def _runs(image: mmap.mmap) -> Iterator[_Run]:
    """The pages of a stream; what else it holds is passed over, also an entry with the name of a block."""
    unpack, end = _HEADER.unpack_from, len(image) - _BYTES[_PAGE]
    at, block, lost = max(0, image.find(STREAM)), 0, 0
    while at < end and lost < _LOST:
        (header,) = unpack(image, at)
        size = _BYTES.get(header & _FLAGS & ~_CONTINUE)
        if size is None or header >= _HIGHEST:
            at, lost = at + 1, lost + 1
        elif not header & _CONTINUE:
            block += _HIGHEST
            at += size + 1 + image[at + _HEADER.size]
        else:
            count, lost = _in_a_row(image, at, header, size), 0
            yield _Run((block + header) // PAGE, size, count, at)
            at += count * size


def _in_a_row(image: mmap.mmap, at: int, header: int, size: int) -> int:
    """How many entries follow one another. Few are looked at: where the last is in its place, so are those before."""
    most, unpack = (len(image) - at) // size, _HEADER.unpack_from
    count, step, rising = 1, 1, True
    while step:
        last = count + step - 1
        if last < most and unpack(image, at + last * size) == (header + last * PAGE,):
            count += step
        else:
            rising = False
        step = step * 2 if rising else step // 2
    return count


def _equal(new: mmap.mmap, old: mmap.mmap) -> Iterator[tuple[int, int, int]]:
    """Where the images are equal: offset in the new one, offset in the old one, length; in order, none overlapping."""
    known: dict[int, list[_Run]] = {size: [] for size in _BYTES.values()}
    for run in _runs(old):
        known[run.size].append(run)
    for runs in known.values():
        runs.sort()
    for run in _runs(new):
        runs, page, end = known[run.size], run.page, run.page + run.length
        index = max(0, bisect(runs, page, key=itemgetter(0)) - 1)
        while index < len(runs) and runs[index].page < end:
            other = runs[index]
            page, until = max(page, other.page), min(end, other.page + other.length)
            while page < until:
                count = min(until - page, COMPARED // run.size)
                yield from _halves(new, old, run.of(page), other.of(page), run.size, count)
                page += count
            index += 1


def _halves(
    new: mmap.mmap, old: mmap.mmap, at: int, there: int, size: int, count: int
) -> Iterator[tuple[int, int, int]]:
    """Which of so many entries are equal: all, or what is found in either half."""
    length = count * size
    if new[at : at + length] == old[there : there + length]:
        yield at, there, length
    elif count > 1:
        half = count // 2
        yield from _halves(new, old, at, there, size, half)
        yield from _halves(new, old, at + half * size, there + half * size, size, count - half)


def _joined(copies: Iterable[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """The same, with what follows one another in both images in one."""
    at = there = length = 0
    for start, source, count in copies:
        if start == at + length and source == there + length:
            length += count
            continue
        if length:
            yield at, there, length
        at, there, length = start, source, count
    if length:
        yield at, there, length
