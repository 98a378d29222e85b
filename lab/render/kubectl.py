"""kubectl for people on a node: where it finds the cluster, completion, and the alias `k`.

As kubeadm says after `kubeadm init`, and courses' scripts do: root and vagrant have a copy of admin.conf each.
Source: kubernetes.io, "Creating a cluster with kubeadm" and "kubectl Quick Reference".
"""

from __future__ import annotations

from lab.components.cluster import File
from lab.plan.model import Plan

ADMIN_CONF = "/etc/kubernetes/admin.conf"
# The homes of those who have a copy, as klab's boxes have them.
COPIES = ("/root/.kube/config", "/home/vagrant/.kube/config")
SHELL_FILE = "/usr/local/share/klab/kubectl.bash"
BASHRC = "/etc/bash.bashrc"  # Debian's bash reads it in each interactive shell, a login shell or not

# kubectl and kubeadm are asked for their completion at the first Tab: asking takes seconds where a host is slow, and
# after an upgrade the answer is another. They expect the functions of the package bash-completion, which klab's boxes
# do not have (cobra's bash_completionsV2.go); where somebody installs it, its own are taken.
_SHELL = r"""# Made by klab: completion for kubectl and kubeadm, and the alias k.
if ! declare -F _get_comp_words_by_ref > /dev/null; then
    # _get_comp_words_by_ref -n CHARACTERS cur prev words cword
    # Bash splits words at = and : as well; what stands at one of CHARACTERS without a blank is one word again.
    # shellcheck disable=SC2034
    _get_comp_words_by_ref() {
        local line=$COMP_LINE glue="[${2:-=}]" word
        local -i i
        words=() cword=0
        for i in "${!COMP_WORDS[@]}"; do
            word=${COMP_WORDS[i]}
            if ((i > 0)) && [[ $line != [[:space:]]* ]] && [[ $word == $glue* || ${words[-1]} == *$glue ]]; then
                words[-1]+=$word
            else
                words+=("$word")
            fi
            ((i == COMP_CWORD)) && cword=$((${#words[@]} - 1))
            line=${line#*"$word"}
        done
        cur=${words[cword]} prev=
        ((cword > 0)) && prev=${words[cword - 1]}
        return 0
    }
    __ltrim_colon_completions() {
        local -i i
        [[ $1 == *:* && $COMP_WORDBREAKS == *:* ]] || return 0
        for i in "${!COMPREPLY[@]}"; do
            COMPREPLY[i]=${COMPREPLY[i]#"${1%"${1##*:}"}"}
        done
    }
fi
if ! declare -F _filedir > /dev/null; then
    _filedir() {
        mapfile -t COMPREPLY < <(if [[ ${1-} == -d ]]; then compgen -d -- "$cur"; else compgen -f -- "$cur"; fi)
    }
fi
_klab_complete() {
    local program=kubectl
    [[ $1 == kubeadm ]] && program=kubeadm
    # shellcheck disable=SC1090
    . <("$program" completion bash 2> /dev/null)
    declare -F "__start_$program" > /dev/null || return 1
    [[ $1 == "$program" ]] || complete -o default -F "__start_$program" "$1"
    return 124 # bash tries again, with the completion that there is now
}
alias k=kubectl
complete -o default -F _klab_complete kubectl kubeadm k
"""

_HOOK = f"""\
grep -qs {SHELL_FILE} {BASHRC} ||
    echo '[ ! -r {SHELL_FILE} ] || . {SHELL_FILE}' >> {BASHRC}
"""

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


def shell_files() -> list[File]:
    """The files that a person's shell reads."""
    return [File(SHELL_FILE, _SHELL)]


def render_hook() -> str:
    """The part of a node's script after which shells read `shell_files`. Idempotent."""
    return _HOOK


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
