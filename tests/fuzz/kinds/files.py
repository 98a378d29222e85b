"""What klab wrote, or another version of klab, or nobody: plan, records, manifests, journals, books."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from unittest import mock

from fuzz.harness import Target
from fuzz.mutations import json_texts, octets, texts
from support.fake_lab import lab_on_disk
from support.shelved import shelved_box

from lab.boxes import store
from lab.boxes.manifest import MANIFEST, read_box
from lab.cli.terminal import completion
from lab.cluster.events import phase_of, read_events
from lab.cluster.observe import expiry, validity
from lab.cluster.secrets import authorities, etcd_client_files, load_or_make
from lab.cluster.timeline import draw_svg, draw_text, last_create, spans
from lab.disks.layers import Merge
from lab.errors import BoxError, LabError, NotFound
from lab.host import kvm_probe
from lab.host.private_libvirt import PrivateLibvirt
from lab.machines.captures import PartKind
from lab.machines.libvirt.capture_index import CaptureIndex, Entry, Saved
from lab.machines.ssh import Ssh
from lab.plan.file import from_json as plan_from_json
from lab.plan.file import to_json as plan_to_json
from lab.snapshots import manifest as manifests
from lab.snapshots import objects
from lab.snapshots.journal import STEPS, Attempt, AttemptJournal
from lab.snapshots.store import SnapshotStore
from lab.store import Home, LabFolder, Record

KEY = "20261121-024000-ab12"
GOLDEN = Path(__file__).parents[2] / "golden"
Act = Callable[[str, Path], object]


def plans(_folder: Path) -> list[str]:
    return [(GOLDEN / "plan" / f"{name}.json").read_text() for name in ("1m1w", "ha-3m2w")]


def plan(text: str, folder: Path) -> None:
    found = plan_from_json(text)
    assert plan_from_json(plan_to_json(found)) == found


def plan_file(data: bytes, folder: Path) -> None:
    (folder / "plan.json").write_bytes(data)
    plan_from_json(LabFolder(folder).plan_text())


def records(_folder: Path) -> list[str]:
    record = Record(str(uuid.UUID(int=7)), "demo", "fake", "box@0123", 0, "ready", 1.5, True, 0.3, 2.5, "")
    old = {k: v for k, v in asdict(record).items() if k not in {"checkpoint", "epoch"}}
    return [json.dumps(asdict(record)), json.dumps(old)]


def record(text: str, folder: Path) -> None:
    lab = LabFolder(folder / "labs" / "demo")
    lab.path.mkdir(parents=True)
    (lab.path / "lab.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    found = lab.record()
    kinds = {
        f: type(getattr(SAMPLE, f))
        for f in ("id", "name", "provider", "box", "phase", "checkpoint", "seat", "accelerated")
    }
    for name, kind in kinds.items():
        assert type(getattr(found, name)) is kind, f"{name} is {type(getattr(found, name)).__name__}"
    for name in ("created", "dilation", "epoch"):
        number = getattr(found, name)
        assert type(number) in {int, float}, f"{name} is {type(number).__name__}"
        assert abs(number) < float("inf"), f"{name} is not finite"


SAMPLE = Record(str(uuid.UUID(int=7)), "demo", "fake", "box", 0, "ready", 1.5)


def snapshots(_folder: Path) -> list[str]:
    parts = (
        manifests.PartRecord(PartKind.MEMORY, "klab-demo_cp1.k.ram", 100, "ab" * 16),
        manifests.PartRecord(PartKind.DISK, "klab-demo_cp1.k.qcow2", 200, "cd" * 16),
    )
    node = manifests.NodeRecord("cp1", str(uuid.UUID(int=1)), "control-plane", True, 1.0, 2.0, 3.0, {"cpu": "x"}, parts)
    off = manifests.NodeRecord("w1", str(uuid.UUID(int=2)), "worker", False, 0, 0, 0, {}, parts[1:])
    whole = manifests.Manifest(
        *(KEY, "lesson-3", str(uuid.UUID(int=7)), "demo", "1m1w", 1.0, 2.0, (node, off)),
        parent="",
        note="a note",
        versions={"klab": "0.1.0"},
        expires={"token": 5.0},
        seconds={"suspend": 0.1},
        missing=("w1 is not Ready",),
    )
    return [manifests.to_json(whole)]


def snapshot(text: str, _folder: Path) -> None:
    found = manifests.from_json(text)
    assert manifests.from_json(manifests.to_json(found)) == found or "NaN" in text
    # What klab snapshots lists of each.
    assert f"{found.name} {found.size} {found.frozen:.1f} {found.running} {found.created:.0f}"
    for node in found.nodes:
        assert isinstance(node.name, str)
        sorted({*node.platform, "cpu"})


def snapshot_store(text: str, folder: Path) -> None:
    lab = LabFolder(folder / "demo")
    lab.snapshots.mkdir(parents=True)
    (lab.snapshots / f"{KEY}.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    found, damaged = SnapshotStore(lab).all()
    assert len(found) + len(damaged) == 1
    SnapshotStore(lab).pick(None)


def current(data: bytes, folder: Path) -> None:
    lab = LabFolder(folder / "demo")
    lab.snapshots.mkdir(parents=True)
    (lab.snapshots / "stand").write_bytes(data)
    assert isinstance(SnapshotStore(lab).current, str)


def attempts(_folder: Path) -> list[str]:
    return [
        json.dumps(asdict(Attempt(act, step, KEY, "", ("cp1",), ("cp1", "w1"), 1.5, 77, {"name": "x"})))
        for act, steps in STEPS.items()
        for step in steps[:2]
    ]


def attempt(text: str, folder: Path) -> None:
    lab = LabFolder(folder / "demo")
    lab.snapshots.mkdir(parents=True)
    lab.attempt.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = AttemptJournal(lab).read()
    assert found is not None
    for name in (found.id, found.target, *found.running, *found.nodes):
        assert isinstance(name, str), "a name is no text"
    assert type(found.process) is int
    assert type(found.began) in {int, float}
    assert isinstance(found.data, dict)


def object_lists(_folder: Path) -> list[str]:
    return [json.dumps([["default", "ConfigMap", "a", "ab" * 32], ["kube-system", "Pod", "b", "cd" * 32]])]


def object_list(text: str, folder: Path) -> None:
    file = folder / "objects.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = objects.read(file)
    assert found is not None
    objects.difference(found, {})
    objects.write(file, found)
    assert objects.read(file) == found


def entries(folder: Path) -> list[str]:
    index = CaptureIndex(folder)
    saved = Saved("klab-demo_cp1.k.qcow2", "klab-demo_cp1.k.ram", "<domain/>", "ssh-ed25519 AAAA\n", "old.ram")
    index.write(Entry(KEY, 1.5, {"cp1": saved, "w1": Saved("b", "", "<domain/>")}))
    return [(folder / f"{KEY}.json").read_text()]


def entry(text: str, folder: Path) -> None:
    index = CaptureIndex(folder)
    (folder / f"{KEY}.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert len(index.readable()[0]) in {0, 1}
    assert isinstance(index.older("klab-demo_cp1.k.ram"), str)
    found = index.entry(KEY)
    for saved in found.nodes.values():
        for value in asdict(saved).values():
            assert isinstance(value, str), "a file's name is no text"
    index.move("b", "c")
    index.whole_before("other", "cp1")


def merging(text: str, folder: Path) -> None:
    (folder / ".merge.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    found = CaptureIndex(folder).merging
    assert found is None or isinstance(found.into, str)


def journals(_folder: Path) -> list[str]:
    lines = [
        {"time": 1.5, "node": "", "phase": "create", "state": "begin", "text": ""},
        {"time": 2.5, "node": "", "phase": "box", "state": "begin", "text": ""},
        {"time": 3.5, "node": "", "phase": "box", "state": "done", "text": ""},
        {"time": 4.5, "node": "cp1", "phase": "boot", "state": "done", "text": ""},
        {"time": 9.5, "node": "cp1", "phase": "init", "state": "failed", "text": "kubeadm"},
    ]
    return ["".join(json.dumps(line) + "\n" for line in lines)]


def journal(text: str, folder: Path) -> None:
    file = folder / "events.jsonl"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    events = read_events(file)
    phase_of(events, "cp1")
    chart = spans(last_create(events))
    draw_text(chart)
    draw_svg(chart, title="demo")
    json.dumps([asdict(span) for span in chart])


def boxes(folder: Path) -> list[str]:
    box = shelved_box(Home(folder))
    return [(box.folder / MANIFEST).read_text()]


def box(text: str, folder: Path) -> None:
    home = Home(folder)
    place = home.boxes / "debian-13-k8s-1.35.4@0123456789ab"
    place.mkdir(parents=True)
    (place / MANIFEST).write_bytes(text.encode("utf-8", "surrogatepass"))
    found = read_box(place)
    for name in ("name", "digest", "inputs", "kubernetes", "recipe"):
        assert isinstance(getattr(found, name), str), f"{name} is no text"
    assert found.size >= 0
    store.list_boxes(home)
    try:
        store.find_box(home, "debian-13", "1.35.4")
        store.check_box(found)
    except BoxError:
        pass


def hosts(_folder: Path) -> list[str]:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return [
        json.dumps(asdict(kvm_probe._Kept(boot, "QEMU emulator version 7.2", True, 1.0, ""))),
        json.dumps(asdict(kvm_probe._Kept(boot, "QEMU emulator version 7.2", False, 17.5, "no KVM", seen=True))),
    ]


def host(text: str, folder: Path) -> None:
    (folder / "host.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    qemu = mock.Mock(version=lambda: "QEMU emulator version 7.2", obstacle=lambda: None)
    found = kvm_probe.acceleration(Home(folder), qemu)
    assert found.obstacle is None or type(found.obstacle.why) is str
    assert type(found.factor) in {int, float}


def key_files(folder: Path) -> list[bytes]:
    lab = LabFolder(folder / "demo")
    _own_keys(folder)
    pki = lab.path / "pki"
    return [(pki / "etcd-ca.key").read_bytes()]


def certificate_files(folder: Path) -> list[bytes]:
    _own_keys(folder)
    return [_AUTHORITY["pki/ca.crt"]]


def own_certificate(data: bytes, folder: Path) -> None:
    lab = _own_keys(folder)
    (lab.path / "pki" / "admin.crt").write_bytes(data)
    now = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)
    list(expiry._own(lab, now))
    validity._own(lab.path / "pki" / "admin.crt", "klab", now)


def completed(text: str, folder: Path) -> None:
    lab = LabFolder(folder / "demo")
    lab.snapshots.mkdir(parents=True)
    for file in (lab.path / "plan.json", lab.images, lab.snapshots / f"{KEY}.json"):
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
    list(completion._nodes(lab))
    list(completion._snapshots(lab))
    list(completion._images(lab))


def private_libvirt(text: str, folder: Path) -> None:
    found = PrivateLibvirt(Home(folder))
    found.folder.mkdir(parents=True)
    (found.folder / "realm.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    found._state()


def realms(_folder: Path) -> list[str]:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return [json.dumps({"anchor": 1, "started": 2, "net": "net:[1]", "mnt": "mnt:[1]", "boot": boot})]


_AUTHORITY: dict[str, bytes] = {}


def _own_keys(folder: Path) -> LabFolder:
    """A lab's folder with keys; made once."""
    lab = LabFolder(folder / "demo")
    if not _AUTHORITY:
        load_or_make(lab)
        for file in lab.path.rglob("*"):
            if file.is_file():
                _AUTHORITY[str(file.relative_to(lab.path))] = file.read_bytes()
    for name, data in _AUTHORITY.items():
        (lab.path / name).parent.mkdir(parents=True, exist_ok=True)
        (lab.path / name).write_bytes(data)
    return lab


