"""An upload that is cut off is tried again; where that does not help nothing is visible, and a second push ends it."""

import hashlib
import time

import pytest
from huggingface_hub import HfApi

from uov_hf.hub.upload import upload


LARGE = {f"model-{i}.safetensors": bytes([i]) * 5000 for i in range(3)}
FILES = {"config.json": b"{}", **LARGE}
COMMIT = "POST /api/models/me/x/commit"
UNLUCKY = f"PUT /large/{hashlib.sha256(LARGE['model-1.safetensors']).hexdigest()}"  # one of three files


@pytest.fixture(autouse=True)
def impatient(hub, monkeypatch):
    """Pauses between tries are as short as the tries."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def put_requests(hub) -> int:
    return sum(request.startswith("PUT") for request in hub.requests)


@pytest.mark.parametrize(("request_begins", "num_repeated"), [("PUT /large/", 1), (COMMIT, 0)])
def test_what_lost_its_connection_is_sent_again_and_no_other_file_is(hub, request_begins, num_repeated):
    hub.drop[request_begins] = 1
    upload("x", FILES)
    assert hub.drop[request_begins] == 0 and put_requests(hub) == len(LARGE) + num_repeated
    assert FILES.items() <= hub.files("me/x").items()


@pytest.mark.parametrize("request_begins", ["PUT /large/", UNLUCKY, COMMIT])
def test_after_an_interruption_nothing_is_visible_and_a_second_push_completes_it(hub, request_begins):
    HfApi().create_repo("x")
    hub.drop[request_begins] = 1000
    with pytest.raises(ConnectionError, match="upload to me/x was interrupted, and nothing .* Run it again"):
        upload("x", FILES)
    assert list(hub.files("me/x")) == [".gitattributes"]
    arrived = len(set(LARGE.values()) & set(hub.blobs.values()))
    hub.drop.clear()
    hub.requests.clear()
    upload("x", FILES)
    assert put_requests(hub) == len(LARGE) - arrived
    assert FILES.items() <= hub.files("me/x").items()


def test_what_the_new_version_lacks_goes_in_the_same_commit_and_the_rest_stays(hub):
    upload("x", FILES | {"notes.txt": b"mine"})
    num_commits = len(hub.repos["models", "me/x"].commits)
    upload("x", {"model-0.safetensors": b"smaller"}, replaces=["model-*.safetensors"])
    found = hub.files("me/x")
    assert found["model-0.safetensors"] == b"smaller" and "model-1.safetensors" not in found
    assert {"config.json", "notes.txt"} <= set(found)
    assert len(hub.repos["models", "me/x"].commits) == num_commits + 1


def test_a_refusal_is_not_tried_again(hub):
    upload("x", FILES)
    hub.requests.clear()
    with pytest.raises(ValueError, match="license must be one name"):
        upload("x", {"README.md": b"---\nlicense: [a, b]\n---\n"})
    assert sum("validate-yaml" in request for request in hub.requests) == 1 and put_requests(hub) == 0
