"""A FastMCP server: `fast.py http|sse PORT`, or `fast.py stdio`."""
import sys

from fastmcp import FastMCP

server = FastMCP("fast")


@server.tool(annotations={"readOnlyHint": True})
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool
def fail() -> str:
    """Always fails."""
    raise ValueError("boom")


if sys.argv[1] == "stdio":
    server.run(show_banner=False)
else:
    server.run(transport=sys.argv[1], host="127.0.0.1", port=int(sys.argv[2]))
