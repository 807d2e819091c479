"""The demo's classifier with a labelled fault, for canaries that must be rolled back.

fault.json beside this file: {"label": what it is, "delayFactor": how many times as long an answer
takes, "failEvery": every n-th call is refused, 0 for none}. The label stands in the log and in
every refusal, so that nobody takes the fault for a real one.
"""

import json
import sys
import time
from pathlib import Path

import triton_python_backend_utils as pb_utils

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER))

import classifier  # noqa: E402  # it lies beside this file, wherever Triton puts that


class TritonPythonModel(classifier.TritonPythonModel):
    """The classifier, slower or failing on purpose."""

    def initialize(self, arguments: dict) -> None:
        """Load the classifier and the fault."""
        super().initialize(arguments)
        fault = json.loads((FOLDER / "fault.json").read_text())
        self.label: str = fault["label"]
        self.delay_factor: float = fault["delayFactor"]
        self.fail_every: int = fault["failEvery"]
        self.calls = 0
        pb_utils.Logger.log_warn(f"labelled fault: {self.label}")

    def execute(self, requests: list) -> list:
        """Answer as the classifier does, then take longer, then refuse every n-th call."""
        began_s = time.perf_counter()
        responses = super().execute(requests)
        time.sleep((self.delay_factor - 1) * (time.perf_counter() - began_s))
        return [self._spoilt(response) for response in responses]

    def _spoilt(self, response: object) -> object:
        self.calls += 1
        if not self.fail_every or self.calls % self.fail_every:
            return response
        return pb_utils.InferenceResponse(
            error=pb_utils.TritonError(f"labelled fault: {self.label}")
        )
