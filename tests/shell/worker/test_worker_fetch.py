"""Downloads against real servers: TLS that breaks off, an S3 by moto, a small gs."""

import asyncio
import datetime as dt
import ipaddress
import ssl
from dataclasses import dataclass, field
from urllib.parse import unquote

import boto3
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from moto.server import ThreadedMotoServer

from tidegate_api.names import Reason
from tidegate_api.state import Phase
from tidegate_worker.adapters.fetch import Progress, fetch
from tidegate_worker.core.errors import ModelError

KEYS = {"access_key_id": "AKIAEXAMPLE", "secret_access_key": "hidden-value", "region": "us-east-1"}


def certificate(folder):
    """A certificate for 127.0.0.1 that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return file


@dataclass
class Web:
    """An HTTPS server of one file that breaks off the first `broken` downloads."""

    content: bytes
    broken: int = 0
    hangs: bool = False
    status: int = 200
    asked: list[dict] = field(default_factory=list)
    url: str = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(dict(request.headers))
        if self.status != 200:
            return web.Response(status=self.status)
        response = web.StreamResponse(headers={"Content-Length": str(len(self.content))})
        await response.prepare(request)
        await response.write(self.content[: len(self.content) // 2])
        if self.hangs:
            await asyncio.sleep(3600)
        if len(self.asked) <= self.broken:
            request.transport.abort()
            return response
        await response.write(self.content[len(self.content) // 2 :])
        return response


@pytest.fixture
async def https(tmp_path, monkeypatch):
    file = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    runners = []

    async def serve(server: Web) -> Web:
        app = web.Application()
        app.router.add_get("/model.py", server.answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        runners.append(runner)
        server.url = f"https://127.0.0.1:{runner.addresses[0][1]}/model.py"
        return server

    yield serve
    for runner in runners:
        await runner.cleanup()


def get(uri, secret, target):
    return fetch(uri, secret, target, Progress(uri, "m"))


async def test_a_broken_download_leaves_nothing_and_the_next_try_is_whole(https, tmp_path):
    server = await https(Web(b"x" * 300_000, broken=1))
    target = tmp_path / "target"
    with pytest.raises(ModelError) as broken:
        await get(server.url, {}, target)
    assert broken.value.reason is Reason.MODEL_FETCH_FAILED
    assert not target.exists()
    found = await get(server.url, {}, target)
    assert found == target / "model.py"
    assert found.read_bytes() == server.content
    assert not list(tmp_path.glob("*.partial"))


async def test_the_authorization_file_becomes_the_header_and_is_never_shown(https, tmp_path):
    server = await https(Web(b"x", status=403))
    with pytest.raises(ModelError, match="403") as refused:
        await get(f"{server.url}?sig=hidden-query", {"authorization": "Bearer hidden-token\n"},
                  tmp_path / "target")  # fmt: skip
    assert server.asked[0]["Authorization"] == "Bearer hidden-token"
    assert "hidden" not in str(refused.value)
    assert server.url in str(refused.value)


async def test_a_server_without_the_file_is_a_fetch_error(https, tmp_path):
    server = await https(Web(b"", status=404))
    with pytest.raises(ModelError) as refused:
        await get(server.url, {}, tmp_path / "target")
    assert refused.value.reason is Reason.MODEL_FETCH_FAILED


async def test_an_unknown_authority_is_refused(https, tmp_path, monkeypatch):
    server = await https(Web(b"x"))
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(ModelError, match="certificate"):
        await get(server.url, {}, tmp_path / "target")


async def test_a_worker_fetches_again_until_the_model_is_whole_and_right(start, conftest, https):
    server = await https(Web(conftest.MODEL.encode(), broken=2))
    agent = start(conftest.entry("echo", server.url))  # it inherits SSL_CERT_FILE
    broken = await agent.until(lambda s: s.reason == "ModelFetchFailed")
    assert broken.phase is Phase.NOT_READY
    assert server.url in broken.message
    state = await agent.until(lambda s: s.ready)
    assert state.reason == ""
    assert len(server.asked) == 3
    assert (await agent.ask("echo", 0.0))[0] == 200


async def test_a_worker_that_fetches_is_alive_and_can_be_ended(start, conftest, https):
    server = await https(Web(b"x" * 100, hangs=True))
    agent = start(conftest.entry("echo", server.url))
    state = await agent.until(lambda s: s.phase is Phase.FETCHING and bool(server.asked))
    assert "fetching" in state.models[0].message
    assert (await agent.get("/healthz"))[0] == 200
    assert (await agent.get("/readyz"))[0] == 503
    agent.process.terminate()
    assert await agent.ended(5) == 0


async def test_a_wrong_download_is_fetched_anew(start, conftest, https):
    server = await https(Web(conftest.MODEL.encode()))
    agent = start(conftest.entry("echo", server.url, sha256="0" * 64))
    await agent.until(lambda s: s.reason == "ModelDigestMismatch" and len(server.asked) >= 2)


@pytest.fixture(scope="module")
def s3():
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=KEYS["access_key_id"],
        aws_secret_access_key=KEYS["secret_access_key"],
    )
    client.create_bucket(Bucket="models")
    objects = {
        "net/config.pbtxt": b"max_batch_size: 4",
        "net/1/model.onnx": b"onnx" * 1000,
        "net/": b"",
        "netto/1/model.onnx": b"another",
        "single.onnx": b"single",
    }
    for key, body in objects.items():
        client.put_object(Bucket="models", Key=key, Body=body)
    yield endpoint
    client.close()
    server.stop()


async def test_a_folder_of_s3_is_fetched_whole_and_alone(s3, tmp_path):
    found = await get("s3://models/net", {**KEYS, "endpoint_url": s3}, tmp_path / "target")
    names = sorted(f.relative_to(found).as_posix() for f in found.rglob("*") if f.is_file())
    assert names == ["1/model.onnx", "config.pbtxt"]
    assert (found / "1" / "model.onnx").read_bytes() == b"onnx" * 1000


async def test_a_single_object_of_s3_keeps_its_name(s3, tmp_path):
    found = await get("s3://models/single.onnx", {**KEYS, "endpoint_url": s3}, tmp_path / "t")
    assert (found.name, found.read_bytes()) == ("single.onnx", b"single")


@pytest.mark.parametrize("uri", ["s3://models/absent", "s3://absent/net"], ids=["key", "bucket"])
async def test_what_is_not_in_s3_is_a_fetch_error_without_keys(s3, tmp_path, uri):
    with pytest.raises(ModelError) as refused:
        await get(uri, {**KEYS, "endpoint_url": s3}, tmp_path / "target")
    assert refused.value.reason is Reason.MODEL_FETCH_FAILED
    assert "hidden" not in str(refused.value)


async def test_an_s3_that_does_not_answer_is_a_fetch_error(tmp_path, conftest):
    (port,) = conftest.free_ports(1)
    secret = {**KEYS, "endpoint_url": f"http://127.0.0.1:{port}"}
    with pytest.raises(ModelError, match=r"127\.0\.0\.1"):
        await get("s3://models/net", secret, tmp_path / "target")


OBJECTS = {"net/1/model.onnx": b"onnx" * 50, "net/config.pbtxt": b"max_batch_size: 2"}


@pytest.fixture
async def gs():
    """The three calls of Google's JSON API that a download makes."""

    def about(name: str) -> dict:
        return {"name": name, "bucket": "models", "size": str(len(OBJECTS[name]))}

    async def listed(request: web.Request) -> web.Response:
        prefix = request.query.get("prefix", "")
        items = [about(name) for name in OBJECTS if name.startswith(prefix)]
        return web.json_response({"items": items})

    async def one(request: web.Request) -> web.Response:
        name = unquote(request.match_info["name"])
        if name not in OBJECTS:
            return web.json_response({"error": {"code": 404, "message": "none"}}, status=404)
        if request.query.get("alt") == "media":
            return web.Response(body=OBJECTS[name])
        return web.json_response(about(name))

    app = web.Application()
    for prefix in ("/storage/v1", "/download/storage/v1"):
        app.router.add_get(f"{prefix}/b/models/o", listed)
        app.router.add_get(f"{prefix}/b/models/o/{{name:.+}}", one)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_a_folder_of_gs_is_fetched_whole(gs, tmp_path, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gs)
    found = await get("gs://models/net", {"endpoint_url": gs}, tmp_path / "target")
    assert (found / "1" / "model.onnx").read_bytes() == OBJECTS["net/1/model.onnx"]
    assert (found / "config.pbtxt").read_bytes() == OBJECTS["net/config.pbtxt"]
