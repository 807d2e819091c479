"""textgenrnn's character network in NumPy. Pure.

Re-implements the generation of the package `textgenrnn`: embedding, two LSTM layers, attention over
the last 40 characters, a distribution over the next one. A token of this model is one character.
A test compares the layers with ONNX Runtime's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

WINDOW = 40  # characters that the network sees
END = "<s>"  # begins and ends a text
_EPSILON = 1e-7


@dataclass(frozen=True)
class Sampling:
    """How the next character is drawn. A temperature of 0 takes the most probable one."""

    max_tokens: int = 16
    temperature: float = 0.5
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True)
class Piece:
    """One step: a character (empty at the end), and why it is the last ("" if it is not)."""

    text: str
    finish: str = ""


class Network:
    """The weights, ready to run. LSTM gates are in Keras' order: input, forget, cell, output."""

    def __init__(self, weights: Mapping[str, np.ndarray], vocabulary: Mapping[str, int]) -> None:
        self.codes = vocabulary
        self.texts = {code: text for text, code in vocabulary.items()}
        self.embedding = weights["embedding"]
        self.layers = [
            (weights[f"kernel_{n}"], weights[f"recurrent_{n}"], weights[f"bias_{n}"])
            for n in (1, 2)
        ]
        self.attention = weights["attention"]
        self.output = (weights["output_kernel"], weights["output_bias"])

    def encode(self, text: str) -> list[int]:
        """Return the codes of a text's beginning and its known characters."""
        return [self.codes[END], *(self.codes[one] for one in text if one in self.codes)]

    def probabilities(self, codes: list[int]) -> np.ndarray:
        """Return the distribution over the next character, [vocabulary + 1]; 0 stands for none."""
        window = codes[-WINDOW:]
        window = [0] * (WINDOW - len(window)) + window
        embedded = self.embedding[window]
        first = lstm(embedded, *self.layers[0])
        second = lstm(first, *self.layers[1])
        seen = attend(np.concatenate([embedded, first, second], axis=1), self.attention)
        kernel, bias = self.output
        return softmax(seen @ kernel + bias)

    def generate(self, prompt: str, sampling: Sampling) -> Iterator[Piece]:
        """Yield the characters that go on from a prompt."""
        random = np.random.default_rng(sampling.seed)
        codes = self.encode(prompt)
        for number in range(1, sampling.max_tokens + 1):
            code = draw(self.probabilities(codes), sampling, random.random())
            text = self.texts[code]
            if text == END:
                yield Piece("", "stop")
                return
            codes.append(code)
            yield Piece(text, "length" if number == sampling.max_tokens else "")


def lstm(
    inputs: np.ndarray, kernel: np.ndarray, recurrent: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    """Return a layer's outputs, [steps, units], for inputs [steps, features]."""
    units = recurrent.shape[0]
    prepared = inputs @ kernel + bias
    hidden = np.zeros(units, dtype=np.float32)
    cell = np.zeros(units, dtype=np.float32)
    outputs = np.empty((len(inputs), units), dtype=np.float32)
    for step, given in enumerate(prepared):
        gates = given + hidden @ recurrent
        opened = 1.0 / (1.0 + np.exp(-gates))
        fresh = np.tanh(gates[2 * units : 3 * units])
        cell = opened[units : 2 * units] * cell + opened[:units] * fresh
        hidden = opened[3 * units :] * np.tanh(cell)
        outputs[step] = hidden
    return outputs


def attend(steps: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mean of the steps, weighted by a softmax over one score each."""
    scores = (steps @ weights).reshape(-1)
    shares = np.exp(scores - scores.max())
    return (shares / (shares.sum() + _EPSILON)) @ steps


def softmax(values: np.ndarray) -> np.ndarray:
    """Return probabilities."""
    raised = np.exp(values - values.max())
    return raised / raised.sum()


def draw(probabilities: np.ndarray, sampling: Sampling, uniform: float) -> int:
    """Return a code, never 0; `uniform` is a random number in [0, 1)."""
    known = probabilities.astype(np.float64)
    known[0] = 0.0
    if sampling.temperature == 0:
        return int(known.argmax())
    weights = np.exp(np.log(known + _EPSILON) / sampling.temperature)
    weights[0] = 0.0
    order = np.argsort(-weights)
    sums = np.cumsum(weights[order]) / weights.sum()
    kept = int(np.searchsorted(sums, sampling.top_p)) + 1
    place = int(np.searchsorted(sums, uniform * sums[min(kept, len(sums)) - 1], side="right"))
    return int(order[min(place, len(order) - 1)])
