"""The test Hub is the Hub to the installed clients; nothing here leaves loopback, with a control."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.hub_server import (
    DATASET_ID,
    MODEL_ID,
    Hub,
    Request,
    environment,
    hub_server,
    made_up_reviews,
    read_repository,
    refused_hosts,
    words,
    write_amazon_polarity,
    write_tiny_distilbert,
)

N_TRAIN, N_TEST = 60, 20
PARQUET = "amazon_polarity/test-00000-of-00001.parquet"
HEAD_KEYS = ["classifier.bias", "classifier.weight", "pre_classifier.bias", "pre_classifier.weight"]
# `datasets` makes the host of the Hub's data set viewer from HF_ENDPOINT; here that host has no address.
VIEWER = "datasets-server.127.0.0.1"

# arguments: {"models": [[id, revision]], "datasets": [[id, revision]]}
LOAD = """
import json, sys

def model(name, revision):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
    network, report = AutoModelForSequenceClassification.from_pretrained(
        name, revision=revision, output_loading_info=True)
    weights = network.distilbert.embeddings.word_embeddings.weight
    return {"missing": sorted(report["missing_keys"]), "weights": weights.sum().item(),
            "tokens": tokenizer.tokenize("The kettle seems excellent today.")}

def dataset(name, revision):
    from datasets import load_dataset

    splits = load_dataset(name, revision=revision)
    return {"rows": {split: list(table) for split, table in splits.items()},
            "classes": splits["train"].features["label"].names}

wanted = json.loads(sys.argv[1])
print(json.dumps({"models": [model(*each) for each in wanted["models"]],
                  "datasets": [dataset(*each) for each in wanted["datasets"]]}))
"""

# arguments: a list of expressions; printed: the value of each, or the name of the error it raised
ASK = f"""
import json, sys
from huggingface_hub import *

MODEL, DATA, PARQUET = {MODEL_ID!r}, {DATASET_ID!r}, {PARQUET!r}

def value(expression):
    try:
        return eval(expression)
    except Exception as error:
        return type(error).__name__

