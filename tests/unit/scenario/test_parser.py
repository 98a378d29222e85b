"""Reading scenario files: every problem at once, each with its line and what to do."""

from __future__ import annotations

from textwrap import dedent

import pytest

from lab.errors import ScenarioError
from lab.plan.decide import decide
from lab.scenario.catalog import Catalog
from lab.scenario.model import Mirror, Scenario
from lab.scenario.parser import parse_scenario

HEAD = 'version: 1\nname: test\nkubernetes: {version: "1.35.4"}\n'


@pytest.fixture
def read(catalog: Catalog):
    def parse(text: str) -> Scenario:
        return parse_scenario(dedent(text), catalog, source="x.yaml")

    return parse


@pytest.fixture
def problems(read):
    def found(text: str) -> list[str]:
        with pytest.raises(ScenarioError) as caught:
            read(text)
        assert caught.value.exit_code == 2
        assert caught.value.hint
        return list(caught.value.details)

    return found


def test_the_shortest_scenario(read) -> None:
    scenario = read("version: 1\nname: tiny\n")
    assert (scenario.name, scenario.topology.roles, scenario.memory) == ("tiny", ("control-plane",), 2048)


def test_a_scenario_with_every_key(read) -> None:
    scenario = read(
        """
        version: 1
        name: all
        description: everything
        topology:
          nodes:
            - {name: a, role: control-plane, address: 10.10.0.5, cpus: 4, memory: 4Gi, disk: 40G}
            - {name: b}
        cpus: 2
        memory: 2048
        disk: 30
        box: debian-13
        kubernetes: {version: v1.35.4, runtime: containerd, cni: none, pod_cidr: 10.1.0.0/16, service_cidr: 10.2.0.0/16}
        network: {cidr: 10.10.0.0/24, management: 10.11.0.0/16}
        bootstrap: full
        provider: {libvirt: {cpu_model: Haswell, pool: fast}, virtualbox: {linked_clone: false}}
        mirrors: {docker.io: "http://mirror:5000"}
        addons: [a.yaml]
        """
    )
    assert scenario.topology.nodes[0].memory == 4096
    assert scenario.disk == 30
    assert scenario.kubernetes.version == "1.35.4"
    assert scenario.mirrors == {"docker.io": Mirror(url="http://mirror:5000")}
    assert scenario.provider.libvirt.pool == "fast"
    assert str(scenario.network.management) == "10.11.0.0/16"


def test_all_problems_of_a_file_at_once_by_line(problems) -> None:
    found = problems(
        """\
        version: 1
        name: Big Lab
        topolgy: {workers: 2}
        topology:
          control_planes: 2
          workers: two
        memory: 2
        kubernetes:
          version: 1.35
          cni: calicoo
          pod_cidr: 10.96.0.1/16
        bootstrap: ful
        name: again
        """
    )
    assert [line.split(":")[0] for line in found] == [f"line {n}" for n in (2, 3, 5, 6, 7, 9, 10, 11, 12, 13)]
    text = "\n".join(found)
    for words in (
        "did you mean topology?",
        "a quorum",
        "needs a whole number",
        "did you mean 2Gi?",
        'for example "1.35" or "1.35.4", with quotes',
        "known are: bridge, calico, flannel, none",
        "did you mean 10.96.0.0/16?",
        "did you mean full?",
        "stands here twice; first in line 2",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "this is nothing"),
        ("# only a comment\n", "this is nothing"),
        ("just words", "this is 'just words'"),
        ("- a\n- b\n", "this is a list"),
        ("version: 1\nname: x\n\tcpus: 2\n", "line 3: not YAML: a tab"),
        ("version: 1\nname: [x\n", "line 3: not YAML"),
        ("version: 1\nname: x\x07\n", "line 2: not YAML: the character U+0007"),
        ("version: 1\nname: a\n---\nversion: 1\n", "line 3: a second document begins here"),
        ("a: &a [*a]\n", "refer to itself"),
        ("[" * 3000, "nested too deeply"),
        ("{a: " * 30 + "1" + "}" * 30, "nested too deeply"),
        ("name: " + "x" * 70_000, "larger than 64 KiB"),
        ("version: !!python/name:os.system x\nname: a\n", "has no meaning here"),
        ("version: 1\nname: a\ntopology: !foo {workers: 1}\n", "the tag !foo has no meaning"),
        ("version: 1\nname: a\n? [b]\n: c\n", "a key must be a word"),
        ("version: 1\nname: a\n<<: {cpus: 2}\n", "merging (<<) is not possible"),
        ("version: 1\nname: !!timestamp 2020-99-99\n", "has no meaning here"),
        ("version: 1\nname: !!int x\n", "cannot be read as int"),
        ('version: 1\nname: a\ndescription: "\\UFFFFFFFF"\n', "names no character"),
        ('version: 1\nname: a\ndescription: "\\UD800"\n', "not YAML"),
        ('version: 1\nname: a\ndescription: "\\uD800"\n', "surrogate"),
        ("version: 1\nname: " + "9" * 5000, "a number of more than 50 digits"),
        ("version: 1\nname: 0x" + "F" * 5000, "a number of more than 50 digits"),
    ],
)
def test_what_is_no_scenario(problems, text: str, words: str) -> None:
    found = problems(text)
    assert words in "\n".join(found)


