"""What libvirt's machines must survive: kill -9 in the middle, Vagrant's books gone, libvirtd gone, strangers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.host import look_at_host

from lab.errors import HostError
from lab.host.namespaces import Namespaces
from lab.host.private_libvirt import LINEAR_SYN_RETRIES, PrivateLibvirt
from lab.store import Home

TESTS = Path(__file__).parents[1]
LIMIT = 400


class Driver:
    """Runs driver.py for one lab."""

    def __init__(self, home: Home, box: Path, lab: str, seat: int) -> None:
        self.home = home
        self._words = [sys.executable, "-m", "contract.driver", str(home.root), str(box), lab, str(seat)]

    def run(self, *steps: str) -> str:
        done = subprocess.run(
            [*self._words, *steps],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT,
            cwd=TESTS,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def kill_when(self, phrase: str, *steps: str) -> None:
        """Kill klab (and nothing that it started) with SIGKILL once a line with that phrase was printed."""
        with subprocess.Popen([*self._words, *steps], stdout=subprocess.PIPE, text=True, cwd=TESTS) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if phrase in line:
                    child.kill()
                    return
        pytest.fail(f"{phrase!r} was never printed")

    def virsh(self, *words: str) -> str:
        return self.inside("/usr/bin/virsh", "-c", "qemu:///system", *words)

    def inside(self, *words: str) -> str:
        """What a program in the private libvirt's namespaces prints."""
        private_libvirt = PrivateLibvirt(self.home)
        private_libvirt.start()
        pid = (private_libvirt.folder / "run" / "libvirtd.pid").read_text()
        argv = ["/usr/bin/nsenter", "-t", pid, "-n", "-m", *words]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="class")
def driver(real_home: Home, tiny_box: Path) -> Iterator[Driver]:
    """One lab: for a test, or for the tests of a class, which follow its life."""
    driver = Driver(real_home, tiny_box, "kill", 5)
    yield driver
    driver.run("destroy")
    shutil.rmtree(real_home.labs / "kill")


def test_destroy_without_vagrants_books_after_libvirtd_died(driver: Driver) -> None:
    driver.kill_when("Starting domain", "up")
    folder = driver.home.labs / "kill"
    shutil.rmtree(folder / ".vagrant")
    (folder / ".vagrant" / "machines" / "cp1" / "libvirt").mkdir(parents=True)
    (folder / ".vagrant" / "machines" / "cp1" / "libvirt" / "id").write_text("half a UU")
    os.kill(int((driver.home.private_libvirt / "run" / "libvirtd.pid").read_text()), signal.SIGKILL)
    assert "leftovers: []" in driver.run("destroy", "leftovers")


@pytest.mark.incremental
class TestALifeWithVagrant:
    def test_up_goes_on_after_a_kill_while_the_image_was_made(self, driver: Driver) -> None:
        driver.kill_when("Creating image", "up")
        output = driver.run("up", "states", "hostname", "drop")
        assert "cp1=running\n" in output
        assert "\ncp1\n" in output

    def test_start_after_the_host_was_restarted(self, driver: Driver) -> None:
        """A stop of the private libvirt leaves what a restart leaves: definitions and disks, nothing that runs."""
        assert PrivateLibvirt(driver.home).stop()
        output = driver.run("states", "start", "states", "hostname")
        assert output.index("cp1=stopped") < output.index("cp1=running")
        assert "\ncp1\n" in output

    def test_a_person_may_use_vagrant_itself(self, driver: Driver) -> None:
        """Also once the seed is gone: vagrant-libvirt 0.11 falls over a cdrom without a medium unless told of it."""
        output = driver.run("vagrant status", "vagrant halt", "states", "vagrant up", "states")
        assert "running (libvirt)" in output
        assert output.index("cp1=stopped") < output.index("cp1=running")
        assert "cp1=absent" in driver.run("vagrant destroy -f", "states")


@pytest.mark.incremental
class TestALifeThatIsCutOff:
    def test_up_goes_on_after_a_kill_while_the_machine_was_started(self, driver: Driver) -> None:
        driver.kill_when("Starting domain", "up")
        output = driver.run("up", "states", "hostname")
        assert "cp1=running\n" in output
        assert "\ncp1\n" in output

    def test_remove_goes_on_after_kill(self, driver: Driver) -> None:
        driver.kill_when("Removing domain", "remove")
        output = driver.run("remove", "states", "leftovers")
        assert "cp1=absent\n" in output
        assert "cp1" not in output.split("leftovers: ")[1]


