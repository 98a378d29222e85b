"""A stand-in for VBoxManage: machines, disks and host-only interfaces in a JSON file, and no hypervisor.

Its answers are transcribed from the source of VirtualBox 7.2 (src/VBox/Frontends/VBoxManage: VBoxManageInfo.cpp,
VBoxManageList.cpp, VBoxManageMisc.cpp, VBoxManageSnapshot.cpp, VBoxManageHostonly.cpp, VBoxManageDisk.cpp,
VBoxManageAppliance.cpp; src/VBox/Main for the errors and the settings file). None of it was recorded: VirtualBox
cannot run where klab is made. It knows the commands that klab and Vagrant's provider use, with the options that they
use; anything else it refuses with exit code 2, so that no test passes by its silence.

`VirtualBox(folder)` answers inside a test; `install` writes an executable that other programs start. Both work on the
same file, one command at a time.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

OVF = "{http://schemas.dmtf.org/ovf/envelope/1}"
RASD = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
# What a sparse VMDK says of itself, as far as it is needed: magic and capacity in sectors.
VMDK = struct.Struct("<4s8xQ")
NICS = 8
# States in which a process holds the machine (Global::IsOnline).
ONLINE = {"running", "paused", "gurumeditation"}
NOT_FOUND = "VBOX_E_OBJECT_NOT_FOUND (0x80bb0001)"
BAD_STATE = "VBOX_E_INVALID_OBJECT_STATE (0x80bb0007)"
IN_USE = "VBOX_E_OBJECT_IN_USE (0x80bb000c)"
FAILURE = "NS_ERROR_FAILURE (0x80004005)"
# What a start ends with while KVM has the processor's extensions (ConsoleImpl.cpp; before 7.2.10 the first two).
KVM_HAS_IT = {
    "intel": "VirtualBox can't operate in VMX root mode. Please disable the KVM kernel extension, recompile your "
    "kernel and reboot (VERR_VMX_IN_VMX_ROOT_MODE)",
    "amd": "VirtualBox can't enable the AMD-V extension. Please disable the KVM kernel extension, recompile your "
    "kernel and reboot (VERR_SVM_IN_USE)",
    "svme": "Host API has not enabled SVME bit in EFER MSR. (VERR_SVM_HOST_SVME_NOT_ENABLED)",
}
_OPTION = re.compile(r"(--[a-z-]+?)(\d*)")


class Answer(NamedTuple):
    """Exit code, standard output and standard error."""

    code: int
    out: str
    err: str


class _Refusal(Exception):
    def __init__(self, message: str, code: str = "", component: str = "MachineWrap", exit_code: int = 1) -> None:
        self.exit_code = exit_code
        self.text = f"VBoxManage: error: {message}\n"
        if code:
            interface = "I" + component.removesuffix("Wrap")
            self.text += (
                f"VBoxManage: error: Details: code {code}, component {component}, interface {interface}, "
                "callee nsISupports\n"
            )


class VirtualBox:
    """One person's VirtualBox, in a folder: `state.json`, `machines/`, and `calls` with a line for each command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state: dict[str, Any] = {}

    # --- a test's side ----------------------------------------------------------------------------

    @classmethod
    def make(cls, folder: Path, version: str = "7.0.20r163906", **options: Any) -> VirtualBox:
        """One without machines.

        Options: `hardware` whether the processor has virtualization; `kvm` a key of KVM_HAS_IT; `kernel` whether
        its module is there; `links` whether host-only interfaces become real ones, by the program ip; `guest` a
        program that is started beside each machine that runs; `locked` how many commands are refused after a machine
        was switched off; `deaf` how many presses of a power button are lost.
        """
        (folder / "machines").mkdir(parents=True)
        made = cls(folder)
        made.state = {
            "version": version,
            "machines": {},
            "media": {},
            "interfaces": [],
            "hardware": True,
            "kernel": True,
            "kvm": "",
            "links": False,
            "guest": [],
            "locked": 0,
            "deaf": 0,
            **options,
        }
        made._write()
        return made

    def change(self, **options: Any) -> None:
        """Change what `make` was told."""
        with self._turn():
            self.state.update(options)

    def add(self, name: str, description: str = "") -> None:
        """Add a machine that is off, with a disk of 20 GiB of its own."""
        with self._turn():
            machine = self._add_machine(name)
            machine["description"] = description
            location = Path(machine["folder"]) / "box-disk001.vmdk"
            machine["slots"]["0"] = {"type": "hdd", "medium": self._add_medium(location, 20 << 30, None)}
            self._save(machine)

    @property
    def machines(self) -> dict[str, dict[str, Any]]:
        """The machines as they are now, by name."""
        with self._turn():
            return {machine["name"]: machine for machine in copy.deepcopy(self.state["machines"]).values()}

    @property
    def media(self) -> list[dict[str, Any]]:
        with self._turn():
            return list(copy.deepcopy(self.state["media"]).values())

    def media_of(self, name: str) -> dict[str, Any]:
        """The hard disk that a machine writes to."""
        (identity,) = [held["medium"] for held in self.machines[name]["slots"].values() if held["type"] == "hdd"]
        return next(medium for medium in self.media if medium["uuid"] == identity)

    @property
    def calls(self) -> list[list[str]]:
        """Every command so far."""
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def set_state(self, name: str, state: str) -> None:
        """Put a machine into a state, as a person or a crash does."""
        with self._turn():
            machine = self._machine(name)
            if state not in ONLINE:
                self._signal(machine, signal.SIGKILL)
            self._become(machine, state)

    # --- answering --------------------------------------------------------------------------------

    def run(self, words: Sequence[str]) -> Answer:
        """What VBoxManage answers to these words."""
        with self._turn():
            with (self.folder / "calls").open("a") as calls:
                calls.write(json.dumps(list(words)) + "\n")
            try:
                return Answer(0, self._warning() + self._answer(list(words)), "")
            except _Refusal as refusal:
                return Answer(refusal.exit_code, self._warning(), refusal.text)
            except _Printed as printed:
                return Answer(1, printed.text, "")

    def _warning(self) -> str:
        if self.state["kernel"]:
            return ""
        # The wrapper script /usr/bin/VBoxManage says it (src/VBox/Installer/linux/VBox.sh).
        return (
            "WARNING: The character device /dev/vboxdrv does not exist.\n"
            "\t Please install the virtualbox-dkms package and the appropriate\n"
            "\t headers, most likely linux-headers-amd64.\n\n"
            "\t You will not be able to start VMs until this problem is fixed.\n"
        )

    def _answer(self, words: list[str]) -> str:
        match words:
            case ["--version" | "-v"]:
                return f"{self.state['version']}\n"
            case ["list", kind]:
                return self._list(kind)
            case ["showvminfo", name]:
                return f"Name:                        {self._machine(name)['name']}\n"
            case ["showvminfo", name, "--machinereadable"]:
                return "".join(self._info(self._machine(name)))
            case ["import", "-n", file]:
                return self._import(Path(file), None)
            case ["import", file, *options]:
                return self._import(Path(file), options)
            case ["clonevm", name, *options]:
                return self._clone(self._machine(name), options)
            case ["modifyvm", name, *options]:
                return self._modify(self._machine(name), options)
            case ["startvm", name, "--type", "headless"]:
                return self._start(self._machine(name))
            case ["controlvm", name, verb]:
                return self._control(self._machine(name), verb)
            case ["discardstate", name]:
                return self._discard(self._machine(name))
            case ["unregistervm", name, "--delete"]:
                return self._unregister(self._machine(name))
            case ["snapshot", name, *rest]:
                return self._snapshot(self._machine(name), rest)
            case ["storageattach", name, *options]:
                return self._attach(self._machine(name), _pairs(options, flags={"--forceunmount"}))
            case ["showmediuminfo", "disk", name]:
                return "".join(self._medium_info(self._medium(name)))
            case ["hostonlyif", verb, *rest]:
                return self._interface(verb, rest)
            case ["guestproperty", "get", name, _property]:
                self._machine(name)
                return "No value set!\n"
        raise _Refusal(f"not in the stand-in: {' '.join(words)}", exit_code=2)

    # --- list -------------------------------------------------------------------------------------

    def _list(self, kind: str) -> str:
        machines = self.state["machines"].values()
        match kind:
            case "vms":
                return "".join(f'"{m["name"]}" {{{m["uuid"]}}}\n' for m in machines)
            case "runningvms":
                return "".join(f'"{m["name"]}" {{{m["uuid"]}}}\n' for m in machines if m["state"] in ONLINE)
            case "hdds":
                return "".join("".join(self._medium_info(medium)) + "\n" for medium in self.state["media"].values())
            case "hostonlyifs":
                return "".join(map(_interface_info, self.state["interfaces"]))
            case "bridgedifs":
                return _interface_info({"name": "eth0", "ip": "10.1.2.3", "netmask": "255.255.255.0", "up": True})
            case "dhcpservers":
                return ""
            case "systemproperties":
                return (
                    "API version:                     7_0\n"
                    "Minimum guest RAM size:          4 Megabytes\n"
                    f"Default machine folder:          {self.folder / 'machines'}\n"
                    "Raw-mode Supported:              no\n"
                    "Default VRDE extension pack:     \n"
                )
            case "hostinfo":
                return self._host_info()
        raise _Refusal(f"not in the stand-in: list {kind}", exit_code=2)

    def _host_info(self) -> str:
        has = "yes" if self.state["hardware"] else "no"
        return (
            "Host Information:\n\nHost time: 2026-11-21T07:51:36.172000000Z\n"
            "Processor online count: 2\nProcessor count: 2\n"
            "Processor online core count: 2\nProcessor core count: 2\n"
            f"Processor supports HW virtualization: {has}\nProcessor supports PAE: yes\n"
            f"Processor supports long mode: yes\nProcessor supports nested paging: {has}\n"
            f"Processor supports unrestricted guest: {has}\nProcessor supports nested HW virtualization: no\n"
            "Processor supports virt. vmsave/vmload: no\n"
            "Processor#0 speed: 3400 MHz\nProcessor#0 description: Intel(R) Core(TM) i5-7500 CPU @ 3.40GHz\n"
            "Processor#1 speed: 3400 MHz\nProcessor#1 description: Intel(R) Core(TM) i5-7500 CPU @ 3.40GHz\n"
            "Memory size: 16384 MByte\nMemory available: 12000 MByte\n"
            "Operating system: Linux\nOperating system version: 6.1.0-40-amd64\n"
        )

    # --- showvminfo -------------------------------------------------------------------------------

    def _info(self, machine: dict[str, Any]) -> Iterator[str]:
        folder = Path(machine["folder"])
        yield _said("name", machine["name"])
        yield _said("encryption", "disabled")
        yield _said("groups", "/")
        yield _said("ostype", "Debian (64-bit)")
        yield _said("UUID", machine["uuid"])
        yield _said("CfgFile", str(self._settings(machine)))
        yield _said("SnapFldr", str(folder / "Snapshots"))
        yield _said("LogFldr", str(folder / "Logs"))
        yield _said("hardwareuuid", machine["hardwareuuid"])
        yield f"memory={machine['memory']}\n"
        yield f"cpus={machine['cpus']}\n"
        yield _said("rtcuseutc", machine["rtcuseutc"])
        yield f'VMState="{machine["state"]}"\nVMStateChangeTime="{machine["changed"]}"\n'
        if machine["saved"]:
            yield f'VMStateFile="{machine["saved"]}"\n'
        yield _said("storagecontrollername0", "SATA")
        yield _said("storagecontrollertype0", "IntelAhci")
        yield 'storagecontrollerinstance0="0"\nstoragecontrollermaxportcount0="30"\n'
        yield 'storagecontrollerportcount0="2"\nstoragecontrollerbootable0="on"\n'
        for port in ("0", "1"):
            yield from self._slot_info(machine, port)
        for number in range(1, NICS + 1):
            yield from _nic_info(number, machine["nics"].get(str(number)))
        yield from self._uart_info(machine)
        if machine["description"]:
            yield _said("description", machine["description"])
        yield from self._snapshots_info(machine, None, "")
        yield "GuestMemoryBalloon=0\n"

    def _slot_info(self, machine: dict[str, Any], port: str) -> Iterator[str]:
        held = machine["slots"].get(port)
        if held is None:
            yield f'"SATA-{port}-0"="none"\n'
        elif held["type"] == "dvddrive":
            yield _said(f"SATA-{port}-0", held["medium"] or "emptydrive", quoted=True)
            if held["medium"]:
                yield f'"SATA-ImageUUID-{port}-0"="{_drive_uuid(held["medium"])}"\n'
                yield f'"SATA-tempeject-{port}-0"="off"\n'
            yield f'"SATA-IsEjected-{port}-0"="off"\n'
        else:
            yield _said(f"SATA-{port}-0", self.state["media"][held["medium"]]["location"], quoted=True)
            yield f'"SATA-ImageUUID-{port}-0"="{held["medium"]}"\n'
            yield f'"SATA-hot-pluggable-{port}-0"="off"\n"SATA-nonrotational-{port}-0"="off"\n'
            yield f'"SATA-discard-{port}-0"="off"\n'

    def _uart_info(self, machine: dict[str, Any]) -> Iterator[str]:
        if machine["uart"]:
            yield f'uart1="0x03f8,4"\nuartmode1="file,{machine["uart"]}"\nuarttype1="16550A"\n'
        else:
            yield 'uart1="off"\n'
        yield 'uart2="off"\nuart3="off"\nuart4="off"\n'

    def _snapshots_info(self, machine: dict[str, Any], parent: str | None, prefix: str) -> Iterator[str]:
        children = [shot for shot in machine["snapshots"] if shot["parent"] == parent]
        for i, shot in enumerate(children, 1):
            place = prefix if parent is None else f"{prefix}-{i}"
            yield f'SnapshotName{place}="{shot["name"]}"\nSnapshotUUID{place}="{shot["uuid"]}"\n'
            if shot["uuid"] == machine["current"]:
                yield f'CurrentSnapshotName="{shot["name"]}"\nCurrentSnapshotUUID="{shot["uuid"]}"\n'
                yield f'CurrentSnapshotNode="SnapshotName{place}"\n'
            yield from self._snapshots_info(machine, shot["uuid"], place)

    # --- import and clone -------------------------------------------------------------------------

    def _import(self, file: Path, options: list[str] | None) -> str:
        told = {} if options is None else _import_options(options)
        envelope = ElementTree.parse(file).getroot()  # noqa: S314 - a test's own
        system = envelope.find(f"{OVF}VirtualSystem")
        assert system is not None
        suggested = system.get(f"{OVF}id") or "vm"
        (reference,) = [node.get(f"{OVF}href") or "" for node in envelope.iter(f"{OVF}File")]
        (declared,) = [int(node.get(f"{OVF}capacity") or 0) for node in envelope.iter(f"{OVF}Disk")]
        kinds = [node.text for node in system.iter(f"{RASD}ResourceType")]
        assert kinds == ["3", "4", "20", "17", "10"], "not in the stand-in: this OVF"
        source = file.parent / reference
        settings = self.folder / "machines" / suggested / f"{suggested}.vbox"
        out = (
            "0%...10%...20%...30%...40%...50%...60%...70%...80%...90%...100%\n"
            f"Interpreting {file}...\nOK.\nDisks:\n"
            f"  vmdisk1\t{declared}\t-1\thttp://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized\t"
            f"{reference}\t-1\t-1\t\n\nVirtual system 0:\n"
            ' 0: Suggested OS type: "Debian_64"\n'
            '    (change with "--vsys 0 --ostype <type>"; use "list ostypes" to list all possible values)\n'
            f' 1: Suggested VM name "{told.get("--vmname", suggested)}"\n    (change with "--vsys 0 --vmname <name>")\n'
            ' 2: Suggested VM group "/"\n    (change with "--vsys 0 --group <group>")\n'
            f' 3: Suggested VM settings file name "{settings}"\n'
            '    (change with "--vsys 0 --settingsfile <filename>")\n'
            f' 4: Suggested VM base folder "{self.folder / "machines"}"\n'
            '    (change with "--vsys 0 --basefolder <path>")\n'
            ' 5: Number of CPUs: 2\n    (change with "--vsys 0 --cpus <n>")\n'
            ' 6: Guest memory: 2048 MB\n    (change with "--vsys 0 --memory <MB>")\n'
            " 7: Network adapter: orig NAT, config 3, extra type=NAT\n"
            ' 8: SATA controller, type AHCI\n    (disable with "--vsys 0 --unit 8 --ignore")\n'
            f" 9: Hard disk image: source image={reference}, target path={reference}, controller=8;port=0\n"
            '    (change target path with "--vsys 0 --unit 9 --disk path";\n'
            '    change controller with "--vsys 0 --unit 9 --controller <index>";\n'
            '    change controller port with "--vsys 0 --unit 9 --port <n>";\n'
            '    disable with "--vsys 0 --unit 9 --ignore")\n'
        )
        if options is None:
            return out
        with source.open("rb") as disk:
            magic, sectors = VMDK.unpack(disk.read(VMDK.size))
        if magic != b"KDMV" or sectors * 512 != declared:
            raise _Refusal(f"Could not open the medium storage unit '{source}'", FAILURE, "ApplianceWrap")
        machine = self._add_machine(told["--vmname"])
        machine["nics"]["1"] = {"type": "nat", "mac": "080027000001", "model": "82540EM", "forwards": {}}
        location = Path(told["--disk"])
        machine["slots"]["0"] = {"type": "hdd", "medium": self._add_medium(location, declared, None)}
        self._save(machine)
        return out + "Successfully imported the appliance.\n"

    def _add_machine(self, name: str) -> dict[str, Any]:
        if any(machine["name"] == name for machine in self.state["machines"].values()):
            file = self.folder / "machines" / name / f"{name}.vbox"
            raise _Refusal(f"Machine settings file '{file}' already exists", "VBOX_E_FILE_ERROR (0x80bb0004)")
        identity = str(uuid.uuid4())
        machine: dict[str, Any] = {
            "name": name,
            "uuid": identity,
            "folder": str(self.folder / "machines" / name),
            "hardwareuuid": identity,
            "memory": 2048,
            "cpus": 2,
            "description": "",
            "rtcuseutc": "off",
            "state": "poweroff",
            "changed": _now(),
            "saved": "",
            "uart": "",
            "nics": {},
            "slots": {},
            "snapshots": [],
            "current": None,
            "pid": 0,
        }
        self.state["machines"][identity] = machine
        return machine

    def _add_medium(self, location: Path, size: int, parent: str | None) -> str:
        location.parent.mkdir(parents=True, exist_ok=True)
        identity = str(uuid.uuid4())
        location.write_text(f"disk {identity} of {size} bytes\n")
        self.state["media"][identity] = {
            "uuid": identity,
            "location": str(location),
            "size": size,
            "parent": parent,
        }
        return identity

    def _differencing(self, machine: dict[str, Any], parent: str) -> str:
        name = f"{{{uuid.uuid4()}}}.vmdk"
        size = self.state["media"][parent]["size"]
        return self._add_medium(Path(machine["folder"]) / "Snapshots" / name, size, parent)

    def _clone(self, source: dict[str, Any], options: list[str]) -> str:
        told = _pairs(options, flags={"--register"})
        if told.get("--options") != "link":
            raise _Refusal("not in the stand-in: a clone that is not linked", exit_code=2)
        shot = self._shot(source, told["--snapshot"])
        made = self._add_machine(told["--name"])
        made["nics"] = copy.deepcopy(source["nics"])
        made["slots"]["0"] = {"type": "hdd", "medium": self._differencing(made, shot["disks"]["0"])}
        self._save(made)
        return _PROGRESS + f'Machine has been successfully cloned as "{told["--name"]}"\n'

    # --- modifyvm ---------------------------------------------------------------------------------

    def _modify(self, machine: dict[str, Any], options: list[str]) -> str:
        self._unlocked(machine)
        rest = list(options)
        while rest:
            word = rest.pop(0)
            match = _OPTION.fullmatch(word)
            option, number = (match[1], match[2]) if match else (word, "")
            act = _MODIFY.get(option)
            if act is None:
                raise _Refusal(f"not in the stand-in: modifyvm {word}", exit_code=2)
            act(self, machine, number, rest)
        self._save(machine)
        return ""

    def _rename(self, machine: dict[str, Any], name: str) -> None:
        if any(other["name"] == name and other is not machine for other in self.state["machines"].values()):
            raise _Refusal(f"Could not rename the settings file: VERR_ALREADY_EXISTS '{name}'", FAILURE)
        before, after = Path(machine["folder"]), self.folder / "machines" / name
        self._settings(machine).unlink(missing_ok=True)
        before.rename(after)
        machine["name"], machine["folder"] = name, str(after)
        for medium in self.state["media"].values():
            place = Path(medium["location"])
            if place.is_relative_to(before):
                medium["location"] = str(after / place.relative_to(before))

    # --- running ----------------------------------------------------------------------------------

    def _start(self, machine: dict[str, Any]) -> str:
        if machine["state"] in ONLINE:
            raise _Refusal(
                f"The machine '{machine['name']}' is already locked by a session (or being locked or unlocked)",
                BAD_STATE,
            )
        out = f'Waiting for VM "{machine["name"]}" to power on...\n'
        if not self.state["kernel"]:
            raise _Refusal(
                f"The virtual machine '{machine['name']}' has terminated unexpectedly during startup with exit code 1",
                FAILURE,
            )
        if not self.state["hardware"]:
            raise _Refusal("VT-x is not available (VERR_VMX_NO_VMX)", FAILURE, "ConsoleWrap")
        if self.state["kvm"]:
            raise _Refusal(KVM_HAS_IT[self.state["kvm"]], FAILURE, "ConsoleWrap")
        names = {interface["name"] for interface in self.state["interfaces"]}
        for nic in machine["nics"].values():
            if nic["type"] == "hostonly" and nic["adapter"] not in names:
                raise _Refusal(f"Nonexistent host networking interface, name '{nic['adapter']}' (VERR_INTERNAL_ERROR)")
        if machine["uart"]:
            Path(machine["uart"]).write_text("")
        machine["saved"] = ""
        self._become(machine, "running")
        self._boot(machine)
        return out + f'VM "{machine["name"]}" has been successfully started.\n'

    def _boot(self, machine: dict[str, Any]) -> None:
        """Start what stands for the guest, in a session of its own."""
        if self.state["guest"]:
            with open(os.devnull, "r+b") as null:  # noqa: PTH123 - /dev/null
                words = [*self.state["guest"], json.dumps(machine)]
                child = subprocess.Popen(words, stdin=null, stdout=null, stderr=null, start_new_session=True)
            machine["pid"] = child.pid

    def _signal(self, machine: dict[str, Any], number: int) -> None:
        if machine["pid"]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(machine["pid"], number)
            if number == signal.SIGKILL:
                machine["pid"] = 0

    def _control(self, machine: dict[str, Any], verb: str) -> str:
        state = machine["state"]
        if state not in ONLINE:
            raise _Refusal(f"Machine '{machine['name']}' is not currently running.")
        match verb:
            case "pause" if state == "running":
                self._signal(machine, signal.SIGSTOP)
                self._become(machine, "paused")
            case "resume" if state == "paused":
                self._signal(machine, signal.SIGCONT)
                self._become(machine, "running")
            case "poweroff":
                self._signal(machine, signal.SIGKILL)
                self._become(machine, "poweroff")
                machine["locked"] = self.state["locked"]
                return _PROGRESS
            case "acpipowerbutton" if state == "running" and self.state["deaf"] > 0:
                self.state["deaf"] -= 1
            case "acpipowerbutton" if state == "running":
                self._signal(machine, signal.SIGKILL)
                self._become(machine, "poweroff")
            case "pause" | "resume" | "acpipowerbutton":
                raise _Refusal(f"Invalid machine state: {state.capitalize()}", BAD_STATE, "ConsoleWrap")
            case _:
                raise _Refusal(f"not in the stand-in: controlvm {verb}", exit_code=2)
        return ""

    def _discard(self, machine: dict[str, Any]) -> str:
        if machine["state"] not in {"saved", "aborted-saved"}:
            raise _Refusal(
                f"Cannot delete the machine state (machine state: {machine['state'].capitalize()})", BAD_STATE
            )
        machine["saved"] = ""
        self._become(machine, "poweroff")
        return ""

    def _become(self, machine: dict[str, Any], state: str) -> None:
        machine["state"], machine["changed"] = state, _now()
        self._save(machine)

    def _unlocked(self, machine: dict[str, Any]) -> None:
        if machine["state"] in ONLINE or machine.get("locked", 0) > 0:
            machine["locked"] = max(machine.get("locked", 0) - 1, 0)
            raise _Refusal(
                f"The machine '{machine['name']}' is already locked for a session (or being unlocked)", BAD_STATE
            )

    def _unregister(self, machine: dict[str, Any]) -> str:
        if machine["state"] in ONLINE:
            raise _Refusal(f"Cannot unregister the machine '{machine['name']}' while it is locked", BAD_STATE)
        own = {held["medium"] for held in machine["slots"].values() if held["type"] == "hdd"}
        own |= {disk for shot in machine["snapshots"] for disk in shot["disks"].values()}
        # Media are closed from the top down; those of other machines that lie on them stay in the way.
        folder = Path(machine["folder"])
        own = {disk for disk in own if Path(self.state["media"][disk]["location"]).is_relative_to(folder)}
        del self.state["machines"][machine["uuid"]]
        for disk in own:
            others = [m for m in self.state["media"].values() if m["parent"] == disk and m["uuid"] not in own]
            if others:
                location = self.state["media"][disk]["location"]
                raise _Refusal(
                    f"Cannot close medium '{location}' because it has {len(others)} child media", IN_USE, "MediumWrap"
                )
        for disk in own:
            del self.state["media"][disk]
        shutil.rmtree(folder)
        return _PROGRESS

    # --- snapshots --------------------------------------------------------------------------------

    def _snapshot(self, machine: dict[str, Any], words: list[str]) -> str:
        if machine.get("locked", 0) > 0:
            self._unlocked(machine)
        match words:
            case ["list", "--machinereadable"]:
                if not machine["snapshots"]:
                    raise _Printed("This machine does not have any snapshots\n")
                return "".join(self._snapshots_info(machine, None, ""))
            case ["take", name]:
                self._take(machine, name)
            case ["restore", name]:
                self._restore(machine, self._shot(machine, name))
            case ["delete", name]:
                self._delete(machine, self._shot(machine, name))
            case _:
                raise _Refusal(f"not in the stand-in: snapshot {' '.join(words)}", exit_code=2)
        self._save(machine)
        return _PROGRESS

    def _shot(self, machine: dict[str, Any], name: str) -> dict[str, Any]:
        for shot in machine["snapshots"]:
            if name in {shot["name"], shot["uuid"]}:
                return shot  # type: ignore[no-any-return]
        raise _Refusal(f"Could not find a snapshot named '{name}'", NOT_FOUND)

    def _take(self, machine: dict[str, Any], name: str) -> None:
        identity = str(uuid.uuid4())
        shot = {
            "name": name,
            "uuid": identity,
            "parent": machine["current"],
            "stamp": _now()[:19] + "Z",
            "number": len(machine["snapshots"]),
            "disks": {},
            "drives": _held(machine, "dvddrive"),
            "saved": "",
        }
        for port, held in machine["slots"].items():
            if held["type"] == "hdd":
                shot["disks"][port] = held["medium"]
                held["medium"] = self._differencing(machine, held["medium"])
        if machine["state"] in ONLINE:
            file = Path(machine["folder"]) / "Snapshots" / f"{shot['stamp'].replace(':', '-')}-{identity[:8]}.sav"
            file.write_text(f"RAM of {name}")
            shot["saved"] = str(file)
        elif machine["saved"]:
            shot["saved"] = machine["saved"]
        machine["snapshots"].append(shot)
        machine["current"] = identity

    def _restore(self, machine: dict[str, Any], shot: dict[str, Any]) -> None:
        if machine["state"] in ONLINE:
            raise _Refusal("Cannot delete the current state of the running machine", BAD_STATE)
        for port, disk in shot["disks"].items():
            held = machine["slots"][port]
            self._drop_medium(held["medium"])
            held["medium"] = self._differencing(machine, disk)
        machine["current"], machine["saved"] = shot["uuid"], shot["saved"]
        self._become(machine, "saved" if shot["saved"] else "poweroff")

    def _delete(self, machine: dict[str, Any], shot: dict[str, Any]) -> None:
        """Remove a snapshot: what lies on its disk is merged down into it, as `Medium::i_mergeTo` does."""
        children = [other for other in machine["snapshots"] if other["parent"] == shot["uuid"]]
        if len(children) > 1:
            raise _Refusal(
                f"Snapshot '{shot['name']}' of the machine '{machine['name']}' cannot be deleted, because it has "
                f"{len(children)} child snapshots, which is more than the one snapshot allowed for deletion",
                BAD_STATE,
                "SessionMachine",
            )
        for disk in shot["disks"].values():
            above = [medium for medium in self.state["media"].values() if medium["parent"] == disk]
            if len(above) > 1:
                location = self.state["media"][disk]["location"]
                raise _Refusal(
                    f"Hard disk '{location}' has more than one child hard disk ({len(above)})",
                    BAD_STATE,
                    "SessionMachine",
                )
        for disk in shot["disks"].values():
            for upper in [m for m in self.state["media"].values() if m["parent"] == disk]:
                self._merge_down(machine, upper["uuid"], disk)
        for child in children:
            child["parent"] = shot["parent"]
        if machine["current"] == shot["uuid"]:
            machine["current"] = shot["parent"]
        machine["snapshots"].remove(shot)
        if shot["saved"] and shot["saved"] != machine["saved"]:
            Path(shot["saved"]).unlink()

    def _merge_down(self, machine: dict[str, Any], upper: str, lower: str) -> None:
        for medium in self.state["media"].values():
            if medium["parent"] == upper:
                medium["parent"] = lower
        for held in machine["slots"].values():
            if held["medium"] == upper:
                held["medium"] = lower
        for shot in machine["snapshots"]:
            shot["disks"] = {port: lower if disk == upper else disk for port, disk in shot["disks"].items()}
        self._drop_medium(upper)

    def _drop_medium(self, identity: str) -> None:
        Path(self.state["media"].pop(identity)["location"]).unlink()

    # --- storage ----------------------------------------------------------------------------------

    def _attach(self, machine: dict[str, Any], told: dict[str, str]) -> str:
        if told["--storagectl"] != "SATA":
            raise _Refusal(f"Could not find a storage controller named '{told['--storagectl']}'", NOT_FOUND)
        port, medium = told["--port"], told["--medium"]
        if medium == "emptydrive":
            machine["slots"][port] = {"type": "dvddrive", "medium": ""}
        elif told.get("--type") == "dvddrive":
            if not Path(medium).is_file():
                raise _Refusal(
                    f"Could not find file for the medium '{medium}' (VERR_FILE_NOT_FOUND)",
                    "VBOX_E_FILE_ERROR (0x80bb0004)",
                    "MediumWrap",
                )
            machine["slots"][port] = {"type": "dvddrive", "medium": medium}
        else:
            raise _Refusal(f"not in the stand-in: storageattach {told}", exit_code=2)
        self._save(machine)
        return ""

    def _medium(self, name: str) -> dict[str, Any]:
        for medium in self.state["media"].values():
            if name in {medium["uuid"], medium["location"]}:
                return medium  # type: ignore[no-any-return]
        raise _Refusal(
            f"Could not find file for the medium '{name}' (VERR_FILE_NOT_FOUND)",
            "VBOX_E_FILE_ERROR (0x80bb0004)",
            "MediumWrap",
        )

    def _medium_info(self, medium: dict[str, Any]) -> Iterator[str]:
        parent = medium["parent"]
        yield f"UUID:           {medium['uuid']}\nParent UUID:    {parent or 'base'}\nState:          created\n"
        yield f"Type:           normal ({'differencing' if parent else 'base'})\nLocation:       {medium['location']}\n"
        yield f"Storage format: VMDK\nFormat variant: {'differencing' if parent else 'dynamic'} default\n"
        yield f"Capacity:       {medium['size'] >> 20} MBytes\nSize on disk:   0 MBytes\nEncryption:     disabled\n"
        for machine in self.state["machines"].values():
            if any(held["medium"] == medium["uuid"] for held in machine["slots"].values()):
                yield f"In use by VMs:  {machine['name']} (UUID: {machine['uuid']})\n"
        children = [m["uuid"] for m in self.state["media"].values() if m["parent"] == medium["uuid"]]
        for i, child in enumerate(children):
            yield f"{'Child UUIDs:' if i == 0 else '':<15} {child}\n"

    # --- host-only interfaces ---------------------------------------------------------------------

    def _interface(self, verb: str, words: list[str]) -> str:
        interfaces = self.state["interfaces"]
        match verb, words:
            case "create", []:
                taken = {interface["name"] for interface in interfaces}
                name = next(name for i in range(128) if (name := f"vboxnet{i}") not in taken)
                interfaces.append({"name": name, "ip": "", "netmask": "", "up": False})
                self._ip("link", "add", name, "type", "bridge")
                return _PROGRESS + f"Interface '{name}' was successfully created\n"
            case "ipconfig", [name, "--ip", ip, "--netmask", netmask]:
                interface = self._named_interface(name)
                if not ip.startswith(("192.168.56.", "192.168.57.", "192.168.58.", "192.168.59.", "192.168.60.")):
                    raise _Refusal(
                        "Code E_ACCESSDENIED (0x80070005) - Access denied (extended info not available)",
                    )
                interface.update(ip=ip, netmask=netmask, up=True)
                bits = sum(int(part).bit_count() for part in netmask.split("."))
                self._ip("addr", "add", f"{ip}/{bits}", "dev", name)
                self._ip("link", "set", name, "up")
                return ""
            case "remove", [name]:
                interfaces.remove(self._named_interface(name))
                self._ip("link", "del", name)
                return _PROGRESS
        raise _Refusal(f"not in the stand-in: hostonlyif {verb} {words}", exit_code=2)

    def _named_interface(self, name: str) -> dict[str, Any]:
        for interface in self.state["interfaces"]:
            if interface["name"] == name:
                return interface  # type: ignore[no-any-return]
        raise _Refusal(f"The host network interface named '{name}' could not be found", FAILURE, "HostWrap")

    def _ip(self, *words: str) -> None:
        if self.state["links"]:
            subprocess.run(["ip", *words], check=True)

    # --- files ------------------------------------------------------------------------------------

    def _machine(self, name: str) -> dict[str, Any]:
        for machine in self.state["machines"].values():
            if name in {machine["name"], machine["uuid"]}:
                return machine  # type: ignore[no-any-return]
        try:
            what = f"with UUID {{{uuid.UUID(name)}}}"
        except ValueError:
            what = f"named '{name}'"
        raise _Refusal(f"Could not find a registered machine {what}", NOT_FOUND, "VirtualBoxWrap")

    def _settings(self, machine: dict[str, Any]) -> Path:
        return Path(machine["folder"]) / f"{machine['name']}.vbox"

    def _save(self, machine: dict[str, Any]) -> None:
        """Write the settings file, as far as klab reads it (src/VBox/Main/xml/Settings.cpp)."""
        folder = Path(machine["folder"])
        folder.mkdir(parents=True, exist_ok=True)
        state = ' aborted="true"' if machine["state"].startswith("aborted") else ""
        state += f" stateFile={_inside(machine['saved'], folder)}" if machine["saved"] else ""
        current = f' currentSnapshot="{{{machine["current"]}}}"' if machine["current"] else ""
        self._settings(machine).write_text(
            '<?xml version="1.0"?>\n<!--\n** DO NOT EDIT THIS FILE.\n-->\n'
            '<VirtualBox xmlns="http://www.virtualbox.org/" version="1.19-linux">\n'
            f'<Machine uuid="{{{machine["uuid"]}}}" name={quoteattr(machine["name"])} OSType="Debian_64"{current}'
            f' snapshotFolder="Snapshots"{state} lastStateChange="{machine["changed"]}">\n'
            f"<MediaRegistry><HardDisks>{self._registry(machine, None)}</HardDisks></MediaRegistry>\n"
            f'{self._snapshots_xml(machine, None)}<Hardware><Memory RAMSize="{machine["memory"]}"/>'
            f"{_storage(_held(machine, 'hdd'), _held(machine, 'dvddrive'))}"
            "</Hardware>\n</Machine>\n</VirtualBox>\n"
        )

    def _registry(self, machine: dict[str, Any], parent: str | None) -> str:
        """The machine's disks and those that they lie on, which may be another machine's: a linked clone's."""
        wanted = {held["medium"] for held in machine["slots"].values() if held["type"] == "hdd"}
        wanted |= {disk for shot in machine["snapshots"] for disk in shot["disks"].values()}
        media = self.state["media"]
        for disk in list(wanted):
            while (disk := media[disk]["parent"]) is not None:
                wanted.add(disk)
        folder = Path(machine["folder"])
        kind = "" if parent else ' type="Normal"'
        return "".join(
            f'<HardDisk uuid="{{{disk}}}" location={_inside(media[disk]["location"], folder)} format="VMDK"{kind}>'
            f"{self._registry(machine, disk)}</HardDisk>"
            for disk in sorted(wanted)
            if media[disk]["parent"] == parent
        )

    def _snapshots_xml(self, machine: dict[str, Any], parent: str | None) -> str:
        folder, text = Path(machine["folder"]), ""
        for shot in machine["snapshots"]:
            if shot["parent"] == parent:
                state = f" stateFile={_inside(shot['saved'], folder)}" if shot["saved"] else ""
                children = self._snapshots_xml(machine, shot["uuid"])
                text += (
                    f'<Snapshot uuid="{{{shot["uuid"]}}}" name={quoteattr(shot["name"])} timeStamp="{shot["stamp"]}"'
                    f"{state}><Hardware>{_storage(shot['disks'], shot['drives'])}</Hardware>"
                    f"{f'<Snapshots>{children}</Snapshots>' if children else ''}</Snapshot>\n"
                )
        return text

    def _turn(self) -> _Turn:
        return _Turn(self)

    def _write(self) -> None:
        partial = self.folder / "state.json.partial"
        partial.write_text(json.dumps(self.state, indent=1))
        partial.replace(self.folder / "state.json")


