"""Bundles: write a stopped lab into one file, make the same lab of such a file, and list files.

`prepare_import` decides everything about a lab from a bundle, `make_imported` makes it, `import_lab` does both.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lab.app.create import making, profile_for, provider_for, refuse_what_does_not_fit
from lab.app.interruption import interruptible
from lab.app.labs import Labs, Note, silent
from lab.bundles import export_lab as write
from lab.bundles import import_lab as act
from lab.bundles.export_lab import kept
from lab.bundles.file import BundleFile, open_bundle
from lab.bundles.format import SUFFIX, Bundle, check_bundle_name
from lab.bundles.import_lab import Made, box_at_hand, plan_of, refuse_conflict, room_problems
from lab.bundles.signature import Signer, allowed_signer, default_allowed, sign, signer
from lab.cluster.events import Listener
from lab.cluster.lab import Lab
from lab.errors import Conflict, HostError, LabError, Remedy, UsageError
from lab.host.capacity import home_room, host_facts
from lab.host.local import LocalHost
from lab.host.network import returning
from lab.host.profile import HostProfile
from lab.machines.providers import PROVIDERS, enter_host, provider_named
from lab.plan.model import Plan, import_command
from lab.store import Home, Record

NO_VIRTUALBOX = (Remedy("create"), " makes a lab from its scenario on VirtualBox, too")


# --- write --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Export:
    """Which bundle is to be written.

    Args:
        name: the bundle's name.
        target: the file; NAME.klab in the working directory where it is None.
        with_box: put the box in, so that nothing but the file is needed.
        key: the OpenSSH key that signs it; None for no signature.
        replaces: a file that is there may be replaced.
    """

    name: str
    target: Path | None = None
    with_box: bool = True
    key: Path | None = None
    replaces: bool = False

    @property
    def file(self) -> Path:
        """The file that is written; raises UsageError where `name` is not a valid bundle name."""
        return self.target if self.target is not None else Path(f"{check_bundle_name(self.name)}{SUFFIX}")


def export_lab(lab: Lab, wanted: Export, *, listener: Listener | None = None) -> BundleFile:
    """Write a lab that is off into a file. The lab must have been entered (`lab.app.labs.enter`).

    Args:
        lab: the lab.
        wanted: which bundle.
        listener: told each event.

    Raises:
        LabError: as `lab.bundles.export_lab.write_bundle`; nothing of the file is left then.
        Interrupted: on Ctrl-C; the same.
    """
    key = wanted.key and wanted.key.expanduser().absolute()
    with interruptible(
        "stopped; nothing was written, and the lab has not been touched", (Remedy("export"), " starts again")
    ):
        return write.write_bundle(
            lab.watched_by(listener),
            wanted.name,
            wanted.file,
            with_box=wanted.with_box,
            replaces=wanted.replaces,
            sign=partial(sign, key) if key else None,
        )


def keep_snapshots(lab: Lab, *, listener: Listener | None = None) -> list[BundleFile]:
    """Write the snapshots of a lab that is to be removed into files in klab's home. The lab must have been entered.

    Raises:
        LabError: as `lab.bundles.export_lab.keep_snapshots`; the lab has not been touched.
        Interrupted: on Ctrl-C; the same.
    """
    with interruptible("stopped; the lab has not been touched", (Remedy("destroy"), " starts again")):
        return write.keep_snapshots(lab.watched_by(listener))


def signer_of(file: BundleFile) -> Signer | None:
    """The signer of a bundle; None for a bundle without a signature."""
    return signer(file.manifest, file.signature) if file.signature else None


# --- list ---------------------------------------------------------------------------------------------


def bundles(files: Sequence[Path] = (), *, home: Home | None = None) -> dict[Path, BundleFile | LabError]:
    """What these files hold, or those that klab has kept in its home; for a file that cannot be used the error."""
    return {file: _opened(file) for file in files or kept(home or Home.default())}


def _opened(file: Path) -> BundleFile | LabError:
    try:
        return open_bundle(file)
    except LabError as error:
        return error
    except OSError as error:
        return HostError(f"it cannot be read: {error.strerror or error}")


# --- make the lab -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """Which lab is wanted, of which bundle.

    Args:
        file: the bundle's file, or the name of one that klab has kept.
        name: the lab's name; the bundle's own where it is None.
        provider: "libvirt", or "auto" for the one that is installed.
        digest: the bundle must have this digest; None for any.
        allowed_signers: the bundle must be signed by one of this list; None for the list in klab's home, if any.
    """

    file: Path
    name: str | None = None
    provider: str = "auto"
    digest: str | None = None
    allowed_signers: Path | None = None

    @property
    def command(self) -> Remedy:
        """The command that asks for the same."""
        return import_command(str(self.file), self.name)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A lab from a bundle, of which everything is decided; it fits on this machine, and this process is where its
    machines will be.

    `signer` is None for a bundle without a signature. `kept`: klab itself wrote the file on this machine,
    `foreign_box` that its box will come into the store. `where` names the libvirt or the provider.
    """

    request: Request
    lab: Lab
    file: BundleFile
    signer: Signer | None
    kept: bool
    foreign_box: bool
    provider: str
    profile: HostProfile
    where: str

    @property
    def plan(self) -> Plan:
        return self.lab.plan


