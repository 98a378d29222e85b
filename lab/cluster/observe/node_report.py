"""A node's report of itself, parsed from the output of the script in `node_probe`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lab.cluster.observe.validity import DAY, parsed
from lab.store import Record

STATIC_PODS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
# Bounds for the output of a node that has been taken over: characters of a line, and lines of one key.
MOST_IN_LINE = 1 << 14
MOST_LINES = 1000
LARGEST = 2.0**53  # up to there every whole number is one of a float's
UPTIME_STEP = 0.01  # seconds: proc_uptime(5) has two digits
COMM_LENGTH = 15  # the kernel cuts a process's name there: proc_pid_comm(5)
TICKS = 100  # a second, in which /proc counts on x86: proc_pid_stat(5), "starttime"
STARTTIME = 19  # of the fields behind the name
# Where each says without credentials whether it is ready.
HEALTH = {
    "etcd": "http://127.0.0.1:2381/",
    "kube-apiserver": "https://127.0.0.1:6443/",
    "kube-controller-manager": "https://127.0.0.1:10257/",
    "kube-scheduler": "https://127.0.0.1:10259/",
}
# Of the guest's, which may be several times as long outside: longer than one that works takes.
HEALTH_SECONDS = 4
# Seconds of the guest's in which what has just started may not answer yet, nor the API know that it does:
# an API server reads all there is first, and the kubelet asks every ten seconds whether it has started.
YOUNG_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Unit:
    """A systemd unit, in systemd's words: load (loaded, masked, not-found), active, sub, enabled, result."""

    load: str = "not-found"
    active: str = "unknown"
    sub: str = ""
    enabled: str = ""
    result: str = ""


@dataclass(frozen=True, slots=True)
class Process:
    """A program that runs on a node.

    `age` is how long it has, in seconds of the guest's; None where it does not tell. `works` says
    that it answers as one that is ready, when asked on the node itself; the kubelet is not asked.
    """

    age: float | None = None
    works: bool = False

    @property
    def young(self) -> bool:
        """Whether it has only just started, so that nothing can be held against it."""
        return self.younger(YOUNG_SECONDS)

    def younger(self, seconds: float) -> bool:
        """Whether it is known to have run for less than so many seconds of the guest's."""
        return self.age is not None and self.age < seconds


