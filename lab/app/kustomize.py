"""Add-ons that are folders: built by the kubectl that klab has, as `kubectl apply -k` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from lab.errors import HostError, ProgramError, Remedy, ScenarioError
from lab.process import find, run
from lab.scenario.library import Kustomize
from lab.store import Home
from lab.text import visible

SECONDS = 60.0
# A scenario is files: what it makes is the same tomorrow, and reading a stranger's asks nobody's server. kustomize
# fetches by git, which it does not find here, or over HTTP, where nothing listens (RFC 863's port). It runs no other
# program, and reads no file outside of its folders, unless it is told to by options.
_NOTHING = "http://127.0.0.1:9"
ENVIRONMENT: Mapping[str, str | None] = {
    "KUBECONFIG": "/dev/null",
    "PATH": "/nonexistent",
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), _NOTHING),
    **dict.fromkeys(("NO_PROXY", "no_proxy")),
}


def kustomize(home: Home) -> Kustomize:
    """What builds a folder, for `lab.scenario.library.load_scenario`."""
    return partial(_build, home)


def _build(home: Home, folder: Path) -> str:
    """The manifests that a folder's kustomization describes.

    Raises:
        ScenarioError: it describes none, or needs what is not there; `details` are kubectl's own words.
        HostError: this machine has no kubectl.
    """
    from lab.boxes.kubectl import any_kubectl  # late: most add-ons are files, and klab plan answers at once

    shown, program = visible(str(folder)), any_kubectl(home)
    try:
        find(program)
    except HostError as error:
        raise HostError(
            f"the add-on {shown} is a folder, which kubectl builds, and there is no kubectl on this machine",
            hint=(Remedy("box build"), " makes a box, which brings one; or install kubectl"),
        ) from error
    try:
        return run([program, "kustomize", folder], timeout=SECONDS, env=ENVIRONMENT).stdout
    except ProgramError as error:
        raise ScenarioError(
            f"the add-on {shown} cannot be built",
            details=[visible(line) for line in error.details[-5:]],
            hint="kubectl kustomize FOLDER shows the same; klab builds it of files alone, without a network",
        ) from error