class _Turn:
    """The state as it is, for one command alone; written back at its end."""

    def __init__(self, box: VirtualBox) -> None:
        self._box = box

    def __enter__(self) -> None:
        self._lock = (self._box.folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._box.state = json.loads((self._box.folder / "state.json").read_text())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._box._write()
        self._lock.close()


class _Printed(Exception):
    """A failure that is told on standard output, with exit code 1."""

    def __init__(self, text: str) -> None:
        self.text = text


_PROGRESS = ""  # it goes to standard error, and nothing reads it


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + ".000000000"


def _said(name: str, value: str, *, quoted: bool = False) -> str:
    """A line as `outputMachineReadableString` writes it."""
    value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}"="{value}"\n' if quoted else f'{name}="{value}"\n'


def _inside(location: str, folder: Path) -> str:
    path = Path(location)
    return quoteattr(str(path.relative_to(folder) if path.is_relative_to(folder) else path))


def _held(machine: dict[str, Any], kind: str) -> dict[str, str]:
    """The media in a machine's slots of a kind, hdd or dvddrive, by port."""
    return {port: held["medium"] for port, held in machine["slots"].items() if held["type"] == kind}


def _drive_uuid(medium: str) -> uuid.UUID:
    return uuid.uuid5(uuid.NAMESPACE_URL, medium)


