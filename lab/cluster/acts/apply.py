"""Objects are applied until the API server has taken each, or will take one never.

In order, and again and again: one may need what another one makes, such as a namespace, a kind, a webhook's pod.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lab.cluster.clients.api import Api, UnreachableError
from lab.errors import ClusterError

Objects = Sequence[Mapping[str, Any]]

# Of the statuses that blame the request, those that may pass: rights, a service account, a namespace, a kind that is
# still to be made, a conflict, too many requests.
_MAY_PASS = frozenset((401, 403, 404, 409, 429))
# How the API server begins where an object does not fit its kind's schema, with status 500 (kubernetes,
# apiserver/pkg/endpoints/handlers/fieldmanager/structuredmerge.go). A webhook that does not answer is a 500, too.
_NO_FIT = "failed to create typed patch object"
# So often the schema of a kind that the same objects define may be one of before.
NEW_SCHEMA_ROUNDS = 5


class Applying:
    """Applies objects in rounds; after one `missing` has why those that are left were not taken, one line each."""

    def __init__(self, api: Api, what: str, objects: Objects) -> None:
        self.missing: list[str] = []
        self._api = api
        self._what = what
        self._left = [dict(each) for each in objects]
        self._own_groups = set(_groups(objects))
        self._misfits: dict[int, int] = {}

    def round(self) -> bool:
        """Ask once for each object that is left, in order; returns whether none is left.

        Raises:
            ClusterError: the API server will never take one.
        """
        self.missing = []
        left = []
        for at, each in enumerate(self._left):
            try:
                self._api.apply(each)
            except UnreachableError as error:
                self._refuse_for_good(each, error)
                self.missing.append(f"{_name(each)}: {error.message}")
                left.append(each)
                if not error.status:  # nobody answers: neither will the next question be answered
                    left += self._left[at + 1 :]
                    break
        self._left = left
        return not left

    def _refuse_for_good(self, manifest: dict[str, Any], error: UnreachableError) -> None:
        misfit = _NO_FIT in error.message
        if misfit and _group(manifest) in self._own_groups:
            seen = self._misfits[id(manifest)] = self._misfits.get(id(manifest), 0) + 1
            misfit = seen > NEW_SCHEMA_ROUNDS
        if misfit or (400 <= error.status < 500 and error.status not in _MAY_PASS):
            raise ClusterError(
                f"the API server refuses {_name(manifest)} ({self._what})",
                details=[error.message],
                hint="correct the manifest, then run the same command again to continue",
            ) from error


def _name(manifest: Mapping[str, Any]) -> str:
    return f"{manifest['kind']} {manifest['metadata']['name']}"


def _group(manifest: Mapping[str, Any]) -> str:
    return str(manifest.get("apiVersion", "")).rpartition("/")[0]


def _groups(objects: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """The API groups whose kinds these objects define."""
    for each in objects:
        spec = each.get("spec")
        if each.get("kind") == "CustomResourceDefinition" and isinstance(spec, Mapping):
            yield str(spec.get("group"))
