"""Kubernetes resources: as they are written, and as a cluster gets them from the real kustomize."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
Resource = dict[str, Any]


def render(folder: Path) -> list[Resource]:
    """Return the resources of a kustomization; skips where there is no kustomize."""
    if shutil.which("kustomize"):
        command = ["kustomize", "build"]
    elif shutil.which("kubectl"):
        command = ["kubectl", "kustomize"]
    else:
        pytest.skip("neither kustomize nor kubectl is installed")
    done = subprocess.run(  # noqa: S603  # found above
        [*command, str(folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "it warns of what is deprecated"
    return [resource for resource in yaml.safe_load_all(done.stdout) if resource]


def read(file: str) -> list[Resource]:
    """Return the resources in a file, as they are before kustomize."""
    return list(yaml.safe_load_all((FOLDER / file).read_text()))


def only(resources: list[Resource], kind: str) -> Resource:
    """Return the one resource of a kind."""
    (found,) = [resource for resource in resources if resource["kind"] == kind]
    return found
