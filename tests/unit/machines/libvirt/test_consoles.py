"""Where consoles are written to, over libvirt's own test driver; what virtlogd does with them: tests/contract."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest
from support.libvirt_host import OWNER, Host, domain_xml

from lab.errors import MachineError
from lab.machines.libvirt import definitions
from lab.machines.libvirt.consoles import FOLDER
from lab.machines.libvirt.pools import LabPool

OLD = "<serial type='file'><source path='/labs/demo/logs/console-cp1.log'/><target port='0'/></serial>"


def sources(host: Host, node: str) -> list[dict[str, str]]:
    """Where libvirt would have a node's serial ports and consoles go at its next start."""
    tree = ElementTree.fromstring(host.domain(node).XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))  # noqa: S314
    return [source.attrib for source in tree.iterfind("devices/*[@type='file']/source[@path]")]


def test_a_start_begins_the_console_of_a_machine_that_was_off(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="running", w1="off")
    host.machines().start(["cp1", "w1"])
    host.machines().power_off(["w1"])
    file, link = host.consoles().path("w1"), host.machines().consoles()["w1"]
    file.write_text("of the first start\n")
    file.with_name(f"{file.name}.0").write_text("rotated by virtlogd\n")
    host.machines().start(["cp1", "w1"])
    assert file.read_text() == ""
    assert [each.name for each in file.parent.iterdir()] == ["console-w1.log"], "cp1 runs: its console is left alone"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.stat().st_uid == os.geteuid()
    assert link.resolve() == file


def test_a_console_takes_the_place_of_the_file_that_an_older_klab_made(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="off")
    host.folder.logs.mkdir(parents=True)
    (host.folder.logs / "console-cp1.log").write_text("of an older klab\n")
    host.connection.defineXML(
        domain_xml(host.plan, host.plan.known("cp1"), 5).replace("</devices>", f"{OLD}</devices>")
    )
    assert [source["path"] for source in sources(host, "cp1")] == ["/labs/demo/logs/console-cp1.log"] * 2
    host.machines().start(["cp1"])
    assert sources(host, "cp1") == [{"path": str(host.consoles().path("cp1")), "append": "on"}] * 2
    assert host.machines().consoles()["cp1"].read_text() == ""


def test_a_definition_that_is_right_is_left_as_it_is() -> None:
    text = f"<domain>  <devices>{OLD}</devices></domain>"
    changed = definitions.with_console(text, "/pool/c.log")
    assert "/labs" not in changed
    assert definitions.with_console(changed, "/pool/c.log") is changed
    assert "append" in changed


def test_libvirt_makes_the_folder_and_gives_it_to_the_person(
    make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, told = make_host(cp1="off"), []
    create = libvirt.virStoragePool.createXML

    def note(pool: libvirt.virStoragePool, xml: str, flags: int = 0) -> libvirt.virStorageVol:
        told.append(ElementTree.fromstring(xml))  # noqa: S314
        return create(pool, xml, flags)

    monkeypatch.setattr(libvirt.virStoragePool, "createXML", note)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getegid", lambda: 1001)
    host.machines().start(["cp1"])
    host.machines().start(["cp1"])
    (volume,) = told
    asked = ("name", "target/format", "target/permissions/owner", "target/permissions/group", "target/permissions/mode")
    assert [volume.findtext(path) for path in asked if path != "target/format"] == [FOLDER, "1000", "1001", "0700"]
    form = volume.find("target/format")
    assert form is not None
    assert form.get("type") == "dir"


def test_no_console_is_left_of_a_lab_that_goes(make_host: Callable[..., Host]) -> None:
    host = make_host(cp1="off")
    host.machines().start(["cp1"])
    folder = host.consoles().folder
    (folder / "console-cp1.log.0").touch()
    LabPool(host.connection, OWNER).remove()
    assert list(folder.iterdir()) == []
    assert LabPool(host.connection, OWNER).find() is None


def test_a_folder_that_klab_may_not_write_to_is_named(
    make_host: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make_host(cp1="off")
    host.machines().start(["cp1"])
    host.machines().power_off(["cp1"])

    def closed(file: Path, *_args: object) -> int:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(os, "open", closed)
    with pytest.raises(MachineError, match="the console of cp1 cannot be written to a file") as caught:
        host.machines().start(["cp1"])
    assert str(host.consoles().path("cp1")) in caught.value.details[0]
    assert not host.domain("cp1").isActive()
