"""The agent's variables: defaults, mistakes, and the page that lists them."""

import re
from pathlib import Path

import pytest

from tidegate_worker.settings import SettingsError, read, read_models, simulated_devices

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "worker.md"


class Recorder(dict):
    """An environment that remembers what it was asked, and for which default."""

    def __init__(self):
        super().__init__()
        self.asked = {}

    def get(self, name, default=None):
        self.asked[name.removeprefix("TIDEGATE_")] = default
        return default


def test_the_page_lists_every_variable_with_its_default():
    environment = Recorder()
    read(environment)
    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`([^`]*)`)? ?\|", PAGE.read_text(), re.MULTILINE)
    assert dict(rows) == environment.asked


def test_what_is_set_goes_before_the_default():
    found = read(
        {
            "TIDEGATE_HTTP_PORT": "18000",
            "TIDEGATE_DRAIN_TIMEOUT": "2.5",
            "TIDEGATE_PRESSURE_HIGH": "0.6",
            "TIDEGATE_SIMULATED_DEVICES": "2:1Gi",
        }
    )
    assert (found.http_port, found.drain_timeout_s) == (18000, 2.5)
    assert found.thresholds.high_ratio == 0.6
    assert (found.simulated_devices, found.simulated_memory_bytes) == (2, 2**30)


DEVICES = [
    ("none", "", (0, 16 * 2**30)),
    ("a number", "3", (3, 16 * 2**30)),
    ("with memory", "1:8Gi", (1, 8 * 2**30)),
]


@pytest.mark.parametrize(("text", "found"), [d[1:] for d in DEVICES], ids=[d[0] for d in DEVICES])
def test_simulated_devices_are_a_number_and_a_memory(text, found):
    assert simulated_devices(text) == found


@pytest.mark.parametrize("text", ["many", "1:lots", "1.5"])
def test_a_number_that_is_none_is_named(text):
    with pytest.raises(SettingsError, match="TIDEGATE_SIMULATED_DEVICES"):
        read({"TIDEGATE_SIMULATED_DEVICES": text})


def test_models_that_do_not_fit_their_schema_are_named_by_field(tmp_path):
    file = tmp_path / "models.json"
    file.write_text('{"schema": "worker-models.v1", "revision": "r", "models": [{"model": {}}]}')
    with pytest.raises(SettingsError, match=r"models\.json: models\.0\.model\.name"):
        read_models(file)
