"""Which paths and heads the public port takes, and which headers cross it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_api.names import DroppedReason
from tidegate_router.core import headers, path
from tidegate_router.core.path import Parsed, Target
from tidegate_router.core.refusal import Refusal


@pytest.mark.parametrize(
    ("raw", "target", "model", "version", "pool"),
    [
        ("/healthz", Target.HEALTHZ, "", "", ""),
        ("/readyz", Target.READYZ, "", "", ""),
        ("/v2", Target.SERVER, "", "", ""),
        ("/v2/health/live", Target.SERVER_LIVE, "", "", ""),
        ("/v2/health/ready", Target.SERVER_READY, "", "", ""),
        ("/v2/models/m", Target.INQUIRY, "m", "", ""),
        ("/v2/models/m/config", Target.INQUIRY, "m", "", ""),
        ("/v2/models/m/stats", Target.INQUIRY, "m", "", ""),
        ("/v2/models/m/ready", Target.MODEL_READY, "m", "", ""),
        ("/v2/models/m/infer", Target.INFER, "m", "", ""),
        ("/v2/models/m/versions/3/infer", Target.INFER, "m", "3", ""),
        ("/v2/models/m.v-1_x/generate", Target.GENERATE, "m.v-1_x", "", ""),
        ("/v2/models/m/generate_stream", Target.GENERATE_STREAM, "m", "", ""),
        ("/pools/ml/vision/v2/models/m/infer", Target.INFER, "m", "", "ml/vision"),
        ("/pools/ml/vision/v2/health/ready", Target.SERVER_READY, "", "", "ml/vision"),
    ],
)
def test_allowed_paths(raw, target, model, version, pool):
    found = path.parse(raw)
    assert isinstance(found, Parsed)
    assert (found.target, found.model, found.version, found.pool) == (target, model, version, pool)
    assert found.upstream == raw.removeprefix(f"/pools/{pool}")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        ("/v2/repository/index", 403),
        ("/v2/repository/models/m/load", 403),
        ("/v2/systemsharedmemory/region/x/register", 403),
        ("/v2/cudasharedmemory/status", 403),
        ("/v2/trace/setting", 403),
        ("/v2/models/m/trace/setting", 403),
        ("/v2/logging", 403),
        ("/v2/models/a%2fb/infer", 403),
        ("/v2/models/m%00/infer", 403),
        ("/v2/models/..%5cm/infer", 403),
        ("/v2/models/../repository/index", 403),
        ("/v2/models/./m", 403),
        ("/v2//models/m/infer", 403),
        ("//v2/models/m/infer", 403),
        ("/v2/models/m/infer#x", 403),
        ("/v2/models/m\\x/infer", 403),
        ("/v2/models/m /infer", 403),
        ("http://host/v2/models/m/infer", 403),
        ("v2/models/m/infer", 403),
        ("", 403),
        ("*", 403),
        ("/" + "a" * 2000, 403),
        ("/pools/ml/vision/pools/ml/other/v2/models/m/infer", 404),
        ("/pools/ml/v2/models/m/infer", 404),
        ("/pools/ML/vision/v2/models/m/infer", 404),
        ("/v2/models/m/versions/x/infer", 404),
        ("/v2/models/m/explain", 404),
        ("/v2/models/m/infer/", 404),
        ("/v2/models", 404),
        ("/metrics", 404),
        ("/workers", 404),
        ("/v1/state", 404),
        ("/", 404),
    ],
)
def test_refused_paths(raw, status):
    found = path.parse(raw)
    assert isinstance(found, Refusal)
    assert (found.reason, found.http_status) == (DroppedReason.NOT_ALLOWED, status)


@given(st.text(max_size=60))
def test_whatever_is_allowed_reaches_a_worker_as_a_plain_v2_path(text):
    found = path.parse("/v2/models/" + text)
    if isinstance(found, Parsed):
        assert found.upstream.isascii()
        assert not set(found.upstream) & set("%\\#?; \r\n\t")
        assert ".." not in found.upstream.split("/")


@pytest.mark.parametrize("value", ["ns", "ns/", "/p", "a/b/c", "NS/p", "ns/p\r\nx: y", ""])
def test_a_pool_is_namespace_slash_name(value):
    assert isinstance(path.pool_name(value), Refusal)


def test_a_pool_name_is_taken_as_it_is():
    assert path.pool_name("ml/vision") == "ml/vision"


HOST = [("Host", "router")]


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param([("Host", "other")], id="two-hosts"),
        pytest.param([("host", "router")], id="two-hosts-in-another-case"),
        pytest.param([("Upgrade", "h2c")], id="upgrade"),
        pytest.param([("content_length", "5")], id="underscore"),
        pytest.param([("Content-Length", "5"), ("Content-Length", "5")], id="two-lengths"),
        pytest.param([("Content-Length", "5"), ("Transfer-Encoding", "chunked")], id="both"),
        pytest.param([("Transfer-Encoding", "gzip, chunked")], id="te-list"),
        pytest.param([("Transfer-Encoding", "xchunked")], id="te-unknown"),
        pytest.param([("X-Tidegate-Pool", "a/b"), ("x-tidegate-pool", "c/d")], id="two-pools"),
        pytest.param(
            [("Inference-Header-Content-Length", "1"), ("Inference-Header-Content-Length", "2")],
            id="two-inference-lengths",
        ),
    ],
)
def test_heads_that_two_programs_could_read_differently_are_refused(extra):
    refused = headers.check([*HOST, *extra], (1, 1))
    assert refused is not None
    assert refused.http_status == 400


def test_a_missing_host_is_refused_and_http_1_0_needs_none():
    assert headers.check([], (1, 1)) is not None
    assert headers.check([], (1, 0)) is None


def test_chunks_are_for_http_1_1_only():
    chunked = [*HOST, ("Transfer-Encoding", "chunked")]
    assert headers.check(chunked, (1, 1)) is None
    assert headers.check(chunked, (1, 0)) is not None


@pytest.mark.parametrize("version", [(0, 9), (1, 2), (2, 0)])
def test_other_versions_than_1_0_and_1_1_are_refused(version):
    assert headers.check(HOST, version).http_status == 400


def test_an_ordinary_head_passes():
    head = [*HOST, ("Content-Length", "5"), ("Accept", "a"), ("Accept", "b")]
    assert headers.check(head, (1, 1)) is None


@pytest.mark.parametrize(
    "name",
    [
        "Connection", "Keep-Alive", "TE", "Trailer", "Transfer-Encoding", "Upgrade",
        "Proxy-Authorization", "Host", "Content-Length", "Expect", "X-Tidegate-Restricted-Key",
        "X-Tidegate-Drain-Ack", "X-Tidegate-Pool", "triton-grpc-protocol-model-repository",
        "Triton-GRPC-Protocol-Anything",
    ],
)  # fmt: skip
def test_a_worker_never_sees(name):
    assert headers.strip_request([(name, "v")]) == []


def test_what_connection_names_is_dropped_too():
    pairs = [("Connection", "close, X-Secret"), ("x-secret", "1"), ("X-Kept", "2")]
    assert headers.strip_request(pairs) == [("X-Kept", "2")]


@pytest.mark.parametrize(
    "name",
    ["Inference-Header-Content-Length", "Content-Encoding", "Accept-Encoding", "Content-Type"],
)
def test_a_worker_sees_what_describes_the_body(name):
    assert headers.strip_request([(name, "v")]) == [(name, "v")]


@pytest.mark.parametrize("name", ["Content-Length", "Server", "Date", "X-Tidegate-Worker"])
def test_a_client_does_not_see_a_workers(name):
    assert headers.strip_response([(name, "v")]) == []


def test_a_client_sees_what_describes_the_answer():
    pairs = [("Inference-Header-Content-Length", "7"), ("Content-Encoding", "gzip")]
    assert headers.strip_response(pairs) == pairs
