"""The seeds of every shipped scenario, file by file, as a reviewer sees them change.

KLAB_GOLDEN=1 pytest tests/golden rewrites them (make golden).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab import resources
from lab.components.cni import network
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.render.cloudinit import render_seed
from lab.render.pod_network import render_manifest
from lab.render.secrets import KeyPair, Secrets
from lab.scenario.catalog import load_catalog
from lab.scenario.parser import parse_scenario

GOLDEN = Path(__file__).parent / "seeds"
SCENARIOS = ("1m2w", "1m1w", "3m", "ha-3m2w", "bare-1m2w", "bare-rocky-9", "cka-1.28")
BRIDGE = "bridge-"  # with the pod network of that name
IPVS = "ipvs-"  # with kube-proxy in that mode
EMULATED = "-emulated"  # on a host without hardware virtualization
VARIANTS = (f"1m1w{EMULATED}", f"bare-rocky-9{EMULATED}", f"{BRIDGE}1m2w", f"{BRIDGE}ha-3m2w", f"{IPVS}1m1w")
SECRETS = Secrets(
    ssh_public_key="ssh-ed25519 AAAA klab-golden",
    ca=KeyPair("CA CERTIFICATE\n", "CA KEY\n"),
    front_proxy_ca=KeyPair("FRONT PROXY CA CERTIFICATE\n", "FRONT PROXY CA KEY\n"),
    etcd_ca=KeyPair("ETCD CA CERTIFICATE\n", "ETCD CA KEY\n"),
    service_account=KeyPair("SERVICE ACCOUNT PUBLIC KEY\n", "SERVICE ACCOUNT KEY\n"),
    token="abcdef.0123456789abcdef",  # noqa: S106  (nobody's)
    ca_hash="sha256:" + "0" * 64,
)


def plan_of(name: str) -> Plan:
    catalog = load_catalog()
    text = (resources.path("scenarios") / f"{name.removeprefix(BRIDGE).removeprefix(IPVS)}.yaml").read_text()
    if name.startswith(IPVS):
        text = text.replace("kubernetes:\n", "kubernetes:\n  proxy_mode: ipvs\n")
    if name.startswith(BRIDGE):
        text = text.replace("cni: flannel", "cni: bridge") if "cni:" in text else f"{text.rstrip()}\n  cni: bridge\n"
    return decide(parse_scenario(text, catalog), catalog)


def rendered(name: str) -> dict[str, str]:
    plan = plan_of(name.removesuffix(EMULATED))
    name_of = network(plan.kubernetes.cni).manifest_file
    files = {name_of: render_manifest(plan)} if name_of else {}
    for node in plan.nodes:
        for file, text in render_seed(plan, node, SECRETS, slow_host=name.endswith(EMULATED)).items():
            files[f"{node.name}/{file}"] = text
    return files


@pytest.mark.parametrize("name", [*SCENARIOS, *VARIANTS])
def test_seed_is_as_reviewed(name: str) -> None:
    files = rendered(name)
    folder = GOLDEN / name
    if os.environ.get("KLAB_GOLDEN"):
        for file, text in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
    there = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
    assert files == there


def test_the_same_input_gives_the_same_bytes() -> None:
    assert rendered("ha-3m2w") == rendered("ha-3m2w")


def test_a_worker_never_holds_a_ca_key() -> None:
    for name in SCENARIOS:
        plan = plan_of(name)
        for node in plan.workers:
            seed = render_seed(plan, node, SECRETS)["user-data"]
            for private in (SECRETS.ca, SECRETS.front_proxy_ca, SECRETS.etcd_ca, SECRETS.service_account):
                assert private.private.strip() not in seed


@pytest.mark.parametrize("name", ["bare-1m2w", "bare-rocky-9"])
def test_plain_nodes_hold_no_cluster_secret(name: str) -> None:
    plan = plan_of(name)
    for node in plan.nodes:
        seed = render_seed(plan, node, SECRETS)["user-data"]
        assert SECRETS.token not in seed
        assert SECRETS.ca.private.strip() not in seed
