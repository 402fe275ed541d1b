"""The Codex command line through the gateway: it runs commands and applies patches for real, in a scratch folder.

environment:
  CODEX_BIN   the `codex` program of the npm package @openai/codex; without it these tests are skipped
"""

import json
import os
import subprocess

import pytest

CODEX = os.environ.get("CODEX_BIN")
pytestmark = [pytest.mark.skipif(not CODEX, reason="needs CODEX_BIN"), pytest.mark.timeout(180)]
CONFIG = """
model = "{model}"
model_provider = "gateway"
[model_providers.gateway]
name = "gateway"
base_url = "{url}/v1"
env_key = "GATEWAY_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""


@pytest.fixture
def codex(gateway, upstream, tmp_path):
    def run(model):
        home, work = tmp_path / "home", tmp_path / "work"
        home.mkdir()
        work.mkdir()
        (home / "config.toml").write_text(CONFIG.format(model=model, url=gateway.url))
        arguments = ["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", "Make the file."]
        done = subprocess.run([CODEX, *arguments], cwd=work, stdin=subprocess.DEVNULL, capture_output=True, timeout=150,
                              text=True, env=os.environ | {"CODEX_HOME": str(home), "GATEWAY_KEY": "any"})
        assert done.returncode == 0, done.stdout + done.stderr
        return done, work
    return run


@pytest.mark.parametrize("model, made", [
    ("codex", "by the shell"), ("gpt-5.5", "by a patch"), ("gpt-5.6-sol", "by a script")])
def test_it_does_what_the_model_asks(codex, upstream, model, made):
    done, work = codex(model)
    assert (work / "made.txt").read_text() == made + "\n"
    assert made in done.stdout and "Done: " in done.stdout
    body = upstream.last_body()
    answered = [m for m in body["messages"] if m["role"] == "tool"]
    steps = 3 if model == "gpt-5.5" else 2
    assert len(answered) == steps
    # Thinking comes back sealed, and the model sees it again.
    thoughts = [m["reasoning"] for m in body["messages"] if m.get("reasoning")]
    assert thoughts == [f"I think about step {n}." for n in range(steps)]


def test_found_tools_can_be_called(codex, upstream):
    codex("gpt-5.5")
    shown = [{t["function"]["name"] for t in seen.body["tools"]} for seen in upstream.requests]
    late = shown[-1] - shown[0]
    assert late and all(name.startswith("multi_agent_v1__") for name in late), "the search loaded a namespace"
    calls = [c for m in upstream.last_body()["messages"] for c in m.get("tool_calls") or []]
    assert json.loads(calls[0]["function"]["arguments"])["input"].startswith("*** Begin Patch")
