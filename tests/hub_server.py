"""A small Hugging Face Hub on 127.0.0.1: what `huggingface_hub`, `transformers` and `datasets` ask of it.

`root/models/<org>/<name>/…` and `root/datasets/<org>/<name>/…` are the repositories. Each has one branch,
`main`, whose commit is a digest of its files: change a file and `main` is at another commit. Files that end
in LARGE are answered as LFS files: a redirect to a second origin, with their sha256. Xet is never announced.

    with hub_server(root) as hub:
        subprocess.run([sys.executable, "-m", …], env=environment(hub.url, home))
        hub.requests                  # every request, in the order of the answers
        refused_hosts(home)           # what the client tried to reach beyond loopback
"""

from __future__ import annotations

import json
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

MODEL_ID = "distilbert/distilbert-base-uncased"
DATASET_ID = "fancyzhx/amazon_polarity"
SHORT_NAMES = {
    "models": {"distilbert-base-uncased": MODEL_ID},
    "datasets": {"amazon_polarity": DATASET_ID},
}
LARGE = (".safetensors", ".parquet")
DATE = "2026-01-01T00:00:00.000Z"

VERBS = "revision|tree|paths-info|refs"
API = re.compile(
    rf"/api/(?P<kind>models|datasets)/(?P<id>[^/]+(?:/(?!(?:{VERBS})(?:/|$))[^/]+)?)"
    rf"(?:/(?P<verb>{VERBS})(?:/(?P<rest>.*))?)?"
)
RESOLVE = re.compile(r"/(?:(?P<kind>datasets)/)?(?P<id>[^/]+(?:/[^/]+)?)/(?P<verb>resolve)/(?P<rest>.+)")
STORED = re.compile(r"/storage/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+)/(?P<path>.+)")


class Request(NamedTuple):
    """One line of the log. `path` is as sent: still quoted, with its query."""

    method: str
    path: str
    status: int


@dataclass(frozen=True)
class Call:
    """One request as the answers need it; `storage_url` is the origin that large files are redirected to."""

    target: str
    range: str | None
    body: bytes
    storage_url: str

    def options(self) -> dict[str, list[str]]:
        """The fields of the query and of a form body: `expand=true`, `paths=a&paths=b`."""
        return parse_qs(self.target.partition("?")[2] + "&" + self.body.decode())

    def asks_for(self, option: str) -> bool:
        """Whether a yes-or-no option is on."""
        return self.options().get(option, ["false"])[0].lower() == "true"


@dataclass(frozen=True)
class Reply:
    """What goes back. On HEAD the body stays here, its length goes."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class NotFound(Exception):
    """A 404 as the Hub words it: `code` is RepoNotFound, RevisionNotFound or EntryNotFound."""

    def __init__(self, code: str, message: str, commit: str | None = None) -> None:
        super().__init__(message)
        self.headers = {"X-Error-Code": code, "X-Error-Message": message}
        self.headers |= {"X-Repo-Commit": commit} if commit else {}


@dataclass(frozen=True)
class Repository:
    """One folder as it is now. files: path in the repository -> content, sorted by path."""

    kind: str
    id: str
    files: dict[str, bytes]

    @cached_property
    def sha(self) -> str:
        """The commit: 40 hexadecimal digits that depend on every path and every byte."""
        lines = [f"{path} {git_blob(content)}\n" for path, content in self.files.items()]
        return sha1("".join(lines).encode()).hexdigest()

    def content(self, path: str) -> bytes:
        """Bytes of one file. Raises NotFound with the commit: clients store that it lacks the file."""
        if path not in self.files:
            raise NotFound("EntryNotFound", "Entry not found", self.sha)
        return self.files[path]

    def check_revision(self, revision: str) -> None:
        """Raises NotFound for all but `main`, its full name, and the present commit."""
        if unquote(revision) not in ("main", "refs/heads/main", self.sha):
            raise NotFound("RevisionNotFound", f"Invalid rev id: {unquote(revision)}")

    def entries(self) -> set[str]:
        """Paths of all files, and of the folders above them but the root."""
        folders = (str(parent) for path in self.files for parent in Path(path).parents)
        return {*self.files, *folders} - {"."}


def read_repository(root: Path, kind: str, repo_id: str) -> Repository:
    """The repository as it lies on disk. Raises NotFound."""
    folder = root / kind / repo_id
    if ".." in repo_id or not folder.is_dir():
        raise NotFound("RepoNotFound", "Repository not found")
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    return Repository(kind, repo_id, files)


def git_blob(content: bytes) -> str:
    """The name git gives to this content: what the Hub sends as the ETag of a small file."""
    return sha1(b"blob %d\0" % len(content) + content).hexdigest()


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """A reply of the Hub's API."""
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"} | (headers or {}))


