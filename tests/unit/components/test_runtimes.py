"""Container runtimes: what each answers."""

from __future__ import annotations

import configparser
import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from lab import resources
from lab.boxes.recipe import load_recipe
from lab.components.cluster import File
from lab.components.kubernetes.versions import KubernetesVersion
from lab.components.runtime import runtimes
from lab.components.runtime.base import Mirror
from lab.components.runtime.containerd import BOXED_REGISTRIES
from lab.errors import ScenarioError
from lab.plan.decide import decide
from lab.plan.foreign import plan_problems
from lab.plan.model import Plan
from lab.render.cloudinit import render_seed
from lab.render.node_script import render_node_script
from lab.render.secrets import KeyPair, Secrets
from lab.scenario.catalog import Catalog, load_catalog
from lab.scenario.parser import parse_scenario

IMAGE = "registry.k8s.io/pause:3.10.1"
PAIR = KeyPair("", "")
SECRETS = Secrets("ssh-ed25519 AAAA a", PAIR, PAIR, PAIR, PAIR, "abcdef.0123456789abcdef")
MIRROR = ("docker.io", "http://10.0.0.1:5000")


def version_of(number: str) -> KubernetesVersion:
    return KubernetesVersion(number, etcd="1", etcd_image="1-0", coredns="1.0.0", pause="3.10.1")


def catalog_with(number: str) -> Catalog:
    """A catalog with boxes for every runtime and for one more version."""
    catalog = load_catalog()
    known = {**catalog.kubernetes, number: replace(version_of(number), components=(("flannel", "0.28.4"),))}
    whole = replace(catalog, kubernetes=known, runtimes=tuple(runtimes()), recipes={})
    return replace(whole, recipes=dict.fromkeys(catalog.boxes, whole))


def plan_of(runtime: str, number: str, more: str = "") -> Plan:
    catalog = catalog_with(number)
    text = f"version: 1\nname: a\nkubernetes: {{runtime: {runtime}, version: '{number}', cni: none}}\n{more}"
    return decide(parse_scenario(text, catalog), catalog)


def files_of(name: str, number: str, *mirrors: tuple[str, ...]) -> dict[str, str]:
    found: Sequence[File] = runtimes()[name].files(version_of(number), [Mirror(*each) for each in mirrors])
    return {file.path: file.content for file in found}


@pytest.mark.parametrize("name", runtimes())
@pytest.mark.parametrize("number", ["1.16.3", "1.23.0", "1.24.0", "1.37.2"])
def test_a_runtime_answers_every_question(name: str, number: str) -> None:
    runtime, version = runtimes()[name], version_of(number)
    assert runtime.socket(version.minor).endswith(".sock")
    assert set(runtime.units_for(version.minor)) <= set(runtime.units)
    assert set(runtime.boxed) & set(runtime.units)
    assert runtime.stop_drop_in.startswith("/etc/systemd/system/")
    assert IMAGE in runtime.pull(IMAGE)
    assert runtime.needs
    assert all(path.startswith("/etc/") for path in files_of(name, number))


@pytest.mark.parametrize("name", load_catalog().runtimes)
def test_a_recipe_that_names_a_runtime_has_its_packages(name: str) -> None:
    holding = [box for box, each in load_catalog().recipes.items() if name in each.runtimes]
    assert holding
    for box in holding:
        recipe = load_recipe(box, next(iter(load_catalog().recipes[box].kubernetes)))
        assert recipe.runtime == name
        assert set(runtimes()[name].packages) <= set(recipe.packages)


def test_containerd_asks_the_nodes_registry_before_the_mirror() -> None:
    (content,) = files_of("containerd", "1.35.4", MIRROR).values()
    assert content.startswith('server = "https://registry-1.docker.io"\n')
    own = content.index('[host."http://127.0.0.1:5000/v2/docker.io"]')
    assert own < content.index('[host."http://10.0.0.1:5000"]')
    assert files_of("containerd", "1.35.4") == {}


