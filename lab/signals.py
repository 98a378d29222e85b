"""The signals that ask klab to end: each is taken as Ctrl-C is, so that what klab began is cleaned up.

Sources: signal(7); credentials(7), "a hangup of the controlling terminal".
"""

from __future__ import annotations

import signal

# Ctrl-C; kill, systemd and a shutdown; a terminal that is closed, an ssh connection that breaks.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SIGNALLED = 128  # and the signal's number: a shell's exit code for a program that a signal has ended
EXIT_INTERRUPTED = SIGNALLED + signal.SIGINT
