"""Running a script inside a root file system.

The mounts it needs are made in a mount namespace of its own, and everything it starts
lives in a PID namespace of its own. Both end with the script, or with klab, however it
ends: there is never a mount or a daemon to clean up, not even after a kill.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from lab import process
from lab.errors import RootNeeded

# A mount by itself, since programs change how theirs is propagated (dockerd does).
# /run and /tmp are memory: what a program leaves there does not get into the box.
_ENTER = """
set -eu
root=$1; shift
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
while [ "$1" != -- ]; do
  mkdir -p "$root/run/host/$1"
  mount --bind "$2" "$root/run/host/$1"
  shift 2
done
shift
exec chroot "$root" "$@"
"""


def need_root() -> None:
    """Refuse to continue as an ordinary user.

    Raises:
        RootNeeded: klab does not run as root.
    """
    if os.geteuid() != 0:
        raise RootNeeded(
            "building a box needs root: it unpacks and enters a Debian file system",
            hint="install sudo, or run the same as root, with KLAB_HOME set to your own",
        )


def run_in(
    root: Path,
    script: str,
    *,
    timeout: float,
    env: Mapping[str, str] | None = None,
    bind: Mapping[str, Path] = MappingProxyType({}),
    log: Path | None = None,
) -> process.Completed:
    """Run a bash script inside `root`.

    Args:
        root: a folder with a whole Debian file system.
        script: text handed to bash on standard input.
        timeout: seconds; then everything the script started is killed.
        env: variables for the script.
        bind: folders of the host to show as /run/host/NAME, by that name.
        log: file that the output is appended to.

    Raises:
        ProgramError: the script failed or took too long.
    """
    variables = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
        **(env or {}),
    }
    # Dies with klab, even with a klab that was killed outright; its children die with it.
    enter = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child"]
    enter += ["--propagation", "private"]
    # env -i: nothing of the host's environment gets into the box.
    inside = ["env", "-i", *(f"{key}={value}" for key, value in variables.items()), "/bin/bash", "-s"]
    places = [word for name, folder in bind.items() for word in (name, str(folder))]
    argv = [*enter, "bash", "-c", _ENTER, "klab", str(root), *places, "--", *inside]
    return process.run(argv, timeout=timeout, stdin=script, log=log)