def _storage(disks: dict[str, str], drives: dict[str, str]) -> str:
    devices = "".join(
        f'<AttachedDevice type="HardDisk" hotpluggable="false" port="{port}" device="0">'
        f'<Image uuid="{{{disk}}}"/></AttachedDevice>'
        for port, disk in disks.items()
    )
    devices += "".join(
        f'<AttachedDevice passthrough="false" type="DVD" hotpluggable="false" port="{port}" device="0">'
        + (f'<Image uuid="{{{_drive_uuid(medium)}}}"/>' if medium else "")
        + "</AttachedDevice>"
        for port, medium in drives.items()
    )
    return (
        '<StorageControllers><StorageController name="SATA" type="AHCI" PortCount="2" useHostIOCache="false" '
        f'Bootable="true">{devices}</StorageController></StorageControllers>'
    )


def _interface_info(interface: dict[str, Any]) -> str:
    return (
        f"Name:            {interface['name']}\n"
        f"GUID:            {uuid.uuid5(uuid.NAMESPACE_DNS, interface['name'])}\n"
        "DHCP:            Disabled\n"
        f"IPAddress:       {interface['ip']}\n"
        f"NetworkMask:     {interface['netmask']}\n"
        "IPV6Address:     \n"
        "IPV6NetworkMaskPrefixLength: 0\n"
        "HardwareAddress: 0a:00:27:00:00:00\n"
        "MediumType:      Ethernet\n"
        "Wireless:        No\n"
        f"Status:          {'Up' if interface['up'] else 'Down'}\n"
        f"VBoxNetworkName: HostInterfaceNetworking-{interface['name']}\n\n"
    )


