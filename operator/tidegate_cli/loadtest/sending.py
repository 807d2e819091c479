"""Makes the bytes and the client that the options ask for."""

import random
import ssl
from collections.abc import Sequence

from tidegate_cli.core.loadtest import payload
from tidegate_cli.core.tensors import Declared, Tensor
from tidegate_cli.errors import InputError
from tidegate_cli.loadtest.asked import Asked
from tidegate_cli.loadtest.http import HttpClient
from tidegate_cli.loadtest.shot import Answers, Client, Payload
from tidegate_cli.server import Protocol, Server


def payloads(asked: Asked) -> list[Payload]:
    """Return the requests that are sent in turn."""
    server = asked.server
    if server.protocol is Protocol.GRPC:
        return [Payload(wire) for wire in _messages(asked)]
    path = asked.path or payload.infer_path(_model(server), server.version)
    headers = {**server.headers, **payload.headers_of(asked.headers)}
    return [
        Payload(payload.http_request(path, server.address, {**more, **headers}, body))
        for body, more in _http_bodies(asked)
    ]


def client(asked: Asked, *, compare: bool) -> Client:
    """Return the client; to be called in the event loop that it will use."""
    server, answers = asked.server, Answers(compare)
    if server.protocol is Protocol.GRPC:
        from tidegate_cli.loadtest.grpc import GrpcClient  # noqa: PLC0415  # 0.5 s, only for gRPC

        metadata = {**server.headers, **payload.headers_of(asked.headers)}
        return GrpcClient(
            server.address, metadata, answers, tls=server.tls, timeout_s=server.timeout_s
        )
    host, _, port = server.address.rpartition(":")
    tls = ssl.create_default_context() if server.tls else None
    return HttpClient(host.strip("[]"), int(port), tls, server.timeout_s, answers)


def _messages(asked: Asked) -> list[bytes]:
    if asked.bodies:
        return [file.read_bytes() for file in asked.bodies]
    from tidegate_cli.loadtest.grpc import message  # noqa: PLC0415  # 0.5 s, only for gRPC

    server = asked.server
    return [message(_model(server), server.version, _tensors(asked))]


def _http_bodies(asked: Asked) -> Sequence[tuple[bytes, dict[str, str]]]:
    if asked.bodies:
        return [(file.read_bytes(), {}) for file in asked.bodies]
    tensors = _tensors(asked)
    if not asked.binary:
        return [(payload.json_body(tensors), {})]
    body, json_bytes = payload.binary_body(tensors)
    headers = {
        payload.HEADER_LENGTH: str(json_bytes),
        "content-type": "application/octet-stream",
    }
    return [(body, headers)]


def _tensors(asked: Asked) -> list[Tensor]:
    """Make up the model's inputs; the server is asked for them unless --shape has all types."""
    shapes = [payload.shape_of(argument) for argument in asked.shapes]
    uniform = random.Random(asked.seed).random  # noqa: S311  # made up values, not secrets
    if shapes and all(shape.datatype for shape in shapes):
        declared = [Declared(one.name, one.datatype, one.sizes) for one in shapes]
        return payload.made_up(declared, uniform)
    from tidegate_cli import client as triton  # noqa: PLC0415  # 0.6 s, only where it is asked

    _model(asked.server)
    return payload.made_up(payload.sized(triton.inputs(asked.server), shapes), uniform)


def _model(server: Server) -> str:
    if not server.model:
        raise InputError("no MODEL: name one, or give --path and --body")
    return server.model
