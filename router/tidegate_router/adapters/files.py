"""Tables in files: the snapshot that survives a restart, and --routes-file.

RoutesFileError   the file is unreadable, no JSON, or no list of route tables; names the field
"""

import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from tidegate_api.routetable import RouteTableSpec

_TABLES = TypeAdapter(list[RouteTableSpec])


class RoutesFileError(Exception):
    """The file holds no tables."""


def read(path: Path) -> list[RouteTableSpec]:
    """Return the tables of a file; raises RoutesFileError."""
    try:
        return _TABLES.validate_json(path.read_bytes())
    except OSError as error:
        raise RoutesFileError(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        text = f"{path}: {where}: {first['msg']} (expected a JSON list of RouteTable specs)"
        raise RoutesFileError(text) from error


def write(path: Path, tables: Iterable[RouteTableSpec]) -> None:
    """Replace the file at once and durably; raises OSError.

    After a crash either the old or the new content is there: the data is flushed before the
    rename, the folder after it.
    """
    data = json.dumps([table.to_wire() for table in tables], separators=(",", ":")).encode()
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
