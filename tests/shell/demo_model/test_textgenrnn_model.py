"""The text model of the examples: its layers against ONNX Runtime's, its code without Triton."""

import importlib.util
import json
import random
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from tidegate_e2e import textgenrnn
from tidegate_e2e.images import files_below

pytestmark = pytest.mark.timeout(120)  # the first use gets the package


def load(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look for their module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder():
    return textgenrnn.context() / "textgenrnn" / "1"


@pytest.fixture(scope="module")
def code(folder):
    return load(folder / "network.py", "network")


@pytest.fixture(scope="module")
def network(folder, code):
    vocabulary = json.loads((folder / "vocabulary.json").read_text("utf-8"))
    with np.load(folder / "weights.npz") as weights:
        return code.Network(dict(weights), vocabulary)


def onnx_lstm(inputs, kernel, recurrent, bias):
    """Return what ONNX's LSTM makes of them; its gates are input, output, forget, cell."""
    units = recurrent.shape[0]

    def gates(matrix):
        given, forget, cell, output = np.split(matrix, 4, axis=-1)
        return np.concatenate([given, output, forget, cell], axis=-1)

    weights = {
        "W": gates(kernel).T[None],
        "R": gates(recurrent).T[None],
        "B": np.concatenate([gates(bias), np.zeros(4 * units, np.float32)])[None],
    }
    graph = helper.make_graph(
        [helper.make_node("LSTM", ["X", "W", "R", "B"], ["Y"], hidden_size=units)],
        "lstm",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 1, inputs.shape[1]])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value.copy(), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(["Y"], {"X": inputs[:, None, :]})[0][:, 0, 0, :]


def test_both_layers_give_what_onnx_runtime_gives(network, code):
    inputs = network.embedding[network.encode("What a wonderful world")]
    for layer in network.layers:
        ours = code.lstm(inputs, *layer)
        np.testing.assert_allclose(ours, onnx_lstm(inputs, *layer), atol=1e-5)
        inputs = ours


def surprise(network, text):
    """Return the mean surprise per character, in bits."""
    codes = network.encode(text)
    bits = [
        -np.log2(network.probabilities(codes[:at])[codes[at]] + 1e-9) for at in range(8, len(codes))
    ]
    return float(np.mean(bits))


def test_the_weights_were_read_as_they_were_trained(network):
    text = "The best way to learn a new language is to talk with people"
    shuffled = "".join(random.Random(1).sample(text, len(text)))
    assert surprise(network, text) < 3.0
    assert surprise(network, shuffled) > 5.0


def made(network, code, prompt="Once upon a time", **sampling):
    return list(network.generate(prompt, code.Sampling(**sampling)))


