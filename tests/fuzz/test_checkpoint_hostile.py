"""Hostile bundles: refused as damaged before anything of them is on disk."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fuzz.hostile import Change, Files, create, honest, parts, tree, written

from lab.errors import UsageError
from lab.store import Home

PEM, PLAIN = serialization.Encoding.PEM, serialization.NoEncryption()
CERTIFICATES = ("pki/ca.crt", "pki/front-proxy-ca.crt", "pki/etcd-ca.crt", "pki/admin.crt", "pki/etcd-client.crt")
KEYS = ("pki/ca.key", "pki/front-proxy-ca.key", "pki/etcd-ca.key", "pki/admin.key", "pki/etcd-client.key", "pki/sa.key")
REST = ("pki/sa.pub", "pki/token", "ssh/id_ed25519")
# Without these klab makes its own, or does without.
OPTIONAL = {"pki/admin.crt", "pki/admin.key", "pki/etcd-client.crt", "pki/etcd-client.key"}
CONTENTS = {
    "empty": b"",
    "no PEM": b"a key\n",
    "no UTF-8": b"\xff\xfe\x00",
    "cut off": b"-----BEGIN CERTIFICATE-----\nMIIB\n",
    "too large": b"x" * (65 << 10),
}
PLAN_VALUES: dict[str, list[Any]] = {
    "networks.cidr": ["127.0.0.0/16", "224.0.0.0/16", "0.0.0.0/16", "255.255.255.0/24", "169.254.0.0/16", "8.8.8.0/24"],
    "networks.management_cidr": ["172.28.0.0/30", "172.28.0.0/31", "172.28.0.0/32", "8.8.8.0/24", "192.168.56.0/24"],
    "kubernetes.service_cidr": ["10.96.0.0/32", "0.0.0.0/0"],
    "kubernetes.cni": ["\x1b]0;title\x07"],
    "kubernetes.versions.version": ["1.35.4\x1b[2J", "; rm", ""],
    "nodes[0].cpus": [10**30, -1, 0],
    "nodes[0].memory": [10**30, 0],
    "nodes[0].disk": [10**30, 0],
    "nodes[0].name": ["../x", "w1", "\x1b[2J", "workers"],
    "nodes[0].uuid": ["<uuid/>"],
    "nodes[0].mac": ["52:54:00:00:00:0g", "ff:ff:ff:ff:ff:ff"],
    "nodes[0].address": ["8.8.8.8", "192.168.56.0", "192.168.56.1", "192.168.56.255"],
    "seat": [-1000000000],
    "name": ["../../x", "", "\x1b[2J"],
    "pool": ["../default", "a'/><x b='"],
    "cpu_model": ["host'/><x y='", "a</model><feature/>"],
    "box": ["../x"],
}


def _put(name: str, content: bytes) -> Change:
    return lambda _data, files: files.__setitem__(name, content)


def _drop(name: str) -> Change:
    return lambda _data, files: files.pop(name)


def _swap(name: str, other: str) -> Change:
    return lambda _data, files: files.__setitem__(name, files[other])


def _plan(path: str, value: Any) -> Change:
    def change(data: dict[str, Any], _files: Files) -> None:
        at: Any = data["plan"]
        *above, last = [int(p) if p.isdigit() else p for p in path.replace("[", ".").replace("]", "").split(".")]
        for part in above:
            at = at[part]
        assert last in at, path
        at[last] = value

    return change


def _twice(key: str) -> Change:
    def change(data: dict[str, Any], _files: Files) -> None:
        data["plan"]["nodes"][1][key] = data["plan"]["nodes"][0][key]

    return change


@cache
def _rsa() -> bytes:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(PEM, serialization.PrivateFormat.TraditionalOpenSSL, PLAIN)


def _wrong_curve() -> bytes:
    key = ec.generate_private_key(ec.SECP384R1())
    return key.private_bytes(PEM, serialization.PrivateFormat.TraditionalOpenSSL, PLAIN)


def _other_ssh() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(PEM, serialization.PrivateFormat.PKCS8, PLAIN)


def changes() -> Iterator[tuple[str, Change]]:
    for name in (*CERTIFICATES, *KEYS, *REST):
        yield f"{name} missing", _drop(name)
        for what, content in CONTENTS.items():
            yield f"{name} {what}", _put(name, content)
    for name in KEYS:
        yield f"{name} of RSA", _put(name, _rsa())
        yield f"{name} of another curve", _put(name, _wrong_curve())
    for name, other in zip(KEYS, (*KEYS[1:], KEYS[0]), strict=True):
        yield f"{name} is that of {other}", _swap(name, other)
    for name, other in zip(CERTIFICATES, (*CERTIFICATES[1:], CERTIFICATES[0]), strict=True):
        yield f"{name} is that of {other}", _swap(name, other)
    yield "ssh key in PKCS 8", _put("ssh/id_ed25519", _other_ssh())
    yield "ssh key is the CA's", _swap("ssh/id_ed25519", "pki/ca.key")
    for token in (b"a.b", b"ABCDEF.0123456789abcdef", b"abcdef.0123456789abcdef\n\n", b"abcdef.0123456789abcde\x1b"):
        yield f"token {token!r}", _put("pki/token", token)
    surplus = ("pki/zz.gz", "pki/../../x", "ssh/authorized_keys", "ssh/config", "pki/ca.srl", "/etc/x", "pki/a\nb", "x")
    for name in surplus:
        yield f"surplus {name!r}", _put(name, b"x")
    yield "3000 surplus files", lambda _data, files: files.update({f"pki/k{n}": b"x" for n in range(3000)})
    for path, values in PLAN_VALUES.items():
        for value in values:
            yield f"plan {path} = {value!r}", _plan(path, value)
    for key in ("name", "uuid", "mac", "management_mac", "address"):
        yield f"plan: two nodes of one {key}", _twice(key)


CHANGES = dict(changes())


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Files]:
    return parts(honest(tmp_path_factory.mktemp("teacher")))


@pytest.fixture
def attempt(teacher: tuple[dict[str, Any], Files], tmp_path: Path) -> Callable[[Change], tuple[Home, Path]]:
    def made(change: Change) -> tuple[Home, Path]:
        data, files = copy.deepcopy(teacher[0]), dict(teacher[1])
        change(data, files)
        home = Home(tmp_path / "student")
        home.labs.mkdir(parents=True)
        (home.root / "of-the-person").write_text("stays")
        return home, written(tmp_path / "lesson-3.klab", data, files)

    return made


def test_the_honest_one_is_taken(attempt: Callable[[Change], tuple[Home, Path]]) -> None:
    """So that what is refused below is refused for what it is."""
    home, file = attempt(lambda _data, _files: None)
    create(file, home)
    assert home.lab("demo").record().phase == "ready"


@pytest.mark.parametrize("what", CHANGES)
def test_refused_before_anything_is_made(what: str, attempt: Callable[[Change], tuple[Home, Path]]) -> None:
    home, file = attempt(CHANGES[what])
    before = tree(home.root)
    with pytest.raises(UsageError) as caught:
        create(file, home)
    assert caught.value.details or caught.value.hint
    assert tree(home.root) == before
