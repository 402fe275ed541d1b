"""Client programs that always run: openai-node, the Agents SDK for Python, Codex, llm-comply."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "python"))

pytest_plugins = ["stand", "proven"]
