"""A Hub for the tests, on 127.0.0.1 only: the calls that pushing, pulling and streaming make, with their answers."""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, unquote, urlsplit

from card_rules import card_errors


OWNER, TOKEN = "me", "hf_token_of_me"
# What the Hub keeps beside git, by its usual .gitattributes.
LARGE = ("*.safetensors", "*.parquet", "*.png")
DATE = "2026-01-01T00:00:00.000Z"


class Refusal(Exception):
    """An answer that is an error: status, the Hub's code for it, and its message."""

    def __init__(self, status: int, message: str, code: str | None = None):
        self.status, self.message, self.code = status, message, code


@dataclass
class Commit:
    """A state of a repository: path -> digest of the content."""

    sha: str
    title: str
    files: dict[str, str]


@dataclass
class Repository:
    """Commits by sha; branches and tags are names for some of them."""

    kind: str
    id: str
    private: bool
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def add_commit(self, branch: str, title: str, files: dict[str, str]) -> str:
        sha = hashlib.sha1(json.dumps([self.id, branch, len(self.commits), files]).encode()).hexdigest()
        self.commits[sha] = Commit(sha, title, files)
        self.branches[branch] = sha
        return sha

    def at(self, revision: str) -> Commit:
        sha = self.branches.get(revision) or self.tags.get(revision) or revision
        if sha not in self.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[sha]


