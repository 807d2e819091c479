"""The least a Python proxy on grpc.aio can do: bytes in, bytes out, on uvloop.

grpc_aio_proxy.py PORT BACKEND
"""

import sys

import grpc
import grpc.aio
import uvloop

_METHOD = "/inference.GRPCInferenceService/ModelInfer"


async def main(port: str, backend: str) -> None:
    """Serve until killed."""
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{backend}")
    ask = channel.unary_unary(_METHOD)

    class Handler(grpc.GenericRpcHandler):
        def service(self, _details):
            return grpc.unary_unary_rpc_method_handler(self._pass)

        @staticmethod
        async def _pass(message, _context):
            return await ask(message)

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handler(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


uvloop.run(main(*sys.argv[1:3]))