@pytest.mark.parametrize(
    ("mirror", "entry", "location"),
    [
        ("https://m.example", '"https://m.example"]', "m.example"),
        ("https://m.example/hub", '"https://m.example/v2/hub"]', "m.example/hub"),
        ("https://m.example/v2/class/proxy/", '"https://m.example/v2/class/proxy"]', "m.example/class/proxy"),
        ("https://m.example/v2", '"https://m.example/v2"]', ""),
        ("https://m.example/api/docker/hub/v2", '"https://m.example/api/docker/hub/v2"]', ""),
    ],
)
def test_of_a_mirror_with_a_path_images_are_asked_for_below_it(mirror: str, entry: str, location: str) -> None:
    (content,) = files_of("containerd", "1.35.4", ("docker.io", mirror)).values()
    last = content.rpartition("[host.")[2]
    assert last.startswith(entry)
    assert ("override_path = true" in last) == ("/v2/" in entry)
    if location:
        files = files_of("cri-o", "1.35.4", ("docker.io", mirror))
        assert f'location = "{location}"\n' in "".join(files.values())


CA, LOGIN = "-----BEGIN CERTIFICATE-----\nMAo=\n-----END CERTIFICATE-----\n", "Y2xhc3M6cGFzcw=="
HARBOR = ("quay.io", "https://harbor.example:8443/quay", CA, LOGIN)


def toml(text: str) -> dict[str, Any]:
    return tomllib.loads(text)


def test_containerd_asks_a_mirror_with_its_ca_and_a_login() -> None:
    found = {file.path: file for file in runtimes()["containerd"].files(version_of("1.35.4"), [Mirror(*HARBOR)])}
    hosts, ca = found["/etc/containerd/certs.d/quay.io/hosts.toml"], found["/etc/containerd/certs.d/quay.io/mirror.pem"]
    assert (hosts.mode, ca.mode, ca.content) == ("0600", "0644", CA)
    parts = toml(hosts.content)
    assert parts["server"] == "https://quay.io"
    assert list(parts["host"]) == ["http://127.0.0.1:5000/v2/quay.io", "https://harbor.example:8443/v2/quay"]
    assert parts["host"]["https://harbor.example:8443/v2/quay"] == {
        "capabilities": ["pull", "resolve"],
        "override_path": True,
        "ca": ca.path,
        "header": {"Authorization": f"Basic {LOGIN}"},
    }
    (plain,) = runtimes()["containerd"].files(version_of("1.35.4"), [Mirror(*MIRROR)])
    assert plain.mode == "0644"


def test_containerd_asks_one_mirror_for_all_other_registries() -> None:
    everything = ("_default", "https://proxy.example", CA)
    files = files_of("containerd", "1.35.4", HARBOR, everything)
    folders = {path.split("/")[4] for path in files}
    assert folders == {*BOXED_REGISTRIES, "_default"}
    default = toml(files["/etc/containerd/certs.d/_default/hosts.toml"])
    assert list(default) == ["host"], "upstream follows from the image's name"
    assert list(default["host"]) == ["https://proxy.example"]
    for name in set(BOXED_REGISTRIES) - {"quay.io"}:
        hosts = toml(files[f"/etc/containerd/certs.d/{name}/hosts.toml"])["host"]
        assert list(hosts) == [f"http://127.0.0.1:5000/v2/{name}", "https://proxy.example"]
        assert hosts["https://proxy.example"]["ca"] == f"/etc/containerd/certs.d/{name}/mirror.pem"
    own = toml(files["/etc/containerd/certs.d/quay.io/hosts.toml"])["host"]
    assert "https://proxy.example" not in own


def test_containerd_has_a_file_for_each_registry_that_a_box_does() -> None:
    folder = resources.path("boxes") / "debian-13/files/etc/containerd/certs.d"
    assert {each.name for each in folder.iterdir()} == set(BOXED_REGISTRIES)


def test_cri_o_asks_a_mirror_with_its_ca_and_a_login() -> None:
    found = {file.path: file for file in runtimes()["cri-o"].files(version_of("1.35.4"), [Mirror(*HARBOR)])}
    assert found["/etc/containers/certs.d/harbor.example:8443/ca.crt"].content == CA
    logins = found["/etc/crio/klab-auth.json"]
    assert logins.mode == "0600"
    assert json.loads(logins.content) == {"auths": {"harbor.example:8443/quay": {"auth": LOGIN}}}
    image = toml(found["/etc/crio/crio.conf.d/10-klab.conf"].content)["crio"]["image"]
    assert image["global_auth_file"] == logins.path
    assert "auth" not in files_of("cri-o", "1.35.4", MIRROR)["/etc/crio/crio.conf.d/10-klab.conf"]
    with pytest.raises(ScenarioError, match="CRI-O has mirrors of registries that are named only"):
        plan_of("cri-o", "1.28.0", "mirrors: {_default: 'http://m:5000'}\n")


