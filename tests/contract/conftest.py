"""Where contract tests run: the fake anywhere, libvirt as root on a host that has it, in a realm of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from contract import tinybox
from contract.labs import Lab, make_lab

from lab.host import private_libvirt
from lab.host.namespaces import CLONE_FS
from lab.host.private_libvirt import PrivateLibvirt
from lab.machines.providers import enter_host_network
from lab.store import Home

NEEDED = ("libvirtd", "vagrant", "qemu-system-x86_64", "grub-mkrescue", "xorriso", "bsdtar", "apt-get")


def why_no_libvirt() -> str:
    """Why the real thing cannot be tried here; empty when it can."""
    if os.geteuid() != 0:
        return "needs root"
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
    """A KLAB_HOME, and a home for Vagrant, that no other run knows of; its realm ends with the tests."""
    root = tmp_path_factory.mktemp("klab")
    patch = pytest.MonkeyPatch()
    patch.setenv("KLAB_HOME", str(root))
    patch.setenv("VAGRANT_HOME", str(root / "vagrant.d"))
    patch.setenv("KLAB_LIBVIRT", "private")
    home = Home(root)
    yield home
    PrivateLibvirt(home).stop()
    patch.undo()


@pytest.fixture(scope="module", params=["fake", "libvirt"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One lab of two nodes for all tests of a suite, which follow its life."""
    name = str(request.module.__name__).rpartition("test_")[2]
    if request.param == "fake":
        yield make_lab(Home(tmp_path_factory.mktemp("fake")), name, nodes=2, provider="fake", box=None)
        return
    box = request.getfixturevalue("tiny_box")
    home = request.getfixturevalue("real_home")
    with _returning():
        enter_host_network(home)
        lab = make_lab(home, name, nodes=2, provider="libvirt", box=box)
        yield lab
        if PrivateLibvirt(home).running:  # a test failed before the story's end
            lab.open().destroy(print)


class _returning:  # noqa: N801  (read as a sentence)
    """Come back to the host's namespaces afterwards, as a user of the realm no more: other tests run here, too."""

    def __enter__(self) -> None:
        self.here = Path.cwd()
        self.handles = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY) for kind in ("net", "mnt")]

    def __exit__(self, *_exception: object) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        # The kernel moves no thread to another mount namespace whose root and working directory others share
        # (setns(2)), as threads do that klab has started meanwhile; from now on this one's are its own.
        assert libc.unshare(CLONE_FS) == 0, os.strerror(ctypes.get_errno())
        for handle in self.handles:
            assert libc.setns(handle, 0) == 0, os.strerror(ctypes.get_errno())
            os.close(handle)
        os.chdir(self.here)
        while private_libvirt._held:
            os.close(private_libvirt._held.popitem()[1])
