"""Downloads of https, s3 and gs sources, through fsspec.

A download goes to a folder of its own and is renamed when it is complete, so what has the final
name is whole. The caller tries again; each try starts clean.
"""

import logging
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp
import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.callbacks import Callback

from tidegate_api.names import Reason
from tidegate_worker.core.credentials import https_headers, storage_options
from tidegate_worker.core.errors import ModelError, shown
from tidegate_worker.core.sources import safe_relative

_log = logging.getLogger(__name__)
_SILENCE_S = 60.0  # without a byte, a download is broken
_REPORT_S = 5.0
_ERRORS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "https": (),
    "s3": (("botocore.exceptions", "BotoCoreError"), ("botocore.exceptions", "ClientError")),
    "gs": (("gcsfs.retry", "HttpError"), ("google.auth.exceptions", "GoogleAuthError")),
}


@dataclass(frozen=True, slots=True)
class Found:
    """One object of a source: its remote path, its place below the source, its size."""

    remote: str
    relative: str
    size_bytes: int | None


@dataclass(slots=True)
class Progress:
    """Counts bytes of one source and says in the log how far it is, every 5 s."""

    uri: str
    model: str
    total_bytes: int | None = None
    done_bytes: int = 0
    told_s: float = 0.0

    def add(self, size: int) -> None:
        """Take in `size` bytes more."""
        self.done_bytes += size
        now_s = time.monotonic()
        if now_s - self.told_s >= _REPORT_S:
            self.told_s = now_s
            total = f" of {_mib(self.total_bytes)}" if self.total_bytes else ""
            _log.info(
                "fetching %s: %s%s", shown(self.uri), _mib(self.done_bytes), total,
                extra={"object": self.model},
            )  # fmt: skip


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.1f} MiB"


async def fetch(uri: str, secret: Mapping[str, str], target: Path, progress: Progress) -> Path:
    """Download a file or a folder into `target` and return its path there.

    Raises ModelError, reason ModelFetchFailed, with the library's words.
    """
    scheme = urlsplit(uri).scheme
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        async with _file_system(scheme, secret) as remote:
            relative = await _download(remote, uri, partial, progress)
    except ModelError:
        raise
    except _errors(scheme) as error:
        words = str(error) or type(error).__name__
        raise ModelError(Reason.MODEL_FETCH_FAILED, f"{shown(uri)}: {shown(words)}") from error
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    return target / relative if relative else target


def _errors(scheme: str) -> tuple[type[Exception], ...]:
    """Return what a download of this scheme may raise; a client is imported when used."""
    named = tuple(getattr(import_module(module), name) for module, name in _ERRORS[scheme])
    return (OSError, aiohttp.ClientError, ValueError, *named)


@asynccontextmanager
async def _file_system(scheme: str, secret: Mapping[str, str]) -> AsyncIterator[AsyncFileSystem]:
    options = storage_options(scheme, secret)
    if scheme == "https":
        # Its own context: authorities are read at each fetch, aiohttp's default once for ever.
        options["client_kwargs"] = {
            "headers": https_headers(secret),
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=_SILENCE_S),
            "trust_env": True,
            "connector": aiohttp.TCPConnector(ssl=ssl.create_default_context()),
        }
    remote = fsspec.filesystem(scheme, asynchronous=True, skip_instance_cache=True, **options)
    session = await (remote._set_session() if scheme == "gs" else remote.set_session())  # noqa: SLF001  # gcsfs has no public name for it
    try:
        yield remote
    finally:
        await session.close()


async def _download(remote: AsyncFileSystem, uri: str, folder: Path, progress: Progress) -> str:
    """Fetch every object; return the file's name, or "" for a folder."""
    single, found = await _list(remote, uri)
    if not found:
        raise ModelError(Reason.MODEL_FETCH_FAILED, f"{shown(uri)}: nothing is there")
    sizes = [item.size_bytes for item in found]
    progress.total_bytes = None if None in sizes else sum(size or 0 for size in sizes)
    for item in found:
        await _download_one(remote, item, folder / item.relative, progress)
    return found[0].relative if single else ""


async def _download_one(
    remote: AsyncFileSystem, item: Found, place: Path, progress: Progress
) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    told = 0

    def hook(_size: int | None, value: int, **_more: object) -> None:
        nonlocal told
        progress.add(max(0, value - told))
        told = value

    callback = Callback(hooks={"progress": hook})
    await remote._get_file(item.remote, str(place), callback=callback)  # noqa: SLF001  # fsspec's documented coroutine
    _check_size(item, place)


def _check_size(item: Found, place: Path) -> None:
    size = place.stat().st_size
    if item.size_bytes is not None and size != item.size_bytes:
        raise ModelError(
            Reason.MODEL_FETCH_FAILED,
            f"{shown(item.remote)}: the download broke off after {size} of {item.size_bytes} bytes",
        )


async def _list(remote: AsyncFileSystem, uri: str) -> tuple[bool, list[Found]]:
    """Return (whether it is one file, its objects)."""
    if urlsplit(uri).scheme == "https":
        return True, [Found(uri, _file_name(uri), None)]
    path = str(remote._strip_protocol(uri)).rstrip("/")  # noqa: SLF001  # fsspec's way to a path
    entries: Mapping[str, Mapping[str, object]] = await remote._find(path, detail=True)  # noqa: SLF001  # fsspec's documented coroutine
    if set(entries) == {path}:
        return True, [_found(path, _file_name(uri), entries[path])]
    below = {key: value for key, value in entries.items() if not key.endswith("/")}
    return False, [_found(k, k.removeprefix(f"{path}/"), v) for k, v in sorted(below.items())]


def _found(path: str, relative: str, about: Mapping[str, object]) -> Found:
    size = about.get("size")
    return Found(path, safe_relative(relative), size if isinstance(size, int) else None)


def _file_name(uri: str) -> str:
    return safe_relative(unquote(urlsplit(uri).path.rstrip("/").rpartition("/")[2]) or "model")
