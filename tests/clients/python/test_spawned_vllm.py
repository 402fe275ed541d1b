"""`serve -- MODEL` with a real vLLM: its engine is killed, and all of it comes back (pytest --real-vllm).

Run by itself (`-m spawned_vllm`), so that no second vLLM competes for the machine.
"""

import json
import os
import pathlib
import signal
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from openai import APIError

from recorder import sync_client
from serving import REPO, free_port

pytestmark = [pytest.mark.spawned_vllm, pytest.mark.timeout(2400)]
MODEL = "smollm2-135m"
HOME = pathlib.Path(os.environ.get("REAL_VLLM_DIR", pathlib.Path.home() / ".cache/vllm-responses/real-vllm"))
ARGUMENTS = ["--served-model-name", MODEL, "--max-model-len", "2048", "--max-num-seqs", "8", "--enforce-eager"]
# As scripts/real-vllm/setup-and-serve.sh: nothing is compiled, fetched or reported.
ENVIRONMENT = {"TORCH_COMPILE_DISABLE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1",
               "VLLM_CPU_KVCACHE_SPACE": "1"}


class Stack:
    """The gateway with a vLLM of its own."""

    def __init__(self, folder):
        binary = os.environ.get("VLLM_RESPONSES_BIN", REPO / "target/debug/vllm-responses")
        self.port, self.log = free_port(), folder / "gateway.log"
        self.url = f"http://127.0.0.1:{self.port}"
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("VR_")}
        self.process = subprocess.Popen(
            [str(binary), "serve", "--gateway-host", "127.0.0.1", "--gateway-port", str(self.port),
             "--", MODEL, "--port", str(free_port()), *ARGUMENTS],
            env=inherited | ENVIRONMENT | {"VR_VLLM_BIN": str(HOME / "venv/bin/vllm"), "VR_DB_PATH": str(folder / "a.db")},
            cwd=HOME / "models", stdin=subprocess.DEVNULL, stdout=self.log.open("wb"), stderr=subprocess.STDOUT)

    def health(self):
        try:
            with urllib.request.urlopen(self.url + "/health/ready", timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)
        except OSError:
            return None, None

    def status(self):
        with urllib.request.urlopen(self.url + "/v1/status", timeout=5) as answer:
            return json.load(answer)

    def wait(self, what, holds, seconds=1100):
        deadline = time.monotonic() + seconds
        while not holds(*self.health()):
            assert self.process.poll() is None and time.monotonic() < deadline, \
                f"{what}:\n{self.log.read_text()[-4000:]}"
            time.sleep(0.2)

    def descendants(self):
        """Process id to title of everything below the gateway."""
        found, queue = {}, [self.process.pid]
        while queue:
            pid = queue.pop()
            for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
                for child in task.read_text().split():
                    queue.append(int(child))
                    found[int(child)] = pathlib.Path(f"/proc/{child}/cmdline").read_bytes().decode(errors="replace")
        return found


@pytest.fixture
def stack(tmp_path):
    stack = Stack(tmp_path)
    yield stack
    stack.process.kill()
    stack.process.wait()


def gone(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] == "Z"
    except OSError:
        return True


def test_a_killed_engine_comes_back_and_nothing_is_left(stack, recorder):
    stack.wait("vLLM becomes ready", lambda status, _: status == 200)
    client = sync_client(stack.url, recorder).with_options(timeout=300)
    first = client.responses.create(model=MODEL, input="Say hello.", max_output_tokens=8)
    assert first.output_text
    before = stack.descendants()
    (engine,) = [pid for pid, title in before.items() if title.startswith("VLLM::EngineCore")]

    # The SDK makes an exception of the stream's `error` event; the failed response is kept.
    with pytest.raises(APIError), client.responses.create(
            model=MODEL, input="Count to one thousand.", stream=True, max_output_tokens=1500) as stream:
        for event in stream:
            if event.type == "response.created":
                broken = event.response.id
            elif event.type == "response.output_text.delta" and not gone(engine):
                os.kill(engine, signal.SIGKILL)
    assert client.responses.retrieve(broken).status == "failed"

    stack.wait("vLLM comes back", lambda status, seen: status == 200 and seen["vllm"]["restarts"] >= 1)
    (vllm,) = stack.status()["children"]
    assert vllm["phase"] == "ready" and vllm["last_error"], vllm
    after = stack.descendants()
    assert all(gone(pid) for pid, title in before.items() if title.startswith("VLLM::")), "the old engine lives on"
    again = client.responses.create(model=MODEL, input="Go on.", previous_response_id=first.id, max_output_tokens=8)
    assert again.status in ("completed", "incomplete") and again.output_text

    stack.process.terminate()
    assert stack.process.wait(60) == 0
    assert all(gone(pid) for pid in before | after)
