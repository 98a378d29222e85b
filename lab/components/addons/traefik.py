"""Traefik: one pod that leads HTTP and HTTPS requests to services, by Ingress objects.

As upstream's Helm chart has it by default, but for these: it reads Ingress objects alone, neither Traefik's own kinds
nor the Gateway API's, whose definitions hold 700 KB and cannot be cut down, since they also fill in what a route leaves
out; there is no dashboard, whose built files are not in the Go module, and there are no metrics; it does not ask
upstream for newer versions. Its IngressClass is the default one. Its Service is of type LoadBalancer: with MetalLB it
has an address, without it the ports that Kubernetes chooses on every node.
Source: github.com/traefik/traefik-helm-chart, traefik/values.yaml; doc.traefik.io, "Traefik & Kubernetes".
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

from lab.components.addons.base import Addon
from lab.components.cluster import Cluster
from lab.components.objects import account, bound, container_port, mounted, on_control_planes, role

NAME = NAMESPACE = "traefik"
CONTROLLER = "traefik.io/ingress-controller"
READ = "get list watch"
# Entry points by name: the Service's port, and the container's, which needs no privilege.
ENTRY_POINTS = MappingProxyType({"web": (80, 8000), "websecure": (443, 8443)})
# Where it answers probes.
PING_PORT = 8080
USER = 65532


class Traefik(Addon):
    """Traefik as the default ingress controller."""

    name = NAME
    summary = "Ingress objects, by Traefik as the default class"
    version = "3.6.12"
    # EndpointSlices of version v1.
    since = (1, 21)
    repositories = MappingProxyType({NAME: "docker.io/library/traefik"})
    namespaces = (NAMESPACE,)
    pods = (NAME,)

    def objects(self, cluster: Cluster) -> Sequence[dict[str, Any]]:  # noqa: ARG002
        return (
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            account(NAME, NAMESPACE),
            role(
                NAME,
                ("", "services secrets nodes", READ),
                ("discovery.k8s.io", "endpointslices", "list watch"),
                ("networking.k8s.io", "ingresses ingressclasses", READ),
                ("networking.k8s.io", "ingresses/status", "update"),
            ),
            bound(NAME, NAMESPACE),
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "IngressClass",
                "metadata": {"name": NAME, "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
                "spec": {"controller": CONTROLLER},
            },
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": _labels()},
                "spec": {
                    "type": "LoadBalancer",
                    "selector": _labels(),
                    "ports": [
                        {"name": name, "port": port, "targetPort": name, "protocol": "TCP"}
                        for name, (port, _) in ENTRY_POINTS.items()
                    ],
                },
            },
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": _labels()},
                "spec": {
                    "selector": {"matchLabels": _labels()},
                    "template": {"metadata": {"labels": _labels()}, "spec": _pod(self.images[NAME])},
                },
            },
        )


COMPONENT = Traefik()


def arguments() -> list[str]:
    """What Traefik is started with."""
    ingress = "--providers.kubernetesingress"
    return [
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
        f"--entryPoints.traefik.address=:{PING_PORT}/tcp",
        *(f"--entryPoints.{name}.address=:{port}/tcp" for name, (_, port) in ENTRY_POINTS.items()),
        # With a certificate of Traefik's own making, where an Ingress names none.
        "--entryPoints.websecure.http.tls=true",
        "--ping=true",
        ingress,
        f"{ingress}.allowEmptyServices=true",
        # An Ingress shows the Service's address.
        f"{ingress}.ingressendpoint.publishedservice={NAMESPACE}/{NAME}",
        "--log.level=INFO",
    ]


def _labels() -> dict[str, str]:
    return {"app.kubernetes.io/name": NAME}


def _pod(image: str) -> dict[str, Any]:
    ports = {NAME: PING_PORT, **{name: port for name, (_, port) in ENTRY_POINTS.items()}}
    # An emulated node may take seconds for an answer.
    probe = {"httpGet": {"path": "/ping", "port": NAME}, "periodSeconds": 10, "timeoutSeconds": 10}
    return {
        "serviceAccountName": NAME,
        "tolerations": on_control_planes(),
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": NAME,
                "image": image,
                "args": arguments(),
                "ports": [container_port(name, port) for name, port in ports.items()],
                "livenessProbe": {**probe, "initialDelaySeconds": 2, "failureThreshold": 30},
                "readinessProbe": {**probe, "initialDelaySeconds": 2, "failureThreshold": 3},
                "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
                # Large bodies that it buffers.
                "volumeMounts": [mounted("tmp", "/tmp")],  # noqa: S108
            }
        ],
        "volumes": [{"name": "tmp", "emptyDir": {}}],
    }