def _nic_info(number: int, nic: dict[str, Any] | None) -> Iterator[str]:
    if nic is None or nic["type"] == "none":
        yield f'nic{number}="none"\n'
        return
    if nic["type"] == "nat":
        yield f'natnet{number}="nat"\n'
    else:
        yield f'hostonlyadapter{number}="{nic["adapter"]}"\n'
    yield f'macaddress{number}="{nic["mac"]}"\ncableconnected{number}="on"\nnic{number}="{nic["type"]}"\n'
    yield f'nictype{number}="{nic["model"]}"\nnicspeed{number}="0"\n'
    if nic["type"] == "nat":
        yield 'mtu="0"\nsockSnd="64"\nsockRcv="64"\ntcpWndSnd="64"\ntcpWndRcv="64"\n'
        for i, (name, rule) in enumerate(nic["forwards"].items()):
            yield f'Forwarding({i})="{name},{rule}"\n'


def _pairs(options: list[str], flags: set[str]) -> dict[str, str]:
    """Options with their values; those in `flags` have none."""
    told, rest = {}, list(options)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise _Refusal(f"Invalid parameter '{word}'", exit_code=2)
        told[word] = "" if word in flags else rest.pop(0)
    return told


def _import_options(options: list[str]) -> dict[str, str]:
    told = _pairs(options, flags=set())
    if set(told) != {"--vsys", "--vmname", "--unit", "--disk"} or (told["--vsys"], told["--unit"]) != ("0", "9"):
        raise _Refusal(f"not in the stand-in: import {' '.join(options)}", exit_code=2)
    return told


