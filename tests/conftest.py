"""Everything runs offline; real samples are used where they lie beside the checkout, and skipped clearly where not."""

import os
from pathlib import Path

import pytest


os.environ["HF_HUB_OFFLINE"] = "1"

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real samples (nuScenes, SemanticKITTI, …): not in the repository, because they may not be redistributed."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the real samples are not at {folder}")
    return folder
