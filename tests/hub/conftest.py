"""A Hub on the loopback for each test, and this process turned to it; the public one is never asked."""

import datasets
import pytest
import transformers
from huggingface_hub import HfFileSystem, constants, hf_api
from huggingface_hub.utils import close_session
from loopback_hub import TOKEN, LoopbackHub


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub for this process, with the token of its owner and a cache of its own."""
    hub = LoopbackHub(tmp_path / "hub_home")
    cache, endpoint = hub.home, hub.endpoint
    for name, value in {
        "ENDPOINT": endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
        "HF_HUB_CACHE": str(cache / "hub"),
        "HF_TOKEN_PATH": str(cache / "token"),
    }.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setattr(hf_api.api, "endpoint", endpoint)
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)  # made on first use, of the endpoint of then
    for name, value in {
        "HF_ENDPOINT": endpoint,
        "HUB_DATASETS_URL": endpoint + "/datasets/{repo_id}/resolve/{revision}/{path}",
        "HF_HUB_OFFLINE": False,
        "HF_DATASETS_OFFLINE": False,
        "HF_UPDATE_DOWNLOAD_COUNTS": False,
        "HF_DATASETS_CACHE": str(cache / "datasets"),
        "DOWNLOADED_DATASETS_PATH": str(cache / "datasets" / "downloads"),
    }.items():
        monkeypatch.setattr(datasets.config, name, value)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    HfFileSystem.clear_instance_cache()
    close_session()
    yield hub
    close_session()
    HfFileSystem.clear_instance_cache()
    hub.close()


@pytest.fixture
def without_token(hub, monkeypatch):
    """From here on nobody is logged in."""

    def forget() -> None:
        monkeypatch.delenv("HF_TOKEN")
        HfFileSystem.clear_instance_cache()

    return forget
