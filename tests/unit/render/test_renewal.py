"""The scripts that renew a node's certificates, run by this machine's shell in a folder that stands for the node."""

from __future__ import annotations

import datetime
import shutil
import ssl
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.guests import NOW, SERVER, Guest, inline, kubeconfig, signed

from lab.cluster.secrets import load_or_make
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.render.kubectl import COPIES
from lab.render.renewal import KUBELET_CLIENT, RESTART, STOP_SECONDS, TELL, Replacement, render_renewal
from lab.render.secrets import KeyPair
from lab.scenario.catalog import Catalog
from lab.scenario.parser import parse_scenario
from lab.store import LabFolder

BASH = ["bash", "-s"]
CRT = "/etc/kubernetes/pki/apiserver.crt"
ADMIN = "/etc/kubernetes/admin.conf"
ENDS = NOW + datetime.timedelta(days=500)


@pytest.fixture
def folder(tmp_path: Path) -> LabFolder:
    made = LabFolder(tmp_path / "lab")
    load_or_make(made)
    return made


@pytest.fixture
def plan(catalog: Catalog) -> Plan:
    return decide(parse_scenario("version: 1\nname: one\n", catalog), catalog)


@pytest.fixture
def guest(tmp_path: Path, folder: LabFolder, plan: Plan) -> Guest:
    return Guest(tmp_path / "cp1", folder, plan, plan.nodes[0], NOW)


@pytest.fixture
def new(folder: LabFolder) -> Callable[[str], KeyPair]:
    return lambda name: signed(folder, "ca", name, ends=ENDS)


def told(guest: Guest, file: str) -> list[str]:
    """How the node tells the certificates in a file."""
    lines = guest.run(["sh", "-s"], TELL).stdout.splitlines()
    return [line.split(" ")[1] for line in lines if line.startswith(f"certificate={file} ")]


def replacements(guest: Guest, new: Callable[[str], KeyPair]) -> list[Replacement]:
    (old,) = told(guest, ADMIN)
    return [Replacement(CRT, "unused", new("server")), Replacement(ADMIN, old, new("admin"))]


def test_a_node_tells_its_certificates_its_clock_and_no_key(guest: Guest) -> None:
    guest.clock = NOW + datetime.timedelta(days=400)
    done = guest.run(["sh", "-s"], TELL)
    assert done.stdout.splitlines()[-1] == f"now={int(guest.clock.timestamp())}"
    assert len(told(guest, CRT)) == len(told(guest, ADMIN)) == len(told(guest, KUBELET_CLIENT)) == 1
    keys = [text for file, text in guest.files().items() if file.endswith((".key", ".pem"))]
    secrets = ["".join(key.split("-----BEGIN EC PRIVATE KEY-----")[1].split()[:2]) for key in keys if "EC PRIV" in key]
    assert len(secrets) > 8
    assert not [secret for secret in secrets if secret in done.stdout]
    assert inline("-----BEGIN EC PRIVATE KEY-----")[:30] not in done.stdout


def test_a_node_without_certificates_tells_its_clock(tmp_path: Path, guest: Guest) -> None:
    shutil.rmtree(guest.path("/etc/kubernetes"))
    shutil.rmtree(guest.path("/var/lib/kubelet"))
    assert guest.run(["sh", "-s"], TELL).stdout == f"now={int(NOW.timestamp())}\n"


def test_new_ones_take_the_place_of_the_old(guest: Guest, new: Callable[[str], KeyPair]) -> None:
    wanted, kubelet = replacements(guest, new), new("system:node:cp1")
    done = guest.run(BASH, render_renewal(wanted, kubelet, restart=False))
    assert (done.code, done.stdout, done.stderr) == (0, "", "")
    files = guest.files()
    assert (files[CRT], files[CRT.replace(".crt", ".key")]) == (wanted[0].new.public, wanted[0].new.private)
    assert files[ADMIN] == kubeconfig(admin=wanted[1].new)
    assert guest.path(KUBELET_CLIENT).read_text() == kubelet.public + kubelet.private
    assert files[KUBELET_CLIENT].endswith("/kubelet-client-klab.pem")
    assert guest.path(files[KUBELET_CLIENT].removeprefix(str(guest.root))).is_file()
    assert not [file for file in files if file.endswith((".klab", "/kubelet.crt", "/kubelet.key"))]
    assert guest.log == ["systemctl restart kubelet"]
    # What the kubelet and the API server do with them.
    ssl.create_default_context().load_cert_chain(guest.path(KUBELET_CLIENT))
    ssl.create_default_context().load_cert_chain(guest.path(CRT), guest.path(CRT).with_suffix(".key"))


