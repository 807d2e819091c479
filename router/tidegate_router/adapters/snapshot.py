"""The last tables on disk, for a start while the API server is away; and the routes file."""

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tidegate_api.routetable import RouteTableSpec

_log = logging.getLogger(__name__)
_TABLES = TypeAdapter(list[RouteTableSpec])


def write(path: Path, tables: Iterable[RouteTableSpec]) -> None:
    """Replace the file as a whole: temporary name, fsync, rename, fsync of the folder."""
    data = json.dumps([table.to_wire() for table in tables]).encode()
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Path) -> list[RouteTableSpec] | None:
    """Return the tables of a file, None (and a log line) when it is absent or damaged."""
    try:
        return _TABLES.validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        _log.error("%s is not a list of route tables; it is left aside: %s", path, error)
        return None
