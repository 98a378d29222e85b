"""`vagrant up`, and what its failure means. Vagrant reports it in prose; the phrases here are those of
Vagrant 2.3 (templates/locales/en.yml) and vagrant-libvirt 0.11 (locales/en.yml)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lab.errors import Advice, Conflict, HostError, LabError, MachineError, ProgramTimeout, Remedy
from lab.host import access
from lab.machines.protocol import NodeState
from lab.machines.restarts import RUNS_AGAIN_SECONDS
from lab.machines.vagrant.command import Vagrant
from lab.packages import PLUGIN_HINT
from lab.process import Completed
from lab.waiting import Deadline, poll

DETAIL_LINES = 15
# How a line of a Ruby backtrace begins, but for its first, which has the message.
RUBY_FRAME = "\tfrom /"
# What Vagrant prints when a machine goes off while it waits for ssh.
GONE = "entered an invalid state while waiting for it"

# polkit's and libvirtd's refusals, and the words around its socket (libvirt, src/rpc/virnetsocket.c).
_REFUSALS = ("authentication unavailable", "authentication failed", "access denied by policy")
_SOCKET = ("Failed to connect socket", "libvirt-sock", "virtqemud-sock")


@dataclass(frozen=True, slots=True)
class _Case:
    """A phrase in Vagrant's output and klab's message for it."""

    phrases: tuple[str, ...]
    kind: type[LabError]
    message: str
    hint: Advice


_CASES = (
    _Case(
        ("Timed out while waiting for the machine to boot", "The specified wait_for timeout", "wait_for timeout"),
        MachineError,
        "a machine does not boot, or has no network",
        (Remedy("logs", options=("NODE",)), " shows its console; ", Remedy("create"), " again continues"),
    ),
    _Case(
        ("The provider 'libvirt' could not be found", "Vagrant could not find the provider", "Unknown provider"),
        HostError,
        "Vagrant lacks the plugin vagrant-libvirt",
        PLUGIN_HINT,
    ),
    _Case(
        ("VERR_VMX_IN_VMX_ROOT_MODE", "VERR_SVM_IN_USE", "VERR_SVM_HOST_SVME_NOT_ENABLED"),
        HostError,
        "KVM keeps the processor's virtualization from VirtualBox",
        "sudo modprobe -r kvm_intel kvm_amd kvm (no machine of libvirt's may run), then the same command again; "
        "docs/how-to/providers.md tells how it stays so",
    ),
    _Case(
        ("VERR_VMX_NO_VMX", "VERR_SVM_NO_SVM", "VERR_VMX_MSR_ALL_VMX_DISABLED", "VERR_SVM_DISABLED"),
        HostError,
        "the processor offers VirtualBox no hardware virtualization",
        "switch on VT-x or AMD-V in the BIOS, or nested virtualization in the hypervisor above",
    ),
    _Case(
        ("you have a version of VirtualBox installed",),
        HostError,
        "this Vagrant does not know this VirtualBox",
        Remedy("doctor"),
    ),
    _Case(
        ("Failed to connect socket", "Error while connecting to Libvirt", "unable to connect to server"),
        HostError,
        "libvirtd does not answer",
        Remedy("doctor"),
    ),
    _Case(
        ("Cannot allocate memory", "cannot set up guest memory"),
        HostError,
        "there is not enough memory for the machine",
        (Remedy("plan"), " shows what the lab needs; destroy another lab, or give the nodes less memory"),
    ),
    _Case(
        ("No space left on device",),
        HostError,
        "the disk is full",
        (Remedy("doctor"), " shows where klab keeps its disks and what is free"),
    ),
    _Case(
        (
            "Name `",
            "already defined with uuid",
            "already taken",
            "is already in use by interface",
            "does not match ip address",
        ),
        Conflict,
        "another domain or network on this machine has a name, UUID or address of this lab",
        "virsh list --all and virsh net-list --all show what is there; --name gives the lab another name",
    ),
)


def vagrant_up(
    vagrant: Vagrant,
    provider: str,
    deadline: Deadline,
    on_line: Callable[[str], None],
    *,
    names: Sequence[str],
    cancelled: Callable[[], bool],
    states: Callable[[], Mapping[str, NodeState]],
    mend: Callable[[], bool] = lambda: False,
) -> None:
    """`vagrant up`, and once more where its failure could be mended, or was a crash that is over.

    A crashed machine is restarted by another thread, see `lab.machines.restarts`; Vagrant gives up at once.

    Args:
        vagrant: the lab's Vagrant.
        provider: libvirt or virtualbox.
        deadline: until when the machines must answer ssh.
        on_line: receives Vagrant's output line by line.
        names: the machines it is about.
        cancelled: whether klab was told to stop it; then a failure is not Vagrant's.
        states: what the machines are doing.
        mend: called after a failure; returns whether it has repaired something.

    Raises:
        LabError: it failed, or the machines did not answer in time; see `explain`.
    """

    def once() -> Completed:
        try:
            return vagrant.up(provider, max(deadline.left, 1.0), on_line, names)
        except ProgramTimeout as error:
            raise MachineError(
                "the machines did not answer ssh in time",
                details=error.details,
                hint=(
                    Remedy("create"),
                    " again continues; ",
                    Remedy("logs", options=("NODE",)),
                    " shows a machine's console",
                ),
            ) from error

    def run_again() -> bool:
        found = poll(
            lambda: cancelled() or all(states()[name] == NodeState.RUNNING for name in names),
            Deadline.after(deadline.at_most(RUNS_AGAIN_SECONDS)),
        )
        return bool(found) and not cancelled()

    done = once()
    if done.code != 0 and not cancelled() and (mend() or (GONE in done.stderr + done.stdout and run_again())):
        done = once()
    if done.code != 0:
        raise explain(done, cancelled())


def recognized(text: str, details: Sequence[str]) -> LabError | None:
    """The error that a text tells of, with these details; None where no phrase in it is known."""
    if (denied := _denied(text)) is not None:
        denied.details = (*denied.details, *details)
        return denied
    for case in _CASES:
        if any(phrase in text for phrase in case.phrases):
            return case.kind(case.message, details=details, hint=case.hint)
    return None


def explain(done: Completed, cancelled: bool) -> LabError:
    """The error that tells why `vagrant up` failed, with Vagrant's last lines; where in Ruby it was tells nothing."""
    lines = [line.rstrip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(RUBY_FRAME)]
    details = lines[-DETAIL_LINES:]
    if cancelled:
        return MachineError("starting the machines was stopped", hint=(Remedy("create"), " again continues"))
    # Errors are on standard error; only there does a phrase have this meaning.
    return recognized(done.stderr or done.stdout, details) or MachineError(
        f"vagrant up failed with exit code {done.code}",
        details=details,
        hint=(
            Remedy("create"),
            " again continues; ",
            Remedy("vagrant", options=("--", "status")),
            " shows what there is",
        ),
    )


def _denied(text: str) -> HostError | None:
    """The error for what someone may not, judged by who says so; None where it is about nothing of the kind."""
    lines = text.splitlines()
    if silent := access.silent_virtlogd(next((line for line in lines if "virtlogd" in line), "")):
        return silent
    if (line := next((line for line in lines if any(word in line for word in _REFUSALS)), None)) is not None:
        return access.refused_by_libvirt(line)
    line = next((line for line in lines if "Permission denied" in line), None)
    if line is None:
        return None
    if any(word in line for word in _SOCKET):
        return access.refused_by_libvirt(line)
    if "(publickey" in line:
        return HostError(
            "a machine refuses the lab's ssh key",
            details=[line],
            hint=(Remedy("doctor"), " with the lab's name shows which node; ", Remedy("node replace"), " recreates it"),
        )
    return access.closed_file("a file of the lab's is closed to libvirt", line)