def test_docker_asks_a_mirror_with_its_ca_and_gives_no_login() -> None:
    files = files_of("docker", "1.28.0", ("docker.io", "https://m.example:5000", CA))
    assert files["/etc/docker/certs.d/m.example:5000/ca.crt"] == CA
    with pytest.raises(ScenarioError, match="Docker gives a mirror no login; https://m must answer without one"):
        plan_of("docker", "1.28.0", "mirrors: {docker.io: {url: 'https://m', login: secret}}\n")
    with pytest.raises(ScenarioError, match=r"mirror of docker\.io only; given: _default"):
        plan_of("docker", "1.28.0", "mirrors: {_default: 'https://m'}\n")


# --- Docker -------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["1.16.3", "1.23.0"])
def test_below_124_the_kubelet_itself_is_dockers_cri(number: str) -> None:
    docker, minor = runtimes()["docker"], version_of(number).minor
    # kubeadm compares the text: with unix:// it would configure a remote runtime.
    assert docker.socket(minor) == "/var/run/dockershim.sock"
    assert docker.units_for(minor) == ("docker",)
    files = files_of("docker", number)
    assert sorted(files) == ["/etc/crictl.yaml", "/etc/docker/daemon.json"]
    assert "runtime-endpoint: unix:///var/run/dockershim.sock\n" in files["/etc/crictl.yaml"]
    assert "cri-docker" not in render_node_script(plan_of("docker", number), plan_of("docker", number).nodes[0])


def test_from_124_on_it_is_cri_dockerd() -> None:
    docker, minor = runtimes()["docker"], (1, 24)
    assert docker.socket(minor) == "unix:///run/cri-dockerd.sock"
    assert docker.units_for(minor) == ("docker", "cri-docker")
    files = files_of("docker", "1.28.0")
    unit, socket = (
        parsed(files["/etc/systemd/system/cri-docker.service"]),
        parsed(files["/etc/systemd/system/cri-docker.socket"]),
    )
    assert unit["Service"]["ExecStart"].endswith(f"--pod-infra-container-image {IMAGE}")
    assert f"runtime-endpoint: {docker.socket(minor)}\n" in files["/etc/crictl.yaml"]
    assert unit["Unit"]["Requires"] == "cri-docker.socket"
    assert "unix://" + socket["Socket"]["ListenStream"] == docker.socket(minor)
    plan = plan_of("docker", "1.28.0")
    script = render_node_script(plan, plan.nodes[0])
    steps = ("restart docker\n", "--now cri-docker.socket cri-docker\n", "kubeadm init")
    assert sorted(steps, key=script.index) == list(steps)


