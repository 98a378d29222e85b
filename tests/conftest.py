"""What every test shares: hypothesis tries the same examples on every machine, and as many as its test says.

The mark `incremental` is for a suite that follows one lab's life: each test stands on what those before it have
done. After the first failure the others are not run, and are told as errors for that reason.
"""

from __future__ import annotations

import signal

import pytest
from hypothesis import HealthCheck, settings

from lab.machines.fake.provider import FakeProvider
from lab.machines.providers import PROVIDERS

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


# Labs of fake machines; a klab that is installed does not know them.
PROVIDERS["fake"] = FakeProvider()

_broken = pytest.StashKey[dict[str, str]]()


def _suite(item: pytest.Item) -> str:
    """The story that a test belongs to: its class or module, with one lab, which a parameter may choose."""
    callspec = getattr(item, "callspec", None)
    shared = {name: value for name, value in (callspec.params if callspec else {}).items() if name == "lab"}
    parent = item.getparent(pytest.Class) or item.getparent(pytest.Module)
    return f"{parent.nodeid if parent else ''}{sorted(shared.items())}"


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Do not run a test whose story has broken."""
    broken = item.session.stash.setdefault(_broken, {})
    if item.get_closest_marker("incremental") and (before := broken.get(_suite(item))):
        pytest.fail(f"not run: {before} failed before it", pytrace=False)


def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Remember the first test of a story that failed."""
    failed = call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception)
    if failed and item.get_closest_marker("incremental"):
        item.session.stash.setdefault(_broken, {}).setdefault(_suite(item), item.name)
