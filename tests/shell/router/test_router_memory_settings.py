"""How much memory waiting requests and kept answers may take."""

import pytest

from tidegate_router import settings

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("environment", "queue_mib", "cache_mib"),
    [
        pytest.param({}, 256, 64, id="nothing-said"),
        pytest.param({"MEMORY_LIMIT_BYTES": str(2048 * MIB)}, 512, 64, id="a-quarter-of-the-limit"),
        pytest.param(
            {"MEMORY_LIMIT_BYTES": str(2048 * MIB), "QUEUE_MAX_BYTES": str(7 * MIB)}, 7, 64,
            id="as-said",
        ),
        pytest.param({"CACHE_MAX_BYTES": "0"}, 256, 0, id="no-cache"),
    ],
)  # fmt: skip
def test_bounds_of_memory(environment, queue_mib, cache_mib):
    given = {f"TIDEGATE_{key}": value for key, value in environment.items()}
    read = settings.read([], given)
    assert read.queue_max_bytes == queue_mib * MIB
    assert read.cache_max_bytes == cache_mib * MIB
