"""A bundle from a stranger, and a folder that strangers write to: nothing of theirs runs, nothing of ours goes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from support.desk import Desk
from support.shelved import shelve

from lab import process
from lab.boxes import store
from lab.boxes.kubectl import kubectl_for
from lab.boxes.manifest import DISK, KUBECTL, describe_file, write_manifest
from lab.bundles import signature
from lab.bundles.export_lab import write_bundle
from lab.bundles.file import BundleFile, open_bundle
from lab.bundles.import_lab import secrets_in
from lab.bundles.keys import NAMES, check_keys
from lab.bundles.layout import SIGNATURE
from lab.cluster.pki import make_service_account
from lab.components.kubernetes import DEFAULT
from lab.errors import BoxError, Conflict, LabError, NotFound, UsageError
from lab.store import Home

from .test_import_lab import Student


@pytest.fixture
def off(desk: Desk) -> Desk:
    shelve(desk.lab.home, desk.lab.folder, desk.lab.plan)
    desk.machines.power_off(["cp1", "w1"])
    return desk


@pytest.fixture
def made(off: Desk, tmp_path: Path) -> BundleFile:
    return write_bundle(off.lab, "lesson-3", tmp_path / "lesson-3.klab")


@pytest.fixture
def keys(off: Desk) -> dict[str, bytes]:
    return {name: (off.lab.folder.path / name).read_bytes() for name in NAMES}


# --- programs -----------------------------------------------------------------------------------------


def test_no_program_travels(made: BundleFile, tmp_path: Path) -> None:
    assert [m.name for m in made.bundle.members if m.name.startswith("box/")] == ["box/disk.qcow2.gz"]
    student = Student(Home(tmp_path / "student"), made)
    student.create()
    (box,) = store.list_boxes(student.home)
    assert box.origin == "lesson-3"
    assert kubectl_for(student.home, box.folder.name, DEFAULT) == "kubectl"
    assert not [file for file in box.folder.iterdir() if file.stat().st_mode & 0o111]


def test_a_program_that_travels_all_the_same_stays_in_the_file(
    off: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.bundles.export_lab.PORTABLE", (DISK, KUBECTL))
    made = write_bundle(off.lab, "lesson-3", tmp_path / "lesson-3.klab")
    assert "box/kubectl.gz" in [m.name for m in made.bundle.members]
    student = Student(Home(tmp_path / "student"), open_bundle(made.path))
    student.create()
    assert not list(student.home.root.rglob("kubectl*"))


def test_a_box_that_lies_on_a_file_of_the_host(off: Desk, tmp_path: Path) -> None:
    box = store.box_of(off.lab.home, off.lab.folder.record().box)
    assert box is not None
    secret = tmp_path / "secret"
    secret.write_bytes(b"root:x:" * 10_000)
    process.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", secret, box.disk], timeout=60)
    digest = store.digest_file(box.disk)
    files = {**box.files, DISK: describe_file(box.disk)}
    write_manifest(replace(box, digest=digest, files=files))
    made = write_bundle(off.lab, "lesson-3", tmp_path / "lesson-3.klab")
    student = Student(Home(tmp_path / "student"), made)
    with pytest.raises(BoxError, match="klab did not build it") as caught:
        student.create()
    assert "it names a backing file" in caught.value.details[0]
    student.assert_untouched()


# --- keys ---------------------------------------------------------------------------------------------


def rsa_key() -> bytes:
    pem, traditional = serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL
    return rsa.generate_private_key(65537, 2048).private_bytes(pem, traditional, serialization.NoEncryption())


def test_klabs_own_keys_hold(keys: dict[str, bytes]) -> None:
    check_keys(keys)
    for name in ("pki/admin", "pki/etcd-client"):  # of an older klab, which had none
        older = {file: content for file, content in keys.items() if not file.startswith(name)}
        assert len(keys) - len(older) == 2
        check_keys(older)


def test_the_service_accounts_key_of_an_old_kubernetes_holds(keys: dict[str, bytes]) -> None:
    made = make_service_account(in_rsa=True)
    check_keys({**keys, "pki/sa.key": made.private.encode(), "pki/sa.pub": made.public.encode()})


@pytest.mark.parametrize("name", sorted(NAMES))
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\n", b"x" * 1000, None])
def test_keys_that_are_none(keys: dict[str, bytes], name: str, content: bytes | None) -> None:
    hostile = {file: old for file, old in keys.items() if file != name}
    if content is not None:
        hostile[name] = content
    elif name == "ssh/id_ed25519.pub":  # follows from the private one
        check_keys(hostile)
        return
    with pytest.raises(ValueError, match=name.removesuffix(".pub")):
        check_keys(hostile)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"pki/ca.key": "pki/etcd-ca.key"}, "pki/ca.key is not the key of pki/ca.crt"),
        ({"pki/ca.crt": "pki/admin.crt", "pki/ca.key": "pki/admin.key"}, "pki/ca.crt is not a CA's certificate"),
        ({"pki/admin.crt": "pki/etcd-client.crt", "pki/admin.key": "pki/etcd-client.key"}, "is not signed by"),
        ({"pki/sa.pub": "pki/ca.crt"}, "pki/sa.pub is not a public key"),
        ({"pki/sa.key": "pki/ca.key"}, "pki/sa.key is not the key of pki/sa.pub"),
        ({"ssh/id_ed25519": "pki/ca.key"}, "ssh/id_ed25519 is not an OpenSSH private key"),
    ],
)
def test_keys_that_belong_to_others(keys: dict[str, bytes], changes: dict[str, str], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        check_keys({**keys, **{name: keys[other] for name, other in changes.items()}})


def test_keys_of_other_kinds(keys: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not an elliptic-curve key"):
        check_keys({**keys, "pki/ca.key": rsa_key()})
    with pytest.raises(ValueError, match=r"is not the key of pki/sa\.pub"):
        check_keys({**keys, "pki/sa.key": rsa_key()})
    with pytest.raises(ValueError, match="or has a passphrase"):
        check_keys({**keys, "ssh/id_ed25519": new_key(tmp_path / "locked", "secret").read_bytes()})
    with pytest.raises(ValueError, match="is not a key of a lab"):
        check_keys({**keys, "pki/surplus.key": b""})
    with pytest.raises(ValueError, match="not the public half"):
        check_keys({**keys, "ssh/id_ed25519.pub": b"ssh-ed25519 AAAA x"})


def test_damaged_keys_are_seen_before_anything_is_made(
    off: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = off.lab.folder.path / "pki" / "token"
    token.write_text("not a token")
    with pytest.raises(Conflict, match="keys of lab 'demo' are damaged") as caught:
        write_bundle(off.lab, "lesson-3", tmp_path / "lesson-3.klab")
    assert caught.value.details[0] == "pki/token is not a bootstrap token"
    monkeypatch.setattr("lab.bundles.keys.check_keys", lambda _files: None)
    made = write_bundle(off.lab, "lesson-3", tmp_path / "lesson-3.klab")
    with pytest.raises(UsageError, match="damaged"):
        secrets_in(made)
    student = Student(Home(tmp_path / "student"), made)
    with pytest.raises(UsageError, match="damaged"):
        student.create()
    student.assert_untouched()


# --- a file that changes under our hands --------------------------------------------------------------


def test_a_file_that_changes_after_it_was_verified(made: BundleFile, tmp_path: Path) -> None:
    made.verify(lambda _size: None)
    for name in ("nodes/w1.qcow2.gz", "pki/ca.key"):
        member = made.bundle.member(name)
        data = bytearray(made.path.read_bytes())
        data[made._start(member) + 4] ^= 1  # of gzip's header the date, which nobody compares
        made.path.write_bytes(data)
        with pytest.raises(UsageError, match="damaged") as caught:
            made.write(member, tmp_path / "w1", lambda _size: None)
        assert f"{name} has changed" in caught.value.details[0]
        if not member.packed:
            with pytest.raises(UsageError, match="damaged"):
                made.read(member)


# --- folders and files that strangers planted -----------------------------------------------------------


def planted_link(place: Path, victim: Path) -> None:
    place.symlink_to(victim)


def open_to_all(place: Path, _victim: Path) -> None:
    place.mkdir()
    place.chmod(0o777)


def of_somebody_else(place: Path, _victim: Path) -> None:
    place.mkdir(mode=0o700)
    os.chown(place, 12345, 12345)


def with_a_strangers_file(place: Path, _victim: Path) -> None:
    place.mkdir(mode=0o700)
    (place / "thesis.txt").write_text("mine")


def with_a_linked_draft(place: Path, victim: Path) -> None:
    place.mkdir(mode=0o700)
    (place / "checkpoint.tar").symlink_to(victim / "file")


@pytest.mark.parametrize(
    "plant",
    [
        planted_link,
        open_to_all,
        pytest.param(of_somebody_else, marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives away")),
        with_a_strangers_file,
        with_a_linked_draft,
    ],
)
def test_what_stands_where_the_draft_goes_is_neither_followed_nor_emptied(
    off: Desk, tmp_path: Path, plant: Callable[[Path, Path], None]
) -> None:
    shared, victim = tmp_path / "shared", tmp_path / "victim"
    shared.mkdir()
    victim.mkdir()
    (victim / "file").write_text("precious")
    plant(shared / ".lesson-3.klab.partial", victim)
    before = sorted([*shared.rglob("*"), *victim.rglob("*")])
    with pytest.raises(Conflict, match="is in the way"):
        write_bundle(off.lab, "lesson-3", shared / "lesson-3.klab")
    assert sorted([*shared.rglob("*"), *victim.rglob("*")]) == before
    assert (victim / "file").read_text() == "precious"


def test_what_a_kill_left_is_removed(off: Desk, tmp_path: Path) -> None:
    scratch = tmp_path / ".lesson-3.klab.partial"
    scratch.mkdir(mode=0o700)
    (scratch / "checkpoint.tar").write_text("half")
    (scratch / "cp1.qcow2").write_text("half")
    made = write_bundle(off.lab, "lesson-3", tmp_path / "lesson-3.klab")
    assert not scratch.exists()
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_draft_is_private_from_its_first_moment(
    off: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    modes: list[int] = []
    real = os.fdopen

    def seen(handle: int, *words: Any, **more: Any) -> Any:
        modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
        return real(handle, *words, **more)

    monkeypatch.setattr("lab.bundles.writer.os.fdopen", seen)
    before = os.umask(umask)
    try:
        write_bundle(off.lab, "lesson-3", tmp_path / "lesson-3.klab")
    finally:
        os.umask(before)
    assert 0o600 in modes
    assert not [mode for mode in modes if mode & 0o077]


@pytest.mark.parametrize("replaces", [True, False])
def test_what_is_not_a_regular_file_is_never_replaced(off: Desk, tmp_path: Path, replaces: bool) -> None:
    target = tmp_path / "lesson-3.klab"
    os.mkfifo(target)
    with pytest.raises(UsageError, match="is a FIFO"):
        write_bundle(off.lab, "lesson-3", target, replaces=replaces)
    assert stat.S_ISFIFO(target.lstat().st_mode)
    with pytest.raises(UsageError, match="is a FIFO"):
        open_bundle(target)


# --- signatures ---------------------------------------------------------------------------------------


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return new_key(tmp_path / "teacher")


def new_key(file: Path, passphrase: str = "") -> Path:
    process.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", file], timeout=60)
    return file


def allowed(tmp_path: Path, principal: str, key: Path, options: str = "") -> Path:
    file = tmp_path / "allowed_signers"
    file.write_text(f"{principal} {options} {key.with_suffix('.pub').read_text()}")
    return file


@pytest.fixture
def signed(off: Desk, tmp_path: Path, key: Path) -> BundleFile:
    return write_bundle(off.lab, "lesson-3", tmp_path / "s.klab", sign=lambda manifest: signature.sign(key, manifest))


def test_a_signed_file_says_who_signed_it(signed: BundleFile, tmp_path: Path, key: Path) -> None:
    found = open_bundle(signed.path)
    assert found == signed
    found.verify(lambda _size: None)
    who = signature.signer(found.manifest, found.signature)
    told = process.run(["ssh-keygen", "-l", "-f", key], timeout=60).stdout
    assert (who.key, who.fingerprint in told) == ("ED25519", True)
    for principal in ("teacher@example.org", "other@example.org,teacher@example.org", "*@example.org"):
        known = signature.allowed_signer(found.manifest, found.signature, allowed(tmp_path, principal, key))
        assert "teacher@example.org" in str(known) or str(known).startswith("other@") or "*@" in str(known)
        assert known.fingerprint == who.fingerprint


def test_anyone_can_check_it_by_hand(signed: BundleFile, tmp_path: Path, key: Path) -> None:
    process.run(["tar", "-xf", signed.path, "-C", tmp_path], timeout=60)
    list_of = allowed(tmp_path, "teacher@example.org", key)
    argv = ["ssh-keygen", "-Y", "verify", "-f", list_of, "-I", "teacher@example.org", "-n", "klab-checkpoint"]
    manifest = (tmp_path / "klab-checkpoint.json").read_text()
    done = process.run([*argv, "-s", tmp_path / SIGNATURE], stdin=manifest, timeout=60)
    assert 'Good "klab-checkpoint" signature' in done.stdout


def test_a_signature_of_another_file(off: Desk, signed: BundleFile, tmp_path: Path) -> None:
    other = write_bundle(off.lab, "other", tmp_path / "other.klab", sign=lambda _manifest: signed.signature)
    with pytest.raises(UsageError, match="the signature does not match"):
        signature.signer(other.manifest, other.signature)


def test_who_may_sign(signed: BundleFile, made: BundleFile, tmp_path: Path, key: Path) -> None:
    stranger = allowed(tmp_path, "x@example.org", new_key(tmp_path / "stranger"))
    with pytest.raises(UsageError, match="the signer of this bundle is not an allowed signer") as caught:
        signature.allowed_signer(signed.manifest, signed.signature, stranger)
    assert "SHA256:" in caught.value.details[0]
    teacher = allowed(tmp_path, "teacher@example.org", key)
    with pytest.raises(UsageError, match="is not signed"):
        signature.allowed_signer(made.manifest, made.signature, teacher)
    for options in ('namespaces="git"', 'valid-before="20200101"'):
        with pytest.raises(UsageError, match="not an allowed signer"):
            signature.allowed_signer(
                signed.manifest, signed.signature, allowed(tmp_path, "teacher@example.org", key, options)
            )
    with pytest.raises(NotFound):
        signature.allowed_signer(signed.manifest, signed.signature, tmp_path / "missing")


@pytest.mark.parametrize("place", [600, -600, -1100, -1500])
def test_every_byte_of_a_signature_counts(signed: BundleFile, place: int) -> None:
    data = bytearray(signed.path.read_bytes())
    start = signed.end if place > 0 else len(data)
    data[start + place] ^= 1
    signed.path.write_bytes(data)

    def looked_at() -> None:
        found = open_bundle(signed.path)
        found.verify(lambda _size: None)
        signature.signer(found.manifest, found.signature)

    with pytest.raises(LabError):
        looked_at()


def test_a_signature_can_be_taken_away_but_not_unnoticed(signed: BundleFile, tmp_path: Path, key: Path) -> None:
    data = signed.path.read_bytes()
    signed.path.write_bytes(data[: signed.end] + bytes(1024))
    found = open_bundle(signed.path)
    assert found.signature == b""
    with pytest.raises(UsageError, match="is not signed"):
        signature.allowed_signer(found.manifest, found.signature, allowed(tmp_path, "t@example.org", key))


def test_a_key_that_cannot_sign_says_so_before_anything_is_packed(off: Desk, tmp_path: Path) -> None:
    locked = new_key(tmp_path / "locked", "secret")
    for file, error, why in ((locked, UsageError, "cannot sign"), (tmp_path / "none", NotFound, "there is no key")):
        with pytest.raises(error, match=why) as caught:
            write_bundle(off.lab, "x", tmp_path / "x.klab", sign=partial(signature.sign, file))
        assert caught.value.hint
        assert not list(tmp_path.glob("*x.klab*"))
