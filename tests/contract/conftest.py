"""Where contract tests run: the fake anywhere, libvirt as root on a host that has it, with a libvirtd of its own.

With KLAB_LIBVIRT=system the same tests run as an ordinary user on the system's libvirtd. They then want sudo without a
password, to do what no user of klab does: kill others' processes, damage others' files. tests/workstation has a
machine for that.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract import tinybox
from contract.labs import Lab, make_lab
from contract.outside import TinyGuests, on_system_libvirt

from lab.host.network import host_network
from lab.host.private_libvirt import PrivateLibvirt
from lab.machines.fake.provider import FakeProvider
from lab.machines.providers import PROVIDERS
from lab.store import Home

NEEDED = ("libvirtd", "vagrant", "qemu-system-x86_64", "grub-mkrescue", "xorriso", "bsdtar", "apt-get")


def why_no_libvirt() -> str:
    """Why the real thing cannot be tried here; empty when it can."""
    if os.geteuid() != 0 and not on_system_libvirt():
        return "needs root, or KLAB_LIBVIRT=system"
    path = os.pathsep.join((os.environ["PATH"], "/usr/sbin", "/sbin"))
    missing = [name for name in NEEDED if shutil.which(name, path=path) is None]
    return f"needs {', '.join(missing)}" if missing else ""


@pytest.fixture(scope="session")
def tiny_box(request: pytest.FixtureRequest) -> Path:
    """The tiny box; built once, then kept in pytest's cache, which all processes share."""
    if why := why_no_libvirt():
        pytest.skip(why)
    assert request.config.cache is not None
    return tinybox.build(request.config.cache.mkdir("tinybox"))


@pytest.fixture(scope="session")
def real_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A KLAB_HOME, and a home for Vagrant, that no other run knows of; its private libvirt ends with the tests."""
    root = tmp_path_factory.mktemp("klab")
    patch = pytest.MonkeyPatch()
    patch.setenv("KLAB_HOME", str(root))
    patch.setenv("VAGRANT_HOME", str(root / "vagrant.d"))
    if not on_system_libvirt():
        patch.setenv("KLAB_LIBVIRT", "private")
    home = Home(root)
    yield home
    if not on_system_libvirt():
        PrivateLibvirt(home).stop()
    patch.undo()


@pytest.fixture(scope="module", params=["fake", "libvirt"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One lab of two nodes for all tests of a suite, which follow its life."""
    name = str(request.module.__name__).rpartition("test_")[2]
    if request.param == "fake":
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(PROVIDERS, "fake", FakeProvider(make=TinyGuests))
            yield make_lab(Home(tmp_path_factory.mktemp("fake")), name, nodes=2, provider="fake", box=None)
        return
    box = request.getfixturevalue("tiny_box")
    home = request.getfixturevalue("real_home")
    with host_network(home):
        seat = int(os.environ.get("KLAB_TEST_SEAT", "0"))
        # Two people lead labs beside each other, and libvirt's names are one space.
        own = f"{name}-{seat}" if seat else name
        lab = make_lab(home, own, nodes=2, provider="libvirt", box=box, seat=seat)
        yield lab
        if on_system_libvirt() or PrivateLibvirt(home).running:  # a test may have failed before the story's end
            lab.open().destroy(print)
