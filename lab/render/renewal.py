"""A node's certificates: where they are, and scripts for root's shell there that tell of them and renew them.

Source: kubernetes.io, "PKI certificates and requirements"; for the kubelet's files "TLS bootstrapping".
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from lab.render.kubectl import ADMIN_CONF, render_refresh
from lab.render.secrets import KeyPair

KUBERNETES = "/etc/kubernetes"
PKI = f"{KUBERNETES}/pki"
KUBELET_PKI = "/var/lib/kubelet/pki"
# The kubelet reads a certificate and its key from one file, and changes them by changing a link.
KUBELET_CLIENT = f"{KUBELET_PKI}/kubelet-client-current.pem"
RENEWED_KUBELET_CLIENT = f"{KUBELET_PKI}/kubelet-client-klab.pem"
LOCK = "/run/klab-renew.lock"
RESTARTED = ("kube-apiserver", "kube-controller-manager", "kube-scheduler")
# As long as the kubelet gives a pod to end; an API server that has clients takes longer than that.
STOP_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Held:
    """A certificate that kubeadm puts on a node: its file, the CA that signs it, what it is for.

    `ca` is a CA's name as in `lab.cluster.secrets.authorities`. Beside a .crt lies its .key; a
    kubeconfig (.conf) holds both, and may hold more certificates than kubeadm has put there.
    """

    file: str
    ca: str
    use: str


@dataclass(frozen=True, slots=True)
class Replacement:
    """A certificate and its key that take the place of those in a file; `old` is what TELL told of the old one."""

    file: str
    old: str
    new: KeyPair


CONTROL_PLANE = (
    Held(f"{PKI}/apiserver.crt", "ca", "API server, to its clients"),
    Held(f"{PKI}/apiserver-kubelet-client.crt", "ca", "API server, as a client of kubelets"),
    Held(f"{PKI}/apiserver-etcd-client.crt", "etcd-ca", "API server, as a client of etcd"),
    Held(f"{PKI}/front-proxy-client.crt", "front-proxy-ca", "API server, as a client of its extensions"),
    Held(f"{PKI}/etcd/server.crt", "etcd-ca", "etcd, to its clients"),
    Held(f"{PKI}/etcd/peer.crt", "etcd-ca", "etcd, to its other members"),
    Held(f"{PKI}/etcd/healthcheck-client.crt", "etcd-ca", "kubeadm, as a client of etcd"),
    Held(f"{KUBERNETES}/admin.conf", "ca", "kubectl and kubeadm on the node"),
    Held(f"{KUBERNETES}/controller-manager.conf", "ca", "controller manager, as a client of the API"),
    Held(f"{KUBERNETES}/scheduler.conf", "ca", "scheduler, as a client of the API"),
)
# What a node may well be without: the first control plane alone has the one, and the other
# holds a certificate only until the kubelet has one of its own.
PERHAPS = (
    Held(f"{KUBERNETES}/super-admin.conf", "ca", "an administrator locked out by RBAC"),
    Held(f"{KUBERNETES}/kubelet.conf", "ca", "kubelet, as a client of the API"),
)
KUBELET = Held(KUBELET_CLIENT, "ca", "kubelet, as a client of the API")
AUTHORITIES = {
    f"{PKI}/ca.crt": "CA of the cluster",
    f"{PKI}/front-proxy-ca.crt": "CA of the API server's extensions",
    f"{PKI}/etcd/ca.crt": "CA of etcd",
}
USES = {held.file: held.use for held in (*CONTROL_PLANE, *PERHAPS, KUBELET)} | AUTHORITIES

# A line "certificate=FILE BASE64" for each: a DER certificate, or a whole PEM one where it came
# from a kubeconfig. awk passes over keys, which some of the files hold, too.
TELL_CERTIFICATES = f"""\
set --
for file in {PKI}/*.crt {PKI}/etcd/*.crt {KUBERNETES}/*.conf {KUBELET_CLIENT}; do
    [ -s "$file" ] && set -- "$@" "$file"
done
[ $# -gt 0 ] && awk '
    /-BEGIN CERTIFICATE-/ {{ on = 1; pem = ""; next }}
    /-END CERTIFICATE-/ {{ if (on) print "certificate=" FILENAME " " pem; on = 0; next }}
    on {{ pem = pem $0 }}
    $1 == "client-certificate-data:" {{ print "certificate=" FILENAME " " $2 }}' "$@"
"""
TELL = f"""\
export LC_ALL=C
{TELL_CERTIFICATES}date +now=%s
"""

# Ends each text in a script; no certificate, key or awk program has such a line.
_END = "KLAB_END_OF_FILE"

# The kubelet restarts what ends. Returns when the old processes are gone: a server that answers
# then has read the new certificates. etcd reads its files for each connection and keeps running
# (etcd, client/pkg/transport/listener.go).
_STOP = f"""\
stop() {{
    ended=$(pgrep -f '^({"|".join(RESTARTED)}) ') || [ $? -eq 1 ]
    for process in $ended; do kill "$process" || true; done
    for _ in $(seq {STOP_SECONDS}); do
        left=
        for process in $ended; do [ ! -e "/proc/$process" ] || left="$left $process"; done
        [ -n "$left" ] || return 0
        sleep 1
    done
    for process in $left; do kill -KILL "$process" || true; done
}}
"""

# Functions, called by the last line: a shell that was sent only half of it does nothing.
# The lock: an earlier run that klab was cut off from may still be at work on the node.
_HEAD = f"""\
put() {{
    cat > "$1.klab"
    chmod "$2" "$1.klab"
    mv -f "$1.klab" "$1"
}}
edit() {{
    awk -f /dev/stdin "$1" > "$1.klab" || {{ echo "$1 is not as kubeadm writes it" >&2; return 1; }}
    chmod 600 "$1.klab"
    mv -f "$1.klab" "$1"
}}
renew() {{
set -eu
umask 077
exec 9> {LOCK}
flock 9
"""

_KUBELET = f"""\
ln -sf {RENEWED_KUBELET_CLIENT} {KUBELET_CLIENT}.klab
mv -fT {KUBELET_CLIENT}.klab {KUBELET_CLIENT}
"""

# The kubelet signs its serving certificate itself where it finds none.
_UNSERVED = f"rm -f {KUBELET_PKI}/kubelet.crt {KUBELET_PKI}/kubelet.key\n"

# After its restart the kubelet tries at once what it had come to try only every five minutes.
_TAIL = """\
systemctl restart kubelet
}
renew
"""

# Restarts the control plane's programs, but for etcd, with the certificates that are there.
RESTART = f"{_STOP}restart() {{\nset -eu\nstop\n}}\nrestart\n"


# In one entry of a kubeconfig; kubectl and kubeadm write the two values on lines of their own, in this order.
_EDIT = """\
$1 == "client-certificate-data:" && $2 == "{old}" {{ sub(/[^ ]*$/, "{certificate}"); at = NR }}
at && NR == at + 1 && $1 == "client-key-data:" {{ sub(/[^ ]*$/, "{key}"); done = 1 }}
{{ print }}
END {{ exit !done }}
"""


def render_renewal(
    replacements: Sequence[Replacement], kubelet: KeyPair | None, served: KeyPair | None = None, *, restart: bool
) -> str:
    """The script that puts certificates and keys in the place of older ones on a node. Idempotent.

    Args:
        replacements: what takes whose place.
        kubelet: the kubelet's, as a client; left as it is without one.
        served: the kubelet's, as a server; without one it signs one itself.
        restart: restart the control plane's programs, too, as RESTART does.
    """
    parts = [_STOP, _HEAD] if restart else [_HEAD]
    for each in replacements:
        if each.file.endswith(".conf"):
            certificate, key = (base64.b64encode(pem.encode()).decode() for pem in (each.new.public, each.new.private))
            parts.append(_text(f"edit {each.file}", _EDIT.format(old=each.old, certificate=certificate, key=key)))
        else:
            # The key first: a certificate without its key would be taken for whole.
            parts.append(_text(f"put {each.file.removesuffix('.crt')}.key 600", each.new.private))
            parts.append(_text(f"put {each.file} 644", each.new.public))
    if any(each.file == ADMIN_CONF for each in replacements):
        parts.append(render_refresh())
    if kubelet is not None:
        parts += [_text(f"put {RENEWED_KUBELET_CLIENT} 600", kubelet.public + kubelet.private), _KUBELET]
    if served is None:
        parts.append(_UNSERVED)
    else:
        parts.append(_text(f"put {KUBELET_PKI}/kubelet.key 600", served.private))
        parts.append(_text(f"put {KUBELET_PKI}/kubelet.crt 644", served.public))
    return "".join([*parts, *(["stop\n"] if restart else []), _TAIL])


def _text(command: str, content: str) -> str:
    return f"{command} <<'{_END}'\n{content}{_END}\n"
