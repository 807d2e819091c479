"""Remote sources through fsspec: to a temporary name, hashed, renamed; progress in the log.

Credentials, if any, are files of a mounted Secret, read again at each fetch: for s3
`access_key_id`, `secret_access_key`, `session_token`, `endpoint_url`, `region`; for gs
`credentials.json`; for https `authorization` (the header's whole value).
"""

import hashlib
import logging
import shutil
import time
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import fsspec
from botocore.exceptions import BotoCoreError, ClientError

from tidegate_api.names import Reason
from tidegate_worker.core.errors import ModelError

_log = logging.getLogger(__name__)
_CHUNK_BYTES = 4 * 2**20
_PROGRESS_S = 5.0
_ERRORS = (OSError, aiohttp.ClientError, BotoCoreError, ClientError, TimeoutError, ValueError)


def fetch(model: str, uri: str, target: Path, credentials: Path | None) -> Path:
    """Download a file or folder to `target`, replacing an unfinished one; return it.

    A file is put below `target` under its own name. Raises ModelError(ModelFetchFailed).
    """
    unfinished = target.with_name(f".{target.name}.unfinished")
    for leftover in (unfinished, target):
        shutil.rmtree(leftover, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        _download(model, uri, unfinished, _options(uri, credentials))
    except _ERRORS as error:
        raise ModelError(
            Reason.MODEL_FETCH_FAILED,
            f"fetching {_shown(uri)} failed: {type(error).__name__}: {error}",
        ) from error
    unfinished.rename(target)
    return target


def _download(model: str, uri: str, folder: Path, options: dict[str, object]) -> None:
    filesystem, path = fsspec.core.url_to_fs(uri, **options)
    if not uri.startswith("https:") and filesystem.isdir(path):
        names = [name for name in filesystem.find(path) if not name.endswith("/")]
        for name in names:
            _copy(model, filesystem, name, folder / name.removeprefix(path).lstrip("/"))
        return
    _copy(model, filesystem, path, folder / (Path(urlsplit(uri).path).name or "model"))


def _copy(model: str, filesystem: fsspec.AbstractFileSystem, source: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    size, done, said_s = filesystem.size(source), 0, time.monotonic()
    with filesystem.open(source, "rb") as reader, target.open("wb") as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            done += len(chunk)
            if time.monotonic() - said_s >= _PROGRESS_S:
                said_s = time.monotonic()
                _log.info("fetched %s of %s bytes", done, size or "?", extra={"object": model})
    if size is not None and done != size:
        raise OSError(f"got {done} of {size} bytes")
    _log.info("fetched %d bytes of %s", done, target.name, extra={"object": model})


def _options(uri: str, credentials: Path | None) -> dict[str, object]:
    known = _read(credentials) if credentials else {}
    if uri.startswith("s3:"):
        client = {"endpoint_url": known.get("endpoint_url"), "region_name": known.get("region")}
        return {
            "anon": "access_key_id" not in known,
            "key": known.get("access_key_id"),
            "secret": known.get("secret_access_key"),
            "token": known.get("session_token"),
            "client_kwargs": {key: value for key, value in client.items() if value},
            "skip_instance_cache": True,
        }
    if uri.startswith("gs:"):
        file = credentials / "credentials.json" if credentials else None
        return {"token": str(file) if file and file.exists() else "anon"}
    headers = {"Authorization": known["authorization"]} if "authorization" in known else {}
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=60)
    return {"client_kwargs": {"headers": headers, "timeout": timeout}, "skip_instance_cache": True}


def _read(folder: Path) -> dict[str, str]:
    files = (entry for entry in folder.iterdir() if not entry.name.startswith(".."))
    return {entry.name: entry.read_text().strip() for entry in files if entry.is_file()}


def _shown(uri: str) -> str:
    """Return the URI without a query or user, which may hold a credential."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def file_digest(path: Path) -> str:
    """Return the sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
