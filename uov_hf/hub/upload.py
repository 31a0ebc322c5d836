"""Uploads to the Hub of checkpoints, label sets and datasets: in one commit, without paths of this machine."""

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypedDict

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError
from huggingface_hub.utils import validate_repo_id


logger = logging.getLogger(__name__)

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

    The commit becomes visible when all files have arrived. If a connection is lost, huggingface_hub sends the file
    again and this function the commit. After a failed upload the same call continues it: files that have arrived are
    not sent twice.

    Args:
        repo_id (`str`): `user/name`, or `name` for a repository of the user; it is created if missing.
        files (mapping of `str` to `Path` or `bytes`): Path in the repository -> the file, or its content.
        repo_type (`str`, *optional*, defaults to `"model"`): `"model"` or `"dataset"`.
        private (`bool`, *optional*, defaults to `False`): Whether the repository must be private.
        revision (`str`, *optional*): The branch; it is created from `main` if missing.
        commit_message (`str`, *optional*): The title of the commit.
        replaces (`Sequence[str]`, *optional*):
            Patterns of files that are deleted if they are not among `files`: shards of an earlier upload.
        token (`str`, *optional*): By default that of `hf auth login`, or `HF_TOKEN`.

    Returns:
        The address of the commit.

    Raises:
        PermissionError: `private`, and the repository exists and is public.
        ConnectionError: the upload was interrupted; the repository is unchanged.
        huggingface_hub.errors.HfHubHTTPError: the Hub refuses: no token, or no right to write there.
    """
    api = HfApi(token=token)
    repo_id = api.create_repo(repo_id, repo_type=repo_type, private=private or None, exist_ok=True).repo_id
    if private and not api.repo_info(repo_id, repo_type=repo_type).private:
        raise PermissionError(
            f"The {repo_type} repository {repo_id} exists and is public: a private upload into it would be public. "
            "Make it private in its settings, or give another id."
        )
    if revision is not None and not revision.startswith("refs/"):  # such as that of a pull request
        api.create_branch(repo_id, branch=revision, repo_type=repo_type, exist_ok=True)
    pauses = iter(PAUSES)
    while True:
        try:
            # Made anew for each try, because the repository may have changed.
            present = api.list_repo_files(repo_id, repo_type=repo_type, revision=revision)
            operations = _operations(present, files, replaces)
            return str(
                api.create_commit(
                    repo_id, operations, commit_message=commit_message, repo_type=repo_type, revision=revision
                )
            )
        except (HTTPError, RuntimeError) as error:
            if not _is_interruption(error):
                raise
            if (pause := next(pauses, None)) is None:
                raise ConnectionError(
                    f"The upload to {repo_id} was interrupted, and nothing of it is visible yet: {error} Run it "
                    "again: files that have arrived are not sent twice."
                ) from error
            logger.warning("The upload to %s was interrupted, trying again: %s", repo_id, error)
            time.sleep(pause)


def _operations(
    present: Sequence[str], files: Mapping[str, Path | bytes], replaces: Sequence[str]
) -> list[CommitOperationAdd | CommitOperationDelete]:
    """The files to add, and those of `present` to delete."""
    added = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=content) for path, content in files.items()]
    stale = [name for name in present if name not in files and any(fnmatch(name, pattern) for pattern in replaces)]
    return [*added, *(CommitOperationDelete(path_in_repo=name) for name in stale)]


def _is_interruption(error: BaseException | None) -> bool:
    """Whether the connection or the Hub failed; else the request was wrong."""
    error = error.__cause__ if isinstance(error, RuntimeError) else error  # that of a large file is wrapped
    return error.response.status_code >= 500 if isinstance(error, HfHubHTTPError) else isinstance(error, HTTPError)


def hide_folders(value: Any) -> Any:
    """A setting with each path in it, however nested, replaced by its last name, so that it can be published.

    Every text with a slash or a backslash counts as a path, also of another system, unless it is an id on the Hub
    (`user/name`), an address (`https://…`) or a Git reference (`refs/pr/1`).
    """
    if isinstance(value, dict):
        return {key: hide_folders(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [hide_folders(item) for item in value]
    return _last_name(value) if isinstance(value, str) and _is_path(value) else value


def is_hub_id(name_or_path: str) -> bool:
    """Whether it is a valid id of a repository and no local folder or file."""
    try:
        validate_repo_id(name_or_path)
    except HFValidationError:
        return False
    return not os.path.exists(name_or_path)


def _is_path(text: str) -> bool:
    if "/" not in text and "\\" not in text:
        return text in (".", "..") or os.path.exists(text)
    return not (is_hub_id(text) or re.match(r"refs/|(?!file:)\w+://", text))


def _last_name(path: str) -> str:
    if "\\" in path:  # of Windows: `Path` of another system does not split it
        return re.split(r"[/\\]+", path.rstrip("/\\"))[-1]
    return Path(path).resolve().name