def test_aliases_that_multiply_end_soon(problems) -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
    for previous, name in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{name}: &{name} [{','.join([f'*{previous}'] * 10)}]\n"
    assert "aliases (*) count each time they are used" in problems(bomb)[0]


def test_an_alias_of_a_long_text_that_multiplies_ends_soon(problems) -> None:
    assert "aliases (*)" in problems(f"a: &a {'x' * 60_000}\nb: [*a, *a, *a, *a]\n")[0]


def test_a_byte_order_mark_and_windows_lines_are_no_problem(read) -> None:
    assert read("\ufeffversion: 1\r\nname: x\r\ncpus: 3\r\n").cpus == 3


def test_an_honest_alias_works(read) -> None:
    scenario = read("version: 1\nname: x\nmemory: &size 8Gi\ndisk: *size\n")
    assert (scenario.memory, scenario.disk) == (8192, 8)


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("topology: {control_planes: 2}", "need 2 of them for a quorum and survive the loss of 0"),
        ("topology: {control_planes: 4}", "survive the loss of 1, no more than 3 would; use 3 or 5"),
        ("topology: {control_planes: 0}", "0 is not between 1 and 7"),
        ("topology: {control_planes: 1, nodes: [{name: a}]}", "either control_planes and workers, or nodes"),
        ("topology: {nodes: []}", "no node has the role control-plane"),
        ("topology: {nodes: [{name: a}]}", "no node has the role control-plane"),
        ("topology: {nodes: [{name: a, role: control-plane}, {name: a}]}", "two nodes are called a"),
        ("topology: {nodes: [{role: worker}]}", "topology.nodes[0].name: this key is required"),
        ("topology: {nodes: {name: a}}", "needs a list, not a set of keys"),
        ("topology: {vip: 192.168.56.10}", "a virtual IP needs several control planes"),
        ("topology: {control_planes: 3, vip: 192.168.57.10}", "outside the lab's network"),
        ("topology: {control_planes: 3, vip: 192.168.56.1}", "the host's own address"),
        ("topology: {control_planes: 3, vip: 192.168.56.255}", "not a host's address"),
        ("topology: {nodes: [{name: localhost, role: control-plane}]}", "is reserved"),
        (
            "topology: {nodes: [{name: a, role: control-plane, address: 192.168.56.9}, "
            "{name: b, address: 192.168.56.9}]}",
            "already the address of a",
        ),
        ("topology:", "needs keys below it, not nothing"),
        ("workers: 2", "unknown key here; it belongs under topology"),
        ("cpus: 1", "kubeadm refuses a control plane with fewer than 2 CPUs"),
        ("cpus: two", "needs a whole number"),
        ("cpus: true", "needs a whole number, not true"),
        ("cpus:", "nothing stands here"),
        ("memory: 1G", "a control-plane needs at least 1700 MiB"),
        ("memory: lots", "is not a size"),
        ("disk: 5G", "the box alone needs 6 GiB"),
        ("disk: 20480", "a number alone counts GiB"),
        ("box: debain-13", "did you mean debian-13?"),
        ("network: {cidr: 192.168.56.0/30}", "a /16 to /28 is needed"),
        ("network: {cidr: 192.168.56.0/28}\ntopology: {workers: 20}", "no room for 21 nodes"),
        ("network: {cidr: fe80::/64}", "not an IPv4 network"),
        ("network: {cidr: 224.0.0.0/24}", "cannot be used for hosts"),
        ("network: {cidr: 10.96.0.0/24}", "overlaps"),
        ("bootstrap: none\naddons: [a.yaml]", "add-ons need a running cluster"),
        ("addons: ['']", "this text is empty"),
        ("addons: a.yaml", "needs a list"),
        ("mirrors: {docker.io: mirror}", "is not an address such as"),
        ("mirrors: {docker.io: {url: mirror}}", "is not an address such as"),
        ("mirrors: {docker.io: {ca: a.pem}}", "mirrors.docker.io.url: this key is required"),
        ("mirrors: {docker.io: {url: 'https://m', cert: a}}", "unknown key; known here: ca, login, url"),
        ("mirrors: {docker.io: {url: 'http://m', login: a}}", "login would send its password in clear"),
        ("mirrors: {docker.io: {url: 'http://m', ca: a}}", "ca is for a mirror's certificate"),
        ("mirrors: {docker.io: [a]}", "needs text, not a list"),
        ("mirrors: {'*': 'http://m'}", "such as docker.io, or _default for all others"),
        ("mirrors: {http://docker.io: http://mirror}", "a registry's host name"),
        ("provider: {libvirt: {pool: ''}}", "is not a plain name"),
        ("provider: {libvrt: {}}", "did you mean libvirt?"),
        ("provider: {libvirt: {cpu_model: '<x/>'}}", "is not a plain name"),
        ('provider: {libvirt: {cpu_model: "a</model><emulator>/bin/sh</emulator><model>b"}}', "is not a plain name"),
        ("network: {cidr: 8.8.8.0/24}", "8.8.8.0/24 is not private"),
        ("network: {cidr: 192.0.2.0/24}", "say network.allow_public: true"),
        ("network: {cidr: 0.1.0.0/16}", "cannot be used for hosts"),
        ("network: {cidr: 127.1.0.0/16, allow_public: true}", "cannot be used for hosts"),
        ("network: {management: 10.11.0.0/25}", "a /24 for each lab is taken from it; given: /25"),
        ("network: {management: 192.0.2.0/24}", "192.0.2.0/24 is not private"),
        ("network: {management: 192.168.56.0/24}", "leaves no room for Vagrant's own network, a /24 in"),
        ("network: {cidr: 192.168.56.0/0.0.0.255}", "is not in CIDR notation; did you mean 192.168.56.0/24?"),
        ("topology: {nodes: [{name: ip6-localhost, role: control-plane}]}", "is reserved"),
        ("topology: {nodes: [{name: workers, role: control-plane}]}", "is a group of the Ansible inventory"),
        ("mirrors: {..: 'http://m'}", "a registry's host name"),
        ("mirrors: {-rf: 'http://m'}", "a registry's host name"),
        ("mirrors: {'docker.io:99999': 'http://m'}", "a registry's host name"),
        ("mirrors: {docker.io: 'http://m:99999'}", "is not an address such as"),
        ("mirrors: {docker.io: 'http://m/\"]'}", "is not an address such as"),
        ("mirrors: {docker.io: 'http://user:word@m'}", "is not an address such as"),
        ("mirrors: {docker.io: 'file:///etc'}", "is not an address such as"),
        ("topology: {allow_even: 'yes'}", "needs true or false"),
        ("description: 5", "put quotes around it"),
    ],
)
def test_a_problem_in_words(problems, rest: str, words: str) -> None:
    found = problems(HEAD + rest)
    assert any(words in line for line in found), found


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("pod_cidr: 10.96.0.0/16", "kubernetes.service_cidr 10.96.0.0/12 overlaps kubernetes.pod_cidr"),
        ("pod_cidr: 10.244.0.0/25", "take a /24 each"),
        ("pod_cidr: 0.0.0.0/0", "cannot be used for hosts"),
        ("service_cidr: 10.0.0.0/8", "a /12 to /28 is needed"),
        ("service_cidr: 172.16.0.0/12\n  pod_cidr: 172.16.0.0/12", "no room for Vagrant's own network"),
        ("version: 1.35.4.1", "did you mean 1.35.4?"),
        ("version: '1.27'", "known are: 1.16.3, 1.23.0, 1.28.0,"),
        ("version: '1.35.5'", "did you mean 1.35.4?"),
        ("version: '1.34.2'", "did you mean 1.34.4?"),
        ("runtime: dokcer", "'dokcer' is not known; known are: containerd"),
        (
            "version: '1.23'\n  runtime: docker",
            "the box debian-13 has no runtime docker, it has containerd; write box: debian-12",
        ),
        ("proxy_mode: userspace", "'userspace' is not one of iptables, ipvs, nftables"),
        ("proxy_mode: ipv", "did you mean ipvs?"),
        (
            'proxy_mode: nftables\n  version: "1.28.0"',
            "kube-proxy of Kubernetes 1.28 has the mode nftables only behind a feature gate, if at all: 1.31 or newer",
        ),
        ("cni: cilium", "klab has no pod network cilium: its upstream makes its objects with Helm"),
        (
            "cni: calicoo",
            "'calicoo' is not known; known are: bridge, calico, flannel, none, weave; did you mean calico?",
        ),
    ],
)
def test_a_problem_under_kubernetes(problems, rest: str, words: str) -> None:
    found = problems(f"version: 1\nname: x\nkubernetes:\n  {rest}\n")
    assert any(words in line for line in found), found


