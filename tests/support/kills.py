"""klab, killed in the midst of something."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any


def killed_in(owner: Any, method: str, act: Callable[[], object], *, call: int = 1) -> None:
    """Do something in a process of its own, which is killed as soon as it comes to a call for that time."""
    child = os.fork()
    if child == 0:
        original, left = getattr(owner, method), [call]

        def called(*words: Any, **options: Any) -> Any:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*words, **options)

        setattr(owner, method, called)
        try:
            act()
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
