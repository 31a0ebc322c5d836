"""The one way up to the Hub, for checkpoints, label sets and datasets: in one commit, and without local paths."""

import logging
import os
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path, PureWindowsPath
from typing import Any, TypedDict

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id


logger = logging.getLogger(__name__)

# A lost connection, whichever HTTP library huggingface_hub is built on.
HTTPError = HfHubHTTPError.__mro__[1]
PAUSES = (1, 4)  # seconds before a commit is tried again


class UploadOptions(TypedDict, total=False):
    """The keyword arguments of [`upload`] that every push takes."""

    private: bool
    revision: str | None
    commit_message: str
    token: str | None


def upload(
    repo_id: str,
    files: Mapping[str, Path | bytes],
    *,
    repo_type: str = "model",
    private: bool = False,
    revision: str | None = None,
    commit_message: str = "Upload with uov-hf",
    replaces: Sequence[str] = (),
    token: str | None = None,
) -> str:
    """
    Put files into a repository, in one commit.

    Nobody sees anything of it until all of it has arrived. Where a connection is lost, huggingface_hub sends that file
    again and this function the commit; after an upload that failed for good, the same call continues it, and what has
    arrived is not sent twice.

    Args:
        repo_id (`str`):
            `user/name`, or `name` for the user's own; made where it is not there.
        files (mapping of `str` to `Path` or `bytes`):
            Place in the repository -> the file, or its content. Nothing else goes.
        repo_type (`str`, *optional*, defaults to `"model"`):
            `"model"` or `"dataset"`.
        private (`bool`, *optional*, defaults to `False`):
            Whether the repository must be private.
        revision (`str`, *optional*):
            The branch, made from `main` where it is not there.
        commit_message (`str`, *optional*):
            The title of the commit.
        replaces (`Sequence[str]`, *optional*):
            Patterns of files that are deleted where they are not among `files`: the shards of what was there before.
        token (`str`, *optional*):
            By default the one of `hf auth login`, or `HF_TOKEN`.

    Returns:
        The address of the commit.

    Raises:
        PermissionError: `private`, and the repository is there already and is public.
        ConnectionError: the upload was interrupted; the repository is as it was.
        huggingface_hub.errors.HfHubHTTPError: the Hub refuses: no token, or no right to write there.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, repo_type=repo_type, private=private or None, exist_ok=True).repo_id
    if private and not api.repo_info(repo_id, repo_type=repo_type).private:
        raise PermissionError(
            f"The {repo_type} repository {repo_id} is there already and is public, so that a private upload into it "
            "would be seen by all. Make it private in its settings, or give another id."
        )
    if revision is not None and not revision.startswith("refs/"):  # such as that of a pull request
        api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
    where = {"repo_id": repo_id, "repo_type": repo_type, "revision": revision}
    for pause in (*PAUSES, None):
        try:
            return str(
                api.create_commit(
                    **where, operations=_operations(api, where, files, replaces), commit_message=commit_message
                )
            )
        except (HTTPError, RuntimeError) as error:
            if not _is_interruption(error):
                raise
            if pause is None:
                raise ConnectionError(
                    f"The upload to {repo_id} was interrupted, and nothing of it can be seen there yet: {error} Run "
                    "it again: what has arrived is not sent twice."
                ) from error
            logger.warning("The upload to %s was interrupted, trying again: %s", repo_id, error)
            time.sleep(pause)


def _operations(api: HfApi, where: dict[str, Any], files: Mapping[str, Path | bytes], replaces: Sequence[str]) -> list:
    """What the commit adds, and what it deletes; made anew for each try, so that it fits what is there by then."""
    added = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=content) for path, content in files.items()]
    stale = [
        path
        for path in api.list_repo_files(**where)
        if path not in files and any(fnmatch(path, pattern) for pattern in replaces)
    ]
    return [*added, *(CommitOperationDelete(path_in_repo=path) for path in stale)]


def _is_interruption(error: Exception) -> bool:
    """Whether the connection or the Hub failed, and not what was asked of it."""
    error = error.__cause__ if isinstance(error, RuntimeError) else error  # that of a large file comes wrapped
    return error.response.status_code >= 500 if isinstance(error, HfHubHTTPError) else isinstance(error, HTTPError)


def hide_folders(value: Any) -> Any:
    """
    A setting, however nested; of a folder or file on this machine the last name only: where it lies is nobody's
    business.
    """
    if isinstance(value, dict):
        return {key: hide_folders(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [hide_folders(item) for item in value]
    return Path(value).resolve().name if isinstance(value, str) and _is_path(value) else value


def is_hub_id(name_or_path: str) -> bool:
    """Whether it can be the id of a repository, and is no folder or file here."""
    try:
        validate_repo_id(name_or_path)
    except HFValidationError:
        return False
    return not os.path.exists(name_or_path)


def _is_path(text: str) -> bool:
    starts_like_one = text.startswith(("./", "../", "~/")) or text in (".", "..")
    return starts_like_one or os.path.isabs(text) or PureWindowsPath(text).is_absolute() or os.path.exists(text)
