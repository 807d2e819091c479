"""A model that takes 5 ms without using a core: what a GPU looks like to the CPU."""

import time

import triton_python_backend_utils as pb_utils

_TAKES_S = 0.005


class TritonPythonModel:
    """Doubles its input."""

    def execute(self, requests):
        """Answer each request."""
        answers = []
        for request in requests:
            values = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            time.sleep(_TAKES_S)
            output = pb_utils.Tensor("OUT", values * 2)
            answers.append(pb_utils.InferenceResponse(output_tensors=[output]))
        return answers
