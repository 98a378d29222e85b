"""The same klab command once more, as root, by sudo."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from lab.cli.terminal.output import note
from lab.errors import RootNeeded
from lab.files import make_private
from lab.process import attach, have
from lab.store import Home

# What decides what klab, and the programs that it starts, do. By name: a value may hold a proxy's password, which
# everybody could read from a command line; and sudo-rs hands over nothing that is not named.
_HANDED_OVER = re.compile(
    r"KLAB_.+|GO[A-Z0-9]+|XDG_CONFIG_HOME|SSL_CERT_.+|REGISTRY_AUTH_FILE|TERM|NO_COLOR|CI|LANG|LC_.+|.+_proxy", re.I
)


def again_as_root(needed: RootNeeded, home: Home) -> int:
    """Run this process's command line once more as root; returns its exit code.

    Args:
        needed: why.
        home: klab's folder, the person's; what root leaves in there is the command's to give back.

    Raises:
        RootNeeded: there is no sudo.
    """
    if not have("sudo"):
        raise needed
    note(f"{needed.message}; sudo runs it, and may ask for your password")
    make_private(home.root)  # so that it is the person's
    names = sorted(name for name in os.environ if _HANDED_OVER.fullmatch(name) and name != "KLAB_HOME")
    # sudo has a PATH and a HOME of its own; root's Python is to leave no bytecode among the person's files.
    kept = [f"{name}={os.environ[name]}" for name in ("PATH", "HOME") if name in os.environ]
    kept += [f"KLAB_HOME={home.root}", "PYTHONDONTWRITEBYTECODE=1"]
    preserve = [f"--preserve-env={','.join(names)}"] if names else []
    return attach(["sudo", *preserve, "env", *kept, str(Path(sys.argv[0]).absolute()), *sys.argv[1:]])