# --- the options of modifyvm -----------------------------------------------------------------------

Change = Callable[[VirtualBox, dict[str, Any], str, list[str]], None]


def _plain(key: str, read: Callable[[str], Any] = str) -> Change:
    def act(_box: VirtualBox, machine: dict[str, Any], _number: str, rest: list[str]) -> None:
        machine[key] = read(rest.pop(0))

    return act


def _ignored(_box: VirtualBox, _machine: dict[str, Any], _number: str, rest: list[str]) -> None:
    rest.pop(0)


def _name(box: VirtualBox, machine: dict[str, Any], _number: str, rest: list[str]) -> None:
    box._rename(machine, rest.pop(0))


def _nic(_box: VirtualBox, machine: dict[str, Any], number: str, rest: list[str]) -> None:
    kind = rest.pop(0)
    if kind not in {"none", "nat", "hostonly"}:
        raise _Refusal(f"not in the stand-in: --nic{number} {kind}", exit_code=2)
    blank = {"mac": f"0800270000{int(number):02X}", "model": "82540EM", "forwards": {}, "adapter": ""}
    machine["nics"][number] = {**blank, **machine["nics"].get(number, {}), "type": kind}


def _of_nic(key: str) -> Change:
    def act(_box: VirtualBox, machine: dict[str, Any], number: str, rest: list[str]) -> None:
        value = rest.pop(0)
        if key == "mac":
            if not re.fullmatch(r"[0-9A-Fa-f]{12}", value) or int(value[1], 16) % 2:
                raise _Refusal("Invalid MAC address format", "NS_ERROR_INVALID_ARG (0x80070057)", "NetworkAdapterWrap")
            value = value.upper()
        machine["nics"].setdefault(number, {"type": "none", "model": "82540EM", "forwards": {}})[key] = value

    return act


