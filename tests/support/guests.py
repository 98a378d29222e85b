"""Nodes that are folders: files as kubeadm leaves them, klab's scripts run for real, stubs for what a node runs."""

from __future__ import annotations

import base64
import datetime
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage
from cryptography.x509.oid import NameOID

from lab.cluster.observe.validity import ASK
from lab.cluster.secrets import load_or_make
from lab.errors import MachineError
from lab.machines.fake.machines import FakeMachines
from lab.machines.protocol import NodeState
from lab.plan.model import Node, Plan
from lab.process import Completed
from lab.render.kubeadm import api_names
from lab.render.kubectl import COPIES
from lab.render.renewal import KUBELET_CLIENT, LOCK, TELL
from lab.render.secrets import KeyPair
from lab.store import LabFolder

NOW = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
SERVER = "https://192.168.56.11:6443"
FOLDERS = ("/etc/kubernetes", "/var/lib/kubelet")
# By file below /etc/kubernetes/pki: the CA that signs it, its subject, its use, whether it names the node.
PKI = {
    "apiserver": ("ca", "kube-apiserver", None, Usage.SERVER_AUTH),
    "apiserver-kubelet-client": ("ca", "kube-apiserver-kubelet-client", "kubeadm:cluster-admins", Usage.CLIENT_AUTH),
    "apiserver-etcd-client": ("etcd-ca", "kube-apiserver-etcd-client", None, Usage.CLIENT_AUTH),
    "front-proxy-client": ("front-proxy-ca", "front-proxy-client", None, Usage.CLIENT_AUTH),
    "etcd/server": ("etcd-ca", "NODE", None, Usage.SERVER_AUTH),
    "etcd/peer": ("etcd-ca", "NODE", None, Usage.SERVER_AUTH),
    "etcd/healthcheck-client": ("etcd-ca", "kube-etcd-healthcheck-client", None, Usage.CLIENT_AUTH),
}
CONFIGS = {
    "admin": ("kubernetes-admin", "kubeadm:cluster-admins"),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
}
STUBS = {
    "systemctl": 'echo "systemctl $*" >> "$ROOT/log"',
    "date": "echo now=$CLOCK",
    "sleep": "exec /bin/sleep 0.05",  # of a node's second
    # The process list is a file: a number and a command line in each line.
    "pgrep": (
        "found=1; while read -r pid line; do\n"
        'if printf "%s\\n" "$line" | grep -qE -- "$2"; then echo "$pid"; found=0; fi\n'
        'done < "$ROOT/processes"; exit $found'
    ),
}