def authority(data: bytes, folder: Path) -> None:
    lab = _own_keys(folder)
    (lab.path / "pki" / "ca.crt").write_bytes(data)
    authorities(lab)


def authority_key(data: bytes, folder: Path) -> None:
    lab = _own_keys(folder)
    (lab.path / "pki" / "etcd-ca.key").write_bytes(data)
    (lab.path / "pki" / "etcd-client.crt").unlink()
    etcd_client_files(lab)
    authorities(lab)


def secrets(data: bytes, folder: Path) -> None:
    lab = _own_keys(folder)
    lab.ssh_key.write_bytes(data)
    load_or_make(lab)


def ssh_keys(folder: Path) -> list[bytes]:
    lab = _own_keys(folder)
    return [lab.ssh_key.read_bytes()]


def known_hosts(data: bytes, folder: Path) -> None:
    home = Home(folder)
    lab, plan_ = lab_on_disk(home, control_planes=1, workers=0, bootstrap="none")
    file = lab.ssh_key.parent / "known_hosts"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(data)
    ssh = Ssh(lab, plan_)
    bare = ssh.bare_host_keys(ssh.host_keys("cp1"))
    ssh.know_by("cp1", bare)
    assert ssh.bare_host_keys(ssh.host_keys("cp1")) == bare


