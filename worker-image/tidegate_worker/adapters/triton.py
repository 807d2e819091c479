"""tritonserver over HTTP, as its own agent: control APIs by key, metrics on 127.0.0.1.

TritonUnreachableError(Exception)   the server did not answer: it starts, crashed, or hangs
"""

import json
from collections.abc import Mapping
from http import HTTPStatus

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tidegate_api.names import HEADER_RESTRICTED_KEY, Reason
from tidegate_worker.core.errors import ModelError
from tidegate_worker.core.inference import Request, is_refusal
from tidegate_worker.core.measure import Sample
from tidegate_worker.core.probe import Outcome

_QUICK = aiohttp.ClientTimeout(total=5.0)
_ENDLESS = aiohttp.ClientTimeout(total=None)


class TritonUnreachableError(Exception):
    """The server did not answer: it starts, crashed, or hangs."""


class TritonClient:
    """One start of tritonserver; `key` is the one that this start was given."""

    def __init__(
        self, session: aiohttp.ClientSession, http_port: int, metrics_port: int, key: str
    ) -> None:
        self._session = session
        self._base = f"http://127.0.0.1:{http_port}/v2"
        self._metrics = f"http://127.0.0.1:{metrics_port}/metrics"
        self._headers = {HEADER_RESTRICTED_KEY: key}

    async def is_live(self) -> bool:
        """Whether the server answers at all."""
        try:
            status, _ = await self._get(f"{self._base}/health/live")
        except TritonUnreachableError:
            return False
        return status == HTTPStatus.OK

    async def version(self) -> str:
        """Return the server's version, e.g. 2.59.0."""
        return str((await self._json(self._base)).get("version", ""))

    async def load(self, model: str) -> None:
        """Load a model, however long it takes; ModelError has Triton's words."""
        url = f"{self._base}/repository/models/{model}/load"
        try:
            async with self._session.post(url, headers=self._headers, timeout=_ENDLESS) as answer:
                status, text = answer.status, await answer.text()
        except (aiohttp.ClientError, OSError) as error:
            raise TritonUnreachableError(str(error)) from error
        if status != HTTPStatus.OK:
            raise ModelError(Reason.MODEL_LOAD_FAILED, _error_text(text))

    async def unload(self, model: str) -> None:
        """Refuse new requests for a model at once (404, never ran); running ones end."""
        await self._post(f"repository/models/{model}/unload")

    async def states(self) -> Mapping[str, str]:
        """Return {model: READY | LOADING | UNLOADING} of what is loaded or has work to end."""
        found = json.loads(await self._post("repository/index"))
        gone = {"UNAVAILABLE", None}
        states = ((entry["name"], entry.get("state")) for entry in found)
        return {name: state for name, state in states if state not in gone}

    async def config(self, model: str) -> Mapping[str, object]:
        """Return the loaded config of a model."""
        return await self._json(f"{self._base}/models/{model}/config")

    async def is_model_ready(self, model: str) -> bool:
        """Whether Triton itself calls the model ready."""
        status, _ = await self._get(f"{self._base}/models/{model}/ready")
        return status == HTTPStatus.OK

    async def statistics(self) -> Mapping[str, object]:
        """Return counts of all models, per batch size among others."""
        return await self._json(f"{self._base}/models/stats")

    async def metrics(self) -> str:
        """Return Triton's exposition."""
        _, text = await self._get(self._metrics)
        return text

    async def infer(self, model: str, request: Request, timeout_s: float) -> tuple[Outcome, str]:
        """Run a readiness inference and return what it says, with the server's words."""
        try:
            async with self._session.post(
                f"{self._base}/models/{model}/infer",
                data=request.body,
                headers=request.headers,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
            ) as answer:
                status, body = answer.status, await answer.read()
        except TimeoutError:
            return Outcome.TIMEOUT, f"the readiness inference took longer than {timeout_s:g} s"
        except (aiohttp.ClientError, OSError) as error:
            return Outcome.FAILURE, f"the readiness inference failed: {error}"
        if status == HTTPStatus.OK:
            return Outcome.SUCCESS, ""
        text = body.decode(errors="replace")
        outcome = Outcome.REFUSED if is_refusal(status, text) else Outcome.FAILURE
        return outcome, f"the readiness inference was answered {status}: {_error_text(text)}"

    async def _json(self, url: str) -> Mapping[str, object]:
        status, text = await self._get(url)
        if status != HTTPStatus.OK:
            raise TritonUnreachableError(f"{url} answered {status}: {_error_text(text)}")
        found = json.loads(text)
        return found if isinstance(found, dict) else {}

    async def _post(self, path: str) -> str:
        try:
            async with self._session.post(
                f"{self._base}/{path}", headers=self._headers, timeout=_QUICK
            ) as answer:
                return await answer.text()
        except (aiohttp.ClientError, OSError) as error:
            raise TritonUnreachableError(str(error) or type(error).__name__) from error

    async def _get(self, url: str) -> tuple[int, str]:
        try:
            async with self._session.get(url, headers=self._headers, timeout=_QUICK) as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, OSError) as error:
            raise TritonUnreachableError(str(error) or type(error).__name__) from error


def samples(exposition: str) -> list[Sample]:
    """Parse an exposition; ValueError where it is none."""
    return [
        Sample(sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    ]


def _error_text(body: str) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return body
    return str(found.get("error", body)) if isinstance(found, dict) else body
