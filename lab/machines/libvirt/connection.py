"""The connection to libvirt, and its errors in klab's words.

libvirt-python is imported when it is first needed: it is built from source against
libvirt's headers, and VirtualBox users cannot be asked to have those.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from lab.errors import Conflict, HostError, LabError, MachineError, Remedy
from lab.host import access
from lab.host.local import LIBVIRT_URI

if TYPE_CHECKING:
    import libvirt

# Each message of libvirt's beside what it means to a person. Source: libvirt 11.3,
# src/util/virerror.c, src/network/bridge_driver.c, src/conf/virnetworkobj.c, virdomainobjlist.c.
_CONFLICTS = (
    "already exists",
    "already in use by",
    "already defined with uuid",
    "operation failed: domain '",
    "operation failed: network '",
    "bridge name",
)
_DENIED = "Permission denied"  # strerror(3) of EACCES: of a socket, or of a file


def library() -> Any:
    """The module `libvirt`.

    Raises:
        HostError: libvirt-python is not installed.
    """
    try:
        import libvirt
    except ImportError as error:
        raise HostError(
            "libvirt-python is not installed",
            hint="pip install 'klab[libvirt]' (needs libvirt-dev, pkg-config and gcc), or --provider virtualbox",
        ) from error
    # Without a handler libvirt prints each error to standard error, wanted or not.
    libvirt.registerErrorHandler(lambda _context, _error: None, None)
    return libvirt


def connect() -> libvirt.virConnect:
    """A connection to libvirtd.

    Raises:
        HostError: libvirt-python is missing, nothing answers, or klab may not.
    """
    library_ = library()
    try:
        return library_.open(LIBVIRT_URI)
    except library_.libvirtError as error:
        raise _no_connection(error) from error


def _no_connection(error: libvirt.libvirtError) -> HostError:
    text = str(error)
    if _DENIED in text or _unauthorized(error):
        return access.refused_by_libvirt(text)
    return HostError(
        "libvirtd does not answer", details=[text], hint=("sudo systemctl enable --now libvirtd; ", Remedy("doctor"))
    )


def _unauthorized(error: libvirt.libvirtError) -> bool:
    """Whether libvirtd knows this user, and refuses."""
    library_ = library()
    return error.get_error_code() in {
        library_.VIR_ERR_AUTH_FAILED,
        library_.VIR_ERR_AUTH_CANCELLED,
        library_.VIR_ERR_AUTH_UNAVAILABLE,
        library_.VIR_ERR_ACCESS_DENIED,
    }


def _of_connection(error: libvirt.libvirtError) -> bool:
    """Whether an error is about the way to libvirtd, not about what libvirtd was doing with a file."""
    library_ = library()
    lost = {library_.VIR_ERR_NO_CONNECT, library_.VIR_ERR_RPC, library_.VIR_ERR_SYSTEM_ERROR}
    return error.get_error_code() in lost and "onnect" in str(error)


@contextlib.contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Turn libvirt's exceptions into klab's.

    Args:
        what: what was being done, for the message: "network klab-1m2w cannot be made".

    Raises:
        Conflict: a name, UUID or address belongs to something else.
        HostError: libvirtd does not answer or klab may not.
        MachineError: anything else.
    """
    library_ = library()
    try:
        yield
    except library_.libvirtError as error:
        raise explain(what, error) from error


def explain(what: str, error: libvirt.libvirtError) -> LabError:
    """The exception of klab's for one of libvirt's."""
    text = str(error)
    if silent := access.silent_virtlogd(text):
        return silent
    if _unauthorized(error) or _of_connection(error):
        return _no_connection(error)
    if _DENIED in text:
        return access.closed_file(what, text)
    if "is already in use by interface" in text:
        return Conflict(
            what,
            details=[text],
            hint="another lab or network here has these addresses: choose another --seat or network.cidr",
        )
    if any(word in text for word in _CONFLICTS):
        return Conflict(
            what,
            details=[text],
            hint="another domain or network has that name or UUID: virsh list --all and virsh net-list --all show it",
        )
    return MachineError(what, details=[text], hint=(Remedy("doctor"), " shows whether libvirt works here"))


def absent(error: libvirt.libvirtError) -> bool:
    """Whether an error means that the thing is not there (any more)."""
    library_ = library()
    return error.get_error_code() in {
        library_.VIR_ERR_NO_DOMAIN,
        library_.VIR_ERR_NO_NETWORK,
        library_.VIR_ERR_NO_STORAGE_POOL,
        library_.VIR_ERR_NO_STORAGE_VOL,
    }


def find_volume(pool: libvirt.virStoragePool, name: str) -> libvirt.virStorageVol | None:
    """A pool's volume by its name; None where libvirt knows of none.

    Raises:
        libvirt.libvirtError: libvirt does not tell.
    """
    try:
        return pool.storageVolLookupByName(name)
    except library().libvirtError as error:
        if absent(error):
            return None
        raise


def start_if_inactive(thing: libvirt.virDomain | libvirt.virNetwork | libvirt.virStoragePool) -> None:
    """Start a machine, a network or a pool; it may be active by now.

    libvirtd finishes what a klab that was killed had asked of it, beside the klab that comes next.
    """
    try:
        thing.create()
    except library().libvirtError:
        if not thing.isActive():
            raise


def ignore_missing(step: Callable[[], object]) -> None:
    """Switch a machine off or remove it; it may be off or gone by now."""
    library_ = library()
    try:
        step()
    except library_.libvirtError as error:
        if not absent(error) and error.get_error_code() != library_.VIR_ERR_OPERATION_INVALID:
            raise
