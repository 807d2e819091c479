"""A worker that takes a request, says so on standard output, and never answers: to be killed."""

import asyncio
import sys

import grpc
import grpc.aio


class Silent(grpc.GenericRpcHandler):
    """Answers nothing; a stream's first message is sent back."""

    def service(self, details):
        if details.method.endswith("ModelStreamInfer"):
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    async def _unary(self, _message, _context):
        say("got")
        await asyncio.Event().wait()

    async def _stream(self, messages, _context):
        async for message in messages:
            say("got")
            yield message


def say(word):
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def main():
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Silent(),))
    say(server.add_insecure_port("127.0.0.1:0"))
    await server.start()
    await server.wait_for_termination()


asyncio.run(main())