print(json.dumps([value(expression) for expression in json.loads(sys.argv[1])]))
"""


class Visit(NamedTuple):
    """What a client process printed, what it asked the Hub, and where else it wanted to go."""

    answer: Any
    requests: list[Request]
    refused: list[str]


def visit(hub: Hub, home: Path, script: str, argument: object, **settings: str) -> Visit:
    """Run a client to its end; the test fails with its error output if it does."""
    before = len(hub.requests)
    command = [sys.executable, "-c", script, json.dumps(argument)]
    variables = environment(hub.url, home) | settings
    process = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return Visit(json.loads(process.stdout.splitlines()[-1]), hub.requests[before:], refused_hosts(home))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    write_tiny_distilbert(folder / "models" / MODEL_ID)
    write_amazon_polarity(folder / "datasets" / DATASET_ID, N_TRAIN, N_TEST)
    return folder


@pytest.fixture(scope="module")
def hub(root: Path) -> Iterator[Hub]:
    with hub_server(root) as running:
        yield running


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def wanted(root: Path) -> dict[str, list[tuple[str, str | None]]]:
    pinned = (MODEL_ID, read_repository(root, "models", MODEL_ID).sha)
    return {"models": [("distilbert-base-uncased", "main"), pinned], "datasets": [(DATASET_ID, None)]}


@pytest.fixture(scope="module")
def online(hub: Hub, home: Path, wanted: dict[str, Any]) -> Visit:
    return visit(hub, home, LOAD, wanted, HF_UPDATE_DOWNLOAD_COUNTS="0")


@pytest.fixture(scope="module")
def offline(hub: Hub, home: Path, wanted: dict[str, Any], online: Visit) -> Visit:
    return visit(hub, home, LOAD, wanted, HF_HUB_OFFLINE="1")


def test_a_model_is_one_by_its_short_name_and_by_its_full_name_at_a_commit(root: Path, online: Visit) -> None:
    from safetensors.torch import load_file

    weights = load_file(root / "models" / MODEL_ID / "model.safetensors")
    expected = weights["distilbert.embeddings.word_embeddings.weight"].sum().item()
    assert [model["weights"] for model in online.answer["models"]] == pytest.approx([expected, expected])


def test_the_classification_head_is_what_the_checkpoint_lacks(online: Visit) -> None:
    assert [model["missing"] for model in online.answer["models"]] == [HEAD_KEYS, HEAD_KEYS]


def test_the_tokenizer_knows_the_words_of_the_reviews(online: Visit) -> None:
    expected = ["the", "kettle", "seems", "excellent", "today", "."]
    assert [model["tokens"] for model in online.answer["models"]] == [expected, expected]


def test_the_short_name_is_redirected_and_the_commit_is_asked_for(root: Path, online: Visit) -> None:
    commit = read_repository(root, "models", MODEL_ID).sha
    assert Request("HEAD", f"/distilbert-base-uncased/resolve/{commit}/config.json", 307) in online.requests
    assert Request("HEAD", f"/{MODEL_ID}/resolve/{commit}/model.safetensors", 302) in online.requests


def test_large_files_come_from_the_storage_and_are_named_by_their_sha256(
    root: Path, home: Path, online: Visit
) -> None:
    assert Request("GET", f"/storage/models/{MODEL_ID}/model.safetensors", 200) in online.requests
    digest = sha256((root / "models" / MODEL_ID / "model.safetensors").read_bytes()).hexdigest()
    folder = home / "huggingface" / "hub" / ("models--" + MODEL_ID.replace("/", "--"))
    assert (folder / "blobs" / digest).is_file()


def test_the_data_set_has_both_splits_and_its_class_names(online: Visit) -> None:
    [dataset] = online.answer["datasets"]
    reviews = made_up_reviews(N_TRAIN + N_TEST, seed=0)
    assert dataset["rows"] == {"train": reviews[:N_TRAIN], "test": reviews[N_TRAIN:]}
    assert dataset["classes"] == ["negative", "positive"]


def test_a_client_reaches_for_nothing_beyond_loopback_but_the_viewer(online: Visit) -> None:
    assert online.requests
    assert set(online.refused) <= {VIEWER}


def test_the_second_time_offline_gives_the_same_without_a_request(online: Visit, offline: Visit) -> None:
    assert offline.answer == online.answer
    assert offline.requests == []
    assert offline.refused == online.refused


def test_a_pinned_data_set_is_read_from_the_hub_alone(hub: Hub, root: Path, tmp_path: Path) -> None:
    commit = read_repository(root, "datasets", DATASET_ID).sha
    wanted = {"models": [], "datasets": [(DATASET_ID, commit)]}
    pinned = visit(hub, tmp_path, LOAD, wanted, HF_UPDATE_DOWNLOAD_COUNTS="0")
    assert pinned.answer["datasets"][0]["classes"] == ["negative", "positive"]
    assert pinned.refused == []


def test_the_clients_see_ids_and_commits_as_on_the_hub(hub: Hub, root: Path, tmp_path: Path) -> None:
    model, dataset = read_repository(root, "models", MODEL_ID), read_repository(root, "datasets", DATASET_ID)
    expected = {
        "model_info('distilbert-base-uncased').id": MODEL_ID,
        "model_info('distilbert-base-uncased').sha": model.sha,
        f"model_info(MODEL, revision={model.sha!r}).sha": model.sha,
        "list_repo_refs(MODEL).branches[0].target_commit": model.sha,
        "dataset_info('amazon_polarity').id": DATASET_ID,
        "dataset_info(DATA, revision='main').sha": dataset.sha,
    }
    seen = visit(hub, tmp_path, ASK, list(expected))
    assert dict(zip(expected, seen.answer, strict=True)) == expected
    assert seen.refused == []


def test_the_clients_raise_what_they_raise_on_the_hub(hub: Hub, tmp_path: Path) -> None:
    expected = {
        "model_info('nobody/nothing')": "RepositoryNotFoundError",
        "dataset_info('nothing')": "RepositoryNotFoundError",
        "hf_hub_download('nobody/nothing', 'config.json')": "RepositoryNotFoundError",
        "model_info(MODEL, revision='v9')": "RevisionNotFoundError",
        "dataset_info(DATA, revision='0' * 40)": "RevisionNotFoundError",
        "hf_hub_download('distilbert-base-uncased', 'config.json', revision='v9')": "RevisionNotFoundError",
        "hf_hub_download(MODEL, 'nothing.json')": "RemoteEntryNotFoundError",
        "list(list_repo_tree(MODEL, 'nothing'))": "RemoteEntryNotFoundError",
    }
    seen = visit(hub, tmp_path, ASK, list(expected))
    assert dict(zip(expected, seen.answer, strict=True)) == expected


def test_the_clients_list_files_folders_and_digests(hub: Hub, root: Path, tmp_path: Path) -> None:
    files = read_repository(root, "datasets", DATASET_ID).files
    content, weights = files[PARQUET], read_repository(root, "models", MODEL_ID).files["model.safetensors"]
    tree, paths = "list_repo_tree(DATA, repo_type='dataset'", "get_paths_info(DATA, repo_type='dataset'"
    siblings = "model_info(MODEL, files_metadata=True).siblings"
    expected = {
        f"[entry.path for entry in {tree})]": ["README.md", "amazon_polarity"],
        f"sorted(entry.path for entry in {tree}, recursive=True))": sorted([*files, "amazon_polarity"]),
        f"[entry.last_commit.title for entry in {tree}, expand=True)]": ["Upload", "Upload"],
        f"[entry.path for entry in {paths}, paths=['nothing', PARQUET])]": [PARQUET],
        f"{paths}, paths=PARQUET)[0].lfs.sha256": sha256(content).hexdigest(),
        f"[file.lfs.sha256 for file in {siblings} if file.lfs]": [sha256(weights).hexdigest()],
        "HfFileSystem().read_block(f'datasets/{DATA}/{PARQUET}', 2, 5).hex()": content[2:7].hex(),
    }
    seen = visit(hub, tmp_path, ASK, list(expected))
    assert dict(zip(expected, seen.answer, strict=True)) == expected


def test_the_guard_refuses_and_notes_strangers_in_children_of_children(hub: Hub, tmp_path: Path) -> None:
    child = """
