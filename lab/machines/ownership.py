"""How klab knows what belongs to a lab: by mark, never by a pattern in a name.

libvirt keeps marks in three ways, and klab uses each where it exists:

- domains and networks carry metadata in klab's own XML namespace (lab id, seat, epoch);
- domains also carry it in their description, because Vagrant can write that in the very
  step that makes the domain: no kill can come between the two;
- storage pools and networks have a UUID derived from the lab's id, since pools have no
  metadata and networks have none before libvirt 9.7. Volumes have no mark at all, so a lab
  keeps its own in a pool of its own.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

from lab.errors import LabError

XML_NAMESPACE = "urn:klab:lab:1"
XML_PREFIX = "klab"
_DESCRIPTION = re.compile(r"klab lab (?P<id>\S+) seat (?P<seat>\d+) epoch (?P<epoch>\S+)")
_METADATA = re.compile(r"""<(?:\w+:)?lab\b[^<>]*\bid=["'](?P<id>[^"']+)["']""")


@dataclass(frozen=True, slots=True)
class Owner:
    """The mark of one lab. `epoch` is the moment from which its dilated clocks are counted, in seconds."""

    lab_id: str
    seat: int
    epoch: float

    @property
    def description(self) -> str:
        """The mark as a line of text."""
        return f"klab lab {self.lab_id} seat {self.seat} epoch {self.epoch!r}"

    @property
    def metadata(self) -> str:
        """The mark as an XML element, as libvirt's setMetadata takes it: without namespace prefix."""
        return f"<lab id={quoteattr(self.lab_id)} seat='{self.seat}' epoch='{self.epoch!r}'/>"

    @property
    def metadata_element(self) -> str:
        """The mark as it is in a definition."""
        attributes = f"id={quoteattr(self.lab_id)} seat='{self.seat}' epoch='{self.epoch!r}'"
        return f"<metadata><{XML_PREFIX}:lab xmlns:{XML_PREFIX}='{XML_NAMESPACE}' {attributes}/></metadata>"

    @property
    def pool_name(self) -> str:
        return f"klab-{self.lab_id}"

    @property
    def pool_uuid(self) -> str:
        return str(self._derived("pool"))

    @property
    def opener_uuid(self) -> str:
        """The UUID of the machine that never runs, and only has a disk of the lab open."""
        return str(self._derived("opener"))

    def network_uuid(self, kind: str) -> str:
        """The UUID of the lab's network (`lab` or `management`)."""
        return str(self._derived(f"network {kind}"))

    def _derived(self, what: str) -> uuid.UUID:
        try:
            return uuid.uuid5(uuid.UUID(self.lab_id), what)
        except ValueError:
            raise LabError(
                f"{self.lab_id!r} is not the id of a lab",
                hint="lab.json in the lab's folder has it; put that file back",
            ) from None


def owner_in_description(text: str) -> str | None:
    """The id of the lab that a description names."""
    match = _DESCRIPTION.search(text)
    return match["id"] if match else None


def owner_in_metadata(xml: str) -> str | None:
    """The id of the lab that a metadata element names."""
    match = _METADATA.search(xml)
    return match["id"] if match else None