@pytest.mark.parametrize("name", ["cka-1.28", "a.b", "1.2.3"])
def test_a_scenarios_name_may_have_dots_which_the_labs_does_not(read, catalog, name: str) -> None:
    scenario = read(f"version: 1\nname: '{name}'\n")
    plan = decide(scenario, catalog)
    assert (plan.scenario, plan.name) == (name, name.replace(".", "-"))


@pytest.mark.parametrize("name", ["a..b", ".a", "a.", "a.-b", "a-.b", "A.b", f"{'a' * 39}.b", "a/b.c"])
def test_and_not_in_any_place(problems, name: str) -> None:
    assert any("is not a name" in line for line in problems(f"version: 1\nname: '{name}'\n"))


def test_even_control_planes_by_an_explicit_word(read) -> None:
    assert read(HEAD + "topology: {control_planes: 2, allow_even: true}").topology.allow_even


def test_one_mistake_is_reported_once_and_not_through_what_follows_from_it(problems) -> None:
    found = problems(
        HEAD
        + dedent(
            """\
            network: {cidr: 10.10.0.0/33}
            topology:
              nodes:
                - {name: a, role: control-plan, address: 10.10.0.5}
            """
        )
    )
    assert len(found) == 2


def test_plain_nodes_may_be_small(read) -> None:
    assert read("version: 1\nname: x\nbootstrap: none\ncpus: 1\nmemory: 512\n").cpus == 1


