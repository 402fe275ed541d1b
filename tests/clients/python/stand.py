"""Fixtures of every suite of clients: the scripted upstream, a gateway in front of it, a recorder."""

import pytest

from recorder import Recorder
from serving import Gateway
from upstream import Upstream


@pytest.fixture(scope="session")
def upstream_server():
    server = Upstream()
    yield server
    server.stop()


@pytest.fixture
def upstream(upstream_server):
    """The scripted upstream; a test fails when the gateway sent it something that vLLM refuses."""
    upstream_server.clear()
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
