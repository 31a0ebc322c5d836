"""An upload that is cut off is tried again; where that does not help nothing is visible, and a second push ends it."""

import hashlib
import time

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session

from uov_hf.hub.upload import upload


LARGE = {f"model-{i}.safetensors": bytes([i]) * 5000 for i in range(3)}
FILES = {"config.json": b"{}", **LARGE}


@pytest.fixture(autouse=True)
def impatient(hub, monkeypatch):
    """Pauses between tries are as short as the tries."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


def put_requests(hub) -> int:
    return sum(request.startswith("PUT") for request in hub.requests)


def test_a_file_that_lost_its_connection_is_sent_again(hub):
    hub.drop["PUT /large/"] = 1
    upload("x", FILES)
    assert hub.drop["PUT /large/"] == 0 and put_requests(hub) == len(LARGE) + 1
    assert FILES.items() <= hub.files("me/x").items()


def test_a_commit_that_lost_its_connection_is_sent_again_but_no_file_is(hub):
    hub.drop["POST /api/models/me/x/commit"] = 1
    upload("x", FILES)
    assert put_requests(hub) == len(LARGE)
    assert FILES.items() <= hub.files("me/x").items()


@pytest.mark.parametrize("request_begins", ["PUT /large/", "POST /api/models/me/x/commit"])
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


def test_of_three_files_the_one_that_failed_is_the_one_sent_again(hub):
    unlucky = hashlib.sha256(LARGE["model-1.safetensors"]).hexdigest()
    hub.drop[f"PUT /large/{unlucky}"] = 1000
    with pytest.raises(ConnectionError):
        upload("x", FILES)
    hub.drop.clear()
    hub.requests.clear()
    upload("x", FILES)
    assert [request for request in hub.requests if request.startswith("PUT")] == [f"PUT /large/{unlucky}"]


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


def test_the_stand_in_refuses_what_the_hub_would(hub):
    """A commit of a large file that never arrived, and a token that is nobody's."""
    api = HfApi()
    api.create_repo("x")
    answer = b'{"key": "lfsFile", "value": {"path": "a.safetensors", "oid": "00", "size": 1}}'
    headers = {"Authorization": "Bearer hf_token_of_me"}
    reply = get_session().post(f"{hub.endpoint}/api/models/me/x/commit/main", content=answer, headers=headers)
    assert reply.status_code == 400 and list(hub.files("me/x")) == [".gitattributes"]
    with pytest.raises(OSError, match="401"):
        HfApi(token="hf_of_nobody").create_repo("y")
