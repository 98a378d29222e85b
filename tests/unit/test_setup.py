"""tools/setup and tools/as-member before stand-ins for apt, sudo, systemctl, Vagrant: what they do, and say."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UBUNTU, BOOKWORM, TRIXIE = "ID=ubuntu VERSION_CODENAME=noble", "VERSION_CODENAME=bookworm", "VERSION_CODENAME=trixie"
# What apt-get -s says of a package that is there, of a new one, and of one that has to go; recorded on Debian 12.
UPGRADED = "Inst libvirt0 [9.0.0-4+deb12u2] (11.3.0-2~bpo12+1 Debian Backports:stable-backports [amd64]) []"
NEW = "Inst xorriso (1.5.4-4 Debian:12.12/oldstable [amd64])"
REMOVED = "Remv libvirt-daemon-driver-lxc [9.0.0-4+deb12u2]"


@dataclass
class Machine:
    """A folder of stand-ins; each notes how it was called in `calls`."""

    folder: Path
    installed: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    changes: str = NEW
    plugins: str | None = None
    kvm: bool = False
    systemd: bool = True
    own_units: str = "none"
    user: bool = True
    environment: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, body: str) -> None:
        path = self.folder / name
        path.write_text(f"#!/bin/bash\nprintf '%s\\n' \"{name} $*\" >> {self.folder}/calls\n{body}\n")
        path.chmod(0o755)

    def run(self, script: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The functions of tools/setup, then `script`; what the host really is does not show through."""
        self.put("dpkg-query", f"[[ ' {' '.join(self.installed)} ' == *\" $4 \"* ]] && printf installed")
        self.put("apt-cache", f"[[ ' {' '.join(self.unknown)} ' == *\" $2 \"* ]] || echo 'Candidate: 1.0'")
        (self.folder / "changes").write_text(f"{self.changes}\n")
        self.put("apt-get", f"[ $1 != -s ] || cat {self.folder}/changes")
        self.put("systemctl", f"[ $1 != cat ] || [[ $2 =~ {self.own_units} ]]")
        self.put("id", "[ $1 = -u ] && echo 1000 || echo someone" if self.user else "echo 0")
        self.put("sudo", 'exec "$@"')
        self.put("env", 'shift; exec "$@"')
        self.put("tee", "cat")
        self.put("gpasswd", "")
        self.put("install", "")
        if self.plugins is not None:
            self.put("vagrant", f"printf '%s\\n' '{self.plugins}'")
        for program in ("awk", "sed", "grep", "cat", "sh", "sort", "dirname"):
            (self.folder / program).unlink(missing_ok=True)
            (self.folder / program).symlink_to(str(shutil.which(program)))
        facts = f"has_kvm() {{ {str(self.kvm).lower()}; }}; has_systemd() {{ {str(self.systemd).lower()}; }}"
        return subprocess.run(
            [str(shutil.which("bash")), "-c", f"source tools/setup; {facts}; {script}"],
            cwd=ROOT, env={"PATH": str(self.folder), "HOME": str(self.folder), **self.environment},
            input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def installs(self) -> list[str]:
        """The calls of apt-get that install, without what is the same in all of them."""
        kept = [call for call in self.calls if call.startswith("apt-get install ")]
        return [call.removeprefix("apt-get install -y -q --no-install-recommends ") for call in kept]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def packages(*marks: str) -> list[str]:
    lines = [line.partition("#")[0].split() for line in (ROOT / "tools/packages.txt").read_text().splitlines()]
    return [words[0] for words in lines if words and (words[1] if len(words) > 1 else "-") in marks]


ALL = ("-", "backports", "emulation")


def test_klab_itself_needs_no_server() -> None:
    assert {"cloud-init", "haproxy", "keepalived"} <= set(packages("test"))
    assert {"cloud-init", "haproxy", "keepalived"}.isdisjoint(packages(*ALL))


def test_what_is_there_is_left_alone(machine: Machine) -> None:
    machine.installed = set(packages(*ALL))
    done = machine.run(f"{TRIXIE}; install_packages {' '.join(ALL)}")
    assert (done.returncode, done.stdout) == (0, "packages: all there\n")
    assert not any(call.startswith(("apt-get", "sudo")) for call in machine.calls)


def test_debian_13_installs_in_one_go_and_says_what_sudo_is_for(machine: Machine) -> None:
    done = machine.run(f"{TRIXIE}; install_packages {' '.join(ALL)}")
    assert done.returncode == 0, done.stderr
    assert machine.installs() == [" ".join(packages(*ALL))]
    lines = done.stdout.splitlines()
    assert sum(line.startswith("sudo: ") for line in lines) == sum(call.startswith("sudo ") for call in machine.calls)
    assert any("libvirtd and virtlogd begin to run" in line for line in lines)


@pytest.mark.parametrize(("kvm", "marks"), [(True, ["backports"]), (False, ["backports", "emulation"])])
def test_debian_12_keeps_its_own_libvirt_where_kvm_runs_the_guests(
    machine: Machine, kvm: bool, marks: list[str]
) -> None:
    machine.kvm = kvm
    done = machine.run(f"{BOOKWORM}; need_backports() {{ :; }}; install_packages {' '.join(ALL)}")
    assert done.returncode == 0, done.stderr
    newer = set(packages(*marks))
    assert [set(call.split()) for call in machine.installs()] == [
        {"-t", "bookworm-backports", *newer},
        set(packages(*ALL)) - newer,
    ]
    assert ("libvirt-daemon-system" in newer) is not kvm


def test_nothing_is_exchanged_without_a_word(machine: Machine) -> None:
    machine.changes = f"{UPGRADED}\n{NEW}\n{REMOVED}"
    done = machine.run(f"{BOOKWORM}; need_backports() {{ :; }}; install_packages {' '.join(ALL)}")
    assert done.returncode == 1
    assert "  libvirt-daemon-driver-lxc, removed\n  libvirt0 9.0.0-4+deb12u2 -> 11.3.0-2~bpo12+1\n" in done.stdout
    assert "xorriso 1.5" not in done.stdout
    assert "KLAB_YES=1" in done.stderr
    assert machine.installs() == []
    machine.environment = {"KLAB_YES": "1"}
    again = machine.run(f"{BOOKWORM}; need_backports() {{ :; }}; install_packages {' '.join(ALL)}")
    assert again.returncode == 0, again.stderr
    assert len(machine.installs()) == 2


def test_ubuntu_without_vagrant_is_told_the_commands_before_anything_is_installed(machine: Machine) -> None:
    machine.unknown = {"vagrant", "vagrant-libvirt"}
    done = machine.run(f"{UBUNTU}; install_packages {' '.join(ALL)}")
    assert done.returncode == 1
    assert "apt has no package called: vagrant vagrant-libvirt" in done.stderr
    assert "vagrant plugin install vagrant-libvirt" in done.stderr
    assert machine.installs() == []


# The two lines are the grammar of Vagrant's own `vagrant plugin list` (2.4): the gem, and one of another name.
@pytest.mark.parametrize(
    ("plugins", "lacks"),
    [
        ("vagrant-libvirt (0.12.2, global)", []),
        ("vagrant-libvirt-extras (1.0, global)", ["vagrant-libvirt"]),
        ("No plugins installed.", ["vagrant-libvirt"]),
        (None, ["vagrant", "vagrant-libvirt"]),
    ],
)
def test_hashicorps_vagrant_and_the_gem_do_as_well(machine: Machine, plugins: str | None, lacks: list[str]) -> None:
    machine.plugins = plugins
    machine.unknown = {"vagrant", "vagrant-libvirt"}
    machine.installed = set(packages(*ALL)) - machine.unknown
    done = machine.run(f"{UBUNTU}; install_packages {' '.join(ALL)}")
    assert done.stdout.splitlines()[0] == (
        f"packages to install: {' '.join(lacks)}" if lacks else "packages: all there"
    )
    assert done.returncode == (1 if lacks else 0)


def test_no_service_of_the_tests_starts(machine: Machine) -> None:
    done = machine.run(f"{TRIXIE}; install_test_packages")
    assert done.returncode == 0, done.stderr
    masked = next(place for place, call in enumerate(machine.calls) if call.startswith("systemctl mask"))
    installed = next(place for place, call in enumerate(machine.calls) if call.startswith("apt-get install"))
    assert masked < installed
    for unit in ("haproxy.service", "keepalived.service", "cloud-init-hotplugd.socket", "cloud-final.service"):
        assert unit in machine.calls[masked].split()


def test_what_the_tests_need_is_there_already(machine: Machine) -> None:
    machine.installed = set(packages("test"))
    assert machine.run(f"{TRIXIE}; install_test_packages").stdout == "packages: all there\n"
    assert not any(call.startswith(("sudo", "systemctl mask")) for call in machine.calls)


def test_a_service_that_the_person_runs_is_left_alone(machine: Machine) -> None:
    machine.own_units = "haproxy"
    machine.run(f"{TRIXIE}; install_test_packages")
    touched = [call for call in machine.calls if call.startswith("systemctl mask")]
    assert touched
    assert not any("haproxy.service" in call for call in touched)


@pytest.mark.parametrize("package", ["haproxy", "keepalived", "cloud-init", "docker-registry"])
def test_every_unit_that_the_package_brings_is_kept_from_starting(package: str, machine: Machine) -> None:
    listed = subprocess.run(["dpkg", "-L", package], capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip(f"{package} is not installed here")
    units = {Path(line).name for line in listed.stdout.splitlines() if "/systemd/system/" in line}
    started = {u for u in units if u.endswith((".service", ".socket", ".timer")) and u != "cloud-init-hotplugd.service"}
    assert started <= set(machine.run('printf "%s\\n" "${TEST_UNITS[@]}"').stdout.split())


def test_debians_python_comes_before_condas(machine: Machine) -> None:
    machine.put("python3", "exit 0")
    machine.put("pip", "exit 0")
    has_venv = subprocess.run(["/usr/bin/python3", "-c", "import venv, ensurepip"], capture_output=True, check=False)
    if has_venv.returncode != 0:
        pytest.skip("Debian's Python has no venv here")
    assert machine.run("find_python").stdout.strip() == "/usr/bin/python3"


@pytest.mark.parametrize("kvm", [True, False])
def test_the_slower_clock_goes_where_guests_are_emulated(kvm: bool, machine: Machine, tmp_path: Path) -> None:
    machine.kvm = kvm
    library, python = tmp_path / "lib.so", machine.folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/bash\necho {tmp_path}/made.so; echo {library}\n")
    python.chmod(0o755)
    (machine.folder / "calls").touch()
    wanted = [] if kvm else [f"install -D -m 644 {tmp_path}/made.so {library}"]
    for _ in range(2):
        assert machine.run(f"cd {machine.folder}; install_slow_clock").returncode == 0
        assert [call for call in machine.calls if call.startswith("install ")] == wanted
        library.touch()


def test_a_member_of_a_directory_joins_the_group_too(machine: Machine) -> None:
    machine.put("getent", "exit 0")
    done = machine.run("join_group")
    assert done.returncode == 0, done.stderr
    assert [call for call in machine.calls if call.startswith("gpasswd")] == ["gpasswd --add someone libvirt"]


def test_a_command_gets_new_groups_and_the_whole_environment_by_name(machine: Machine) -> None:
    machine.put(
        "id", 'case "$*" in -u) echo 1000;; -un) echo me;; -nG) echo me users;; *) echo me users libvirt;; esac'
    )
    machine.put("sudo", 'shift 3; exec "$@"')
    machine.put("klab", "printf '[%s]' \"$@\"")
    done = subprocess.run(
        [ROOT / "tools/as-member", "klab", "create", "a b"],
        env={"PATH": f"{machine.folder}:{os.defpath}", "HOME": "/home/me", "HTTPS_PROXY": "http://u:secret@proxy.example"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.endswith("[create][a b]"), done.stderr
    (asked,) = [call for call in machine.calls if call.startswith("sudo ")]
    names = asked.split()[1].removeprefix("--preserve-env=").split(",")
    assert {"HTTPS_PROXY", "HOME", "PATH"} <= set(names)
    assert asked.split()[2:4] == ["--user", "me"]
    assert "secret" not in asked


def test_a_login_that_knows_its_groups_needs_no_sudo(machine: Machine) -> None:
    machine.put("id", 'case "$*" in -u) echo 1000;; -un) echo me;; *) echo me libvirt;; esac')
    machine.put("sudo", "exit 1")
    done = subprocess.run(
        [ROOT / "tools/as-member", "echo", "done"],
        env={"PATH": f"{machine.folder}:{os.defpath}"}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "done\n"
