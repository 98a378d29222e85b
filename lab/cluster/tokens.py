"""Bootstrap tokens, with which machines join a cluster.

Source: kubernetes.io, "Authenticating with Bootstrap Tokens".
"""

from __future__ import annotations

import datetime

from lab.cluster.clients.api import Api
from lab.cluster.secrets import make_token

HOURS = 24
NAMESPACE = "kube-system"
TYPE = "bootstrap.kubernetes.io/token"
# kubeadm's own group for machines that join: it may ask for a kubelet's certificate.
GROUP = "system:bootstrappers:kubeadm:default-node-token"


def fresh_token(api: Api, *, hours: float = HOURS) -> str:
    """Make a token that is valid from now on, by the cluster's own clock, which may not be the host's.

    Returns:
        The token, as `kubeadm join --token` takes it.

    Raises:
        UnreachableError: the API server does not answer.
    """
    token = make_token()
    identity, secret = token.split(".")
    ends = api.clock() + datetime.timedelta(hours=hours)
    api.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": f"bootstrap-token-{identity}", "namespace": NAMESPACE},
            "type": TYPE,
            "stringData": {
                "token-id": identity,
                "token-secret": secret,
                "expiration": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "usage-bootstrap-authentication": "true",
                "usage-bootstrap-signing": "true",
                "auth-extra-groups": GROUP,
                "description": "made by klab",
            },
        }
    )
    return token


def revoke_token(api: Api, token: str) -> None:
    """Delete a token; errors as in `fresh_token`."""
    api.delete(f"/api/v1/namespaces/{NAMESPACE}/secrets/bootstrap-token-{token.split('.')[0]}")
