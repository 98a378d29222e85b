"""How nodes are reached, as text: Ansible's inventory, the ssh configuration, lines for /etc/hosts."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import yaml

from lab.errors import NotFound
from lab.machines.ssh import Ssh
from lab.plan.decide import decide
from lab.plan.model import Plan
from lab.render.inventory import (
    Way,
    ansible_inventory,
    group_name,
    render_ansible,
    render_host_lines,
    render_ssh,
)
from lab.scenario.library import load_scenario
from lab.scenario.parser import parse_scenario
from lab.store import LabFolder

FOLDER = LabFolder(Path("/labs of mine/1m1w"))
PROXY = ("env", "KLAB_HOME=/a home", "/opt/50%/klab", "connect", "1m1w")
SSH = """\
# The nodes of lab 1m1w, for ssh and scp: ssh -F FILE cp1

Host 1m1w-cp1 cp1
  HostName 192.168.56.11
  User vagrant
  IdentityFile "/labs of mine/1m1w/ssh/id_ed25519"
  IdentitiesOnly yes
  StrictHostKeyChecking accept-new
  UserKnownHostsFile "/labs of mine/1m1w/ssh/known_hosts"
  HostKeyAlias 1m1w-cp1
  ConnectTimeout 30
  LogLevel ERROR

Host 1m1w-w1 w1
  HostName 192.168.56.21
  User vagrant
  IdentityFile "/labs of mine/1m1w/ssh/id_ed25519"
  IdentitiesOnly yes
  StrictHostKeyChecking accept-new
  UserKnownHostsFile "/labs of mine/1m1w/ssh/known_hosts"
  HostKeyAlias 1m1w-w1
  ConnectTimeout 30
  LogLevel ERROR
"""
HOSTS = """\
# lab ha-3m2w
192.168.56.11 ha-3m2w-cp1 cp1
192.168.56.12 ha-3m2w-cp2 cp2
192.168.56.13 ha-3m2w-cp3 cp3
192.168.56.21 ha-3m2w-w1 w1
192.168.56.22 ha-3m2w-w2 w2
192.168.56.10 ha-3m2w-control-plane-endpoint control-plane-endpoint
"""
ANSIBLE = """\
# The nodes of lab 1m1w, for Ansible: ansible -i FILE all -m ping (FILE without .ini)
all:
  children:
    klab_1m1w:
      children:
        control_planes:
          hosts:
            cp1:
              ansible_host: 192.168.56.11
              ansible_user: vagrant
              ansible_ssh_private_key_file: /labs of mine/1m1w/ssh/id_ed25519
              ansible_ssh_common_args: {cp1}
              ansible_ssh_timeout: 30
              ansible_control_path: '%(directory)s/klab-76db5fa248'
              ansible_python_interpreter: /usr/bin/python3
              klab_address: 192.168.56.11
              klab_role: control-plane
        workers:
          hosts:
            w1:
              ansible_host: 192.168.56.21
              ansible_user: vagrant
              ansible_ssh_private_key_file: /labs of mine/1m1w/ssh/id_ed25519
              ansible_ssh_common_args: {w1}
              ansible_ssh_timeout: 30
              ansible_control_path: '%(directory)s/klab-aa0ec88943'
              ansible_python_interpreter: /usr/bin/python3
              klab_address: 192.168.56.21
              klab_role: worker
      vars:
        klab_lab: 1m1w
        klab_kubernetes_version: {version}
        klab_network: 192.168.56.0/24
        klab_api_endpoint: 192.168.56.11:6443
