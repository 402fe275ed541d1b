"""The files of `deploy/`, as far as they can be checked without a container engine.

Each one's own arguments and environment start the real program; the places they name are moved into
a folder of the test, and the model server is the scripted one.

environment:
  VLLM_RESPONSES_BIN                   the gateway (default: target/debug/vllm-responses)
  TEST_DATABASE_URL, TEST_REDIS_URL    a PostgreSQL and a Redis for the compose file

Mutations that fail this group: a grace longer than the time to stop; a misspelt variable; a probe at
another path; an image without a version; `USER root`.
"""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request

import pytest

import files
from files import DEPLOY, REPO

sys.path.insert(0, str(REPO / "tests/clients/python"))
from upstream import Upstream  # noqa: E402

BINARY = pathlib.Path(os.environ.get("VLLM_RESPONSES_BIN", REPO / "target/debug/vllm-responses"))
# After the grace: last events, connections, and a child with its own grace of 8 s.
AFTER_GRACE = 20


@pytest.fixture(scope="module")
def upstream():
    server = Upstream()
    yield server
    server.stop()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def moved(start, folder, upstream):
    """The start with its places moved into `folder` and its servers replaced; arguments, environment, port."""
    data, etc = folder / "data", folder / "etc"
    data.mkdir()
    etc.mkdir()
    made = subprocess.run([BINARY, "keys", "new", "test"], capture_output=True, text=True, check=True).stdout
    (etc / "keys").write_text(made.splitlines()[-1] + "\n")
    (etc / "config.toml").write_text(f'[upstream]\nurl = "{upstream.url}"\n')
    places = [("/etc/vllm-responses", etc), ("/var/lib/vllm-responses", data), ("/data", data)]

    def place(text):
        for old, new in places:
            text = re.sub(rf"^{old}(?=/|$)", str(new), text)
        return text

    environment = {name: place(value) for name, value in start.environment.items()}
    if "VR_LLM_API_BASE" in environment or "--config" not in start.arguments:
        environment["VR_LLM_API_BASE"] = upstream.url
    port = free_port()
    environment |= {"VR_PORT": str(port), "VR_HOST": "127.0.0.1", "PATH": os.environ["PATH"]}
    return [place(word) for word in start.arguments], environment, port


