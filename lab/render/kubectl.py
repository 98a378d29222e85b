"""kubectl for people on a node: where it finds the cluster. Completion and the alias `k` are in the box.

As kubeadm says after `kubeadm init`, and courses' scripts do: root and vagrant have a copy of admin.conf each.
Source: kubernetes.io, "Creating a cluster with kubeadm".
"""

from __future__ import annotations

from lab.plan.model import Plan

ADMIN_CONF = "/etc/kubernetes/admin.conf"
# The homes of those who have a copy, as klab's boxes have them.
COPIES = ("/root/.kube/config", "/home/vagrant/.kube/config")

_GIVE = f"""\
# kubectl finds the cluster. A file in which somebody has other clusters, too, stays.
server=$(awk '$1 == "server:" {{ print $2; exit }}' {ADMIN_CONF})
for copy in {" ".join(COPIES)}; do
    home=${{copy%/.kube/config}}
    [ -d "$home" ] || continue
    grep -s 'server: ' "$copy" | grep -qvF "server: $server" && continue
    owner=$(stat -c %u:%g "$home")
    mkdir -p "$home/.kube"
    chown "$owner" "$home/.kube"
    install -m 600 -o "${{owner%:*}}" -g "${{owner#*:}}" {ADMIN_CONF} "$copy"
done
"""

# The two lines of the user's entry, where kubectl and kubeadm write them; the rest is the person's.
_REFRESH_AWK = """\
$1 == "-" && $2 == "name:" { name = $3 }
FNR == NR { if ($1 ~ /^client-.*-data:$/) { new[$1] = $2; user = name }; next }
name == user && ($1 in new) { sub(/[^ ]*$/, new[$1]) }
{ print }
"""

# Before kubeadm deletes what a copy is known by. `kubeadm reset` itself leaves copies, and says that they are to be
# removed by hand; with them kubectl would be refused in words that hide why.
_TAKE = """\
for copy in {copies}; do
    servers=$(grep -s 'server: ' "$copy" | sort -u)
    [ "$servers" != "    server: {server}" ] || rm -f "$copy"
done
"""


def render_give() -> str:
    """The part of a control plane's script that gives root and vagrant admin.conf. Idempotent."""
    return _GIVE


def render_refresh() -> str:
    """The part of a script that puts the certificate of admin.conf into its copies; one of another cluster stays."""
    return f"""\
if [ -s {ADMIN_CONF} ]; then
    server=$(awk '$1 == "server:" {{ print $2; exit }}' {ADMIN_CONF})
    for copy in {" ".join(COPIES)}; do
        if [ ! -f "$copy" ] || [ -L "$copy" ] || ! grep -qF "server: $server" "$copy"; then continue; fi
        awk '{_REFRESH_AWK}' {ADMIN_CONF} "$copy" > "$copy.klab"
        chown --reference="$copy" "$copy.klab"
        chmod 600 "$copy.klab"
        mv -f "$copy.klab" "$copy"
    done
fi
"""


def render_take(plan: Plan) -> str:
    """The part of a script that removes the copies of a cluster that the node leaves; one with more in it stays."""
    address, port = plan.api_endpoint
    return _TAKE.format(copies=" ".join(COPIES), server=f"https://{address}:{port}")
