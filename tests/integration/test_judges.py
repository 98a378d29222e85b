"""Every rendered file before its own judge: the program that will read it."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from golden import test_seeds as seeds
from golden.test_kubeadm import CASES as KUBEADM_CASES
from golden.test_kubeadm import PINS, rendered, version_of
from golden.test_kubeadm import SCENARIOS as KUBEADM_SCENARIOS

from lab import process, resources
from lab.cluster.secrets import load_or_make
from lab.components.cni import bridge
from lab.components.kubernetes import DEFAULT
from lab.plan.changes import without_nodes
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.render.balancer import CLOSE_SESSIONS, CLOSE_SESSIONS_FILE, render_haproxy, render_keepalived
from lab.render.cloudinit import render_seed
from lab.render.kubeadm import render_init, render_join
from lab.render.secrets import Secrets
from lab.scenario.catalog import load_catalog
from lab.scenario.parser import parse_scenario
from lab.store import Home, LabFolder

SCENARIOS = ("1m2w", "1m1w", "3m", "ha-3m2w", "bare-1m2w")
FIRST_TO_VALIDATE = [1, 28]  # 1.23's has no `config validate`
TESTS = Path(__file__).parents[1]
PLANES = """
version: 1
name: planes
topology: {{control_planes: {planes}, workers: 1}}
"""


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Secrets:
    return load_or_make(LabFolder(tmp_path_factory.mktemp("judged") / "lab"))


def plan_of(text: str) -> Plan:
    catalog = load_catalog()
    return decide(parse_scenario(text, catalog), catalog)


def shipped(name: str) -> Plan:
    return plan_of((resources.path("scenarios") / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", SCENARIOS)
def test_cloud_init_accepts_every_seed(name: str, secrets: Secrets, tmp_path: Path) -> None:
    plan = shipped(name)
    for node in plan.nodes:
        seed = render_seed(plan, node, secrets)
        (tmp_path / "user-data").write_text(seed["user-data"])
        done = process.run(["cloud-init", "schema", "--config-file", tmp_path / "user-data"], timeout=60)
        assert "Valid" in done.stdout
        (tmp_path / "network-config").write_text(seed["network-config"])
        out = tmp_path / f"net-{node.name}"
        process.run(
            ["cloud-init", "devel", "net-convert", "--network-data", tmp_path / "network-config", "--kind", "yaml",
             "--directory", out, "--distro", "debian", "--output-kind", "networkd"],
            timeout=60,
        )  # fmt: skip
        units = "\n".join(p.read_text() for p in out.rglob("*.network"))
        assert f"Address={node.address}/24" in units
        assert node.mac in units
        assert node.management_mac in units


def test_a_wrong_seed_is_refused(tmp_path: Path) -> None:
    """The judge above can say no."""
    (tmp_path / "user-data").write_text("#cloud-config\nwrite_files: yes please\n")
    done = process.run(["cloud-init", "schema", "--config-file", tmp_path / "user-data"], timeout=60, check=False)
    assert done.code != 0


@pytest.mark.parametrize("name", ["1m2w", "1m1w", "3m", "ha-3m2w"])
def test_kubeadm_accepts_every_configuration(name: str, secrets: Secrets, tmp_path: Path, kubeadm: Path) -> None:
    plan = shipped(name)
    for node in plan.nodes:
        render = render_init if node.is_control_plane else render_join
        for slow_host in (False, True):
            file = tmp_path / "kubeadm.yaml"
            file.write_text(render(plan, node, secrets, slow_host=slow_host))
            done = process.run([kubeadm, "config", "validate", "--config", file], timeout=60)
            assert "ok" in done.stdout


@pytest.fixture(scope="session", params=PINS)
def pinned(request: pytest.FixtureRequest, kubeadm: Path) -> tuple[str, Path]:
    """A version and its own kubeadm: the box's, one in the build cache, or KLAB_KUBEADM_1_28_15 and the like."""
    number: str = request.param
    named = os.environ.get(f"KLAB_KUBEADM_{number.replace('.', '_')}")
    for program in [Path(named)] if named else sorted(Home.default().cache.glob("programs/*/bin/kubeadm")):
        if process.run([program, "version", "-o", "short"], timeout=60).stdout.strip() == f"v{number}":
            return number, program
    assert number != DEFAULT, f"{kubeadm} is another version than the default box's"
    pytest.skip(f"no kubeadm {number} here; KLAB_KUBEADM_{number.replace('.', '_')} names one")