def status_of(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def accepted(arguments, environment, folder):
    """The configuration is valid and nothing in it is ignored."""
    checked = subprocess.run([BINARY, "check-config", *arguments[1:]], env=environment, cwd=folder,
                             capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    assert "warning" not in checked.stderr, checked.stderr
    return checked.stdout


def serve(command, environment, folder, port, limit):
    """The probes answer, SIGTERM ends it cleanly in time. Gives the user it ran as, and its output."""
    log, url = folder / "log", f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command, env=environment, cwd=folder / "data", stdin=subprocess.DEVNULL,
                               stdout=log.open("wb"), stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 60
        while status_of(url + "/health/ready") != 200:
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        assert status_of(url + "/health") == 200
        check = subprocess.run(health_check(), env=environment, capture_output=True, text=True)
        assert (check.returncode, check.stdout) == (0, "ready\n"), check.stderr
        user = os.stat(f"/proc/{process.pid}").st_uid
        process.terminate()
        code = process.wait(limit)
    finally:
        process.kill()
        process.wait()
    assert code == 0, log.read_text()
    return user, log.read_text()


def health_check():
    rest = dict(files.dockerfile())["HEALTHCHECK"]
    command = json.loads(rest[rest.index("CMD") + 3:])
    assert command[0] == "/usr/local/bin/vllm-responses"
    return [BINARY, *command[1:]]


def check_and_serve(start, folder, upstream):
    arguments, environment, port = moved(start, folder, upstream)
    assert arguments[0] == "serve"
    accepted(arguments, environment, folder / "data")
    return serve([BINARY, *arguments], environment, folder, port, start.stop_seconds)[1]


def test_the_image_starts(tmp_path, upstream):
    check_and_serve(files.image(), tmp_path, upstream)
    database = tmp_path / "data/vllm_responses.db"
    assert database.exists() and database.stat().st_mode & 0o077 == 0


# $1 the data folder, $2 the program: a root that cannot be written, and a user who is nobody.
READ_ONLY = """
mount -t tmpfs -o uid=10001,gid=10001,mode=700 none "$1" && cp "$2" "$1/program" && chmod 755 "$1/program" || exit 77
mount -o remount,bind,ro / || exit 77
cd "$1" && shift 2
exec setpriv --reuid=10001 --regid=10001 --clear-groups --no-new-privs "$PWD/program" "$@"
"""


def test_the_image_starts_on_a_read_only_root_without_being_root(tmp_path, upstream):
    trial = ["unshare", "--mount", "sh", "-c", f"mount -t tmpfs none {tmp_path} && mount -o remount,bind,ro /"]
    if not shutil.which("setpriv") or subprocess.run(trial, capture_output=True).returncode != 0:
        pytest.skip("needs to be allowed to mount, and setpriv")
    start = files.image()
    arguments, environment, port = moved(start, tmp_path, upstream)
    for folder in [tmp_path, *tmp_path.parents[:2]]:
        folder.chmod(folder.stat().st_mode | 0o011)
    inside = ["unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(tmp_path / "data"), str(BINARY)]
    user, _ = serve([*inside, *arguments], environment, tmp_path, port, start.stop_seconds)
    assert user == int(dict(files.dockerfile())["USER"].split(":")[0])


def test_the_unit_starts(tmp_path, upstream):
    check_and_serve(files.systemd(), tmp_path, upstream)
    assert (tmp_path / "data/vllm_responses.db").exists()


def test_the_pod_starts(tmp_path, upstream):
    log = check_and_serve(files.kubernetes(), tmp_path, upstream)
    ready = [line for line in map(json.loads, log.splitlines()) if line["message"] == "ready"]
    assert len(ready) == 1


def test_the_compose_service_starts(tmp_path, upstream):
    variables = {"VR_LLM_API_BASE": upstream.url, "POSTGRES_PASSWORD": "letters"}
    start = files.compose(variables)
    assert not [value for value in start.environment.values() if value.startswith("MISSING")]
    arguments, environment, port = moved(start, tmp_path, upstream)
    accepted(arguments, environment, tmp_path)
    servers = {"VR_DB_PATH": os.environ.get("TEST_DATABASE_URL"), "VR_REDIS_URL": os.environ.get("TEST_REDIS_URL")}
    if not all(servers.values()):
        pytest.skip("needs TEST_DATABASE_URL and TEST_REDIS_URL")
    serve([BINARY, *arguments], environment | servers, tmp_path, port, start.stop_seconds)


@pytest.mark.parametrize("start", [files.systemd(), files.compose({}), files.kubernetes()], ids=["systemd", "compose", "pod"])
def test_there_is_more_time_to_stop_than_a_stop_takes(start):
    delay = files.seconds(start.environment.get("VR_DRAIN_DELAY", "0"))
    grace = files.seconds(start.environment["VR_SHUTDOWN_GRACE"])
    assert start.stop_seconds >= delay + grace + AFTER_GRACE


def interpreter_starts():
    service, _ = files.interpreter_service()
    rows = dict(files.interpreter_unit())
    own = dict(value.split("=", 1) for name, value in files.interpreter_unit() if name == "Environment")
    return [
        files.Start(service["command"], dict(service["environment"]), files.seconds(service["stop_grace_period"])),
        files.Start(rows["ExecStart"].split()[1:], own, files.seconds(rows["TimeoutStopSec"])),
    ]


@pytest.mark.parametrize("start", interpreter_starts(), ids=["compose", "systemd"])
def test_the_interpreter_service_starts(start, tmp_path, upstream):
    bundle = os.environ.get("TEST_INTERPRETER_BUNDLE")
    if not bundle:
        pytest.skip("no interpreter installed: TEST_INTERPRETER_BUNDLE is not set")
    own, port = free_port(), free_port()
    environment = start.environment | {
        "VR_CODE_INTERPRETER_TOKEN": "letters", "VR_CODE_INTERPRETER_PORT": str(own), "PATH": os.environ["PATH"],
        "VR_PYODIDE_CACHE_DIR": str(pathlib.Path(bundle).parent)}
    log = tmp_path / "interpreter.log"
    process = subprocess.Popen([BINARY, *start.arguments], env=environment, cwd=tmp_path, stdin=subprocess.DEVNULL,
                               stdout=log.open("wb"), stderr=subprocess.STDOUT)
    try:
        # The gateway as the file beside it says, on this test's ports.
        _, gateway = files.interpreter_service()
        attached = dict(gateway["environment"]) | {
            "VR_CODE_INTERPRETER_TOKEN": "letters", "VR_CODE_INTERPRETER_URL": f"http://127.0.0.1:{own}",
            "VR_LLM_API_BASE": upstream.url, "VR_HOST": "127.0.0.1", "VR_PORT": str(port), "PATH": os.environ["PATH"]}
        (tmp_path / "data").mkdir()
        serve([BINARY, "serve"], attached, tmp_path, port, 60)
        process.terminate()
        code = process.wait(start.stop_seconds)
    finally:
        process.kill()
        process.wait()
    assert code == 0, log.read_text()


def test_the_interpreter_is_reached_on_loopback_only():
    service, gateway = files.interpreter_service()
    assert service["network_mode"] == "service:gateway" and "ports" not in service
    assert gateway["environment"]["VR_CODE_INTERPRETER_URL"].startswith("http://127.0.0.1:")
    assert service["read_only"] and service["cap_drop"] == ["ALL"]
    assert service["volumes"] == ["interpreter:/data:ro"]
    assert service["image"] == files.compose_file()["services"]["gateway"]["image"]
    rows = dict(files.interpreter_unit())
    assert (rows["IPAddressDeny"], rows["IPAddressAllow"]) == ("any", "localhost")
    assert not {"MemoryDenyWriteExecute", "ProcSubset", "LimitLOCKS"} & set(rows)


def test_the_dockerfile_keeps_the_rules():
    rows = files.dockerfile()
    images = [rest.split()[0] for name, rest in rows if name == "FROM"]
    assert len(images) == 2
    for image in images:
        assert re.fullmatch(r"[a-z]+:\d+\.\d+[\w.-]*", image), f"{image}: no exact version"
    last = rows[max(i for i, (name, _) in enumerate(rows) if name == "FROM"):]
    names = [name for name, _ in last]
    assert not {"ADD", "RUN", "MAINTAINER"} & set(names), "the last stage only copies"
    assert all(rest.startswith("--from=build ") for name, rest in last if name == "COPY")
    last = dict(last)
    user, group = last["USER"].split(":")
    assert int(user) > 0 and int(group) > 0
    for name in ("ENTRYPOINT", "CMD", "VOLUME"):
        assert isinstance(json.loads(last[name]), list), f"{name} is not in exec form"
    assert last["WORKDIR"].startswith("/") and json.loads(last["VOLUME"]) == [last["WORKDIR"]]
    assert "apt-get" not in dict(rows).get("RUN", "")
    cargo = tomllib.loads((REPO / "Cargo.toml").read_text())["workspace"]["package"]
    assert images[0].startswith(f"rust:{cargo['rust-version']}."), "the image and Cargo.toml name different Rusts"
    # What the build reads is in the context, and nothing else of the repository.
    kept = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    members = tomllib.loads((REPO / "Cargo.toml").read_text())["workspace"]["members"]
    assert {"Cargo.toml", "Cargo.lock", "src", "migrations", "config"} | (set(members) - {"."}) == set(kept)


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((REPO / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    assert files.compose_file()["services"]["gateway"]["image"] == f"vllm-responses:{version}"
    assert files.pod()["containers"][0]["image"] == f"vllm-responses:{version}"


def test_the_compose_file_waits_for_healthy_servers():
    services = files.compose_file()["services"]
    for name, need in services["gateway"]["depends_on"].items():
        assert need == {"condition": "service_healthy"}
        assert services[name]["healthcheck"]["test"][0] == "CMD"
        assert re.fullmatch(r"[a-z]+:\d+\.\d+[\w.-]*", services[name]["image"])
        assert "ports" not in services[name], f"{name} is reachable from outside"
    gateway = services["gateway"]
    assert gateway["read_only"] and gateway["cap_drop"] == ["ALL"]
    assert gateway["ports"] == ["127.0.0.1:5969:5969"]


def test_the_manifests_fit_together():
    made, pod = files.manifests(), files.pod()
    (container,) = pod["containers"]
    labels = made["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert made["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert made["Service"]["spec"]["selector"].items() <= labels.items()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 5969} == {made["Service"]["spec"]["ports"][0]["targetPort"]: 5969}
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths == {"startup": "/health", "liveness": "/health", "readiness": "/health/ready"}
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert volumes == {mount["name"] for mount in container["volumeMounts"]}
    claim = next(v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if v["name"] == "data")
    assert claim == made["PersistentVolumeClaim"]["metadata"]["name"]
    # A file of SQLite's is written by one pod only.
    assert made["Deployment"]["spec"]["replicas"] == 1
    assert made["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}
    assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
    # Readiness must have turned false before requests are refused.
    probe = container["readinessProbe"]
    delay = next(files.seconds(row["value"]) for row in container["env"] if row["name"] == "VR_DRAIN_DELAY")
    assert delay > probe["periodSeconds"] * probe["failureThreshold"]


def test_the_unit_is_one_that_systemd_takes(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    unit = tmp_path / "vllm-responses.service"
    text = (DEPLOY / "vllm-responses.service").read_text()
    unit.write_text(text.replace("/usr/local/bin/vllm-responses", str(BINARY)))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    complaints = [line for line in verified.stderr.splitlines() if unit.name in line]
    assert verified.returncode == 0 and not complaints, verified.stderr
    rows = dict(files.unit())
    assert rows["KillMode"] == "mixed", "SIGTERM is for the gateway alone: its guardians end with it"
    assert rows["OOMPolicy"] == "continue"
    # What the sandbox, the guardian and vLLM need must not be taken from them.
    assert not {"MemoryDenyWriteExecute", "ProcSubset", "PrivateDevices", "LimitLOCKS"} & set(rows)
    allowed = rows["SystemCallFilter"].split()
    assert {"landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self", "seccomp"} <= set(allowed)


def test_kustomize_takes_the_manifests():
    if not shutil.which("kubectl"):
        pytest.skip("needs kubectl")
    built = subprocess.run(["kubectl", "kustomize", DEPLOY / "kubernetes"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    assert built.stdout.count("\nkind: ") == 3
