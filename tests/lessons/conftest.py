"""One real lab for all lessons, created with its add-ons from a scenario of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import yaml
from support.real_lab import Lab, shared

from lab import resources

ADDONS = ("local-path", "metallb", "metrics-server", "network-policy", "traefik")


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[Lab]:
    said = yaml.safe_load((resources.path("scenarios") / "1m2w.yaml").read_text(encoding="utf-8"))
    file = tmp_path_factory.mktemp("scenario") / "lessons.yaml"
    file.write_text(yaml.safe_dump(said | {"name": "lessons", "addons": list(ADDONS)}), encoding="utf-8")
    yield from shared(tmp_path_factory, pytestconfig, str(file), "lessons")
