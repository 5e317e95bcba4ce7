"""Killed, frozen, upgraded, doubled: the chain is one, its validators are the expected, and the offence is on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.manifest import NEXT_VERSION, list_faults, load_manifest, running

pytestmark = pytest.mark.system

MANIFESTS = Path(__file__).parent / "manifests"


@pytest.mark.parametrize("name", ["misfortunes"])
def test_a_network_survives_its_manifest(name: str, tmp_path: Path) -> None:
    manifest = load_manifest(MANIFESTS / f"{name}.toml")
    with running(manifest, tmp_path) as run:
        assert list_faults(run, manifest) == []
        upgraded = [step.node for step in manifest.steps if step.action == "upgrade"]
        assert all((run.live.status(node) or {})["version"] == NEXT_VERSION for node in upgraded)
