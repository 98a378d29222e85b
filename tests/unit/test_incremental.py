"""The mark `incremental`: after the first failure of a story the rest of it is not run, and other stories are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CONFTEST = Path(__file__).parents[1] / "conftest.py"
STORY = """
import pytest

@pytest.fixture(params=["fake", "real"])
def lab(request):
    return request.param

@pytest.mark.incremental
class TestStory:
    def test_begins(self, lab):
        assert lab == "fake"

    def test_continues(self, lab):
        pass

class TestOther:
    def test_fails(self):
        raise AssertionError

    def test_stands_alone(self):
        pass
"""


def test_the_rest_of_a_broken_story_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text())
    (tmp_path / "test_story.py").write_text(STORY)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = incremental: a story\n")
    words = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-p", "no:xdist", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
    verdicts = dict(line.rpartition("::")[2].split()[:2] for line in done.stdout.splitlines() if "%]" in line)
    assert verdicts == {
        "test_begins[fake]": "PASSED",
        "test_begins[real]": "FAILED",
        "test_continues[fake]": "PASSED",
        "test_continues[real]": "ERROR",
        "test_fails": "FAILED",
        "test_stands_alone": "PASSED",
    }
    assert "not run: test_begins[real] failed before it" in done.stdout