def signed(
    folder: LabFolder,
    ca: str,
    name: str,
    group: str | None = None,
    *,
    usage: x509.ObjectIdentifier = Usage.CLIENT_AUTH,
    names: Sequence[x509.GeneralName] = (),
    ends: datetime.datetime,
) -> KeyPair:
    """A certificate as kubeadm makes them: valid for a year until `ends`."""
    pki = folder.path / "pki"
    issuer = x509.load_pem_x509_certificate((pki / f"{ca}.crt").read_bytes())
    issuer_key: Any = serialization.load_pem_private_key((pki / f"{ca}.key").read_bytes(), None)
    key = ec.generate_private_key(ec.SECP256R1())
    groups = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([*groups, x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .serial_number(x509.random_serial_number())
        .not_valid_before(ends - datetime.timedelta(days=365))
        .not_valid_after(ends)
        .public_key(key.public_key())
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return KeyPair(pem(builder.sign(issuer_key, hashes.SHA256())), key_pem(key))


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def inline(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def kubeconfig(**users: KeyPair) -> str:
    """A kubeconfig as kubeadm writes it."""
    lines = ["apiVersion: v1", "clusters:", "- cluster:", f"    server: {SERVER}", "  name: one"]
    lines += ["kind: Config", "users:"]
    for name, pair in users.items():
        lines += [f"- name: {name}", "  user:"]
        lines += [f"    client-certificate-data: {inline(pair.public)}", f"    client-key-data: {inline(pair.private)}"]
    return "\n".join(lines) + "\n"


class Guest:
    """One node's files, and its shell. `clock` is what its clock shows; `programs` are stubs of the test's own."""

    def __init__(self, root: Path, folder: LabFolder, plan: Plan, node: Node, ends: datetime.datetime) -> None:
        self.root, self.node, self.clock = root, node, NOW
        self.programs: dict[str, str] = {}
        for path in (*FOLDERS, "/etc/kubernetes/pki/etcd", "/var/lib/kubelet/pki", "/run"):
            self.path(path).mkdir(parents=True)
        (root / "log").touch()
        (root / "processes").touch()
        if node.is_control_plane:
            self._kubeadm(folder, plan, ends)
        pair = signed(folder, "ca", f"system:node:{node.name}", "system:nodes", ends=ends)
        self.path("/var/lib/kubelet/pki/kubelet-client-2025-01-01-00-00-00.pem").write_text(pair.public + pair.private)
        self.path(KUBELET_CLIENT).symlink_to(root / "var/lib/kubelet/pki/kubelet-client-2025-01-01-00-00-00.pem")
        for name in ("kubelet.crt", "kubelet.key"):
            self.path(f"/var/lib/kubelet/pki/{name}").write_text("its own\n")
        self.path("/etc/kubernetes/kubelet.conf").write_text(f"client-certificate: {KUBELET_CLIENT}\n")

    def _kubeadm(self, folder: LabFolder, plan: Plan, ends: datetime.datetime) -> None:
        pki = self.path("/etc/kubernetes/pki")
        for name, text in load_or_make(folder).control_plane_files.items():
            (pki / name).write_text(text)
        hosts = [x509.DNSName("kubernetes"), *(general(each) for each in api_names(plan))]
        for file, (ca, name, group, usage) in PKI.items():
            names = hosts if usage == Usage.SERVER_AUTH else []
            name = name.replace("NODE", self.node.name)
            pair = signed(folder, ca, name, group, usage=usage, names=names, ends=ends)
            (pki / f"{file}.crt").write_text(pair.public)
            (pki / f"{file}.key").write_text(pair.private)
        for file, (name, group) in CONFIGS.items():
            pair = signed(folder, "ca", name, group, ends=ends)
            self.path(f"/etc/kubernetes/{file}.conf").write_text(kubeconfig(**{file: pair}))

    def path(self, path: str) -> Path:
        return self.root / path.removeprefix("/")

    def run(self, argv: Sequence[str], script: str) -> Completed:
        """Run a script of klab's with the node's paths and programs."""
        for path in (*FOLDERS, *COPIES, LOCK):
            script = script.replace(path, str(self.path(path)))
        place = self.root / "bin"
        place.mkdir(exist_ok=True)
        for name, text in {**STUBS, **self.programs}.items():
            (place / name).write_text(f"#!/bin/sh\n{text}\n")
            (place / name).chmod(0o755)
        env = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}", "ROOT": str(self.root)}
        env["CLOCK"] = str(int(self.clock.timestamp()))
        done = subprocess.run(argv, input=script, capture_output=True, text=True, env=env, timeout=60)
        # Paths as the node itself would tell them.
        return Completed(tuple(argv), done.returncode, done.stdout.replace(str(self.root), ""), done.stderr)

    def files(self) -> dict[str, str]:
        """Every file of the node's and what it holds; where a link leads to."""
        found = {}
        for folder in ("etc", "var"):
            for path in sorted((self.root / folder).rglob("*")):
                if path.is_symlink() or path.is_file():
                    found[f"/{path.relative_to(self.root)}"] = (
                        str(path.readlink()) if path.is_symlink() else path.read_text()
                    )
        return found

    @property
    def log(self) -> list[str]:
        return (self.root / "log").read_text().splitlines()


def general(name: str) -> x509.GeneralName:
    import ipaddress

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


class GuestMachines(FakeMachines):
    """Fake machines whose shells are those of `guests`; `told` keeps who was given which script, in order."""

    def __init__(self, *lab: Any, guests: dict[str, Guest], told: list[tuple[str, str]]) -> None:
        super().__init__(*lab)
        self.guests = guests
        self.told = told

    def ssh(
        self, node: str, command: Sequence[str], timeout: float, check: bool = True, stdin: str | None = None
    ) -> Completed:
        if stdin is None:
            return super().ssh(node, command, timeout, check)
        if self.states()[node] != NodeState.RUNNING or timeout <= 0:
            raise MachineError(f"{node} does not answer ssh")
        assert command[0] == "sudo"
        self.told.append((node, stdin))
        return self.guests[node].run(command[1:], stdin)

    def run(self, node: str, command: Sequence[str], timeout: float) -> Completed:
        if tuple(command) == ASK:
            return self.ssh(node, ["sudo", "sh", "-s"], timeout, check=False, stdin=TELL)
        return super().run(node, command, timeout)

    def set_clock(self, node: str, clock: Callable[[], float], timeout: float) -> float:
        done = super().set_clock(node, clock, timeout)
        self.guests[node].clock = datetime.datetime.fromtimestamp(clock(), datetime.UTC)
        return done
