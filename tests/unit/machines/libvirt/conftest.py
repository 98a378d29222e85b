from __future__ import annotations

from support.libvirt_host import make_host

__all__ = ["make_host"]
