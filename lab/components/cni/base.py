"""What klab asks a pod network: a CNI plug-in and what belongs to it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from types import MappingProxyType
from typing import Any, ClassVar, Protocol

from lab.components.cluster import Cluster, File, Node


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong with the pod network on a node, how it shows, and the command that repairs it.

    `follows`: it may follow from another problem of the node, whose repair then comes first.
    """

    what: str
    evidence: str
    repair: str
    follows: bool = True


class Unit(Protocol):
    """A systemd unit on a node."""

    @property
    def active(self) -> str: ...


class NodeState(Protocol):
    """What a node said of itself: its CNI configuration files, its units, and whether `state_file` is there."""

    @property
    def cni(self) -> Sequence[str]: ...
    @property
    def subnet(self) -> bool: ...
    def unit(self, name: str) -> Unit: ...


class Pod(Protocol):
    """A pod, as the API server tells of it."""

    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def node(self) -> str: ...
    @property
    def ready(self) -> bool: ...
    @property
    def why(self) -> str: ...


class Commands(Protocol):
    """Commands for a person: kubectl for the lab, a shell command on a node, `create` again, `node replace`."""

    def kubectl(self, *arguments: str) -> str: ...
    def ssh(self, node: str, command: str) -> str: ...
    def recreate_node(self, node: str) -> str: ...
    @property
    def converge(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Observed:
    """One node as it was seen. `unheard`: its kubelet is silent; `pods` is None where the API is."""

    node: str
    state: NodeState
    unheard: bool
    pods: Sequence[Pod] | None


class PodNetwork:
    """One pod network. The answers here are those of one that needs nothing; a subclass gives those that differ.

    summary: what it is, in a few words of the scenario's reference.
    present: pods can have a network, so that nodes become Ready and cluster DNS answers.
    version_keys: its entries beside each Kubernetes version in a recipe (and in a plan); the first is its images'.
    versions: those of `version_keys` that klab's own manifest is of; a recipe that holds the network may name others.
    repositories: its images' names without a tag, by component.
    tag: a tag of them, for a version.
    packages: Debian packages that a box must hold. A box whose recipe has all of them has the network, too.
    listed: a recipe must name the network, because a box needs more than packages.
    namespaces, pods: where its pods run, and what their names begin with; Ready waits for them.
    units: its systemd units on every node.
    cni_file: its CNI configuration on every node.
    state_file: the file on a node that is there once the node's part of the network is up.
    manifest_file: what its manifest is called on a node whose cluster the student makes.
    links: the interfaces that it makes on a node; patterns of a shell.
    leftovers: the folders that it fills on a node beside those of CNI.
    tables: its nftables tables, by family and name.
    enforces_policies: it enforces NetworkPolicy objects.
    chains: what the names of its iptables chains, and of the rules that lead there, have in them; an ERE.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    present: ClassVar[bool] = True
    version_keys: ClassVar[tuple[str, ...]] = ()
    versions: ClassVar[Mapping[str, str]] = MappingProxyType({})
    repositories: ClassVar[Mapping[str, str]] = MappingProxyType({})
    tag: ClassVar[str] = "v{}"
    packages: ClassVar[tuple[str, ...]] = ()
    listed: ClassVar[bool] = True
    namespaces: ClassVar[tuple[str, ...]] = ()
    pods: ClassVar[tuple[str, ...]] = ()
    units: ClassVar[tuple[str, ...]] = ()
    cni_file: ClassVar[str] = ""
    state_file: ClassVar[str] = ""
    manifest_file: ClassVar[str] = ""
    links: ClassVar[tuple[str, ...]] = ()
    leftovers: ClassVar[tuple[str, ...]] = ()
    tables: ClassVar[tuple[str, ...]] = ()
    enforces_policies: ClassVar[bool] = False
    chains: ClassVar[str] = ""

    @property
    def needs(self) -> str:
        """What a box must hold for it, in words; empty for a network that is nothing."""
        if self.packages:
            return f"Debian's {', '.join(self.packages)}"
        return f"an image pack with {', '.join(self.repositories.values())}" if self.repositories else ""

    def images(self, versions: Mapping[str, str]) -> Mapping[str, str]:
        """Its images by component, full references; `versions` has the version of each of `version_keys`."""
        return {
            name: f"{image}:{self.tag.format(versions[self.version_keys[0]])}"
            for name, image in self.repositories.items()
        }

    def refusal(self, pods: IPv4Network, lab: IPv4Network) -> str:  # noqa: ARG002
        """Why it cannot serve a cluster with these pods' and nodes' ranges; empty where it can."""
        return ""

    def controller_manager_flags(self) -> Mapping[str, str]:
        """Flags of kube-controller-manager, without dashes."""
        return {}

    def seed_files(self, cluster: Cluster, node: Node) -> Sequence[File]:  # noqa: ARG002
        """Its files on a node that makes or joins the cluster by itself."""
        return ()

    def prepared_files(self, cluster: Cluster, node: Node) -> Sequence[File]:  # noqa: ARG002
        """Its files, but for the manifest, on a node whose cluster the student makes."""
        return ()

    def before_kubeadm(self, cluster: Cluster, node: Node) -> str:  # noqa: ARG002
        """Part of the node's script, before kubeadm runs."""
        return ""

    def prepare(self, cluster: Cluster, node: Node) -> str:  # noqa: ARG002
        """Part of the node's script where the student runs kubeadm."""
        return ""

    def after_kubeadm(self, cluster: Cluster, node: Node) -> str:  # noqa: ARG002
        """Part of the node's script, after kubeadm has run."""
        return ""

    def updates(self, cluster: Cluster, node: Node) -> Sequence[tuple[File, str]]:  # noqa: ARG002
        """Files that follow from who the other nodes are, each with the shell command that applies a change."""
        return ()

    def manifest(self, cluster: Cluster) -> Sequence[dict[str, Any]]:  # noqa: ARG002
        """The cluster's objects, in an order in which they can be applied."""
        return ()

    def problems(self, seen: Observed, commands: Commands) -> Iterable[Problem]:  # noqa: ARG002
        """What is wrong with it on a node."""
        return ()

    def advice(self, node: str) -> str:
        """Commands that show why a node's part of the network does not come up."""
        shown = [f"klab kubectl -- get pods -n {namespace} -o wide" for namespace in self.namespaces]
        return "; ".join([*shown, f"klab kubectl -- describe node {node}"])


class DaemonNetwork(PodNetwork):
    """A pod network with a daemon on each node, which brings the node's CNI configuration (`cni_file`) itself.

    daemon: its DaemonSet, in the first of `namespaces`; its pods' names begin with that.
    """

    daemon: ClassVar[str]

    def after_kubeadm(self, cluster: Cluster, node: Node) -> str:  # noqa: ARG002
        return f"say network begin\nuntil [ -e {self.cni_file} ]; do sleep 0.5; done\nsay network done\n"

    def own(self, seen: Observed) -> Pod | None:
        """The daemon's pod on a node."""
        return next((pod for pod in self._daemons(seen) if pod.node == seen.node), None)

    def again(self, seen: Observed, commands: Commands) -> str:
        """The command that starts the daemon on a node again."""
        own, namespace = self.own(seen), self.namespaces[0]
        if own is not None:
            return commands.kubectl("delete", "pod", "-n", namespace, own.name)
        if self._daemons(seen):
            return commands.kubectl("rollout", "restart", "-n", namespace, f"daemonset/{self.daemon}")
        return commands.converge

    def daemon_problems(self, seen: Observed, commands: Commands) -> Iterator[Problem]:
        """What is wrong with the daemon on a node."""
        own, repair = self.own(seen), self.again(seen, commands)
        if seen.pods is not None and own is None:
            nodes = ", ".join(sorted({pod.node for pod in self._daemons(seen)}))
            yield Problem(f"{self.name} has no pod there", f"{self.name} runs on {nodes or 'no node'}", repair)
        elif own is not None and not own.ready and not seen.unheard:
            yield Problem(f"{self.name} is not ready there", f"{own.name}: {own.why}", repair)

    def no_configuration(self, seen: Observed, repair: str) -> Iterator[Problem]:
        """That the node's CNI configuration is missing."""
        if self.cni_file not in seen.state.cni:
            evidence = f"{self.cni_file} is missing; there is {', '.join(seen.state.cni) or 'no other'}"
            what = "its CNI configuration is missing, so no pod gets a network"
            yield Problem(what, evidence, repair, follows=False)

    def problems(self, seen: Observed, commands: Commands) -> Iterator[Problem]:
        yield from self.daemon_problems(seen, commands)
        yield from self.no_configuration(seen, self.again(seen, commands))

    def _daemons(self, seen: Observed) -> list[Pod]:
        return [p for p in seen.pods or () if p.namespace == self.namespaces[0] and p.name.startswith(self.daemon)]