def test_every_problem_names_a_line_of_the_file(problems) -> None:
    text = HEAD + "network: {cidr: 10.96.0.0/24}\n"
    for line in problems(text):
        number = int(line.removeprefix("line ").split(":")[0])
        assert 1 <= number <= len(text.splitlines())


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("010", 'write 10, or "010" for text'),
        ("08", 'write 8, or "08" for text'),
        ("-007", 'write -7, or "-007" for text'),
        ("0b11", 'write 3, or "0b11" for text'),
        ("0o17", 'write 15, or "0o17" for text'),
        ("0x1F", 'write 31, or "0x1F" for text'),
        ("1_000", 'write 1000, or "1_000" for text'),
        ("1:30", 'write "1:30" for text'),
        ("190:20:30", 'write "190:20:30" for text'),
        ("190:20:30.15", 'write "190:20:30.15" for text'),
        ("1e3", 'write "1e3" for text'),
        ("1.5e3", 'write "1.5e3" for text'),
        (".5", 'write ".5" for text'),
        ("5.", 'write "5." for text'),
        ("-.inf", 'write "-.inf" for text'),
        (".nan", 'write ".nan" for text'),
        ("0x_", 'write "0x_" for text'),
    ],
)
@pytest.mark.parametrize("key", ["cpus", "memory", "disk", "name"])
def test_a_number_that_programs_read_differently(problems, key: str, written: str, words: str) -> None:
    head = "version: 1\n" if key == "name" else "version: 1\nname: x\n"
    line = 2 if key == "name" else 3
    assert problems(f"{head}{key}: {written}\n") == [
        f"line {line}: {key}: {written} is not a plain decimal number; {words}"
    ]


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        *(("memory", "4096", 4096), ("memory", "+4096", 4096), ("memory", "2048.0", 2048), ("memory", "'4096'", 4096)),
        *(("name", "'08'", "08"), ("name", "1e3x", "1e3x"), ("name", "2024-01-01", "2024-01-01"), ("cpus", "10", 10)),
        *(("description", text, text) for text in ("yes", "off", "=", "12:30 uhr", "1.2.3", "0x", "1__x")),
        *(("description", "!!str 010", "010"), ("description", "'1:30'", "1:30")),
    ],
)
def test_other_values_are_read_as_yaml_12_does(read, key: str, value: str, expected: object) -> None:
    text = HEAD.replace("name: test", f"{key}: {value}") if key == "name" else f"{HEAD}{key}: {value}\n"
    assert getattr(read(text), key) == expected


def test_yes_is_a_word(problems) -> None:
    assert "needs true or false, not 'yes'" in problems(HEAD + "topology: {allow_even: yes}")[0]


def test_digits_without_end_are_looked_at_once(problems) -> None:
    assert "a number of more than 50 digits" in problems(f"{HEAD}cpus: {'1' * 60_000}\n")[0]
    assert "needs a whole number" in problems(f"{HEAD}cpus: {'1' * 60_000}x\n")[0]


def test_a_public_network_is_taken_where_it_is_asked_for(read) -> None:
    scenario = read(HEAD + "network: {cidr: 8.8.8.0/24, allow_public: true}")
    assert str(scenario.network.cidr) == "8.8.8.0/24"
