"""The loops that keep tables fresh from files, and the snapshot behind the running process."""

import asyncio
import logging
from pathlib import Path

from tidegate_router.adapters import files
from tidegate_router.routes import RouteKeeper

_log = logging.getLogger(__name__)
_POLL_S = 0.5
_SNAPSHOT_EVERY_S = 2.0
LISTING_FAILS_S = 5.0


async def follow_routes_file(path: Path, keeper: RouteKeeper) -> None:
    """Serve the tables of a file, read again whenever it changes; a bad edit changes nothing."""
    seen: tuple[int, int] | None = None
    while True:
        stamp = await asyncio.to_thread(_stamp, path)
        if stamp is not None and stamp != seen:
            seen = stamp
            try:
                keeper.restore(await asyncio.to_thread(files.read, path), synced=True)
                _log.info("routes file applied: %d pools", len(keeper.book.applied))
            except files.RoutesFileError as error:
                _log.warning("routes file refused: %s", error)
        await asyncio.sleep(_POLL_S)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_ino


async def start_from_snapshot(path: Path, keeper: RouteKeeper) -> None:
    """Serve the snapshot's tables if listing has not worked after 5 s."""
    await asyncio.sleep(LISTING_FAILS_S)
    if keeper.ready:
        return
    try:
        tables = await asyncio.to_thread(files.read, path)
    except files.RoutesFileError as error:
        _log.warning("no list from the API server and no snapshot: %s", error)
        return
    if not keeper.ready:
        keeper.restore(tables, synced=False)
        _log.warning("no list from the API server: serving %d pools of a snapshot", len(tables))


async def keep_snapshot(path: Path, keeper: RouteKeeper) -> None:
    """Write the applied tables after they changed, at most every 2 s."""
    written = 0
    while True:
        await asyncio.sleep(_SNAPSHOT_EVERY_S)
        if keeper.changes == written or not keeper.synced:
            continue
        written = keeper.changes
        try:
            await asyncio.to_thread(files.write, path, list(keeper.book.applied.values()))
        except OSError as error:
            _log.warning("snapshot %s: %s", path, error.strerror)


async def tick(keeper: RouteKeeper) -> None:
    """Let the keeper look at its clock once a second."""
    while True:
        await asyncio.sleep(1.0)
        keeper.tick()