def import_lab(
    request: Request, *, home: Home | None = None, timeout: float | None = None, listener: Listener | None = None
) -> Made:
    """Make a lab of a bundle, or continue with one that is half made, and wait until it is Ready.

    Afterwards the calling thread is where it was before.

    Args:
        request: which lab.
        home: klab's folder; KLAB_HOME when left out.
        timeout: how long it may take, in seconds.
        listener: told each event.

    Raises:
        LabError: as `prepare_import` and `lab.bundles.import_lab.create_from_bundle`; `Interrupted` on Ctrl-C.
    """
    with returning():
        prepared = prepare_import(request, home=home)
        with importing(prepared):
            return make_imported(prepared, timeout=timeout, listener=listener)


def prepare_import(request: Request, *, home: Home | None = None, note: Note = silent) -> Prepared:
    """Decide everything about a lab from a bundle, and refuse what cannot be, before anything is made.

    Args:
        request: which lab.
        home: klab's folder; KLAB_HOME when left out.
        note: told what a person shall know beforehand.

    Raises:
        NotFound: there is no such file.
        UsageError: it is not a bundle, or not the one that is demanded; the name is not a valid lab name.
        Conflict: another lab has the name or the machines.
        HostError: it does not fit on this machine.
        BoxError: the bundle needs a box that is missing.
        Interrupted: on Ctrl-C.
    """
    home = home or Home.default()
    found = open_bundle(_find(home, request.file))
    is_kept = found.path.resolve().is_relative_to(home.checkpoints.resolve())
    by = _signer(home, found, request, is_kept=is_kept)
    plan = _plan(found.bundle, request.name)
    record = refuse_conflict(home, plan, found)
    provider = _provider(request, found.bundle, record)
    box = box_at_hand(home, found.bundle)
    where = enter_host(provider, home)
    lab = Lab(home, home.lab(plan.name), plan)
    if record is not None:
        # By its own plan: it may have been scaled since.
        Labs(home).open(plan.name, note=note)
    with making(home, lab.folder, request.command):
        profile = profile_for(provider, home, plan, record)
        if record is None:
            host, disks = LocalHost(home), provider_named(provider).disk_room(home, plan.pool)
            room = room_problems(found.bundle, box, home_room(host), disks)
            hint = (Remedy("bundles", options=("FILE",)), " shows what is in it")
            networks = provider_named(provider).networks(plan)
            refuse_what_does_not_fit(plan, host_facts(host, disks), networks, room, hint, note)
    return Prepared(request, lab, found, by, is_kept, box is None, provider, profile, where)


def make_imported(prepared: Prepared, *, timeout: float | None = None, listener: Listener | None = None) -> Made:
    """Make the lab that was prepared; call it inside `importing`. Arguments and errors as `import_lab`."""
    lab = prepared.lab.watched_by(listener, timeout)
    return act.create_from_bundle(act.Request(lab, prepared.file, prepared.provider, prepared.profile))


@contextlib.contextmanager
def importing(prepared: Prepared) -> Iterator[None]:
    """As `lab.app.create.making`, for a lab from a bundle."""
    with making(prepared.lab.home, prepared.lab.folder, prepared.request.command):
        yield


def _provider(request: Request, bundle: Bundle, record: Record | None) -> str:
    chosen = provider_for(request.provider, record)
    known = [PROVIDERS[name] for name in (chosen, bundle.provider) if name in PROVIDERS]
    if not all(each.features.disk_transfer for each in known):
        raise HostError("a lab cannot be made from a bundle on VirtualBox yet", hint=NO_VIRTUALBOX)
    return chosen


def _find(home: Home, file: Path) -> Path:
    """The file, or the one of that name that klab has kept.

    Raises:
        Conflict: it has kept several, which need different boxes.
    """
    if not file.exists() and file.name == str(file):
        same = [each for each in kept(home) if str(file) in {each.name, each.stem}]
        if len(same) > 1:
            raise Conflict(
                f"klab has kept {len(same)} bundles called {file}",
                details=[str(each) for each in same],
                hint="give the path of the one that you mean",
            )
        if same:
            return same[0]
    return file.absolute()


def _signer(home: Home, found: BundleFile, request: Request, *, is_kept: bool) -> Signer | None:
    """The signer of a bundle; None where it is not signed and need not be.

    Raises:
        UsageError: it is not the bundle that is demanded, or its signature does not match.
    """
    if request.digest is not None and request.digest.removeprefix("sha256:").lower() != found.digest:
        raise UsageError(
            "the bundle does not have that digest",
            details=[f"wanted: {request.digest[:80]}", f"found:  {found.digest}"],
            hint="get the file again from its author",
        )
    allowed = request.allowed_signers
    if allowed is None and not is_kept:
        allowed = default_allowed(home.root)
    if allowed is not None:
        return allowed_signer(found.manifest, found.signature, allowed.expanduser())
    return signer_of(found)


def _plan(bundle: Bundle, name: str | None) -> Plan:
    try:
        return plan_of(bundle, name)
    except ValueError as error:
        raise UsageError(f"the lab cannot have this name: {error}", hint="such as --name lesson-3") from None
