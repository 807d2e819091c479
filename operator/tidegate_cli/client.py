"""Asks a router or a Triton, over HTTP or gRPC, with Triton's own client."""

import http.client
import json
from collections.abc import Iterable
from urllib.parse import urlsplit

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from tidegate_cli.core.show import Json, Output
from tidegate_cli.core.tensors import Declared, Tensor
from tidegate_cli.errors import ServerError
from tidegate_cli.server import Protocol, Server


def inputs(server: Server) -> list[Declared]:
    """Return the model's inputs, from its metadata."""
    try:
        return _http_inputs(server) if server.protocol is Protocol.HTTP else _grpc_inputs(server)
    except (InferenceServerException, OSError) as error:
        raise _failed(server, error) from error


def infer(server: Server, tensors: Iterable[Tensor]) -> list[Output]:
    """Send one inference and return every output."""
    library = triton_http if server.protocol is Protocol.HTTP else triton_grpc
    request = []
    for tensor in tensors:
        built = library.InferInput(tensor.name, list(tensor.shape), tensor.datatype)
        built.set_data_from_numpy(_array(tensor))
        request.append(built)
    try:
        if server.protocol is Protocol.HTTP:
            return _http_infer(server, request)
        return _grpc_infer(server, request)
    except (InferenceServerException, OSError) as error:
        raise _failed(server, error) from error


def workers(address: str, timeout_s: float) -> list[Json]:
    """Return what a router's admin port knows of its workers."""
    place = urlsplit(address if "//" in address else f"//{address}")
    connection = http.client.HTTPConnection(place.netloc, timeout=timeout_s)
    try:
        connection.request("GET", "/workers")
        answer = connection.getresponse()
        found = json.loads(answer.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        text = f"{address} is no router's admin port: {error}"
        raise ServerError(text) from error
    finally:
        connection.close()
    if answer.status != http.HTTPStatus.OK or not isinstance(found, list):
        raise ServerError(f"{address}/workers answered {answer.status}")
    return found


def _http(server: Server) -> triton_http.InferenceServerClient:
    limits = {"connection_timeout": server.timeout_s, "network_timeout": server.timeout_s}
    return triton_http.InferenceServerClient(server.address, ssl=server.tls, **limits)


def _grpc(server: Server) -> triton_grpc.InferenceServerClient:
    return triton_grpc.InferenceServerClient(server.address, ssl=server.tls)


def _http_inputs(server: Server) -> list[Declared]:
    with _http(server) as client:
        found = client.get_model_metadata(server.model, server.version, dict(server.headers))
    return [Declared(one["name"], one["datatype"], tuple(one["shape"])) for one in found["inputs"]]


def _grpc_inputs(server: Server) -> list[Declared]:
    with _grpc(server) as client:
        found = client.get_model_metadata(
            server.model,
            server.version,
            dict(server.headers),
            client_timeout=server.timeout_s,
        )
    return [Declared(one.name, one.datatype, tuple(one.shape)) for one in found.inputs]


def _http_infer(server: Server, request: list[triton_http.InferInput]) -> list[Output]:
    with _http(server) as client:
        result = client.infer(
            server.model, request, model_version=server.version, headers=dict(server.headers)
        )
        listed = result.get_response()["outputs"]
    return [_output(one["name"], one["datatype"], result.as_numpy(one["name"])) for one in listed]


def _grpc_infer(server: Server, request: list[triton_grpc.InferInput]) -> list[Output]:
    with _grpc(server) as client:
        result = client.infer(
            server.model,
            request,
            model_version=server.version,
            headers=dict(server.headers),
            client_timeout=server.timeout_s,
        )
        listed = result.get_response().outputs
    return [_output(one.name, one.datatype, result.as_numpy(one.name)) for one in listed]


def _array(tensor: Tensor) -> NDArray[np.generic]:
    kind = triton_to_np_dtype(tensor.datatype)
    if tensor.raw is not None:
        found: NDArray[np.generic] = np.frombuffer(tensor.raw, dtype=kind)
    else:
        found = np.array(tensor.values, dtype=kind)
    return found.reshape(tensor.shape)


def _output(name: str, datatype: str, values: NDArray[np.generic]) -> Output:
    return Output(name, datatype, tuple(values.shape), tuple(values.reshape(-1).tolist()))


def _failed(server: Server, error: Exception) -> ServerError:
    if isinstance(error, InferenceServerException):
        status = f"[{error.status()}] " if error.status() else ""
        return ServerError(f"{server.address}: {status}{error.message()}")
    return ServerError(f"{server.address} cannot be reached over {server.protocol}: {error}")
