"""What a mounted Secret means for each kind of source.

s3      access_key_id, secret_access_key, session_token, region, endpoint_url
gs      credentials.json (a service account's key), endpoint_url
https   authorization (the whole header value)

No Secret: s3 and gs use what the environment offers (a pod identity), else ask anonymously.
"""

import json
from collections.abc import Mapping

from tidegate_api.names import Reason
from tidegate_worker.core.errors import ModelError

FILES = (
    "access_key_id",
    "secret_access_key",
    "session_token",
    "region",
    "endpoint_url",
    "credentials.json",
    "authorization",
)


def storage_options(scheme: str, secret: Mapping[str, str]) -> dict[str, object]:
    """Return fsspec's storage options for s3 or gs; `secret` is {file name: content}."""
    given = {name: value.strip() for name, value in secret.items() if value.strip()}
    match scheme:
        case "s3":
            return _s3(given)
        case "gs":
            return _gs(given)
        case _:
            return {}


def https_headers(secret: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a download by https."""
    authorization = secret.get("authorization", "").strip()
    return {"Authorization": authorization} if authorization else {}


def _s3(given: Mapping[str, str]) -> dict[str, object]:
    names = {"access_key_id": "key", "secret_access_key": "secret", "session_token": "token"}
    options: dict[str, object] = {names[n]: value for n, value in given.items() if n in names}
    if "endpoint_url" in given:
        options["endpoint_url"] = given["endpoint_url"]
    if "region" in given:
        options["client_kwargs"] = {"region_name": given["region"]}
    return options


def _gs(given: Mapping[str, str]) -> dict[str, object]:
    options: dict[str, object] = {}
    if "credentials.json" in given:
        options["token"] = _service_account(given["credentials.json"])
    if "endpoint_url" in given:
        options["endpoint_url"] = given["endpoint_url"]
    return options


def _service_account(text: str) -> dict[str, object]:
    try:
        key = json.loads(text)
    except ValueError:
        key = None
    if not isinstance(key, dict):
        raise ModelError(
            Reason.MODEL_FETCH_FAILED,
            "source.credentials: credentials.json of the Secret is no JSON object: expected the "
            "key of a service account",
        )
    return key
