"""Walking into another process' namespaces, as the kernel allows it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CODE = """
import os, sys, threading
from lab.host.namespaces import enter_namespaces
threading.Thread(target=threading.Event().wait, daemon=True).start()
enter_namespaces(int(sys.argv[1]))
print(*(os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("net", "mnt")), os.getcwd())
"""


def beside_another(folder: Path, code: str) -> tuple[list[str], list[str]]:
    """Run Python in `folder`, with the pid of a process in namespaces of its own, and the folder, as its arguments.

    Returns:
        That process' network and mount namespace; and the words that the code printed.
    """
    words = ["unshare", "--net", "--mount", "sh", "-c", "readlink /proc/self/ns/net /proc/self/ns/mnt; exec sleep 60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            spaces = [other.stdout.readline().strip() for _ in range(2)]
            argv = [sys.executable, "-c", code, str(other.pid), str(folder)]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=folder)
        finally:
            other.kill()
    assert done.returncode == 0, done.stderr
    return spaces, done.stdout.split()


def test_another_thread_is_no_hindrance(tmp_path: Path) -> None:
    """As one that has been joined and has not quite ended: setns(2) alone then says `Invalid argument`."""
    wanted, told = beside_another(tmp_path, CODE)
    assert told == [*wanted, str(tmp_path)]


CODE_BACK = """
import os, sys, threading
from lab.host.namespaces import entered
def spaces(): return [os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("net", "mnt")]
before, seen = spaces(), []
with entered(int(sys.argv[1])):
    inside = spaces()
    threading.Thread(target=lambda: seen.append(spaces())).start()
    threading.Thread(target=threading.Event().wait, daemon=True).start()
assert spaces() == before and os.getcwd() == sys.argv[2], spaces()
print(*inside, *seen[0])
"""


def test_a_thread_comes_back(tmp_path: Path) -> None:
    """From another process' namespaces, where a thread that it has started stays."""
    wanted, told = beside_another(tmp_path, CODE_BACK)
    assert told == [*wanted, *wanted]


CODE_RETURNS = """
import os, sys
from pathlib import Path
from lab.host.namespaces import enter_namespaces
from lab.host.network import returning
from lab.host.visitors import visitors
def spaces(): return [os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("net", "mnt")]
before, lock = spaces(), Path(sys.argv[2]) / "lock"
with returning():
    pass
visitors.add(lock)
with returning():
    visitors.add(lock)
    enter_namespaces(int(sys.argv[1]))
    inside = spaces()
    os.chdir("/")
assert spaces() == before and os.getcwd() == sys.argv[2], spaces()
assert visitors.mine() == {lock: 1}, visitors.mine()
print(*inside)
"""


def test_a_thread_that_went_in_for_good_comes_back_at_the_end_of_a_block(tmp_path: Path) -> None:
    wanted, told = beside_another(tmp_path, CODE_RETURNS)
    assert told == wanted
