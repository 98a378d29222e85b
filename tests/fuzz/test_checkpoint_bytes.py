"""Every change of a byte of a bundle, and every cut, is found before anything is written.

A file that KLAB_FUZZ_CHECKPOINT names is tried, else one of fake machines. It is copied, and each change is undone. A
change costs the reading of all of it, so KLAB_FUZZ_CHANGES says how many there are: 1000 when left out.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzz.hostile import honest

from lab.bundles.file import open_bundle
from lab.errors import UsageError

CHANGES = int(os.environ.get("KLAB_FUZZ_CHANGES", "1000"))
CUTS = max(1, CHANGES // 5)


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bytes")
    chosen = os.environ.get("KLAB_FUZZ_CHECKPOINT")
    source = Path(chosen) if chosen else honest(folder).path
    return Path(shutil.copy(source, folder / "copy.klab"))


def look(file: Path) -> None:
    open_bundle(file).verify(lambda _size: None)


@pytest.fixture(scope="module")
def dice() -> random.Random:
    return random.Random(os.environ.get("KLAB_FUZZ_SEED", "klab"))  # noqa: S311 - nothing secret


def test_unchanged_it_is_whole(copied: Path, record_property: Callable[[str, object], None]) -> None:
    began = time.monotonic()
    look(copied)
    record_property("seconds to verify it once", time.monotonic() - began)


def test_a_byte_that_was_changed_is_found(copied: Path, dice: random.Random) -> None:
    size = copied.stat().st_size
    # As many in the first kilobytes, where names, sizes and digests are, as in all of it.
    places = [dice.randrange(min(size, 1 << 16) if n % 2 else size) for n in range(CHANGES)]
    for at in places:
        with copied.open("r+b") as file:
            file.seek(at)
            old = file.read(1)
            file.seek(at)
            file.write(bytes([old[0] ^ dice.randrange(1, 256)]))
        try:
            with pytest.raises(UsageError) as caught:
                look(copied)
            assert caught.value.hint, f"byte {at}"
        finally:
            with copied.open("r+b") as file:
                file.seek(at)
                file.write(old)
    look(copied)


def test_one_that_was_cut_off_is_found(copied: Path, dice: random.Random) -> None:
    for length in sorted((dice.randrange(copied.stat().st_size) for _ in range(CUTS)), reverse=True):
        os.truncate(copied, length)
        with pytest.raises(UsageError) as caught:
            look(copied)
        assert caught.value.hint, f"{length} bytes"
