"""Fixtures: the scripted upstream, the gateway's binary, and SDK clients whose traffic is checked.

Every byte that a client of these fixtures receives from `/v1/responses` is validated when the
test ends, so each test guards the wire format without saying so.

environment:
  VLLM_RESPONSES_BIN   the gateway (default: target/debug/vllm-responses)
  REAL_VLLM_URL        with --real-vllm, a running vLLM instead of one started here
"""

import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import httpx2
import pytest
from openai import AsyncOpenAI, OpenAI

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import strict  # noqa: E402
from upstream import Upstream  # noqa: E402

REPO = pathlib.Path(__file__).parents[3]


def pytest_addoption(parser):
    parser.addoption("--real-vllm", action="store_true", help="also run the tests that need a real vLLM")


def pytest_configure(config):
    config.addinivalue_line("markers", "real_vllm: needs a real vLLM (run with --real-vllm)")
    config.addinivalue_line("markers", "spawned_vllm: starts a real vLLM through the gateway (run with --real-vllm)")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--real-vllm"):
        skip = pytest.mark.skip(reason="needs --real-vllm")
        for item in items:
            if {"real_vllm", "spawned_vllm"} & set(item.keywords):
                item.add_marker(skip)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until_ok(url, process, log, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise RuntimeError(f"{process.args[0]} was not ready:\n{log.read_text()[-3000:]}")


class Gateway:
    """One gateway process with a database of its own."""

    def __init__(self, folder, upstream_url, **environment):
        binary = os.environ.get("VLLM_RESPONSES_BIN", REPO / "target/debug/vllm-responses")
        self.port, self.log = free_port(), folder / "gateway.log"
        self.url = f"http://127.0.0.1:{self.port}"
        bundle = os.environ.get("TEST_INTERPRETER_BUNDLE")
        if bundle and "VR_CODE_INTERPRETER_MODE" not in environment:
            environment = {"VR_CODE_INTERPRETER_BUNDLE": bundle} | environment
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("VR_")}
        self.process = subprocess.Popen(
            [str(binary), "serve", "--upstream", upstream_url, "--gateway-host", "127.0.0.1", "--gateway-port", str(self.port)],
            env=inherited | {"VR_DB_PATH": str(folder / "gateway.db")} | environment, cwd=folder,
            stdin=subprocess.DEVNULL, stdout=self.log.open("wb"), stderr=subprocess.STDOUT)
        wait_until_ok(self.url + "/health/ready", self.process, self.log, 60)

    def stop(self):
        self.process.terminate()
        try:
            code = self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert code == 0, f"a clean stop must exit 0, not {code}:\n{self.log.read_text()[-3000:]}"


class Service:
    """The code interpreter as a process of its own."""

    TOKEN = "token-of-the-suite"

    def __init__(self, folder):
        binary = os.environ.get("VLLM_RESPONSES_BIN", REPO / "target/debug/vllm-responses")
        port, self.log = free_port(), folder / "interpreter.log"
        self.url = f"http://127.0.0.1:{port}"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("VR_")} | {
            "VR_CODE_INTERPRETER_BUNDLE": os.environ["TEST_INTERPRETER_BUNDLE"], "VR_CODE_INTERPRETER_TOKEN": self.TOKEN,
            "VR_CODE_INTERPRETER_PORT": str(port)}
        self.process = subprocess.Popen([str(binary), "code-interpreter"], env=environment, cwd=folder,
                                        stdin=subprocess.DEVNULL, stdout=self.log.open("wb"), stderr=subprocess.STDOUT)
        wait_until_ok(self.url + "/health", self.process, self.log, 60)

    def stop(self):
        self.process.terminate()
        assert self.process.wait(40) == 0, self.log.read_text()[-3000:]


class Tee:
    """A response body that keeps a copy of what passed."""

    def __init__(self, inner):
        self.inner, self.raw, self.ended = inner, bytearray(), False

    def __iter__(self):
        for chunk in self.inner:
            self.raw += chunk
            yield chunk
        self.ended = True

    async def __aiter__(self):
        async for chunk in self.inner:
            self.raw += chunk
            yield chunk
        self.ended = True

    def close(self):
        self.inner.close()

    async def aclose(self):
        await self.inner.aclose()


class SyncTee(Tee, httpx2.SyncByteStream):
    pass


class AsyncTee(Tee, httpx2.AsyncByteStream):
    pass


class Recorder:
    """Remembers each exchange of its clients; `check` validates them."""

    def __init__(self):
        self.exchanges = []

    def keep(self, request, response, tee):
        response.stream = tee(response.stream)
        self.exchanges.append((request, response, response.stream))
        return response

    def streams(self):
        """The events of each stream, in the order of the requests."""
        return [strict.check_stream(bytes(tee.raw), tee.ended) for _, response, tee in self.exchanges
                if response.headers.get("content-type", "").startswith("text/event-stream")]

    def last_body(self):
        return json.loads(bytes(self.exchanges[-1][2].raw))

    def check(self):
        for request, response, tee in self.exchanges:
            path, kind = request.url.path, response.headers.get("content-type", "")
            assert response.headers.get("x-request-id"), f"{path}: no x-request-id"
            if not path.startswith("/v1/responses") or (not tee.ended and "json" in kind):
                continue
            if kind.startswith("text/event-stream"):
                assert "content-encoding" not in response.headers
                strict.check_stream(bytes(tee.raw), tee.ended)
            else:
                check_body(path, response.status_code, json.loads(bytes(tee.raw)))