def _forward(_box: VirtualBox, machine: dict[str, Any], number: str, rest: list[str]) -> None:
    rules, rule = machine["nics"][number]["forwards"], rest.pop(0)
    if rule == "delete":
        name = rest.pop(0)
        if name not in rules:
            raise _Refusal(
                "A NAT rule of this name does not exist", "NS_ERROR_INVALID_ARG (0x80070057)", "NATEngineWrap"
            )
        del rules[name]
        return
    name, _, where = rule.partition(",")
    if name in rules:
        raise _Refusal("A NAT rule of this name already exists", "NS_ERROR_INVALID_ARG (0x80070057)", "NATEngineWrap")
    rules[name] = where


def _uart(_box: VirtualBox, machine: dict[str, Any], number: str, rest: list[str]) -> None:
    if (number, rest.pop(0), rest.pop(0)) != ("1", "0x3F8", "4"):
        raise _Refusal("not in the stand-in: another serial port", exit_code=2)


def _uart_mode(_box: VirtualBox, machine: dict[str, Any], number: str, rest: list[str]) -> None:
    if (number, rest.pop(0)) != ("1", "file"):
        raise _Refusal("not in the stand-in: another mode of the serial port", exit_code=2)
    machine["uart"] = rest.pop(0)


_MODIFY: dict[str, Change] = {
    "--name": _name,
    "--memory": _plain("memory", int),
    "--cpus": _plain("cpus", int),
    "--description": _plain("description"),
    "--hardwareuuid": _plain("hardwareuuid"),
    "--rtcuseutc": _plain("rtcuseutc"),
    "--natdnsproxy": _ignored,
    "--natdnshostresolver": _ignored,
    "--nic": _nic,
    "--nictype": _of_nic("model"),
    "--macaddress": _of_nic("mac"),
    "--hostonlyadapter": _of_nic("adapter"),
    "--cableconnected": _of_nic("cable"),
    "--natpf": _forward,
    "--uart": _uart,
    "--uartmode": _uart_mode,
}


# --- as a program ----------------------------------------------------------------------------------


def install(folder: Path, programs: Path) -> None:
    """Write an executable VBoxManage into the folder `programs`, for the VirtualBox in `folder`."""
    program = programs / "VBoxManage"
    program.write_text(
        f"#!{sys.executable} -I\nimport sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        f"import vboxmanage\nvboxmanage.main({str(folder)!r})\n"
    )
    program.chmod(0o755)


def main(folder: str) -> None:
    """Answer the command line."""
    answer = VirtualBox(Path(folder)).run(sys.argv[1:])
    sys.stdout.write(answer.out)
    sys.stderr.write(answer.err)
    sys.exit(answer.code)
