"""Scripts for root's shell on a node that becomes one of another Kubernetes version, as kubeadm's documentation has it.

Source: kubernetes.io, "Upgrading kubeadm clusters". The packages join those that the node's box has.
"""

from __future__ import annotations

from lab.components.kubernetes.packages import KUBERNETES, PLAIN, package_version, render_add
from lab.components.runtime.base import NODE_REGISTRY_STORAGE, NODE_REGISTRY_USER
from lab.plan.model import Node, Plan
from lab.render.kubeadm import PATIENT_GOGC, render_patches, render_upgrade

FOLDER = "/var/lib/klab"
LOG = "/var/log/klab-kubeadm.log"
_CONFIG_FOLDER = "/etc/klab-upgrade"
_LOCK = "/run/klab-upgrade.lock"
# Returns when no script of an upgrade is at work on the node.
WAIT = f"flock {_LOCK} true"
# Ends each file in the script; no file that klab renders has such a line.
_END = "KLAB_END_OF_FILE"

# The function is called by the last line: a shell that was sent only half of it does nothing. The lock: a klab that
# was killed may have left a script at work, which ends what it has begun.
_SCRIPT = """\
main() {{
    set -eu
    exec 9> {lock}
    flock 9
{body}}}
main
"""

_IMAGES = f"""\
[ -e {{folder}}/done ] && exit 0
chown -R {NODE_REGISTRY_USER}: {{folder}}/registry
# Blobs that are there already stay: the runtime's own store may share them.
cp -an {{folder}}/registry/. {NODE_REGISTRY_STORAGE}/
install -m 755 {{folder}}/bin/etcdctl {{folder}}/bin/etcdutl /usr/bin/
"""
_DONE = """\
rm -rf {folder}/bin {folder}/registry
touch {folder}/done
"""

# A person's apt-mark hold stays, which apt forgets.
_INSTALL = """\
export DEBIAN_FRONTEND=noninteractive
held=$(apt-mark showhold {programs})
apt-get install -qq -y --allow-change-held-packages {packages} >> {log} 2>&1 || {{ tail -n 25 {log} >&2; exit 1; }}
[ -z "$held" ] || apt-mark hold $held > /dev/null
"""

_KUBEADM = f"""\
mkdir -p {_CONFIG_FOLDER}
{{files}}{{gogc}}kubeadm upgrade {{command}} >> {LOG} 2>&1 || {{{{ tail -n 25 {LOG} >&2; exit 1; }}}}
rm -rf {_CONFIG_FOLDER}
"""

_KUBELET = """\
systemctl daemon-reload
systemctl restart kubelet
"""


def folder_of(version: str) -> str:
    """Where a node has what came with `RECEIVE` for a version."""
    return f"{FOLDER}/kubernetes-{version}"


def render_look(version: str) -> str:
    """Exits with 0 where a node has the packages and images of a version already."""
    return f"test -e {folder_of(version)}/done"


def render_receive(version: str) -> str:
    """Unpacks the tar of `lab.boxes.upgrade` from its standard input; whole, or not at all."""
    folder = folder_of(version)
    partial = f"{folder}.partial"
    # The ssh of a klab that was killed may still be at it.
    return (
        f"set -e; exec 9> {_LOCK}; flock 9; [ ! -e {folder} ] || exit 0; "
        f"rm -rf {partial}; mkdir -p {partial}; tar -x --zstd --no-same-owner -C {partial}; mv {partial} {folder}"
    )


def render_packages(version: str) -> str:
    """Makes what was received into Debian packages and images that this node can get without a network. Idempotent."""
    folder = folder_of(version)
    packages = render_add(dict.fromkeys(KUBERNETES, version), f"{folder}/bin", PLAIN)
    return _script(_IMAGES.format(folder=folder) + packages + _DONE.format(folder=folder))


def render_kubeadm(plan: Plan, node: Node, *, first: bool, slow_host: bool) -> str:
    """Installs kubeadm and lets it upgrade a node; its kubelet is left. Idempotent.

    Args:
        plan: the lab, with the version that it is to have.
        node: the node.
        first: the whole cluster is upgraded from here, by `kubeadm upgrade apply`.
        slow_host: as in `lab.render.kubeadm.render_patches`.
    """
    version, features = plan.kubernetes.version, plan.kubernetes.versions.features
    config, patches = f"{_CONFIG_FOLDER}/kubeadm.yaml", f"{_CONFIG_FOLDER}/patches"
    files: dict[str, str] = {}
    if node.is_control_plane and features.patches:
        # A member's flags are of its first day: etcd reads who the others are from its data.
        found = {name: text for name, text in render_patches(plan, slow_host=slow_host).items() if "etcd" not in name}
        files = {f"{patches}/{name}": text for name, text in found.items()}
    command = f"apply v{version} --yes" if first else "node"
    if features.timeouts:
        files[config] = render_upgrade(plan, slow_host=slow_host, patches=patches if files else "")
        command = f"apply --yes --config {config}" if first else f"node --config {config}"
    else:
        command += " --certificate-renewal=false"
        command += f" --patches {patches}" if files else ""
        command += " --ignore-preflight-errors=CreateJob" if first and slow_host else ""
    body = _install("kubeadm", version=version) + _KUBEADM.format(
        files="".join(_put(path, text) for path, text in files.items()),
        gogc=f"export GOGC={PATIENT_GOGC}\n" if slow_host else "",
        command=command,
    )
    return _script(body)


def render_kubelet(version: str) -> str:
    """Installs kubelet and kubectl, and restarts the kubelet. Idempotent."""
    return _script(_install("kubelet", "kubectl", version=version) + _KUBELET)


def commands_by_hand(plan: Plan) -> list[str]:
    """What a person does once the nodes have the packages, in order: on a node (NODE: COMMAND), or with kubectl."""
    version, lines = plan.kubernetes.version, []
    package = package_version(version)
    for node in plan.nodes:
        act = f"apply v{version}" if node == plan.control_planes[0] else "node"
        lines += [
            f"{node.name}: sudo apt-get install -y kubeadm={package} && sudo kubeadm upgrade {act}",
            f"kubectl drain {node.name} --ignore-daemonsets --delete-emptydir-data",
            f"{node.name}: sudo apt-get install -y kubelet={package} kubectl={package}"
            " && sudo systemctl restart kubelet",
            f"kubectl uncordon {node.name}",
        ]
    return lines


def _install(*programs: str, version: str) -> str:
    packages = " ".join(f"{program}={package_version(version)}" for program in programs)
    return _INSTALL.format(programs=" ".join(programs), packages=packages, log=LOG)


def _put(path: str, text: str) -> str:
    return f"mkdir -p {path.rpartition('/')[0]}\ncat > {path} <<'{_END}'\n{text}{_END}\n"


def _script(body: str) -> str:
    return _SCRIPT.format(lock=_LOCK, body=body)
