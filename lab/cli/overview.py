"""The commands, their old names, and the text of `klab --help`; imports nothing, so that help comes at once."""

from __future__ import annotations

COMMANDS = {
    "create": "Create a lab from a scenario and wait until it is Ready.",
    "destroy": "Remove a lab: its machines, disks, networks, snapshots and files.",
    "stop": "Shut down a lab, or some of its nodes.",
    "start": "Start a stopped lab, or some of its nodes, and wait until it is Ready.",
    "reboot": "Reboot a lab, or some of its nodes, and wait until it is Ready.",
    "snapshot": "Take a snapshot of a whole lab; verify, remove, rename and prune snapshots.",
    "snapshots": "List a lab's snapshots.",
    "restore": "Restore a lab from a snapshot.",
    "export": "Export a stopped lab to a bundle: one file from which others create the same lab.",
    "import": "Create a lab from a bundle and wait until it is Ready.",
    "bundles": "List the bundles that klab has kept, or show what is in a file.",
    "diff": "Show which Kubernetes objects differ between two snapshots, or one and now.",
    "scale": "Add or remove nodes until a lab has the given number.",
    "node": "Add, remove or replace one node; or reset it and let it join again.",
    "upgrade": "Upgrade a lab's Kubernetes by kubeadm, node by node.",
    "image": "Bring container images to all nodes; list, remove and check them.",
    "addon": "Bring well-known add-ons to a lab; list and remove them.",
    "token": "Make a fresh join command.",
    "certs": "Show a lab's certificates, or renew them all.",
    "list": "List the labs on this machine.",
    "status": "Show a lab's machines and whether its cluster is Ready.",
    "ssh": "Open a shell on a node, or run one command there.",
    "inventory": "Print how to reach the nodes: for Ansible, ssh or /etc/hosts.",
    "shell": "Open tmux with a shell on each node.",
    "kubeconfig": "Print a lab's kubeconfig, or merge it into your own.",
    "kubectl": "Run kubectl against a lab.",
    "logs": "Show what a node printed on its console.",
    "timeline": "Show where the time of a create went.",
    "scenarios": "List the shipped scenarios with a picture of each.",
    "plan": "Show what create would make and whether it fits.",
    "validate": "Check scenario files.",
    "schema": "Print the JSON Schema of scenario files.",
    "box": "Build, list, verify, lock and remove boxes.",
    "doctor": "Check whether this machine can run labs, or what is broken in one.",
    "vagrant": "Run vagrant in a lab's folder.",
    "connect": "Connect standard input and output to a node's port: ssh's ProxyCommand.",
    "completion": "Print the completion script for a shell.",
}
# What commands were called in version 0.1: they still work, and neither help nor completion shows them.
ALIASES = {"checkpoint": "export", "checkpoints": "bundles"}
_WIDTH = max(len(name) for name in COMMANDS)

HELP = """\
Usage: klab [OPTIONS] COMMAND [ARGUMENTS]...

  A scenario file becomes a lab of real virtual machines running real Kubernetes.

  Examples:
    klab create 1m2w             three machines, one cluster
    klab kubectl -- get nodes    kubectl, pointed at the lab
    klab destroy -y              remove the lab completely

Options:
  -v, --verbose  Show each program that klab runs; LAB/logs/klab.log has them, too.
  --debug        Show tracebacks, and what klab logs (also: KLAB_DEBUG=1).
  --version      Show the version and exit.
  -h, --help     Show this message and exit; klab COMMAND --help shows a command's.

Commands:
""" + "\n".join(f"  {name.ljust(_WIDTH)}  {text}" for name, text in COMMANDS.items())