def file_reply(content: bytes, wanted: str | None, headers: dict[str, str]) -> Reply:
    """The file, or the part of it that the header `Range: bytes=first-last` names; 416 beyond its end."""
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes"} | headers
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted or "")
    if match is None or not any(match.groups()):
        return Reply(200, content, headers)
    first, last = byte_range(match[1], match[2], len(content))
    if first > last:
        return Reply(416, b"", headers | {"Content-Range": f"bytes */{len(content)}"})
    headers |= {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
    return Reply(206, content[first : last + 1], headers)


def byte_range(first: str, last: str, size: int) -> tuple[int, int]:
    """First and last byte, both included, of `first-last`, `first-` or `-length` in `size` bytes."""
    if not first:
        return max(0, size - int(last)), size - 1
    return int(first), min(int(last or size), size - 1)


def tree_entry(repository: Repository, path: str, call: Call) -> dict[str, Any]:
    """A file or a folder as /tree and /paths-info list it; `expand` adds the commit that made it."""
    entry: dict[str, Any] = {"path": path}
    if call.asks_for("expand"):
        entry["lastCommit"] = {"id": repository.sha, "title": "Upload", "date": DATE}
    if path not in repository.files:
        return entry | {"type": "directory", "oid": git_blob(path.encode()), "size": 0}
    content = repository.files[path]
    entry |= {"type": "file", "oid": git_blob(content), "size": len(content)}
    return entry | large_file(path, content, digest_key="oid")


def large_file(path: str, content: bytes, digest_key: str) -> dict[str, Any]:
    """{"lfs": …} for a file that the Hub keeps outside git, or {}; a git LFS pointer has about 134 bytes."""
    digest = sha256(content).hexdigest()
    lfs = {digest_key: digest, "size": len(content), "pointerSize": 134}
    return {"lfs": lfs} if path.endswith(LARGE) else {}


def sibling(path: str, content: bytes, call: Call) -> dict[str, Any]:
    """A file as model_info and dataset_info list it; sizes and digests with `files_metadata=True`."""
    if not call.asks_for("blobs"):
        return {"rfilename": path}
    entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": git_blob(content)}
    return entry | large_file(path, content, digest_key="sha256")


def answer_info(repository: Repository, rest: str, call: Call) -> Reply:
    """/api/models/{id} and /api/models/{id}/revision/{revision}."""
    repository.check_revision(rest or "main")
    siblings = [sibling(path, content, call) for path, content in repository.files.items()]
    dates = {"lastModified": DATE, "createdAt": DATE}
    flags = {"private": False, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
    info = {"id": repository.id, "author": repository.id.split("/")[0], "sha": repository.sha}
    return json_reply(info | dates | flags | {"siblings": siblings})


def answer_tree(repository: Repository, rest: str, call: Call) -> Reply:
    """/api/models/{id}/tree/{revision}/{folder}: what lies in a folder, at any depth if `recursive`."""
    revision, _, quoted = rest.partition("/")
    repository.check_revision(revision)
    folder = unquote(quoted).strip("/")
    if folder and (folder in repository.files or folder not in repository.entries()):
        raise NotFound("EntryNotFound", f"{folder} does not exist on {unquote(revision)}", repository.sha)
    prefix = f"{folder}/" if folder else ""
    inside = [path for path in sorted(repository.entries()) if path.startswith(prefix)]
    if not call.asks_for("recursive"):
        inside = [path for path in inside if "/" not in path.removeprefix(prefix)]
    return json_reply([tree_entry(repository, path, call) for path in inside])


def answer_paths_info(repository: Repository, rest: str, call: Call) -> Reply:
    """POST /api/models/{id}/paths-info/{revision}: the paths that exist; the others are left out."""
    repository.check_revision(rest)
    known = [path for path in call.options().get("paths", []) if path in repository.entries()]
    return json_reply([tree_entry(repository, path, call) for path in known])


def answer_refs(repository: Repository, rest: str, call: Call) -> Reply:
    """/api/models/{id}/refs: one branch, no tags."""
    main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repository.sha}
    return json_reply({"branches": [main], "converts": [], "tags": [], "pullRequests": []})


def answer_resolve(repository: Repository, rest: str, call: Call) -> Reply:
    """/{id}/resolve/{revision}/{file}: the file, or where a large one is stored together with its digest."""
    revision, _, quoted = rest.partition("/")
    repository.check_revision(revision)
    content, commit = repository.content(unquote(quoted)), {"X-Repo-Commit": repository.sha}
    if not quoted.endswith(LARGE):
        return file_reply(content, call.range, commit | {"ETag": f'"{git_blob(content)}"'})
    linked = {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{sha256(content).hexdigest()}"'}
    location = f"{call.storage_url}/storage/{repository.kind}/{repository.id}/{quoted}"
    return Reply(302, b"Found. Redirecting to the storage", commit | linked | {"Location": location})


ANSWERS: dict[str, Callable[[Repository, str, Call], Reply]] = {
    "info": answer_info,
    "revision": answer_info,
    "tree": answer_tree,
    "paths-info": answer_paths_info,
    "refs": answer_refs,
    "resolve": answer_resolve,
}


def answer(root: Path, call: Call) -> Reply:
    """The API, files by revision, and the storage of large files. A short name is sent on to the full one."""
    path = call.target.partition("?")[0]
    if stored := STORED.fullmatch(path):
        content = read_repository(root, stored["kind"], stored["id"]).content(unquote(stored["path"]))
        return file_reply(content, call.range, {"ETag": f'"{sha256(content).hexdigest()}"'})
    match = API.fullmatch(path) or RESOLVE.fullmatch(path)
    if match is None:
        return json_reply({"error": "Sorry, we can't find the page you are looking for."}, 404)
    parts = match.groupdict()
    kind = parts["kind"] or "models"
    if full_name := SHORT_NAMES[kind].get(parts["id"]):
        moved = call.target[: match.start("id")] + full_name + call.target[match.end("id") :]
        return Reply(307, f"Temporary Redirect. Redirecting to {moved}".encode(), {"Location": moved})
    repository = read_repository(root, kind, unquote(parts["id"]))
    return ANSWERS[parts["verb"] or "info"](repository, parts["rest"] or "", call)


class Server(ThreadingHTTPServer):
    """One origin on a free port, answering from the moment it is made."""

    def __init__(self, root: Path, log: list[Request], storage_url: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.root, self.log, self.storage_url = root, log, storage_url
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    """HTTP in, `Call` to `answer`, `Reply` out."""

    server: Server
    protocol_version = "HTTP/1.1"
    # Without this a small answer on a kept connection waits 40 ms for the client's delayed acknowledgement.
    disable_nagle_algorithm = True

    def handle_call(self) -> None:
        """Answer one request, and write it down before the client sees the answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            call = Call(self.path, self.headers.get("Range"), body, self.server.storage_url)
            reply = answer(self.server.root, call)
        except NotFound as error:
            reply = json_reply({"error": str(error)}, 404, error.headers)
        self.server.log.append(Request(self.command, self.path, reply.status))
        self.send(reply)

    do_GET = do_HEAD = do_POST = handle_call

    def send(self, reply: Reply) -> None:
        """Write the reply; on HEAD all but the body."""
        self.send_response(reply.status)
        for name, value in (reply.headers | {"Content-Length": str(len(reply.body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the console: the log is `Hub.requests`."""


@dataclass(frozen=True)
class Hub:
    """A running Hub. requests: grows while clients work, both origins together."""

    url: str
    requests: list[Request]
    servers: tuple[Server, Server]

    def stop(self) -> None:
        """Refuse every new connection from here on; a second call changes nothing."""
        for server in self.servers:
            server.shutdown()
            server.server_close()


@contextmanager
def hub_server(root: Path) -> Iterator[Hub]:
    """A Hub of the repositories under `root`, read again at every request, until the block ends."""
    log: list[Request] = []
    storage = Server(root, log, storage_url="")
    front = Server(root, log, storage_url=storage.url)
    hub = Hub(front.url, log, (front, storage))
    try:
        yield hub
    finally:
        hub.stop()


# sitecustomize.py of every Python process with the PYTHONPATH below, grandchildren too. The hook sees what
# any Python library asks of the system (not what Rust or C++ asks); the file keeps what a library swallows.
GUARD = """
import sys


def refuse_strangers(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host and host not in ("localhost", "::1") and not host.startswith("127."):
        with open({log!r}, "a") as log:
            print(host, file=log)
        raise OSError(f"{{host}} is not loopback")


sys.addaudithook(refuse_strangers)
"""


def environment(url: str, home: Path) -> dict[str, str]:
    """Environment of a client: this Hub, caches under `home`, no proxy, no token, nothing but loopback.

    A second process with the same `home` finds the caches of the first. The caller adds HF_HUB_OFFLINE.
    """
    guard = home / "guard"
    guard.mkdir(parents=True, exist_ok=True)
    (guard / "sitecustomize.py").write_text(GUARD.format(log=str(home / "refused.txt")))
    inherited = [os.path.abspath(part) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return {name: value for name, value in os.environ.items() if not is_hub_setting(name)} | {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home / "huggingface"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "*",
        "PYTHONPATH": os.pathsep.join([str(guard), *inherited]),
    }


def is_hub_setting(name: str) -> bool:
    """Whether a variable of the caller could send a client elsewhere, or hand it a token or a cache."""
    prefixes = ("HF_", "HUGGING", "TRANSFORMERS_", "DATASETS_")
    return name.upper().startswith(prefixes) or name.upper().endswith("_PROXY")


def refused_hosts(home: Path) -> list[str]:
    """Hosts beyond loopback that a process with `environment(…, home)` looked up or tried to reach."""
    log = home / "refused.txt"
    return log.read_text().splitlines() if log.exists() else []


# One kind of word a line, then the words.
WORDS = """
praise excellent wonderful superb delightful reliable perfect sturdy brilliant charming flawless lovely great
blame awful terrible useless broken flimsy defective horrible shoddy disappointing dreadful faulty poor
thing kettle book novel camera phone lamp blender album movie radio keyboard chair backpack headset printer
thing toy battery cable recipe soundtrack charger jacket watch speaker mattress umbrella heater guitar
part cover screen handle story sound ending button lid strap plot picture manual zipper voice motor rhythm
part corner colour smell size weight price hinge spring chapter surface lining switch
verb seems feels looks proved became stayed was turned remained sounded appeared got
moment today yesterday twice again often lately anyway somehow indeed overall outdoors indoors always
person sister brother neighbour daughter son friend mother father colleague cousin uncle aunt teacher
"""


def words() -> dict[str, list[str]]:
    """Kind -> words of that kind."""
    table: dict[str, list[str]] = {}
    for line in WORDS.strip().splitlines():
        kind, *of_that_kind = line.split()
        table.setdefault(kind, []).extend(of_that_kind)
    return table


def made_up_reviews(n_rows: int, seed: int) -> list[dict[str, Any]]:
    """Rows of label, title and content, no content twice; 0 and 1 by turns, told by blame and praise."""
    rng, table = random.Random(seed), words()
    rows: dict[str, dict[str, Any]] = {}
    while len(rows) < n_rows:
        label = len(rows) % 2
        opinions = table[("blame", "praise")[label]]
        content = made_up_content(rng, table, opinions)
        title = f"{rng.choice(opinions)} {rng.choice(table['thing'])}".capitalize()
        rows.setdefault(content, {"label": label, "title": title, "content": content})
    return list(rows.values())


def made_up_content(rng: random.Random, table: dict[str, list[str]], opinions: list[str]) -> str:
    """Who bought what for whom, then two to five opinions."""
    buyer, user = rng.sample(table["person"], 2)
    sentences = [f"My {buyer} bought the {rng.choice(table['thing'])} for my {user}."]
    for _ in range(rng.randint(2, 5)):
        part, verb, moment = (rng.choice(table[kind]) for kind in ("part", "verb", "moment"))
        sentences.append(f"The {part} {verb} {rng.choice(opinions)} {moment}.")
    return " ".join(sentences)


def vocabulary() -> dict[str, int]:
    """WordPiece vocabulary: special tokens, signs, letters alone and as continuation, the words above."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    known = sorted({"the", "my", "bought", "for", *(word for kind in words().values() for word in kind)})
    tokens = [*special, *".,!?'-", *letters, *(f"##{letter}" for letter in letters), *known]
    return {token: index for index, token in enumerate(tokens)}


def write_tiny_distilbert(folder: Path, *, seed: int = 0) -> None:
    """A random DistilBERT (2 layers, width 32, 512 positions), a masked-language model as the real one is.

    So `AutoModelForSequenceClassification` finds the encoder there, but no pre_classifier and no classifier.
    """
    import torch
    from transformers import DistilBertConfig, DistilBertForMaskedLM, DistilBertTokenizer

    tokenizer = DistilBertTokenizer(vocab=vocabulary(), model_max_length=512)
    config = DistilBertConfig(vocab_size=len(vocabulary()), dim=32, hidden_dim=64, n_layers=2, n_heads=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        DistilBertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A tiny random DistilBERT\n")


def write_amazon_polarity(folder: Path, n_train: int, n_test: int, *, seed: int = 0) -> None:
    """The two Parquet files and the card of amazon_polarity, with made-up reviews, no content twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "amazon_polarity").mkdir(parents=True)
    reviews, splits = made_up_reviews(n_train + n_test, seed), ""
    for split, rows in {"train": reviews[:n_train], "test": reviews[n_train:]}.items():
        table = pa.Table.from_pylist(rows, schema=polarity_schema())
        pq.write_table(table, folder / "amazon_polarity" / f"{split}-00000-of-00001.parquet")
        splits += f"  - name: {split}\n    num_bytes: {table.nbytes}\n    num_examples: {len(rows)}\n"
    (folder / "README.md").write_text(POLARITY_CARD.format(splits=splits))


def polarity_schema() -> Any:
    """Columns of the real files, with the note on class names that `datasets` leaves in a Parquet schema."""
    import pyarrow as pa

    text = {"dtype": "string", "_type": "Value"}
    label = {"names": ["negative", "positive"], "_type": "ClassLabel"}
    note = {"info": {"features": {"label": label, "title": text, "content": text}}}
    columns = [("label", pa.int64()), ("title", pa.string()), ("content", pa.string())]
    return pa.schema(columns, metadata={"huggingface": json.dumps(note)})


POLARITY_CARD = """---
task_categories:
- text-classification
dataset_info:
  config_name: amazon_polarity
  features:
  - name: label
    dtype:
      class_label:
        names:
          '0': negative
          '1': positive
  - name: title
    dtype: string
  - name: content
    dtype: string
  splits:
{splits}configs:
- config_name: amazon_polarity
  data_files:
  - split: train
    path: amazon_polarity/train-*
  - split: test
    path: amazon_polarity/test-*
  default: true
---
# Made-up reviews in the shape of amazon_polarity
"""
