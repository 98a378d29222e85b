"""The admin's kubeconfig, made on the host from what `secrets` made."""

from __future__ import annotations

import base64

from lab.cluster.secrets import admin_files
from lab.files import write_atomic
from lab.plan.model import Plan
from lab.render.yamltext import dump
from lab.store import LabFolder


def server(plan: Plan) -> str:
    """The URL of the lab's API server."""
    address, port = plan.api_endpoint
    return f"https://{address}:{port}"


def write_kubeconfig(folder: LabFolder, plan: Plan) -> None:
    """Write the lab's kubeconfig, readable by the owner alone; everything in it is inline."""
    files = admin_files(folder)
    name = f"klab-{plan.name}"

    def inline(data: bytes) -> str:
        return base64.b64encode(data).decode()

    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": name,
                "cluster": {"server": server(plan), "certificate-authority-data": inline(files.ca.read_bytes())},
            }
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": inline(files.certificate.read_bytes()),
                    "client-key-data": inline(files.key.read_bytes()),
                },
            }
        ],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    write_atomic(folder.kubeconfig, dump(config), mode=0o600)
