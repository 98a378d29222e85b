"""A bundle as a file: no byte of it can change unseen, and nothing that it says leads anywhere it should not."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.desk import Desk
from support.shelved import flipped, shelve

from lab.bundles import layout
from lab.bundles.export_lab import write_bundle
from lab.bundles.file import BundleFile, open_bundle
from lab.bundles.format import WITH_IMAGES, from_json, to_json
from lab.bundles.pack import BLOCK, pack, unpack
from lab.bundles.signature import NAMESPACE
from lab.bundles.writer import DRAFT
from lab.errors import LabError, UsageError


@pytest.fixture
def made(desk: Desk, tmp_path: Path) -> BundleFile:
    shelve(desk.lab.home, desk.lab.folder, desk.lab.plan)
    desk.machines.power_off(["cp1", "w1"])
    return write_bundle(desk.lab, "lesson-3", tmp_path / "lesson-3.klab")


def looked_at(file: Path) -> None:
    open_bundle(file).verify(lambda _size: None)


# --- damage -------------------------------------------------------------------------------------------


def test_every_byte_counts(made: BundleFile, tmp_path: Path) -> None:
    whole = made.path.read_bytes()
    assert len(whole) == made.size
    file = tmp_path / "changed.klab"
    last = made._start(made.bundle.members[-1])
    # Headers, digest, padding and end densely, content here and there.
    places = {*range(0, 600, 7), *range(0, len(whole), 499), *range(made.start - 1100, made.start + 600, 31)}
    for place in sorted(places | {*range(last - 520, len(whole), 37)}):
        changed = bytearray(whole)
        changed[place] ^= 1
        file.write_bytes(changed)
        with pytest.raises(UsageError) as caught:
            looked_at(file)
        assert caught.value.hint


@pytest.mark.parametrize("length", [0, 1, 511, 512, 600, 3000, -1, -512, -1024, -5000])
def test_one_that_was_cut_off(made: BundleFile, tmp_path: Path, length: int) -> None:
    file = tmp_path / "cut.klab"
    file.write_bytes(made.path.read_bytes()[:length])
    with pytest.raises(UsageError) as caught:
        open_bundle(file)
    if length not in {0, 1, 511}:
        assert "cut off" in str(caught.value)


def test_one_with_something_behind_it(made: BundleFile) -> None:
    with made.path.open("ab") as out:
        out.write(b"more")
    with pytest.raises(UsageError, match="damaged") as caught:
        open_bundle(made.path)
    assert caught.value.details == ("unexpected data at its end: 4 bytes",)


@pytest.mark.parametrize("content", [b"", b"version: 1\n" * 100, bytes(5000), b"\x1f\x8b" + bytes(1000)])
def test_what_is_no_bundle(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.klab"
    file.write_bytes(content)
    with pytest.raises(UsageError, match="is not a bundle"):
        open_bundle(file)


def test_a_tar_of_somebody_elses(tmp_path: Path) -> None:
    file = tmp_path / "a.tar"
    with tarfile.open(file, "w") as tar:
        tar.addfile(tarfile.TarInfo("../../etc/passwd"), io.BytesIO())
    with pytest.raises(UsageError, match="is not a bundle"):
        open_bundle(file)


def test_one_that_changes_after_it_was_verified(made: BundleFile, tmp_path: Path) -> None:
    made.verify(lambda _size: None)
    member = made.bundle.member("nodes/w1.qcow2.gz")
    flipped(made.path, made._start(member) + member.size // 2)
    with pytest.raises(UsageError):
        made.write(member, tmp_path / "disk", lambda _size: None)


# --- what a manifest may say --------------------------------------------------------------------------


def rewritten(made: BundleFile, change: Callable[[dict[str, Any]], object]) -> Path:
    """The same file with another manifest and its right digest, as somebody would make it who knows how."""
    data = json.loads(to_json(made.bundle))
    change(data)
    text = json.dumps(data).encode("ascii")
    made.path.write_bytes(layout.beginning(text) + made.path.read_bytes()[made.start :])
    return made.path


def at(*path: str | int, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        data[path[-1]] = value

    return change


def test_a_rewritten_one_is_read(made: BundleFile) -> None:
    """So that what is refused below is refused for what it says."""
    looked_at(rewritten(made, at("name", value="other")))
    assert open_bundle(made.path).bundle.name == "other"


@pytest.mark.parametrize(
    "change",
    [
        at("name", value="../x"),
        at("name", value=5),
        at("lab", value="Not A Name"),
        at("lab_id", value=None),
        at("created", value="today"),
        at("created", value=1e300),
        at("guest_time", value=float("nan")),
        at("lab_created", value=True),
        at("box", "created", value=-1),
        at("accelerated", value="yes"),
        at("scenario_text", value={}),
        at("versions", value={"klab": 1}),
        at("plan", "name", value="../../x"),
        at("plan", "nodes", 0, "name", value="../x"),
        at("plan", "nodes", 1, "name", value="cp1"),
        at("plan", "nodes", 0, "uuid", value="<uuid/>"),
        at("plan", "nodes", 0, "mac", value="52:54:00:00:00:0g"),
        at("plan", "nodes", 0, "memory", value=-1),
        at("plan", "nodes", 0, "address", value="10.1.2.3"),
        at("plan", "networks", "cidr", value="0.0.0.0/0"),
        at("plan", "networks", "management_cidr", value="8.8.8.0/24"),
        at("plan", "networks", "management_cidr", value="10.0.0.0/16"),
        at("plan", "pool", value="../default"),
        at("plan", "cpu_model", value="host'/><x y='"),
        at("plan", "format", value=99),
        at("plan", value=None),
        at("box", "name", value="../../x"),
        at("box", "digest", value="0" * 63),
        at("box", "digest", value="0" * 64),
        at("box", "kubernetes", value="; rm"),
        at("box", "virtual_mib", value="8"),
        at("box", "files", "../x", value=[1, "0" * 64]),
        at("box", "files", "kubectl", value=["1", "0" * 64]),
        at("box", "files", value={}),
        at("host_keys", "cp1", value="a\n" * 30),
        at("host_keys", "cp1", value="no end"),
        at("host_keys", value={}),
        at("members", 0, "name", value="pki/../../../etc/cron.d/x"),
        at("members", 0, "name", value="/etc/passwd"),
        at("members", 0, "name", value="ssh/.hidden"),
        at("members", 0, "name", value="nodes/cp9.qcow2.gz"),
        at("members", 0, "name", value="pki/ca.key"),
        at("members", 0, "size", value=-1),
        at("members", 0, "size", value=True),
        at("members", 0, "name", value="pki/zz.gz"),
        at("members", 0, "name", value="pki/ca.crt.gz"),
        lambda data: data["members"][0].update(size=65 << 10, content=65 << 10),
        lambda data: data["members"][-1].update(content=1 << 49),
        at("members", 0, "size", value=1 << 60),
        at("members", 0, "content", value=1),
        at("members", 0, "sha256", value="x"),
        at("members", value=[]),
        at("more", value=1),
        at("format", value="1"),
        lambda data: data.pop("format"),
        lambda data: data.pop("plan"),
    ],
)
def test_what_a_manifest_may_not_say(made: BundleFile, change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(UsageError, match="damaged") as caught:
        open_bundle(rewritten(made, change))
    assert caught.value.details


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (at("name", value="../x"), "invalid name"),
        (at("lab_id", value=None), "lab_id is null, which is not text"),
        (at("accelerated", value="yes"), 'accelerated is "yes", which is not true or false'),
        (at("box", "files", "disk.qcow2", value=[-1, "0" * 64]), "box file disk.qcow2: invalid size or SHA-256"),
        (at("host_keys", "cp1", value="no end"), "invalid host key"),
        (at("members", 0, "name", value="/etc/passwd"), "unexpected file '/etc/passwd'"),
        (at("members", 0, "sha256", value="x"), "pki/admin.crt: invalid SHA-256"),
    ],
)
def test_a_message_names_the_field(made: BundleFile, change: Callable[[dict[str, Any]], object], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_bundle(rewritten(made, change))
    assert caught.value.details == (f"its manifest: {said}",)


def test_sizes_and_digests_of_other_members_lead_nowhere(made: BundleFile) -> None:
    swapped = made.bundle.members[0].size + 512
    with pytest.raises(UsageError):
        looked_at(rewritten(made, lambda d: d["members"][0].update(size=swapped, content=swapped)))


def test_one_of_version_0_1_is_read() -> None:
    """As klab 0.1 wrote it, when bundles were called checkpoints."""
    text = (Path(__file__).parent / "data" / "manifest-0.1.json").read_text(encoding="ascii")
    found = from_json(text)
    assert (found.name, found.lab, found.with_box, len(found.secrets)) == ("old", "demo", True, 15)
    assert [node.name for node in found.plan.nodes] == ["cp1", "w1"]
    assert from_json(to_json(found)) == found
    assert list(json.loads(text)) == list(json.loads(to_json(found))), "0.1 reads those of now"


def test_what_others_find_a_file_by_has_kept_its_name(made: BundleFile, desk: Desk) -> None:
    with tarfile.open(made.path) as file:
        names = file.getnames()
    assert names[:2] == ["klab-checkpoint.json", "klab-checkpoint.json.sha256"]
    assert (layout.SIGNATURE, NAMESPACE) == ("klab-checkpoint.json.sig", "klab-checkpoint")
    assert desk.lab.home.checkpoints.name == "checkpoints"
    assert (desk.lab.folder.record().checkpoint, DRAFT) == ("", "checkpoint.tar")


def test_one_of_a_newer_klab(made: BundleFile) -> None:
    newer = rewritten(made, lambda d: d.update(format=WITH_IMAGES + 1, versions={"klab": "9.0.0"}, unknown=[]))
    with pytest.raises(UsageError, match=r"written by klab 9.0.0 in format 3; this klab reads up to 2"):
        open_bundle(newer)


def test_a_bomb_is_no_larger_than_it_says(made: BundleFile, tmp_path: Path) -> None:
    member = made.bundle.member("box/disk.qcow2.gz")

    def shrunk(data: dict[str, Any]) -> None:
        next(m for m in data["members"] if m["name"] == member.name).update(content=1000)
        data["box"]["files"]["disk.qcow2"][0] = 1000

    rewritten(made, shrunk)
    found = open_bundle(made.path)
    with pytest.raises(UsageError) as caught:
        found.write(found.bundle.member(member.name), tmp_path / "disk", lambda _size: None)
    assert "larger than it should be" in caught.value.details[0]


def test_a_manifest_reads_like_it_was_written(made: BundleFile) -> None:
    assert from_json(to_json(made.bundle)) == made.bundle
    for text in ("", "[]", "{}", "null", '{"format": 1}', '{"format": 1, "plan": ' + "[" * 5000):
        with pytest.raises(LabError):
            from_json(text)


# --- packing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 9 * BLOCK + 7])
def test_packed_and_unpacked(size: int) -> None:
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    counted: list[int] = []
    packed = b"".join(pack(io.BytesIO(data), counted.append))
    assert sum(counted) == size
    assert gzip.decompress(packed) == data
    assert b"".join(pack(io.BytesIO(data), counted.append)) == packed, "the same bytes give the same bytes"

    def back(content: bytes, wanted: int) -> bytes:
        return b"".join(unpack(io.BytesIO(content), wanted))  # type: ignore[arg-type]

    assert back(packed, size) == data
    for content, wanted, why in (
        (packed, size + 1, "smaller than"),
        (packed[:-1], size, "ended before"),
        (packed + b"x" * 30, size, "Not a gzipped"),
    ):
        with pytest.raises(ValueError, match=why):
            back(content, wanted)