@pytest.mark.parametrize("scenario", KUBEADM_SCENARIOS)
def test_kubeadm_of_each_version_accepts_what_klab_would_give_it(
    scenario: str, pinned: tuple[str, Path], tmp_path: Path
) -> None:
    number, program = pinned
    if (number, scenario) not in KUBEADM_CASES:
        pytest.skip(f"no scenario may have {scenario} with {number}")
    for name, text in rendered(scenario, number).items():
        file = tmp_path / name
        file.write_text(text)
        done = judged(number, program, file)
        assert "deprecated" not in done.stderr


def judged(number: str, program: Path, file: Path) -> process.Completed:
    """What kubeadm of a version says of a configuration that it accepts.

    Those that cannot `validate` read and check one to `migrate` it, and only warn of a field that they do not know.
    """
    if [int(part) for part in number.split(".")] >= FIRST_TO_VALIDATE:
        done = process.run([program, "config", "validate", "--config", file], timeout=60)
        assert done.stdout.strip() == "ok", file.name
    else:
        done = process.run([program, "config", "migrate", "--old-config", file], timeout=60)
        assert "kind: " in done.stdout, file.name
        assert "unknown field" not in done.stderr, file.name
    return done


def test_kubeadm_of_each_version_accepts_flags_of_the_pod_network(pinned: tuple[str, Path], tmp_path: Path) -> None:
    number, program = pinned
    plan = seeds.plan_of(f"{seeds.BRIDGE}ha-3m2w")
    plan = replace(plan, kubernetes=replace(plan.kubernetes, versions=version_of(number)))
    (tmp_path / "kubeadm.yaml").write_text(render_init(plan, plan.nodes[0], seeds.SECRETS))
    judged(number, program, tmp_path / "kubeadm.yaml")


def test_kubeadm_of_each_version_asks_for_the_images_that_klab_names(pinned: tuple[str, Path]) -> None:
    number, program = pinned
    command = [program, "config", "images", "list", "--kubernetes-version", f"v{number}"]
    listed = process.run(command, timeout=60).stdout.split()
    assert sorted(listed) == sorted(version_of(number).images.values())


def test_a_wrong_kubeadm_configuration_is_refused(secrets: Secrets, tmp_path: Path, kubeadm: Path) -> None:
    plan = shipped("1m2w")
    text = render_init(plan, plan.nodes[0], secrets).replace("podSubnet", "podSubnets")
    (tmp_path / "kubeadm.yaml").write_text(text)
    done = process.run([kubeadm, "config", "validate", "--config", tmp_path / "kubeadm.yaml"], timeout=60, check=False)
    assert done.code != 0


def keepalived_says(file: Path) -> list[str]:
    """What keepalived complains of; it asks for the interface, so a network namespace of its own has one.

    Its exit code is of no use: 2.2.7 ends itself with SIGTERM after testing a file with a vrrp_script.
    """
    script = 'ip link add eth1 type bridge && ip link set eth1 up && exec keepalived --config-test -f "$0"'
    done = process.run(["unshare", "--net", "sh", "-c", script, file], timeout=60, check=False)
    assert done.code in {0, -15} or done.tail
    return done.tail


def write_haproxy(plan: Plan, folder: Path) -> Path:
    """haproxy.cfg and what it loads, both in this folder."""
    assert plan.load_balancer is not None
    haproxy, lua = folder / "haproxy.cfg", folder / "close-sessions.lua"
    lua.write_text(CLOSE_SESSIONS)
    haproxy.write_text(render_haproxy(plan, plan.load_balancer).replace(CLOSE_SESSIONS_FILE, str(lua)))
    return haproxy


@pytest.mark.parametrize("planes", [3, 5])
def test_haproxy_and_keepalived_accept_theirs(planes: int, tmp_path: Path) -> None:
    plan = plan_of(PLANES.format(planes=planes))
    assert plan.load_balancer is not None
    process.run(["haproxy", "-c", "-f", write_haproxy(plan, tmp_path)], timeout=60)
    for node in plan.control_planes:
        keepalived = tmp_path / "keepalived.conf"
        text = render_keepalived(plan, plan.load_balancer, node)
        keepalived.write_text(text)
        assert keepalived_says(keepalived) == []
        keepalived.write_text(text.replace("advert_int", "advert_intt"))
        assert any("advert_intt" in line for line in keepalived_says(keepalived))


