"""One gateway process for tests.

environment:
  VLLM_RESPONSES_BIN        the gateway (default: target/debug/vllm-responses)
  TEST_INTERPRETER_BUNDLE   an installed code interpreter; without it the gateway has none
"""

import os
import pathlib
import socket
import subprocess
import time
import urllib.error
import urllib.request

REPO = pathlib.Path(__file__).parents[3]


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
