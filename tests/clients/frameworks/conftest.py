"""Client programs of `scripts/test --clients`: LangChain, pydantic-ai, the Agents SDK for JS, the Vercel AI SDK."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "python"))

pytest_plugins = ["stand", "proven"]
