"""Triton model: file content in, file type out. ONNX Runtime inside the Python backend.

Input CONTENT (BYTES [1]); outputs LABEL (BYTES [1]) and SCORE (FP32 [1]). All requests of a
dynamic batch run through the network together.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))

from features import Rules  # noqa: E402  # it lies beside this file, wherever Triton puts that


class TritonPythonModel:
    """One instance: one session on one thread, so that instances scale by count."""

    def initialize(self, _arguments: dict) -> None:
        """Load the network and its tables."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(FOLDER / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        config = json.loads((FOLDER / "config.min.json").read_text())
        content_types = json.loads((FOLDER / "content_types_kb.min.json").read_text())
        self.rules = Rules(config, content_types)

    def execute(self, requests: list) -> list:
        """Answer a batch: every row of every request, one run of the network."""
        contents = [_contents(request) for request in requests]
        answers = self._classify([content for rows in contents for content in rows])
        responses = []
        for rows in contents:
            mine, answers = answers[: len(rows)], answers[len(rows) :]
            label = np.array([[answer.label.encode()] for answer in mine], dtype=np.object_)
            score = np.array([[answer.score] for answer in mine], dtype=np.float32)
            tensors = [pb_utils.Tensor("LABEL", label), pb_utils.Tensor("SCORE", score)]
            responses.append(pb_utils.InferenceResponse(tensors))
        return responses

    def _classify(self, contents: list[bytes]) -> list:
        features = [self.rules.features(content) for content in contents]
        asked = [row for row in features if row is not None]
        rows = iter(self._run(asked))
        return [
            self.rules.without_network(content) if row is None else self.rules.judge(next(rows))
            for content, row in zip(contents, features, strict=True)
        ]

    def _run(self, rows: list[list[int]]) -> list[list[float]]:
        if not rows:
            return []
        tokens = np.array(rows, dtype=np.int32)
        return self.session.run(["target_label"], {"bytes": tokens})[0].tolist()


def _contents(request: object) -> list[bytes]:
    tensor = pb_utils.get_input_tensor_by_name(request, "CONTENT").as_numpy()
    return [bytes(value) for value in tensor.reshape(-1)]
