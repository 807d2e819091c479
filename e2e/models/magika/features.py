"""What magika's network sees of a file, and what its answer means. Pure.

Re-implements feature extraction v2 and the high-confidence mode of the `magika` package, which
the model was trained and is published with; a test compares the two on this repository's files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """A label of magika's content types and its score, 0..1."""

    label: str
    score: float


class Rules:
    """The numbers and tables of the model's config.min.json and content_types_kb.min.json."""

    def __init__(self, config: Mapping, content_types: Mapping) -> None:
        self.beg_size: int = config["beg_size"]
        self.end_size: int = config["end_size"]
        self.block_size: int = config["block_size"]
        self.padding: int = config["padding_token"]
        self.min_size: int = config["min_file_size_for_dl"]
        self.labels: Sequence[str] = config["target_labels_space"]
        self.thresholds: Mapping[str, float] = config["thresholds"]
        self.default_threshold: float = config["medium_confidence_threshold"]
        self.overwrite: Mapping[str, str] = config["overwrite_map"]
        self.text_labels = {name for name, about in content_types.items() if about["is_text"]}

    def features(self, content: bytes) -> list[int] | None:
        """Return beg_size + end_size tokens (0..255, or padding); None: too few bytes to ask."""
        if len(content) < self.min_size:
            return None
        head = content[: self.block_size].lstrip()[: self.beg_size]
        if len(head) < self.min_size:
            return None
        tail = content[-self.block_size :].rstrip()[-self.end_size :]
        padded_head = [*head, *[self.padding] * (self.beg_size - len(head))]
        return [*padded_head, *[self.padding] * (self.end_size - len(tail)), *tail]

    def without_network(self, content: bytes) -> Answer:
        """Return the answer for an empty or almost empty file."""
        if not content:
            return Answer("empty", 1.0)
        try:
            content[: self.block_size].decode("utf-8")
        except UnicodeDecodeError:
            return Answer("unknown", 1.0)
        return Answer("txt", 1.0)

    def judge(self, probabilities: Sequence[float]) -> Answer:
        """Return the most probable label, or the generic one where the network is unsure."""
        best = max(range(len(probabilities)), key=probabilities.__getitem__)
        score, raw = float(probabilities[best]), self.labels[best]
        label = self.overwrite.get(raw, raw)
        if score < self.thresholds.get(raw, self.default_threshold):
            label = "txt" if label in self.text_labels else "unknown"
        return Answer(label, score)