TARGETS = (
    Target("plan.json", ("lab.plan.file:from_json", "lab.records:parse"), plans, json_texts, plan),
    Target(
        "plan.json, its bytes",
        ("lab.store:LabFolder.plan_text",),
        lambda f: [p.encode() for p in plans(f)],
        octets,
        plan_file,
    ),
    Target("lab.json", ("lab.store:LabFolder.record",), records, json_texts, record, refuses=(LabError, NotFound)),
    Target("snapshot manifest", ("lab.snapshots.manifest:from_json",), snapshots, json_texts, snapshot),
    Target("snapshot shelf", ("lab.snapshots.store:SnapshotStore._read",), snapshots, json_texts, snapshot_store),
    Target("snapshot stand", (), lambda _: [KEY.encode() + b"\n"], octets, current),
    Target("attempt.json", ("lab.snapshots.journal:AttemptJournal.read",), attempts, json_texts, attempt),
    Target("objects.json", ("lab.snapshots.objects:read",), object_lists, json_texts, object_list),
    Target("capture index", ("lab.machines.libvirt.capture_index:CaptureIndex.entry",), entries, json_texts, entry),
    Target(
        "merge marker",
        ("lab.machines.libvirt.capture_index:CaptureIndex.merging",),
        lambda _: [json.dumps(asdict(Merge("a", ("b", "c"))))],
        json_texts,
        merging,
    ),
    Target("events.jsonl", ("lab.cluster.events:read_events", "lab.cluster.events:_parse"), journals, texts, journal),
    Target("box manifest", ("lab.boxes.manifest:read_box",), boxes, json_texts, box),
    Target("host.json", ("lab.host.kvm_probe:_read",), hosts, json_texts, host),
    Target(
        "CA certificate",
        ("lab.cluster.secrets:authorities", "lab.cluster.pki:load_key"),
        certificate_files,
        octets,
        authority,
    ),
    Target(
        "klab's certificate",
        ("lab.cluster.observe.expiry:_own", "lab.cluster.observe.validity:_own"),
        certificate_files,
        octets,
        own_certificate,
    ),
    Target(
        "completion",
        tuple(f"lab.cli.terminal.completion:{name}" for name in ("_nodes", "_snapshots", "_images")),
        lambda f: plans(f) + snapshots(f),
        json_texts,
        completed,
    ),
    Target("realm.json", ("lab.host.private_libvirt:PrivateLibvirt._state",), realms, json_texts, private_libvirt),
    Target(
        "CA key",
        ("lab.cluster.secrets:etcd_client_files", "lab.cluster.pki:usable", "lab.cluster.pki:signed"),
        key_files,
        octets,
        authority_key,
        share=0.5,
    ),
    Target(
        "SSH key",
        ("lab.cluster.secrets:load_or_make", "lab.cluster.secrets:_ssh", "lab.cluster.pki:ca_hash"),
        ssh_keys,
        octets,
        secrets,
        share=0.3,
    ),
    Target(
        "known_hosts",
        (),
        lambda _: [b"demo-cp1 ssh-ed25519 AAAA\nother ssh-rsa BBBB\n"],
        octets,
        known_hosts,
        share=0.3,
    ),
)
