from __future__ import annotations

import pytest

from lab.scenario.sizes import human, parse_mib


@pytest.mark.parametrize(
    ("written", "unit", "mib"),
    [
        ("2Gi", "M", 2048),
        ("2G", "M", 2048),
        ("2 GB", "M", 2048),
        ("2gib", "M", 2048),
        ("2048", "M", 2048),
        (2048, "M", 2048),
        ("30G", "G", 30720),
        (30, "G", 30720),
        (1.5, "G", 1536),
        ("1.5 GiB", "M", 1536),
        ("1T", "G", 1048576),
        ("1K", "M", 1),
        ("1025K", "M", 2),
    ],
)
def test_a_size_is_what_people_mean(written: object, unit: str, mib: int) -> None:
    assert parse_mib(written, default_unit=unit) == mib


@pytest.mark.parametrize(
    "written",
    [
        "",
        "G",
        "2X",
        "-1",
        "0",
        0,
        -5,
        True,
        None,
        [],
        "1,5G",
        "2B",
        "2i",
        float("inf"),
        float("nan"),
        "9" * 400,
        10**300,
    ],
)
def test_anything_else_is_refused_with_an_example(written: object) -> None:
    with pytest.raises(ValueError, match=r"size"):
        parse_mib(written, default_unit="M")


def test_sizes_for_people() -> None:
    assert [human(n) for n in (512, 1024, 2560, 20480)] == ["512 MiB", "1 GiB", "2.5 GiB", "20 GiB"]