def test_a_seed_repeats_a_text_and_another_one_does_not(network, code):
    first, again, other = (
        made(network, code, max_tokens=30, temperature=1.0, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_text_ends_by_length_or_by_itself(network, code):
    pieces = made(network, code, max_tokens=3, temperature=0)
    assert len(pieces) == 3
    assert [one.finish for one in pieces] == ["", "", "length"]
    ended = made(network, code, "The best way to ", max_tokens=200, temperature=0.5, seed=1)
    assert (ended[-1].text, ended[-1].finish) == ("", "stop")


@pytest.mark.parametrize("prompt", ["", "\U0001f9ea\ud800", "x" * 500])
def test_any_prompt_is_gone_on_from(network, code, prompt):
    assert made(network, code, prompt, max_tokens=2, seed=1)


@pytest.mark.parametrize(
    ("sampling", "uniform", "drawn"),
    [
        pytest.param({"temperature": 0}, 0.99, 2, id="no-heat-takes-the-best"),
        pytest.param({"temperature": 1.0}, 0.0, 2, id="the-lowest-number-takes-the-best"),
        pytest.param({"temperature": 1.0}, 0.999, 3, id="the-highest-number-takes-the-last"),
        pytest.param({"temperature": 1.0, "top_p": 0.1}, 0.999, 2, id="a-small-top-p-keeps-one"),
        pytest.param({"temperature": 1.0, "top_p": 0.0}, 0.5, 2, id="no-top-p-keeps-one"),
    ],
)
def test_a_character_is_drawn_and_never_the_placeholder(code, sampling, uniform, drawn):
    chances = np.array([0.5, 0.1, 0.3, 0.1], dtype=np.float32)
    assert code.draw(chances, code.Sampling(**sampling), uniform) == drawn


class Sender:
    """Takes what a decoupled model sends; the client leaves after `patience` responses."""

    def __init__(self, patience=10**6):
        self.sent, self.final, self.patience = [], False, patience

    def send(self, response=None, flags=0):
        assert not self.final
        if response is not None:
            self.sent.append(response)
        self.final = flags == 1

    def is_cancelled(self):
        return len(self.sent) >= self.patience


@pytest.fixture(scope="module")
def model(folder):
    """Return the model with a stand-in for the module that Triton's stub brings along."""
    utilities = ModuleType("triton_python_backend_utils")
    utilities.TRITONSERVER_RESPONSE_COMPLETE_FINAL = 1
    utilities.Tensor = lambda name, value: (name, value)
    utilities.TritonError = str
    utilities.InferenceResponse = lambda tensors=(), error=None: SimpleNamespace(
        outputs=dict(tensors), error=error
    )
    utilities.get_input_tensor_by_name = lambda request, name: request.inputs.get(name)
    sys.modules[utilities.__name__] = utilities
    model = load(folder / "model.py", "textgenrnn_model").TritonPythonModel()
    model.initialize({})
    yield model
    del sys.modules[utilities.__name__]


def run(model, sender=None, **inputs):
    sender = sender or Sender()
    tensors = {
        name: SimpleNamespace(as_numpy=lambda value=value: np.array([value], dtype=np.object_))
        for name, value in inputs.items()
    }
    model.execute([SimpleNamespace(inputs=tensors, get_response_sender=lambda: sender)])
    return sender


def texts(sender):
    return [one.outputs["text_output"][0].decode() for one in sender.sent]


def test_a_request_gets_a_response_per_character_and_an_end(model):
    sender = run(model, text_input=b"Once", max_tokens=5, seed=1)
    assert sender.final
    assert [len(text) for text in texts(sender)] == [1] * 5
    last = sender.sent[-1].outputs
    assert last["finish_reason"][0] == b"length"
    assert (last["num_input_tokens"][0], last["num_output_tokens"][0]) == (4, 1)


def test_a_request_that_wants_no_stream_gets_one_response(model):
    sender = run(model, text_input=b"Once", max_tokens=5, seed=1, stream=False)
    [text] = texts(sender)
    assert text == "".join(texts(run(model, text_input=b"Once", max_tokens=5, seed=1)))
    assert sender.sent[0].outputs["num_output_tokens"][0] == 5


def test_a_client_that_left_is_not_written_for(model):
    sender = run(model, Sender(patience=2), text_input=b"Once", max_tokens=50, temperature=0)
    assert len(sender.sent) == 2
    assert sender.final


@pytest.mark.parametrize("inputs", [{"max_tokens": 0}, {"temperature": -1}, {"top_p": 2}])
def test_a_senseless_number_is_an_error(model, inputs):
    sender = run(model, text_input=b"Once", **inputs)
    assert sender.sent[0].error
    assert sender.final


def test_the_image_context_holds_our_code_and_the_packages_weights(folder):
    root = folder.parents[1]
    packed = {str(path.relative_to(root)) for path in files_below(root)}
    assert packed == {
        "Dockerfile",
        "textgenrnn/1/model.py",
        "textgenrnn/1/network.py",
        "textgenrnn/1/vocabulary.json",
        "textgenrnn/1/weights.npz",
    }
