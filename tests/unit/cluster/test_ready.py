"""How a node asks cluster DNS, with a busybox that answers as told."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab.cluster.wait.ready import DNS_SECONDS, dns_question

# Notes what it is asked, and answers from the question of that number on.
BUSYBOX = """#!/bin/sh
echo "$@" >> {asked}
[ $(wc -l < {asked}) -ge {first} ] || {{ echo "connection timed out"; exit 1; }}
"""


@pytest.mark.parametrize(("first", "code"), [(1, 0), (3, 0), (len(DNS_SECONDS), 0), (len(DNS_SECONDS) + 1, 1)])
def test_a_node_asks_dns_until_it_is_answered_or_all_questions_are_lost(tmp_path: Path, first: int, code: int) -> None:
    busybox, asked = tmp_path / "busybox", tmp_path / "asked"
    busybox.write_text(BUSYBOX.format(asked=asked, first=first))
    busybox.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(dns_question("10.96.0.10"), env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code
    questions = asked.read_text().splitlines()
    assert questions == ["nslookup kubernetes.default.svc.cluster.local 10.96.0.10"] * min(first, len(DNS_SECONDS))


def test_a_question_that_is_never_answered_does_not_hold_up_the_next(tmp_path: Path) -> None:
    busybox, asked = tmp_path / "busybox", tmp_path / "asked"
    busybox.write_text(f"#!/bin/sh\necho >> {asked}\n[ $(wc -l < {asked}) -gt 1 ] || exec sleep 60\n")
    busybox.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert subprocess.run(dns_question("10.96.0.10"), env=env, timeout=50, check=False).returncode == 0
