"""A box from upstream's release against one that is compiled: what `make lab` does before its machines start.

    sudo .venv/bin/python -m bench.sources                 both cores for half an hour, 30 GiB of disk

Each side has an empty KLAB_HOME and empty caches of Go's. What the compiled side made is then published by servers
that stand in for dl.k8s.io, github.com, registry.k8s.io and ghcr.io: a file server and Debian's docker-registry,
filled by skopeo, at these very names by TLS, in a mount namespace with an /etc/hosts of its own. They are on this
machine, so that a download takes no time to speak of: what is measured is klab's work. A box of another version is then
taken from the release into the same KLAB_HOME, the same programs under that version's name: it shows what is not made
again.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from bench.create import KLAB
from bench.measure import HEADER, Pair

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.published import publish_archive, publish_index
from support.stand_ins import StandIn, registry, serving

from lab.app.boxes import DEFAULT_BOX
from lab.boxes.cache import digest_file
from lab.boxes.images import NAME_ANNOTATION
from lab.boxes.recipe import load_recipe
from lab.boxes.upstream.addresses import ARCHIVES, IMAGES, NETWORK_IMAGES, PROGRAMS
from lab.components.archives import archive_of
from lab.components.kubernetes import DEFAULT
from lab.scenario.catalog import load_catalog

AT_MOST = 1 / 3
# Each name has an address of its own, since each server wants the port of HTTPS.
ADDRESSES = {PROGRAMS: "127.0.0.2", IMAGES: "127.0.0.3", NETWORK_IMAGES: "127.0.0.4", ARCHIVES: "127.0.0.5"}
PORT = 443
NODES = ("kubeadm", "kubelet", "kubectl")
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True)
class Took:
    """Seconds that a build took, and those of processors; the latter suffer less from what runs beside it."""

    wall: float
    processors: float


def _computed() -> float:
    """Seconds of processors that all programs have taken that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Side:
    """One KLAB_HOME with caches of its own, and how klab is called there."""

    def __init__(self, folder: Path, variables: Mapping[str, str] | None = None, before: Sequence[str] = ()) -> None:
        self.home = folder / "home"
        self._before = before
        self._env = {
            **os.environ,
            "KLAB_HOME": str(self.home),
            "GOCACHE": str(folder / "go/build"),
            "GOMODCACHE": str(folder / "go/modules"),
            **(variables or {}),
        }

    def build(self, source: str, version: str) -> Took:
        """Build a box. What klab says goes to the terminal."""
        argv = [*self._before, KLAB, "box", "build", "--source", source, "--kubernetes", version]
        began, computed = time.monotonic(), _computed()
        subprocess.run(argv, check=True, env=self._env, stdout=sys.stderr)
        return Took(time.monotonic() - began, _computed() - computed)


def publish(side: Side, site: Path, port: int, version: str, like: str) -> None:
    """Publish what a side has made, as upstream has it.

    Args:
        side: where `like` was compiled.
        site: the folder that stands for dl.k8s.io and github.com.
        port: that of the registry.
        version: the version that it is published as.
        like: the version that was compiled.
    """
    place = site / f"v{version}/bin/linux/amd64"
    place.mkdir(parents=True)
    for name in NODES:
        (program,) = side.home.glob(f"cache/programs/*/bin/{name}")
        shutil.copyfile(program, place / name)
        (place / f"{name}.sha256").write_text(digest_file(program))
    for entry in load_recipe(DEFAULT_BOX, version).programs:
        if (archive := archive_of(entry.module, entry.version)) and not (site / archive.path).exists():
            programs = {name: next(side.home.glob(f"cache/programs/*/bin/{name}")) for name in entry.build}
            publish_archive(site, archive, {f"{archive.folder}{name}": file for name, file in programs.items()})
    catalog = load_catalog()
    names, compiled = catalog.kubernetes[version].images, catalog.kubernetes[like].images
    (layout,) = side.home.glob("cache/images/*")
    for component, ref in names.items():
        _publish_image(layout, compiled[component], port, ref)


