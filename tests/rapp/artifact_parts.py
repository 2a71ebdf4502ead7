"""An artifact to damage, and ways to do it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rapp.artifact import FILES

TinyArtifact = Any  # the class of the fixture; test files cannot import it


@pytest.fixture
def folder(tiny_artifact: TinyArtifact, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_artifact.folder, tmp_path / "copy"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def edit_card(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "card.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Put another file in its place, hash and all, as one who writes artifacts by hand."""
    (folder / name).write_bytes(content)
    edit_card(folder, lambda card: card["files"].update({name: hashlib.sha256(content).hexdigest()}))
