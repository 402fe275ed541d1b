"""An MCP server over pipes, with nothing but the standard library."""
import json, os, sys, time

tools = {
    "env": "All variables",
    "die": "Ends the process",
    "grow": "Adds a tool",
    "pid": "The process",
    "noise": "Prints what is no message",
    "hang": "Never answers",
    "big": "Gives twenty million letters",
    "forever": "Begins a line that has no end",
    "meta": "Says what came beside the arguments",
}


def say(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def run(name, params):
    if name == "meta":
        return json.dumps(params.get("_meta"))
    if name == "env":
        return json.dumps(dict(os.environ))
    if name == "die":
        sys.exit(3)
    if name == "grow":
        tools["grown"] = "It is new"
        for _ in range(2000):
            say({"method": "notifications/tools/list_changed"})
        return "grown"
    if name == "noise":
        print("this is no JSON")
        print('[{"jsonrpc":"2.0"}]')
        print('{"jsonrpc":"2.0","id":999999,"result":{}}')
        say({"id": 7777, "method": "roots/list"})
        say({"id": 7778, "method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}})
        return "done"
    if name == "big":
        return "y" * 20_000_000
    return str(os.getpid())


print("a banner on standard output", flush=True)
refused = []
for line in sys.stdin:
    message = json.loads(line)
    method, ident = message.get("method"), message.get("id")
    if method == "initialize":
        say({"id": ident, "result": {
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {"listChanged": True}},
            "serverInfo": {"name": "pipes", "version": "1"}}})
    elif method == "tools/list":
        say({"id": ident, "result": {"tools": [
            {"name": name, "description": text, "inputSchema": {"type": "object"},
             "annotations": {"readOnlyHint": name == "pid"}}
            for name, text in tools.items()]}})
    elif method == "tools/call":
        if message["params"]["name"] == "hang":
            continue
        if message["params"]["name"] == "forever":
            sys.stdout.write('{"jsonrpc":"2.0","id":%d,"result":{"content":[{"type":"text","text":"' % ident)
            while True:
                sys.stdout.write("z" * 65536)
        text = run(message["params"]["name"], message["params"])
        say({"id": ident, "result": {"content": [{"type": "text", "text": text}]}})
    elif method == "ping":
        say({"id": ident, "result": {}})