def test_only_the_owner_reads_keys(guest: Guest, new: Callable[[str], KeyPair]) -> None:
    guest.run(BASH, render_renewal(replacements(guest, new), new("system:node:cp1"), restart=False))

    def mode(file: str) -> int:
        return stat.S_IMODE(guest.path(file).stat().st_mode)

    assert mode(CRT) == 0o644
    assert {mode(CRT.replace(".crt", ".key")), mode(ADMIN), mode(KUBELET_CLIENT)} == {0o600}


def test_nor_is_one_open_to_others_for_a_moment(guest: Guest, new: Callable[[str], KeyPair]) -> None:
    guest.programs = {"chmod": 'stat -c %a "$2" >> "$ROOT/log"; exec /bin/chmod "$@"'}
    guest.run(BASH, render_renewal(replacements(guest, new), new("system:node:cp1"), restart=False))
    assert guest.log == ["600"] * 4 + ["systemctl restart kubelet"]


def test_one_at_a_time_on_a_node(guest: Guest) -> None:
    free = 'flock --nonblock "$ROOT/run/klab-renew.lock" true'
    guest.programs = {"systemctl": f'if {free}; then echo alone; else echo locked; fi >> "$ROOT/log"'}
    assert guest.run(BASH, render_renewal([], None, restart=False)).code == 0
    assert guest.log == ["locked"]


def test_doing_it_again_changes_nothing(guest: Guest, new: Callable[[str], KeyPair]) -> None:
    pair, kubelet = Replacement(CRT, "unused", new("server")), new("system:node:cp1")
    script = render_renewal([pair], kubelet, restart=False)
    guest.run(BASH, script)
    before = guest.files()
    assert guest.run(BASH, script).code == 0
    assert guest.files() == before


def test_without_one_for_the_kubelet_its_own_stays(guest: Guest, new: Callable[[str], KeyPair]) -> None:
    before = guest.files()[KUBELET_CLIENT]
    assert guest.run(BASH, render_renewal([], None, restart=False)).code == 0
    assert guest.files()[KUBELET_CLIENT] == before


def test_a_script_that_is_cut_off_does_nothing(guest: Guest, new: Callable[[str], KeyPair]) -> None:
    """klab may be killed while ssh still hands the script over."""
    script = render_renewal(replacements(guest, new), new("system:node:cp1"), restart=True)
    before = guest.files()
    lines = script.splitlines(keepends=True)
    for end in range(1, len(lines)):
        guest.run(BASH, "".join(lines[:end]))
        guest.run(BASH, "".join(lines[:end])[:-3])
    assert guest.files() == before
    assert guest.log == []
    assert guest.run(BASH, script).code == 0
    assert guest.files() != before


def test_no_key_is_ever_a_programs_argument(guest: Guest, new: Callable[[str], KeyPair]) -> None:
    wanted, kubelet = replacements(guest, new), new("system:node:cp1")
    traced = guest.run(["bash", "-x", "-s"], render_renewal(wanted, kubelet, restart=False))
    assert "systemctl restart kubelet" in traced.stderr
    for pair in (wanted[0].new, wanted[1].new, kubelet):
        assert pair.private.splitlines()[1] not in traced.stderr
        assert inline(pair.private)[60:] not in traced.stderr


def test_the_copies_of_admin_conf_get_the_new_certificate_too(guest: Guest, new: Callable[[str], KeyPair]) -> None:
    root, vagrant = (guest.path(each) for each in COPIES)
    for copy in (root, vagrant):
        copy.parent.mkdir(parents=True)
    root.write_text(guest.path(ADMIN).read_text() + "current-context: mine\n")
    root.chmod(0o600)
    foreign = guest.path(ADMIN).read_text().replace(SERVER, "https://192.168.64.11:6443")
    vagrant.write_text(foreign)
    wanted = replacements(guest, new)
    for _ in range(2):
        done = guest.run(BASH, render_renewal(wanted, None, restart=False))
        assert (done.code, done.stdout, done.stderr) == (0, "", "")
        assert root.read_text() == kubeconfig(admin=wanted[-1].new) + "current-context: mine\n"
        wanted = [Replacement(ADMIN, told(guest, ADMIN)[0], wanted[-1].new)]
    assert stat.S_IMODE(root.stat().st_mode) == 0o600
    assert vagrant.read_text() == foreign, "of another cluster"
    assert [each.name for each in root.parent.iterdir()] == ["config"]