class LoopbackHub:
    """
    Repositories in memory, and the server before them. The owner `me` has the token `hf_token_of_me`.

    Attributes:
        home (`Path`): The `HF_HOME` of its clients.
        endpoint (`str`): What goes into `HF_ENDPOINT`.
        repos (`dict`): (`"models"` or `"datasets"`, id) -> `Repository`.
        requests (`list[str]`): Method and path of every request.
        drop (`dict[str, int]`): Of the requests whose method and path begin so, how many of the next ones lose their
            connection: `{"PUT /large/": 1, "POST /api/models/me/x/commit": 1}`.
    """

    def __init__(self, home: Path):
        self.home = home
        self.repos: dict[tuple[str, str], Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.drop: dict[str, int] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self.storage = f"http://localhost:{self._server.server_port}/large"  # another host, as the real one's
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def env(self) -> dict[str, str]:
        """Of a process whose Hub this is, with the token of its owner and a cache of its own."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(self.home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }

    def files(self, repo_id: str, kind: str = "models", revision: str = "main") -> dict[str, bytes]:
        """What a repository holds: path -> content."""
        return {path: self.blobs[digest] for path, digest in self.repos[kind, repo_id].at(revision).files.items()}

    def loses_connection(self, request: str) -> bool:
        for beginning, count in self.drop.items():
            if request.startswith(beginning) and count:
                self.drop[beginning] -= 1
                return True
        return False

    def keep(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        self.blobs[digest] = content
        return digest


class Handler(BaseHTTPRequestHandler):
    """One request: the first route that fits answers it."""

    protocol_version = "HTTP/1.1"
    hub: LoopbackHub

    def handle_any(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = f"{self.command} {url.path}"
        self.hub.requests.append(request)
        if self.hub.loses_connection(request):
            self.close_connection = True
            self.connection.close()
            return
        try:
            for pattern, answer in ROUTES:
                if found := re.fullmatch(pattern, request):
                    return answer(self, **{name: unquote(part or "") for name, part in found.groupdict().items()})
            raise Refusal(404, f"This stand-in has no {request}")
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message} | ({"X-Error-Code": refusal.code} if refusal.code else {})
            self.reply({"error": refusal.message}, refusal.status, headers)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def reply(self, content, status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args) -> None:
        pass

    # Who asks, and what for

    @property
    def is_owner(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def require_owner(self) -> None:
        if not self.is_owner:
            raise Refusal(401, "Invalid username or password.")

    def repository(self, kind: str, repo_id: str, writes: bool = False) -> Repository:
        found = self.hub.repos.get((kind, repo_id))
        if found is None or (found.private and not self.is_owner):
            raise Refusal(404 if self.is_owner else 401, "Repository not found", "RepoNotFound")
        if writes:
            self.require_owner()
        return found

    # Repositories

    def whoami(self) -> None:
        self.require_owner()
        self.reply({"type": "user", "name": OWNER, "auth": {"accessToken": {"role": "write"}}, "orgs": []})

    def create(self) -> None:
        asked = json.loads(self.body)
        self.require_owner()
        if (asked.get("organization") or OWNER) != OWNER:
            raise Refusal(
                403, f"You don't have the rights to create a model under the namespace {asked['organization']}"
            )
        kind, repo_id = f"{asked.get('type') or 'model'}s", f"{OWNER}/{asked['name']}"
        prefix = "" if kind == "models" else f"{kind}/"
        answer = {"url": f"{self.hub.endpoint}/{prefix}{repo_id}", "name": repo_id}
        if (kind, repo_id) in self.hub.repos:
            self.reply({"error": "You already created this repo", **answer}, 409)
            return
        private = asked.get("private") or asked.get("visibility") == "private"
        new = self.hub.repos[kind, repo_id] = Repository(kind, repo_id, bool(private))
        new.add_commit("main", "initial commit", {".gitattributes": self.hub.keep(b"")})
        self.reply(answer)

    def validate_card(self) -> None:
        asked = json.loads(self.body)
        head = re.match(r"---\s*\n(.*?)\n---\s*\n", asked["content"], re.DOTALL)
        if errors := card_errors(head.group(1) if head else "", asked["repoType"]):
            self.reply({"errors": [{"message": error} for error in errors], "warnings": []}, 400)
        else:
            self.reply({"errors": [], "warnings": []})

    def info(self, kind: str, id: str, revision: str = "") -> None:
        found = self.repository(kind, id)
        commit = found.at(revision or "main")
        siblings = [{"rfilename": path} for path in sorted(commit.files)]
        answer = {"_id": "0", "id": id, "sha": commit.sha, "private": found.private, "siblings": siblings}
        self.reply(answer | {"lastModified": DATE, "createdAt": DATE, "tags": [], "downloads": 0, "likes": 0})

    def create_branch(self, kind: str, id: str, branch: str) -> None:
        found = self.repository(kind, id, writes=True)
        if branch in found.branches:
            raise Refusal(409, "Reference already exists")
        asked = json.loads(self.body or b"{}")
        found.branches[branch] = found.at(asked.get("startingPoint") or "main").sha
        self.reply({})

    def create_tag(self, kind: str, id: str, revision: str) -> None:
        found = self.repository(kind, id, writes=True)
        found.tags[json.loads(self.body)["tag"]] = found.at(revision).sha
        self.reply({})

    # Up

    def preupload(self, kind: str, id: str, revision: str) -> None:
        self.repository(kind, id, writes=True)
        paths = [file["path"] for file in json.loads(self.body)["files"]]
        modes = {path: "lfs" if is_large(path) else "regular" for path in paths}
        self.reply({"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()]})

    def large_batch(self, kind: str, id: str) -> None:
        self.repository((kind or "models/").rstrip("/"), id, writes=True)
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            href = f"{self.hub.storage}/{wanted['oid']}"
            there = {} if wanted["oid"] in self.hub.blobs else {"actions": {"upload": {"href": href}}}
            objects.append({"oid": wanted["oid"], "size": wanted["size"], **there})
        self.reply({"transfer": "basic", "objects": objects})

    def put_large(self, oid: str) -> None:
        self.refuse_token()
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400, "The content is not what its digest says")
        self.hub.keep(self.body)
        self.reply({})

    def refuse_token(self) -> None:
        """The storage's addresses are signed, and a token with them is an error: it must not leave the Hub."""
        if "Authorization" in self.headers:
            raise Refusal(400, "Only one auth mechanism allowed")

    def commit(self, kind: str, id: str, revision: str) -> None:
        found = self.repository(kind, id, writes=True)
        files, title = dict(found.at(revision).files), ""
        for line in self.body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                title = value["summary"]
            elif key == "file":
                files[value["path"]] = self.hub.keep(base64.b64decode(value["content"]))
            elif key == "lfsFile" and value["oid"] in self.hub.blobs:
                files[value["path"]] = value["oid"]
            elif key == "deletedFile" and value["path"] in files:
                del files[value["path"]]
            else:
                raise Refusal(400, f"{key} {value['path']}: there is no such file or content")
        sha = found.add_commit(revision, title, files)
        url = f"{self.hub.endpoint}/{id}/commit/{sha}"
        self.reply({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    # Down

    def tree(self, kind: str, id: str, revision: str, path: str = "") -> None:
        """Files and folders below a folder, as the Hub lists them."""
        commit = self.repository(kind, id).at(revision)
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        base, found = f"{path}/".lstrip("/"), {}
        for file, digest in commit.files.items():
            if file.startswith(base):
                parts = file[len(base) :].split("/")
                names = [base + "/".join(parts[: depth + 1]) for depth in range(len(parts))]  # folders, then the file
                for name in names if recursive else names[:1]:
                    found[name] = self.file_entry(name, digest) if name == file else folder_entry(name)
        if not found:
            raise Refusal(404, f"{path} does not exist on {revision}", "EntryNotFound")
        last = {"lastCommit": {"id": commit.sha, "title": commit.title, "date": DATE}}
        self.reply([entry | last for entry in found.values()], headers={"X-Repo-Commit": commit.sha})

    def file_entry(self, path: str, digest: str) -> dict:
        content = self.hub.blobs[digest]
        entry = {"type": "file", "path": path, "size": len(content), "oid": git_digest(content)}
        if is_large(path):
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 128}
        return entry

    def resolve(self, kind: str, id: str, revision: str, path: str) -> None:
        commit = self.repository((kind or "models/").rstrip("/"), id).at(revision)
        headers = {"X-Repo-Commit": commit.sha}
        if path not in commit.files:
            raise Refusal(404, f"Entry {path} not found", "EntryNotFound")
        digest = commit.files[path]
        entry = self.file_entry(path, digest)
        if "lfs" in entry:  # the content is elsewhere, and its address needs no token
            headers |= {"X-Linked-Size": str(entry["size"]), "X-Linked-ETag": f'"{digest}"'}
            self.reply(b"", 302, headers | {"Location": f"{self.hub.storage}/{digest}"})
        else:
            self.send_content(self.hub.blobs[digest], headers | {"ETag": f'"{entry["oid"]}"'})

    def get_large(self, oid: str) -> None:
        self.refuse_token()
        self.send_content(self.hub.blobs[oid], {"ETag": f'"{oid}"'})

    def send_content(self, content: bytes, headers: dict[str, str]) -> None:
        headers = headers | {"Accept-Ranges": "bytes"}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            self.reply(content, 200, headers)
            return
        first, last = int(asked[1]), min(int(asked[2] or len(content) - 1), len(content) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
        self.reply(content[first : last + 1], 206, headers)


REPO = r"(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)"
GIT = r"(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)"
ROUTES = [
    (r"GET /api/whoami-v2", Handler.whoami),
    (r"POST /api/repos/create", Handler.create),
    (r"POST /api/validate-yaml", Handler.validate_card),
    (rf"GET /api/{REPO}(/revision/(?P<revision>[^/]+))?", Handler.info),
    (rf"POST /api/{REPO}/branch/(?P<branch>[^/]+)", Handler.create_branch),
    (rf"POST /api/{REPO}/tag/(?P<revision>[^/]+)", Handler.create_tag),
    (rf"POST /api/{REPO}/preupload/(?P<revision>[^/]+)", Handler.preupload),
    (rf"POST /{GIT}\.git/info/lfs/objects/batch", Handler.large_batch),
    (r"PUT /large/(?P<oid>\w+)", Handler.put_large),
    (rf"POST /api/{REPO}/commit/(?P<revision>[^/]+)", Handler.commit),
    (rf"GET /api/{REPO}/tree/(?P<revision>[^/]+)(?P<path>/.*)?", Handler.tree),
    (rf"(GET|HEAD) /{GIT}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
    (r"(GET|HEAD) /large/(?P<oid>\w+)", Handler.get_large),
]


def folder_entry(path: str) -> dict:
    return {"type": "directory", "path": path, "oid": hashlib.sha1(path.encode()).hexdigest()}


def is_large(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in LARGE)


def git_digest(content: bytes) -> str:
    """As git names a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
