"""What upstream publishes of a Kubernetes version, in small: programs in a folder, images in a real registry."""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from lab import process
from lab.boxes import images
from lab.boxes.recipe import ImageSpec
from lab.components.archives import Archive
from lab.components.kubernetes.versions import KubernetesVersion

VERSION = KubernetesVersion("1.35.4", etcd="3.6.6", etcd_image="3.6.6-0", coredns="1.13.1", pause="3.10.1")
PLACE = f"v{VERSION.version}/bin/linux/amd64"
EPOCH = 1_700_000_000
LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


def content(name: str, size: int = 300_000) -> bytes:
    """Bytes that belong to a name, the same each time, and hard to compress."""
    block, made = name.encode(), b""
    while len(made) < size:
        block = hashlib.sha256(block).digest()
        made += block
    return made[:size]


def publish_programs(folder: Path, names: Iterable[str] = ("kubeadm", "kubelet", "kubectl")) -> None:
    """Programs and their checksums, as dl.k8s.io has them."""
    (folder / PLACE).mkdir(parents=True)
    for name in names:
        data = content(name)
        (folder / PLACE / name).write_bytes(data)
        (folder / PLACE / f"{name}.sha256").write_text(hashlib.sha256(data).hexdigest())


def publish_archive(folder: Path, archive: Archive, programs: Mapping[str, bytes | Path]) -> None:
    """An archive of programs, by path in it, and its checksum, as a project's release at GitHub has them."""
    file = folder / archive.path
    file.parent.mkdir(parents=True)
    with tarfile.open(file, "w:gz", compresslevel=1) as tar:
        for path, program in programs.items():
            data = program.read_bytes() if isinstance(program, Path) else program
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(data), 0o755
            tar.addfile(member, io.BytesIO(data))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.with_name(f"{file.name}{archive.suffix}").write_text(f"{digest}  {file.name}\n")


def publish_images(
    folder: Path,
    port: int,
    refs: Iterable[str],
    below: str = "",
    login: str = "",
    paths: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Images in Docker's format, each named by an index for two platforms, as registry.k8s.io has them.

    Args:
        folder: an empty one, to make them in.
        port: the registry's, on this machine.
        refs: their whole names.
        below: the folder in the registry: "k8s/".
        login: USER:PASSWORD.
        paths: by whole name where its program is in it; /program where nothing is said.

    Returns:
        By whole name the digest of the manifest for x86-64.
    """
    found = {}
    for number, ref in enumerate(refs):
        work = folder / str(number)
        work.mkdir(parents=True)
        name, _, tag = ref.partition("/")[2].rpartition(":")
        (work / "program").write_bytes(content(ref))
        spec = ImageSpec(ref=ref, programs=((paths.get(ref, "/program"), "program"),), entrypoint=("/program",))
        layout = images.Layout(work / "layout", EPOCH)
        images.write_own_layer(spec, {"program": work / "program"}, None, work / "layer.tar", EPOCH)
        layout.add_image(spec, [layout.add_layer(work / "layer.tar")])
        layout.close()
        target = f"127.0.0.1:{port}/{below}{name}"
        argv = ["skopeo", "copy", "--dest-tls-verify=false", "--format", "v2s2"]
        argv += ["--dest-creds", login] if login else []
        process.run([*argv, f"oci:{work}/layout:{tag}", f"docker://{target}:{tag}"], timeout=120)
        if not login:
            found[ref] = publish_index(port, f"{below}{name}", tag)
    return found


def publish_index(port: int, name: str, tag: str) -> str:
    """Put an index in the place of an image; returns the digest of the image."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", f"/v2/{name}/manifests/{tag}", headers={"Accept": MANIFEST})
        data = connection.getresponse().read()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        entry = {"mediaType": MANIFEST, "size": len(data), "digest": digest}
        platforms = [{"os": "linux", "architecture": each} for each in ("arm64", "amd64")]
        # The other platform's manifest is the same here: a registry takes no index of what it does not have.
        index = {
            "schemaVersion": 2,
            "mediaType": LIST,
            "manifests": [{**entry, "platform": each} for each in platforms],
        }
        connection.request("PUT", f"/v2/{name}/manifests/{tag}", json.dumps(index), {"Content-Type": LIST})
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()
        answer.read()
    finally:
        connection.close()
    return digest