@dataclass(frozen=True, slots=True)
class Clock:
    """How far a node's clock is from the lab's timeline, in seconds: `offset` is at most `uncertainty` wrong.

    The timeline is where the guests' clocks should be by the host's; it only serves to set
    nodes that were asked at different moments against each other.
    """

    offset: float
    uncertainty: float


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What one node said of itself.

    `disk` and `inodes` are percent used of the root file system, `free` its free KiB; None
    where it said nothing. `certificates` are those in files, with the days left by the guests'
    clocks. `images` is None where the container runtime does not tell. `manifests` are those of static
    pods, by name, each with the seconds of the guest's since it was written; `processes` are those of
    the kubelet and of static pods, by name. `kubelet` is the last thing the kubelet said when it does not run.
    `member`: kubeadm has made it a part of a cluster.
    """

    units: Mapping[str, Unit]
    clock: Clock | None = None
    disk: int | None = None
    free: int | None = None
    inodes: int | None = None
    swap: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    subnet: bool = False
    cni: tuple[str, ...] = ()
    manifests: Mapping[str, float] = field(default_factory=dict)
    processes: Mapping[str, Process] = field(default_factory=dict)
    certificates: tuple[tuple[str, float], ...] = ()
    images: tuple[str, ...] | None = None
    kubelet: str = ""
    member: bool = True

    def unit(self, name: str) -> Unit:
        return self.units.get(name, Unit())


def parse(text: str, record: Record, began: float, ended: float) -> NodeReport:
    """Read what the script printed.

    Args:
        text: its output.
        record: for the guests' clocks.
        began: the host's clock before the node was asked, in seconds since 1970.
        ended: the same when the answer was there.
    """
    said: dict[str, list[str]] = {}
    units: dict[str, Unit] = {}
    block: dict[str, str] = {}
    for line in [*text.splitlines(), "unit="]:
        key, _, value = line.partition("=")
        if len(line) > MOST_IN_LINE or len(said.get(key, ())) == MOST_LINES:
            continue
        if key.startswith("unit."):
            block[key.removeprefix("unit.")] = value
        elif key == "unit":
            if "Id" in block:
                units[block["Id"].removesuffix(".service")] = _unit(block)
            block = {}
        else:
            said.setdefault(key, []).append(value)
    # A guest's certificates are good or not by its own clock, wherever that stands.
    try:
        now = _float(said["now"][0])
    except (KeyError, ValueError):
        now = record.guest_clock.guest(ended)

    def all_of(key: str) -> tuple[str, ...]:
        return tuple(value for value in said.get(key, ()) if value)

    return NodeReport(
        units=units,
        clock=_clock(said, record, began, ended),
        disk=_number(said, "disk"),
        free=_number(said, "free"),
        inodes=_number(said, "inodes"),
        swap=all_of("swap"),
        addresses=tuple(address.partition("/")[0] for address in all_of("address")),
        subnet="subnet" in said,
        cni=all_of("cni"),
        manifests=dict(_manifests(all_of("manifest"), now)),
        processes=_processes(said),
        certificates=tuple(_certificates(all_of("certificate"), now)),
        images=all_of("image") if "images" in said else None,
        kubelet=" ".join(" ".join(all_of("kubelet")).split())[:300],
        member="member" in said,
    )


def _manifests(lines: Sequence[str], now: float) -> Iterator[tuple[str, float]]:
    """Name and age of each that is not empty; a line that the script did not print is left out."""
    for line in lines:
        size, _, rest = line.partition(" ")
        written, _, file = rest.partition(" ")
        try:
            age = max(0.0, now - _float(written))
        except ValueError:
            continue
        if size != "0" and file:
            yield file.rpartition("/")[2].removesuffix(".yaml"), age


def _unit(block: Mapping[str, str]) -> Unit:
    keys = ("LoadState", "ActiveState", "SubState", "UnitFileState", "Result")
    return Unit(*(block.get(key, "") for key in keys))


def _processes(said: Mapping[str, Sequence[str]]) -> dict[str, Process]:
    """The youngest of each name: an older one is on its way out."""
    healthy = tuple(line.removeprefix("200 ") for line in said.get("health", ()) if line.startswith("200 "))
    found: dict[str, Process] = {}
    for name in (*STATIC_PODS, "kubelet"):
        lines = [line.split() for line in said.get("process", ())]
        stats = [words[1:] for words in lines if words and words[0] == name[:COMM_LENGTH]]
        if stats:
            ages = [age for age in (_age(said, stat) for stat in stats) if age is not None]
            works = name in HEALTH and any(url.startswith(HEALTH[name]) for url in healthy)
            found[name] = Process(min(ages, default=None), works)
    return found


def _age(said: Mapping[str, Sequence[str]], stat: Sequence[str]) -> float | None:
    """Seconds since a process started, both counted from the guest's boot."""
    try:
        return max(0.0, _float(said["begin"][0]) - _float(stat[STARTTIME]) / TICKS)
    except (KeyError, IndexError, ValueError):
        return None


def _number(said: Mapping[str, Sequence[str]], key: str) -> int | None:
    try:
        return int(_float(said[key][0]))
    except (KeyError, ValueError):
        return None


def _float(text: str) -> float:
    """A number as the script prints one.

    Raises:
        ValueError: it is not a number, or none that could be counted with.
    """
    number = float(text)
    if not abs(number) < LARGEST:
        raise ValueError(f"{text[:40]!r} is not a number of the script's")
    return number


def _clock(said: Mapping[str, Sequence[str]], record: Record, began: float, ended: float) -> Clock | None:
    """The node's clock against the lab's timeline.

    The script ran somewhere between question and answer. Its own length, by the node's uptime,
    is not part of the uncertainty: only the way there and back is.
    """
    try:
        now, length = _float(said["now"][0]), _float(said["end"][0]) - _float(said["begin"][0])
    except (KeyError, ValueError):
        return None
    earliest = record.guest_clock.guest(began) + length
    latest = record.guest_clock.guest(ended)
    return Clock(now - (earliest + latest) / 2, max(0.0, (latest - earliest) / 2) + UPTIME_STEP)


def _certificates(lines: Sequence[str], now: float) -> Iterator[tuple[str, float]]:
    """The files and the days left; damaged certificates are left out."""
    for line in lines:
        file, _, text = line.partition(" ")
        certificate = parsed(text)
        if certificate is not None:
            yield file, (certificate.not_valid_after_utc.timestamp() - now) / DAY
