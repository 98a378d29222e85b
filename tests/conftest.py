"""What every test shares: hypothesis tries the same examples on every machine, and as many as its test says."""

from __future__ import annotations

import signal

from hypothesis import HealthCheck, settings

settings.register_profile(
    "klab",
    derandomize=True,
    database=None,
    deadline=None,  # a busy machine is not a defect
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
settings.load_profile("klab")

# A shell starts what runs in the background deaf to Ctrl-C, and its children with it; some tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)