def check_body(path, status, body):
    if status >= 400:
        assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}, body
    elif path.endswith("/input_items"):
        strict.check_items(body)
    elif body.get("object") == "response" and "deleted" not in body:
        strict.check_response(body)


class RecordingTransport(httpx2.HTTPTransport):
    def __init__(self, recorder):
        super().__init__()
        self.recorder = recorder

    def handle_request(self, request):
        return self.recorder.keep(request, super().handle_request(request), SyncTee)


class AsyncRecordingTransport(httpx2.AsyncHTTPTransport):
    def __init__(self, recorder):
        super().__init__()
        self.recorder = recorder

    async def handle_async_request(self, request):
        return self.recorder.keep(request, await super().handle_async_request(request), AsyncTee)


# Compressed bodies would be recorded compressed.
SETTINGS = {"api_key": "any", "max_retries": 0, "timeout": 60, "default_headers": {"accept-encoding": "identity"}}


def sync_client(url, recorder):
    return OpenAI(base_url=url + "/v1", http_client=httpx2.Client(transport=RecordingTransport(recorder)), **SETTINGS)


@pytest.fixture(scope="session")
def upstream_server():
    server = Upstream()
    yield server
    server.stop()


@pytest.fixture
def upstream(upstream_server):
    """The scripted upstream; a test fails when the gateway sent it something that vLLM refuses."""
    upstream_server.requests.clear()
    upstream_server.violations.clear()
    yield upstream_server
    assert not upstream_server.violations, upstream_server.violations


@pytest.fixture(scope="session")
def gateway(upstream_server, tmp_path_factory):
    process = Gateway(tmp_path_factory.mktemp("gateway"), upstream_server.url)
    yield process
    process.stop()


@pytest.fixture
def recorder():
    recorder = Recorder()
    yield recorder
    recorder.check()


@pytest.fixture
def client(gateway, upstream, recorder):
    with sync_client(gateway.url, recorder) as client:
        yield client


@pytest.fixture(scope="session")
def external_gateway(upstream_server, tmp_path_factory):
    """A gateway whose code interpreter is a service."""
    service = Service(tmp_path_factory.mktemp("interpreter"))
    process = Gateway(tmp_path_factory.mktemp("external"), upstream_server.url, VR_CODE_INTERPRETER_MODE="external",
                      VR_CODE_INTERPRETER_URL=service.url, VR_CODE_INTERPRETER_TOKEN=Service.TOKEN)
    yield process
    process.stop()
    service.stop()


@pytest.fixture(scope="session")
def science_gateway(upstream_server, tmp_path_factory):
    bundle = os.environ["TEST_INTERPRETER_SCIENCE_BUNDLE"]
    process = Gateway(tmp_path_factory.mktemp("science"), upstream_server.url, VR_CODE_INTERPRETER_BUNDLE=bundle)
    yield process
    process.stop()


@pytest.fixture
def science_client(science_gateway, upstream, recorder):
    with sync_client(science_gateway.url, recorder) as client:
        yield client


@pytest.fixture
def async_client(gateway, upstream, recorder):
    """Used inside the test's own event loop; the test closes it with `async with`."""
    http = httpx2.AsyncClient(transport=AsyncRecordingTransport(recorder))
    return AsyncOpenAI(base_url=gateway.url + "/v1", http_client=http, **SETTINGS)


@pytest.fixture(scope="session")
def real_vllm(tmp_path_factory):
    """The URL of a real vLLM with the small model; started here unless REAL_VLLM_URL names one."""
    if os.environ.get("REAL_VLLM_URL"):
        yield os.environ["REAL_VLLM_URL"]
        return
    port, log = free_port(), tmp_path_factory.mktemp("vllm") / "vllm.log"
    process = subprocess.Popen(
        [REPO / "scripts/real-vllm/setup-and-serve.sh", "serve"], env=os.environ | {"REAL_VLLM_PORT": str(port)},
        stdin=subprocess.DEVNULL, stdout=log.open("wb"), stderr=subprocess.STDOUT)
    try:
        wait_until_ok(f"http://127.0.0.1:{port}/health", process, log, 1200)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="session")
def real_gateway(real_vllm, tmp_path_factory):
    process = Gateway(tmp_path_factory.mktemp("real"), real_vllm)
    yield process
    process.stop()


@pytest.fixture
def real_client(real_gateway, recorder):
    with sync_client(real_gateway.url, recorder) as client:
        yield client.with_options(timeout=300)


def metric(url, name):
    """Sum of one of vLLM's own metrics."""
    with urllib.request.urlopen(url + "/metrics") as answer:
        lines = re.findall(rf"^{re.escape(name)}(?:\{{.*\}})? (\S+)$", answer.read().decode(), re.M)
    return sum(map(float, lines))