import socket, subprocess, sys
for attempt in (lambda: socket.create_connection(("192.0.2.1", 80)),
                lambda: socket.getaddrinfo("example.org", 443),
                lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"?", ("192.0.2.2", 53))):
    try:
        attempt()
    except OSError as error:
        assert "is not loopback" in str(error)
"""
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    subprocess.run([sys.executable, "-c", parent], env=environment(hub.url, tmp_path), check=True)
    assert refused_hosts(tmp_path) == ["192.0.2.1", "example.org", "192.0.2.2"]


def test_the_environment_hides_what_would_send_a_client_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "https_proxy", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PYTHONPATH", "src")
    variables = environment("http://127.0.0.1:1", tmp_path)
    names = {name for name in variables if name.startswith(("HF_", "TRANSFORMERS_")) or "proxy" in name}
    assert names == {"HF_ENDPOINT", "HF_HOME", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"}
    assert variables["PYTHONPATH"].endswith(f":{Path('src').absolute()}")


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Hub, Path]]:
    """A Hub with one model of one file of ten bytes."""
    file = tmp_path / "models" / "ann" / "one" / "letters.txt"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"abcdefghij")
    with hub_server(tmp_path) as running:
        yield running, file


def ask(hub: Hub, method: str, path: str, **headers: str) -> tuple[HTTPResponse, bytes]:
    """One request on a connection of its own."""
    connection = HTTPConnection(hub.url.removeprefix("http://"), timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def test_a_small_file_is_named_by_git_and_comes_with_its_length_and_commit(small: tuple[Hub, Path]) -> None:
    response, _ = ask(small[0], "HEAD", "/ann/one/resolve/main/letters.txt")
    # Expected: what `printf abcdefghij | git hash-object --stdin` prints.
    assert response.headers["ETag"] == '"c76a96421b967235e3e3c307c8fe4ff16fbef402"'
    assert response.headers["Content-Length"] == "10"
    assert response.headers["X-Repo-Commit"] == json.loads(ask(small[0], "GET", "/api/models/ann/one")[1])["sha"]


def test_an_answer_to_head_has_no_body_that_the_next_one_would_start_with(small: tuple[Hub, Path]) -> None:
    connection = HTTPConnection(small[0].url.removeprefix("http://"), timeout=10)
    for method, body in (("HEAD", b""), ("GET", b"abcdefghij")):
        connection.request(method, "/ann/one/resolve/main/letters.txt")
        assert connection.getresponse().read() == body
    connection.close()


@pytest.mark.parametrize(
    ("wanted", "status", "body", "content_range"),
    [
        ("bytes=2-4", 206, b"cde", "bytes 2-4/10"),
        ("bytes=7-", 206, b"hij", "bytes 7-9/10"),
        ("bytes=-2", 206, b"ij", "bytes 8-9/10"),
        ("bytes=8-99", 206, b"ij", "bytes 8-9/10"),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("lines=1-2", 200, b"abcdefghij", None),
    ],
)
def test_a_range_is_cut_as_http_says(
    small: tuple[Hub, Path], wanted: str, status: int, body: bytes, content_range: str | None
) -> None:
    response, seen = ask(small[0], "GET", "/ann/one/resolve/main/letters.txt", Range=wanted)
    assert (response.status, seen, response.headers["Content-Range"]) == (status, body, content_range)


def test_a_changed_file_makes_a_new_commit_and_the_old_one_is_gone(small: tuple[Hub, Path]) -> None:
    hub, file = small
    before = json.loads(ask(hub, "GET", "/api/models/ann/one")[1])["sha"]
    file.write_bytes(b"abcdefghik")
    assert json.loads(ask(hub, "GET", "/api/models/ann/one")[1])["sha"] != before
    response, _ = ask(hub, "GET", f"/api/models/ann/one/revision/{before}")
    assert (response.status, response.headers["X-Error-Code"]) == (404, "RevisionNotFound")


@pytest.mark.parametrize("path", ["/ann/../resolve/main/ann/one/letters.txt", "/one/resolve/main/x", "/else"])
def test_a_path_outside_the_repositories_is_not_found(small: tuple[Hub, Path], path: str) -> None:
    assert ask(small[0], "GET", path)[0].status == 404
    assert small[0].requests == [Request("GET", path, 404)]


def test_a_stopped_hub_refuses_connections(small: tuple[Hub, Path]) -> None:
    small[0].stop()
    with pytest.raises(ConnectionRefusedError):
        ask(small[0], "GET", "/api/models/ann/one")


def test_reviews_differ_and_only_the_words_of_their_class_tell_them_apart() -> None:
    rows, table = made_up_reviews(2000, seed=1), words()
    assert len({row["content"] for row in rows}) == 2000
    assert sum(row["label"] for row in rows) == 1000
    for row in rows:
        seen = {word.strip(".").lower() for word in f"{row['title']} {row['content']}".split()}
        kinds = [bool(seen & set(table[kind])) for kind in ("blame", "praise")]
        assert kinds == [row["label"] == 0, row["label"] == 1]


def test_another_seed_writes_other_reviews_and_the_same_seed_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_amazon_polarity(tmp_path / "datasets" / "ann" / name, 20, 10, seed=seed)
    commits = [read_repository(tmp_path, "datasets", f"ann/{name}").sha for name in "abc"]
    assert commits[0] == commits[1] != commits[2]