def test_a_strangers_machine_is_neither_used_nor_removed(driver: Driver, tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.xml"
    stranger.write_text(
        "<domain type='qemu'><name>klab-kill_cp1</name><memory unit='MiB'>16</memory>"
        "<os><type arch='x86_64'>hvm</type></os></domain>"
    )
    driver.virsh("define", str(stranger))
    with pytest.raises(AssertionError, match="does not belong to this lab"):
        driver.run("up")
    driver.run("destroy")
    assert "klab-kill_cp1" in driver.virsh("list", "--all", "--name")
    driver.virsh("undefine", "klab-kill_cp1")


def test_two_labs_with_the_same_addresses_do_not_meet(driver: Driver, tiny_box: Path) -> None:
    """The second is refused while the first has its networks, and can be removed without a trace of the first's."""
    driver.kill_when("Creating image", "up")
    other = Driver(driver.home, tiny_box, "other", 5)
    with pytest.raises(AssertionError, match="another --seat"):
        other.run("up")
    other.run("destroy", "leftovers")
    shutil.rmtree(driver.home.labs / "other")
    assert "klab-kill\n" in driver.virsh("net-list", "--all", "--name")


def test_a_guest_that_boots_is_knocked_at_once_a_second(driver: Driver) -> None:
    """As the kernel does it from Linux 6.5 on; the host's own network works as before."""
    setting = Path("/proc/sys/net/ipv4/tcp_syn_linear_timeouts")
    before = setting.read_text() if setting.exists() else ""
    assert driver.inside("/bin/sh", "-c", f"cat {setting} || true") == (f"{LINEAR_SYN_RETRIES}\n" if before else "")
    assert (setting.read_text() if before else "") == before != f"{LINEAR_SYN_RETRIES}\n"


def test_nothing_shows_on_the_host_and_the_last_destroy_ends_the_private_libvirt(
    real_home: Home, tiny_box: Path
) -> None:
    driver = Driver(real_home, tiny_box, "traces", 6)
    private_libvirt = PrivateLibvirt(real_home)
    assert private_libvirt.stop()
    before = look_at_host(real_home.root)
    driver.run("up")
    during = look_at_host(real_home.root)
    inside = Namespaces.of((real_home.private_libvirt / "run" / "libvirtd.pid").read_text().strip())
    assert private_libvirt.running
    assert inside is not None
    base, image = next((private_libvirt.folder / "lib" / "images").glob("*box.img")), tiny_box.parent / "disk.qcow2"
    if base.stat().st_dev == image.stat().st_dev:
        assert base.samefile(image), "nobody waits for a copy of what lies beside"
    assert any("klab-traces_cp1" in line for line in during.processes), "what may be left is found"
    driver.run("destroy")
    assert replace(during, processes=before.processes) == before
    assert look_at_host(real_home.root) == before
    assert not private_libvirt.running
    assert list(inside.members()) == []
    shutil.rmtree(real_home.labs / "traces")
    assert {path.name for path in real_home.private_libvirt.iterdir()} == {"cache", "start.log"}


def test_a_private_libvirt_is_never_taken_for_another(real_home: Home, tmp_path: Path) -> None:
    """The kernel gives the identities of namespaces and processes away again: to one that was started later."""
    other, gone = PrivateLibvirt(real_home), PrivateLibvirt(Home(tmp_path / "gone"))
    other.start()
    for name in ("realm.json", "run/libvirtd.pid", "run/virtlogd.pid"):
        file = gone.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((other.folder / name).read_text())
    noted = json.loads((gone.folder / "realm.json").read_text())
    (gone.folder / "realm.json").write_text(json.dumps({**noted, "anchor": os.getpid(), "started": 1}))
    pid = (other.folder / "run" / "libvirtd.pid").read_text()
    try:
        assert not gone.running
        with pytest.raises(HostError, match="is not running"):
            gone.enter()
        gone.start()
        assert (gone.folder / "run" / "libvirtd.pid").read_text() != pid
        assert gone.stop()
        assert other.running
        assert (other.folder / "run" / "libvirtd.pid").read_text() == pid
    finally:
        gone.stop()


COPY = """
import os, sys
from pathlib import Path
from lab.machines.libvirt import definitions, transfer
from lab.host.network import enter_host_network
from lab.machines.libvirt.connection import connect
from lab.store import Home
home = Home(Path(sys.argv[1]))
enter_host_network(home)
xml = "<pool type='dir'><name>copies</name><target><path>/var/lib/libvirt/images</path></target></pool>"
pool = connect().storagePoolCreateXML(xml)
image = Path(sys.argv[2])
stream = pool.connect().newStream()
pool.createXML(definitions.raw_volume("base")).upload(stream, 0, image.stat().st_size)
stream.send(image.read_bytes()[:1 << 20])
stream.abort()
files, there = [], home.private_libvirt / "lib" / "images" / "base"
for folder in (None, None, there.parent):
    transfer.ensure_base(home, pool, "base", image, folder=folder)
    files.append(there.stat().st_ino)
    assert there.read_bytes() == image.read_bytes()
assert files[0] == files[1] == files[2] != image.stat().st_ino, "what is whole stays"
there.unlink()
pool.refresh()
transfer.ensure_base(home, pool, "base", image, folder=there.parent)
assert there.samefile(image), "one that lies beside it is linked"
there.unlink()
pool.destroy()
"""


def test_a_copy_of_a_box_that_was_cut_off_is_made_anew(real_home: Home) -> None:
    image = real_home.root / "image"
    image.write_bytes(os.urandom(4 << 20))
    argv = [sys.executable, "-c", COPY, str(real_home.root), str(image)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=LIMIT)
    image.unlink()
    assert done.returncode == 0, done.stderr
