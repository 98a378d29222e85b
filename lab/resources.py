"""Where klab's own files are: the template, the box recipes, the shipped scenarios.

In a checkout they stand beside the package, so that an instructor finds and reads them;
an installed wheel carries the same files inside the package. This is the one place that
knows about the two.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent
_CHECKOUT = _PACKAGE.parent


def path(name: str) -> Path:
    """The full path of a shipped file or folder, for example `scenarios` or `Vagrantfile.j2`.

    Raises:
        FileNotFoundError: klab was installed without its data files; a packaging defect.
    """
    for root in (_PACKAGE / "data", _CHECKOUT):
        if (root / name).exists():
            return root / name
    raise FileNotFoundError(f"klab's own file {name} is missing from this installation")
