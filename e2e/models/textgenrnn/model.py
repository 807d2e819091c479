"""Triton model: a text in, the characters that go on from it out, one response each (decoupled).

Input text_input (BYTES [1]); optional max_tokens, temperature, top_p, seed. Outputs text_output
(BYTES [1]), finish_reason (BYTES [1]), num_input_tokens and num_output_tokens (UINT32 [1]), named
as in NVIDIA's vLLM backend. A token is a character. With `stream` false there is one response.
"""

import json
import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))

from network import Network, Piece, Sampling  # noqa: E402  # it lies beside this file


class TritonPythonModel:
    """One instance: one text at a time, so that instances scale by count."""

    def initialize(self, _arguments: dict) -> None:
        """Load the weights."""
        vocabulary = json.loads((FOLDER / "vocabulary.json").read_text("utf-8"))
        with np.load(FOLDER / "weights.npz") as weights:
            self.network = Network(dict(weights), vocabulary)

    def execute(self, requests: list) -> None:
        """Answer each request with a response per character."""
        for request in requests:
            sender = request.get_response_sender()
            try:
                self._answer(request, sender)
            except ValueError as error:
                sender.send(
                    pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))),
                    flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL,
                )

    def _answer(self, request: object, sender: object) -> None:
        prompt, sampling = _text(request), _sampling(request)
        asked = len(self.network.encode(prompt)) - 1
        pieces = self.network.generate(prompt, sampling)
        if not _scalar(request, "stream", default=True):
            made = list(pieces)
            whole = Piece("".join(one.text for one in made), made[-1].finish)
            sender.send(_response(whole, asked, sum(bool(one.text) for one in made)))
        else:
            for piece in pieces:
                if sender.is_cancelled():
                    break
                sender.send(_response(piece, asked, int(bool(piece.text))))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


def _response(piece: Piece, asked: int, given: int) -> object:
    tensors = {
        "text_output": np.array([piece.text.encode()], dtype=np.object_),
        "finish_reason": np.array([piece.finish.encode()], dtype=np.object_),
        "num_input_tokens": np.array([asked], dtype=np.uint32),
        "num_output_tokens": np.array([given], dtype=np.uint32),
    }
    return pb_utils.InferenceResponse([pb_utils.Tensor(*item) for item in tensors.items()])


def _text(request: object) -> str:
    tensor = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()
    return bytes(tensor.reshape(-1)[0]).decode("utf-8", "replace")


def _sampling(request: object) -> Sampling:
    usual = Sampling()
    seed = _scalar(request, "seed", default=None)
    found = Sampling(
        max_tokens=int(_scalar(request, "max_tokens", default=usual.max_tokens)),
        temperature=float(_scalar(request, "temperature", default=usual.temperature)),
        top_p=float(_scalar(request, "top_p", default=usual.top_p)),
        seed=None if seed is None else int(seed) & 0xFFFFFFFF,
    )
    if found.max_tokens < 1 or found.temperature < 0 or not 0 <= found.top_p <= 1:
        raise ValueError("max_tokens >= 1, temperature >= 0 and top_p 0..1 are expected")
    return found


def _scalar(request: object, name: str, default: object) -> object:
    tensor = pb_utils.get_input_tensor_by_name(request, name)
    return default if tensor is None else tensor.as_numpy().reshape(-1)[0]
