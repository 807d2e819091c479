"""The least that a Python model can do."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Doubles its input."""

    def execute(self, requests):
        """Answer each request."""
        answers = []
        for request in requests:
            values = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            output = pb_utils.Tensor("OUT", values * 2)
            answers.append(pb_utils.InferenceResponse(output_tensors=[output]))
        return answers
