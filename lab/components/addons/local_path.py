"""local-path-provisioner: volumes that are folders on the node of the pod that asks first. Its class is the default.

As upstream's manifest has it, but for these: the class is the default one; provisioner and helper pods may run on a
control plane; the helper image is the busybox of klab's boxes; a helper pod has ten minutes where upstream gives it
two, since an emulated lab is ten times slower. The namespace says to Pod Security admission that helper pods mount the
node's folders.
Sources: github.com/rancher/local-path-provisioner 0.0.30, deploy/local-path-storage.yaml, provisioner.go and README.md.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from lab.components.addons.base import Addon
from lab.components.cluster import Cluster
from lab.components.objects import account, binding, field, mounted, on_control_planes, role

NAME = "local-path-provisioner"
NAMESPACE = "local-path-storage"
CLASS, PROVISIONER = "local-path", "rancher.io/local-path"
CONFIG, CONFIG_FOLDER = "local-path-config", "/etc/config/"
# The provisioner gives it to helper pods, unless it is told another name.
ACCOUNT = f"{NAME}-service-account"
ROLE, BINDING = f"{NAME}-role", f"{NAME}-bind"
# Where a node's volumes are.
FOLDER = "/opt/local-path-provisioner"
HELPER_IMAGE = "docker.io/library/busybox:latest"
HELPER_SECONDS = 600
READ = "get list watch"
CHANGE = f"{READ} create patch update delete"

_SETUP = """\
#!/bin/sh
set -eu
mkdir -m 0777 -p "$VOL_DIR"
"""
_TEARDOWN = """\
#!/bin/sh
set -eu
rm -rf "$VOL_DIR"
"""


class LocalPath(Addon):
    """local-path-provisioner with a default class."""

    name = "local-path"
    summary = "volumes on the nodes' disks; a default StorageClass"
    version = "0.0.30"
    # Before, helper pods were not let in: critical pods were in kube-system or nowhere (kubernetes pull request 76310).
    since = (1, 17)
    repositories = MappingProxyType({NAME: "docker.io/rancher/local-path-provisioner"})
    namespaces = (NAMESPACE,)
    pods = (NAME,)
    storage_class = CLASS

    def objects(self, cluster: Cluster) -> Sequence[dict[str, Any]]:  # noqa: ARG002
        labels = {"app": NAME}
        return (
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": NAMESPACE, "labels": {"pod-security.kubernetes.io/enforce": "privileged"}},
            },
            account(ACCOUNT, NAMESPACE),
            *_permissions(),
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": CONFIG, "namespace": NAMESPACE},
                "data": configuration(),
            },
            _class(),
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": NAME, "namespace": NAMESPACE},
                "spec": {
                    "replicas": 1,
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": _pod(self.images[NAME])},
                },
            },
        )


COMPONENT = LocalPath()


def configuration() -> dict[str, str]:
    """The provisioner's configuration: where volumes are, and how a helper pod makes and removes one."""
    config = {
        "nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": [FOLDER]}],
        "cmdTimeoutSeconds": HELPER_SECONDS,
    }
    return {
        "config.json": json.dumps(config, indent=2) + "\n",
        "setup": _SETUP,
        "teardown": _TEARDOWN,
        # JSON is YAML, too.
        "helperPod.yaml": json.dumps(helper_pod(), indent=2) + "\n",
    }


def helper_pod() -> dict[str, Any]:
    """The pod that makes or removes a volume; the provisioner adds node, command, volumes and every toleration."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "helper-pod"},
        "spec": {
            "priorityClassName": "system-node-critical",
            "containers": [{"name": "helper-pod", "image": HELPER_IMAGE, "imagePullPolicy": "IfNotPresent"}],
        },
    }


def _permissions() -> list[dict[str, Any]]:
    helpers = role(ROLE, ("", "pods", CHANGE))
    helpers = {**helpers, "kind": "Role", "metadata": {"name": ROLE, "namespace": NAMESPACE}}
    return [
        helpers,
        binding(BINDING, ROLE, ACCOUNT, NAMESPACE, kind="Role"),
        role(
            ROLE,
            ("", "nodes persistentvolumeclaims configmaps pods pods/log", READ),
            ("", "persistentvolumes", CHANGE),
            ("", "events", "create patch"),
            ("storage.k8s.io", "storageclasses", READ),
        ),
        binding(BINDING, ROLE, ACCOUNT, NAMESPACE),
    ]


def _class() -> dict[str, Any]:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": PROVISIONER,
        # A volume is made where the pod that wants it was scheduled to.
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
    }


def _pod(image: str) -> dict[str, Any]:
    return {
        "serviceAccountName": ACCOUNT,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": on_control_planes(),
        "containers": [
            {
                "name": NAME,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": [f"/usr/bin/{NAME}", "--debug", "start", "--config", f"{CONFIG_FOLDER}config.json"],
                "resources": {"requests": {"cpu": "10m", "memory": "40Mi"}},
                "env": [
                    field("POD_NAMESPACE", "metadata.namespace"),
                    {"name": "CONFIG_MOUNT_PATH", "value": CONFIG_FOLDER},
                ],
                "volumeMounts": [mounted("config-volume", CONFIG_FOLDER)],
            }
        ],
        "volumes": [{"name": "config-volume", "configMap": {"name": CONFIG}}],
    }