def test_another_users_entry_in_a_kubeconfig_is_left(guest: Guest, new: Callable[[str], KeyPair]) -> None:
    admin, jane = new("kubernetes-admin"), new("jane")
    guest.path(ADMIN).write_text(kubeconfig(jane=jane, admin=admin))
    second, renewed = told(guest, ADMIN)[1], new("kubernetes-admin")
    assert guest.run(BASH, render_renewal([Replacement(ADMIN, second, renewed)], None, restart=False)).code == 0
    assert guest.files()[ADMIN] == kubeconfig(jane=jane, admin=renewed)


@pytest.mark.parametrize("form", ["key first", "key elsewhere"])
def test_a_kubeconfig_of_another_form_is_refused_and_left(
    guest: Guest, new: Callable[[str], KeyPair], form: str
) -> None:
    pair, jane = new("admin"), new("jane")
    certificate = f"  client-certificate-data: {inline(pair.public)}\n"
    forms = {
        "key first": f"user:\n  client-key-data: {inline(pair.private)}\n{certificate}",
        "key elsewhere": f"user:\n{certificate}{kubeconfig(jane=jane)}",
    }
    text = forms[form]
    guest.path(ADMIN).write_text(text)
    wanted = [Replacement(ADMIN, told(guest, ADMIN)[0], new("admin"))]
    done = guest.run(BASH, render_renewal(wanted, None, restart=False))
    assert done.code != 0
    assert done.stderr.endswith("admin.conf is not as kubeadm writes it\n")
    assert guest.files()[ADMIN] == text
    assert guest.log == []


@pytest.fixture
def process() -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Starts a program that lives until it is ended, and is then gone from the process list."""
    started = []

    def start(trap: str = "") -> subprocess.Popen[str]:
        child = subprocess.Popen(["bash", "-c", f"{trap} echo up; exec sleep 600"], stdout=subprocess.PIPE, text=True)
        started.append(child)
        assert child.stdout is not None
        child.stdout.readline()
        threading.Thread(target=child.wait, daemon=True).start()
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


def test_the_control_planes_programs_end_but_etcd_does_not(
    guest: Guest, process: Callable[..., subprocess.Popen[str]]
) -> None:
    ended, left = [process() for _ in range(3)], [process() for _ in range(3)]
    lines = ("kube-apiserver --v=2", "kube-controller-manager --v=2", "kube-scheduler --v=2")
    others = ("etcd --name=cp1", "vim kube-apiserver --v=2", "kube-proxy --v=2")
    table = [f"{child.pid} {line}" for child, line in zip([*ended, *left], [*lines, *others], strict=True)]
    (guest.root / "processes").write_text("\n".join(table) + "\n")
    assert guest.run(BASH, RESTART).code == 0
    assert [child.wait() for child in ended] == [-15, -15, -15]
    assert [child.poll() for child in left] == [None, None, None]
    assert guest.log == []


def test_one_that_does_not_hear_is_killed(guest: Guest, process: Callable[..., subprocess.Popen[str]]) -> None:
    child = process('trap "" TERM;')
    (guest.root / "processes").write_text(f"{child.pid} kube-apiserver --v=2\n")
    script = render_renewal([], None, restart=True).replace(f"seq {STOP_SECONDS}", "seq 1")
    assert guest.run(BASH, script).code == 0
    assert child.wait() == -9
    assert guest.log == ["systemctl restart kubelet"]


def test_where_none_runs_there_is_nothing_to_end(guest: Guest) -> None:
    assert guest.run(BASH, RESTART).code == 0


def test_processes_that_cannot_be_listed_are_no_success(guest: Guest) -> None:
    guest.programs = {"pgrep": "echo 'pgrep: no /proc' >&2; exit 3"}
    done = guest.run(BASH, RESTART)
    assert (done.code, done.stderr) == (1, "pgrep: no /proc\n")


def test_a_kubelet_that_does_not_restart_is_no_success(guest: Guest) -> None:
    guest.programs = {"systemctl": "echo 'Unit kubelet.service is masked.' >&2; exit 1"}
    done = guest.run(BASH, render_renewal([], None, restart=False))
    assert (done.code, done.stderr) == (1, "Unit kubelet.service is masked.\n")


@pytest.mark.parametrize("restart", [True, False])
def test_shellcheck_has_nothing_to_say(guest: Guest, new: Callable[[str], KeyPair], restart: bool) -> None:
    scripts = [("sh", TELL), ("bash", RESTART)]
    scripts.append(("bash", render_renewal(replacements(guest, new), new("system:node:cp1"), restart=restart)))
    for shell, script in scripts:
        judge = ["shellcheck", f"--shell={shell}", "-"] if shutil.which("shellcheck") else [shell, "-n"]
        done = subprocess.run(judge, input=script, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