@pytest.mark.parametrize("way", ["refusing", "unready", "silent"])
def test_haproxy_leads_past_an_api_server_that_goes(way: str, secrets: Secrets, tmp_path: Path) -> None:
    """Of connections side by side none waits in vain, and none stays with the one that has gone."""
    plan = plan_of(PLANES.format(planes=3))
    assert plan.load_balancer is not None
    haproxy, certificate = write_haproxy(plan, tmp_path), tmp_path / "certificate.pem"
    certificate.write_text(secrets.ca.private + secrets.ca.public)
    addresses = [str(node.address) for node in plan.control_planes]
    done = process.run(
        ["unshare", "--net", sys.executable, "-m", "integration.api_servers", haproxy, certificate,
         str(plan.load_balancer.port), way, *addresses],
        timeout=300,
        cwd=TESTS,
    )  # fmt: skip
    seen = json.loads(done.stdout)
    assert set(seen["before"]) == set(addresses)
    assert "" not in seen["after"]
    assert set(seen["after"][-6:]) == set(addresses[1:])
    assert seen["cut"] is True


def test_networkd_finds_the_routes_to_pods_beside_what_cloud_init_writes(secrets: Secrets, tmp_path: Path) -> None:
    plan = seeds.plan_of(f"{seeds.BRIDGE}1m2w")
    seed = render_seed(plan, plan.nodes[0], secrets)
    (tmp_path / "user-data").write_text(seed["user-data"])
    process.run(["cloud-init", "schema", "--config-file", tmp_path / "user-data"], timeout=60)
    (tmp_path / "network-config").write_text(seed["network-config"])
    process.run(
        ["cloud-init", "devel", "net-convert", "--network-data", tmp_path / "network-config", "--kind", "yaml",
         "--directory", tmp_path / "out", "--distro", "debian", "--output-kind", "networkd"],
        timeout=60,
    )  # fmt: skip
    written = [f"/{path.relative_to(tmp_path / 'out')}.d" for path in (tmp_path / "out").rglob("*.network")]
    assert str(Path(bridge.ROUTES_FILE).parent) in written


def test_nft_and_ip_accept_what_leads_to_pods(tmp_path: Path) -> None:
    plan = seeds.plan_of(f"{seeds.BRIDGE}1m2w")
    first, other = plan.nodes[0], without_nodes(plan, ["w1"])
    (tmp_path / "pods.nft").write_text(bridge.rules(plan))
    script = f"""
set -eu
ip link add eth1 type bridge && ip addr add {first.address}/24 dev eth1 && ip link set eth1 up
nft -f {tmp_path}/pods.nft && nft -f {tmp_path}/pods.nft
nft list table ip klab-pods | grep -c masquerade
{bridge.set_routes(plan, first)}
ip route add 10.9.0.0/16 via {plan.networks.gateway} dev eth1 proto static
ip route show proto static
{bridge.set_routes(other, first)}
echo then
ip route show proto static
"""
    done = process.run(["unshare", "--net", "bash", "-c", script], timeout=60)
    rules, *lines = done.stdout.split("\n")
    before, after = "\n".join(lines).split("then\n")
    assert rules == "1", "a second time it is the same table"
    assert [line.split()[0] for line in before.splitlines()] == ["10.9.0.0/16", "10.244.21.0/24", "10.244.22.0/24"]
    assert [line.split()[0] for line in after.splitlines()] == ["10.9.0.0/16", "10.244.22.0/24"]


def test_one_control_plane_needs_no_balancer() -> None:
    assert plan_of(PLANES.format(planes=1)).load_balancer is None


def test_ip_addresses_of_seed_follow_the_plan(secrets: Secrets) -> None:
    plan = shipped("ha-3m2w")
    for node in plan.nodes:
        network = yaml.safe_load(render_seed(plan, node, secrets)["network-config"])
        assert network["ethernets"]["eth1"]["addresses"] == [f"{node.address}/24"]