def _publish_image(layout: Path, ref: str, port: int, name: str) -> None:
    """Copy one image of a layout into the registry, in Docker's format behind an index, as upstream's are."""
    index = json.loads((layout / "index.json").read_text())
    (entry,) = [each for each in index["manifests"] if each["annotations"][NAME_ANNOTATION] == ref]
    with tempfile.TemporaryDirectory(dir=layout.parent, prefix="bench") as folder:
        (Path(folder) / "blobs").symlink_to(layout / "blobs")
        (Path(folder) / "oci-layout").symlink_to(layout / "oci-layout")
        (Path(folder) / "index.json").write_text(json.dumps({**index, "manifests": [entry]}))
        repository, _, tag = name.partition("/")[2].rpartition(":")
        target = f"docker://127.0.0.1:{port}/{repository}:{tag}"
        argv = ["skopeo", "copy", "--quiet", "--dest-tls-verify=false", "--format", "v2s2", f"oci:{folder}", target]
        subprocess.run(argv, check=True)
        publish_index(port, repository, tag)


@contextmanager
def upstream(folder: Path, site: Path, port: int) -> Iterator[tuple[dict[str, str], list[str]]]:
    """Servers at upstream's names; the variables and the command by which klab meets them instead of upstream's own."""
    key, certificate = folder / "server.key", folder / "server.crt"
    names = ",".join(f"DNS:{name}" for name in ADDRESSES)
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    argv += [
        "-subj",
        "/CN=stand-in",
        "-addext",
        f"subjectAltName={names}",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(argv, check=True, capture_output=True)
    trusted, hosts = folder / "trusted.crt", folder / "hosts"
    known = Path(os.environ.get("SSL_CERT_FILE", CERTIFICATES)).read_text()
    trusted.write_text(known + certificate.read_text())
    ssl.create_default_context(cafile=str(trusted))  # fails here rather than in klab
    lines = [f"{address} {name}" for name, address in ADDRESSES.items()]
    hosts.write_text(Path("/etc/hosts").read_text() + "\n".join(["", *lines, ""]))
    with ExitStack() as stack:
        for name, address in ADDRESSES.items():
            at, tls = (address, PORT), (certificate, key)
            files = name in {PROGRAMS, ARCHIVES}
            server = StandIn(site, tls=tls, at=at) if files else StandIn(port=port, tls=tls, at=at)
            stack.enter_context(serving(server))
        before = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', str(hosts)]
        yield {"SSL_CERT_FILE": str(trusted)}, before


@click.command(help=__doc__)
@click.option("--kubernetes", default=DEFAULT, show_default=True, help="The version that both sides build.")
@click.option("--second", default="1.36.3", show_default=True, help="The version that is taken after it.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where everything lies; TMPDIR if left out.")
def main(kubernetes: str, second: str, folder: Path | None) -> None:
    if os.geteuid() != 0:
        raise click.UsageError("run it as root: it builds boxes and mounts /etc/hosts")
    work = Path(tempfile.mkdtemp(prefix="klab-bench-sources-", dir=folder))
    try:
        compiling = Side(work / "source")
        compiled = compiling.build("source", kubernetes)
        site, store = work / "site", work / "registry"
        store.mkdir()
        with registry(store) as port:
            publish(compiling, site, port, kubernetes, kubernetes)
            publish(compiling, site, port, second, kubernetes)
            shutil.rmtree(work / "source")
            with upstream(work, site, port) as (variables, before):
                side = Side(work / "release", variables, before)
                fetched = side.build("release", kubernetes)
                again = side.build("release", second)
        print(HEADER)
        what = "`klab box build --source release` from stand-ins / `--source source`, both with empty caches"
        print(Pair(what, fetched.wall, compiled.wall, AT_MOST).row())
        print(Pair("the same, CPU seconds", fetched.processors, compiled.processors, None).row())
        print(Pair("the box of a second version by `release` / of the first", again.wall, fetched.wall, None).row())
        print(Pair("the same, CPU seconds", again.processors, fetched.processors, None).row())
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
