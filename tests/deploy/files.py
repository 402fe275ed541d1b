"""What the files of `deploy/` say: how each starts the gateway, and how long it lets it stop."""

import dataclasses
import pathlib
import re
import shlex

import yaml

REPO = pathlib.Path(__file__).parents[2]
DEPLOY = REPO / "deploy"


@dataclasses.dataclass
class Start:
    """One way of starting the gateway, as written."""

    arguments: list
    environment: dict
    stop_seconds: float


def seconds(text):
    """`90`, `30s`, `2m`."""
    number, unit = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|min)?", str(text)).groups()
    return float(number) * (60 if unit in ("m", "min") else 1)


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def dockerfile():
    """(instruction, rest) of each line, continuations joined, comments left out."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


def image_environment():
    pairs = [rest.split("=", 1) for name, rest in dockerfile() if name == "ENV"]
    return dict(pairs)


def image():
    rows = dict(dockerfile())
    return Start(yaml.safe_load(rows["CMD"]), image_environment(), 10)


def compose_file():
    (file,) = documents(DEPLOY / "compose.yaml")
    return file


def compose(variables):
    """The gateway's service, with `${NAME:?...}` and `${NAME:-...}` filled in."""
    service = compose_file()["services"]["gateway"]

    def fill(text):
        return re.sub(r"\$\{(\w+):([?-])([^}]*)\}",
                      lambda m: variables.get(m[1], m[3] if m[2] == "-" else f"MISSING {m[1]}"), str(text))

    environment = {name: fill(value) for name, value in service["environment"].items()}
    return Start(service["command"], image_environment() | environment, seconds(service["stop_grace_period"]))


def unit():
    """Every `Name=value` of the systemd unit, in order."""
    lines = (DEPLOY / "vllm-responses.service").read_text().splitlines()
    return [tuple(line.split("=", 1)) for line in lines if "=" in line and not line.startswith("#")]


def systemd():
    rows = dict(unit())
    environment = dict(value.split("=", 1) for name, value in unit() if name == "Environment")
    program, *arguments = shlex.split(rows["ExecStart"])
    assert program == "/usr/local/bin/vllm-responses"
    return Start(arguments, environment, seconds(rows["TimeoutStopSec"]))


def interpreter_service():
    """The interpreter's service of the compose file that adds it, and the gateway's part of that file."""
    (file,) = documents(DEPLOY / "compose.interpreter.yaml")
    return file["services"]["interpreter"], file["services"]["gateway"]


def interpreter_unit():
    """As `unit`, of the interpreter's own."""
    lines = (DEPLOY / "vllm-responses-interpreter.service").read_text().splitlines()
    return [tuple(line.split("=", 1)) for line in lines if "=" in line and not line.startswith("#")]


def manifests():
    """By kind."""
    listed = documents(DEPLOY / "kubernetes/kustomization.yaml")[0]["resources"]
    found = [document for name in listed for document in documents(DEPLOY / "kubernetes" / name)]
    return {document["kind"]: document for document in found}


def pod():
    return manifests()["Deployment"]["spec"]["template"]["spec"]


def kubernetes():
    (container,) = pod()["containers"]
    environment = {row["name"]: row["value"] for row in container["env"] if "value" in row}
    return Start(container["args"], image_environment() | environment, pod()["terminationGracePeriodSeconds"])