def parsed(unit: str) -> dict[str, Any]:
    parser = configparser.ConfigParser(delimiters=("=",), interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(unit)
    return {name: dict(parser[name]) for name in parser.sections()}


def test_dockers_daemon_uses_the_kubelets_cgroup_driver_and_asks_the_nodes_registry_first() -> None:
    config = json.loads(files_of("docker", "1.28.0", MIRROR)["/etc/docker/daemon.json"])
    assert config["exec-opts"] == ["native.cgroupdriver=systemd"]
    assert config["registry-mirrors"] == ["http://127.0.0.1:5000", "http://10.0.0.1:5000"]
    assert config["log-opts"] == {"max-size": "10m", "max-file": "5"}


def test_docker_gets_other_registries_images_from_the_node_by_name() -> None:
    own = f"127.0.0.1:5000/{IMAGE}"
    assert runtimes()["docker"].pull(IMAGE).startswith(f"sudo docker pull {own} && sudo docker tag {own} {IMAGE}")


def test_docker_can_mirror_docker_io_only() -> None:
    with pytest.raises(ScenarioError, match=r"line 4: mirrors: .* mirror of docker\.io only; given: quay\.io"):
        plan_of("docker", "1.28.0", "mirrors: {quay.io: 'http://m:5000', docker.io: 'http://m:5000'}\n")
    mirrored = plan_of("docker", "1.28.0", "mirrors: {docker.io: 'http://m:5000'}\n")
    assert mirrored.mirrors == (("docker.io", "http://m:5000"),)
    with pytest.raises(ScenarioError, match=r"a mirror without a path only; given: http://m:5000/hub"):
        plan_of("docker", "1.28.0", "mirrors: {docker.io: 'http://m:5000/hub'}\n")
    assert plan_of("docker", "1.28.0", "mirrors: {docker.io: 'http://m:5000/'}\n").mirrors
    wrong = replace(mirrored, mirrors=(("quay.io", "http://m:5000"),))
    assert any("docker.io only" in line for line in plan_problems(wrong))


# --- CRI-O --------------------------------------------------------------------------------------


def test_cri_o_is_told_of_the_pause_image_and_of_the_nodes_registry() -> None:
    files = files_of("cri-o", "1.35.4", MIRROR, ("registry.example:443", "https://m.example/path/"))
    crio = tomllib.loads(files["/etc/crio/crio.conf.d/10-klab.conf"])["crio"]
    assert (crio["image"]["pause_image"], crio["runtime"]["cgroup_manager"]) == (IMAGE, "systemd")
    registries = tomllib.loads(files["/etc/containers/registries.conf.d/10-klab.conf"])
    mirrors = {each["prefix"]: each["mirror"] for each in registries["registry"]}
    own = {"location": "127.0.0.1:5000/docker.io", "insecure": True}
    assert mirrors["docker.io"] == [own, {"location": "10.0.0.1:5000", "insecure": True}]
    assert mirrors["registry.example:443"][1] == {"location": "m.example/path"}
    assert mirrors["quay.io"] == [{"location": "127.0.0.1:5000/quay.io", "insecure": True}]
    assert registries["unqualified-search-registries"] == ["docker.io"]
    assert "runtime-endpoint: unix:///var/run/crio/crio.sock\n" in files["/etc/crictl.yaml"]


# --- versions -----------------------------------------------------------------------------------


def test_a_version_that_a_runtime_cannot_serve_is_refused_with_its_line() -> None:
    words = "speaks the CRI's v1alpha2 only"
    with pytest.raises(ScenarioError) as caught:
        plan_of("cri-o", "1.22.0")
    assert "line 3: kubernetes.runtime: " in str(caught.value)
    assert words in str(caught.value)
    served = plan_of("docker", "1.22.0")
    foreign = replace(served, kubernetes=replace(served.kubernetes, runtime="cri-o"))
    assert any(words in line for line in plan_problems(foreign))


@pytest.mark.parametrize(
    ("name", "number"),
    [("containerd", "1.37.2"), ("cri-o", "1.23.0"), ("cri-o", "1.37.2"), ("docker", "1.16.3"), ("docker", "1.37.2")],
)
def test_versions_that_a_runtime_serves(name: str, number: str) -> None:
    assert plan_of(name, number).kubernetes.runtime == name


def test_several_control_planes_need_kubeadms_patches() -> None:
    planes = "topology: {control_planes: 3}\n"
    with pytest.raises(ScenarioError, match=r"line 3: kubernetes\.version: .* 1\.22 or newer is needed"):
        plan_of("docker", "1.16.3", planes)
    assert len(plan_of("docker", "1.16.3", f"{planes}bootstrap: prepared\n").control_planes) == 3
    assert len(plan_of("docker", "1.23.0", planes).control_planes) == 3


@pytest.mark.parametrize("name", runtimes())
def test_a_plain_machine_runs_nothing_of_it(name: str) -> None:
    plan = plan_of(name, "1.35.4", "bootstrap: none\n")
    script = render_node_script(plan, plan.nodes[0])
    assert f"systemctl disable --now {' '.join(runtimes()[name].boxed)} " in script
    assert "systemctl restart docker" not in script
    assert "daemon.json" not in render_seed(plan, plan.nodes[0], SECRETS)["user-data"]


@pytest.mark.parametrize("bootstrap", ["prepared", "full"])
def test_a_runtime_reads_its_files_before_anyone_uses_it(bootstrap: str) -> None:
    plan = plan_of("docker", "1.35.4", f"bootstrap: {bootstrap}\n")
    assert "systemctl restart docker\n" in render_node_script(plan, plan.nodes[0])
    assert "/etc/docker/daemon.json" in render_seed(plan, plan.nodes[0], SECRETS)["user-data"]
