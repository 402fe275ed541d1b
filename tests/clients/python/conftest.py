"""Fixtures: the scripted upstream, the gateway's binary, and SDK clients whose traffic is checked.

Every byte that a client of these fixtures receives from `/v1/responses` is validated when the
test ends, so each test guards the wire format without saying so.

environment:
  REAL_VLLM_URL   with --real-vllm, a running vLLM instead of one started here
  and what serving.py names
"""

import os
import pathlib
import re
import subprocess
import sys
import urllib.request

import httpx2
import pytest
from openai import AsyncOpenAI

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from recorder import SETTINGS, AsyncRecordingTransport, sync_client  # noqa: E402
from serving import REPO, Gateway, Service, free_port, wait_until_ok  # noqa: E402

pytest_plugins = ["stand", "proven"]


def pytest_addoption(parser):
    parser.addoption("--real-vllm", action="store_true", help="also run the tests that need a real vLLM")


def pytest_configure(config):
    from proven import Client  # a plugin: not to be imported before pytest does

    config.client = Client("openai-python", python="openai")
    config.addinivalue_line("markers", "real_vllm: needs a real vLLM (run with --real-vllm)")
    config.addinivalue_line("markers", "spawned_vllm: starts a real vLLM through the gateway (run with --real-vllm)")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--real-vllm"):
        skip = pytest.mark.skip(reason="needs --real-vllm")
        for item in items:
            if {"real_vllm", "spawned_vllm"} & set(item.keywords):
                item.add_marker(skip)


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