"""
COMMON_ARGS = (
    "-F none -o IdentitiesOnly=yes -o StrictHostKeyChecking=accept-new"
    " -o 'UserKnownHostsFile=\"/labs of mine/1m1w/ssh/known_hosts\"' -o HostKeyAlias=1m1w-{node} -o LogLevel=ERROR"
)


def plan_of(name: str, catalog) -> Plan:
    return decide(load_scenario(name, catalog).scenario, catalog)


def ways_of(plan: Plan, proxy: tuple[str, ...] = ()) -> dict[str, Way]:
    ssh = Ssh(FOLDER, plan)
    return {n.name: Way(ssh.settings(n.name), (*proxy, n.name) if proxy else ()) for n in plan.nodes}


def test_the_ssh_configuration_is_as_reviewed(catalog) -> None:
    plan = plan_of("1m1w", catalog)
    assert render_ssh(plan, ways_of(plan)) == SSH


def test_the_host_lines_are_as_reviewed(catalog) -> None:
    assert render_host_lines(plan_of("ha-3m2w", catalog)) == HOSTS


def test_one_control_plane_has_no_virtual_ip(catalog) -> None:
    assert "endpoint" not in render_host_lines(plan_of("1m1w", catalog))


def test_the_inventory_is_as_reviewed(catalog) -> None:
    plan = plan_of("1m1w", catalog)
    args = {name: COMMON_ARGS.format(node=name) for name in ("cp1", "w1")}
    wanted = ANSIBLE.format(**args, version=plan.kubernetes.version)
    assert render_ansible(plan, "an id", ways_of(plan)) == wanted


@pytest.mark.parametrize("name", ["1m1w", "3m", "ha-3m2w", "bare-1m2w"])
def test_every_node_is_in_the_group_of_its_role(name: str, catalog) -> None:
    plan = plan_of(name, catalog)
    data = ansible_inventory(plan, "an id", ways_of(plan))
    assert yaml.safe_load(render_ansible(plan, "an id", ways_of(plan))) == data
    groups = data["all"]["children"][group_name(plan.name)]["children"]
    assert list(groups["control_planes"]["hosts"]) == [n.name for n in plan.control_planes]
    assert list(groups["workers"]["hosts"]) == [n.name for n in plan.workers]


def test_the_virtual_ip_is_a_variable_of_the_labs_group(catalog) -> None:
    plan = plan_of("ha-3m2w", catalog)
    variables = ansible_inventory(plan, "an id", ways_of(plan))["all"]["children"]["klab_ha_3m2w"]["vars"]
    assert variables["klab_vip"] == "192.168.56.10"
    assert variables["klab_api_endpoint"] == "192.168.56.10:8443"


def test_a_labs_successor_has_connections_of_its_own(catalog) -> None:
    """Ansible keeps connections open beyond its end; one to a lab that is gone leads nowhere."""
    plan = plan_of("1m1w", catalog)

    def paths(lab_id: str) -> set[str]:
        groups = ansible_inventory(plan, lab_id, ways_of(plan))["all"]["children"]["klab_1m1w"]["children"]
        return {host["ansible_control_path"] for group in groups.values() for host in group["hosts"].values()}

    assert len(paths("first")) == 2
    assert not paths("first") & paths("second")


def test_a_proxy_reaches_ssh_as_a_shell_and_ssh_itself_take_it(catalog) -> None:
    plan = plan_of("1m1w", catalog)
    line = "env 'KLAB_HOME=/a home' /opt/50%%/klab connect 1m1w w1 %p"
    assert f"  ProxyCommand {line}\n" in render_ssh(plan, ways_of(plan, PROXY))
    groups = ansible_inventory(plan, "an id", ways_of(plan, PROXY))["all"]["children"]["klab_1m1w"]["children"]
    words = shlex.split(groups["workers"]["hosts"]["w1"]["ansible_ssh_common_args"])
    assert words[-2:] == ["-o", f"ProxyCommand={line}"]


def test_names_that_yaml_takes_for_something_else_stay_names(catalog) -> None:
    text = "version: 1\nname: '1'\ntopology:\n  nodes:\n  - {name: 'no', role: control-plane}\n"
    plan = decide(parse_scenario(text + "  - {name: '12', role: worker}\n", catalog), catalog)
    groups = yaml.safe_load(render_ansible(plan, "an id", ways_of(plan)))["all"]["children"]["klab_1"]["children"]
    assert [list(group["hosts"]) for group in groups.values()] == [["no"], ["12"]]


def test_klab_ssh_uses_the_same_settings(catalog) -> None:
    ssh = Ssh(FOLDER, plan_of("1m1w", catalog))
    settings, argv = ssh.settings("w1"), ssh.argv("w1")
    assert argv[-1] == f"{settings.pop('User')}@{settings.pop('HostName')}"
    assert {f"{name}={value}" for name, value in settings.items()} == set(argv[4:-1:2])


def test_a_percent_sign_in_a_path_is_doubled_for_ssh(catalog) -> None:
    settings = Ssh(LabFolder(Path("/50%/x")), plan_of("1m1w", catalog)).settings("w1")
    assert settings["IdentityFile"] == '"/50%%/x/ssh/id_ed25519"'
    assert settings["UserKnownHostsFile"] == '"/50%%/x/ssh/known_hosts"'


def test_there_are_no_settings_for_a_node_that_is_not_there(catalog) -> None:
    with pytest.raises(NotFound, match="w9") as caught:
        Ssh(FOLDER, plan_of("1m1w", catalog)).settings("w9")
    assert caught.value.hint == "its nodes: cp1, w1"
