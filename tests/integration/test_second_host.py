"""A host over ssh: a real sshd in a network of its own, with a KLAB_HOME of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from support.second_host import SecondHost, second_host, sshd

from lab.errors import HostError, ProgramError, ProgramTimeout
from lab.host.capacity import home_room, host_facts
from lab.host.remote import SshHost

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
SECONDS = 60.0
KLAB = str(Path(sys.executable).with_name("klab"))


@pytest.fixture(scope="module")
def second(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecondHost]:
    assert request.config.cache is not None
    program = sshd(request.config.cache.mkdir("sshd"))
    with second_host(tmp_path_factory.mktemp("second"), program) as host, host.entered():
        yield host


@pytest.fixture(scope="module")
def host(second: SecondHost) -> SshHost:
    return second.host(klab=KLAB)


def test_words_reach_a_program_unchanged(host: SshHost) -> None:
    words = ["a b", "$HOME", "'", '"', "*", "", "-n", "\\", "ä\nb"]
    assert host.run(["printf", "%s|", *words], timeout=SECONDS).stdout == "|".join([*words, ""])
    assert host.run(["cat"], timeout=SECONDS, stdin="line\n").stdout == "line\n"


def test_its_home_is_its_own(host: SshHost, second: SecondHost) -> None:
    assert host.home == PurePosixPath(second.home)
    assert os.environ.get("KLAB_HOME") != str(host.home)


def test_what_fails_is_told(host: SshHost) -> None:
    with pytest.raises(ProgramError, match="ls failed with exit code 2"):
        host.run(["ls", "/no/such"], timeout=SECONDS)
    assert host.run(["false"], timeout=SECONDS, check=False).code == 1
    with pytest.raises(ProgramTimeout, match=r"sleep did not end within 0\.5 s on root@127\.0\.0\.1"):
        host.run(["sleep", "60"], timeout=0.5)
    with pytest.raises(HostError, match=r"no-such-program is not installed on root@127\.0\.0\.1"):
        host.run(["no-such-program"], timeout=SECONDS)
    with pytest.raises(HostError, match="cannot be read"):
        host.read("/no/such")


def test_who_does_not_let_klab_in_is_told(second: SecondHost, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="does not answer ssh") as caught:
        SshHost("root@127.0.0.1", options={"Port": "1", "UserKnownHostsFile": str(tmp_path / "none")}).cpus()
    assert "ssh-copy-id" in caught.value.hint
    with pytest.raises(HostError, match="is not the name of a host"):
        SshHost("-oProxyCommand=true")


def test_facts_are_those_of_the_other_network(host: SshHost, second: SecondHost) -> None:
    there = host_facts(host, home_room(host))
    assert there.cpus == len(os.sched_getaffinity(0))
    assert there.memory > 0
    assert there.disks.free > 0
    assert there.disks.folder == PurePosixPath(second.folder)
    assert there.routes == (), "it has no network but its own loopback"


def test_libvirt_is_asked_over_the_same_way(host: SshHost) -> None:
    assert host.libvirt_uri == "qemu+ssh://root@127.0.0.1/system"


def test_a_connection_goes_through_klab_there(host: SshHost) -> None:
    with host.connect("no-such-lab", "cp1", 22) as channel:
        channel.settimeout(SECONDS)
        assert channel.recv(1) == b"", "klab there refuses, and the connection ends"
