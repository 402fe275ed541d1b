"""Bodies that arrived, as constants in TypeScript, so that its compiler checks them.

An object literal must fit its type exactly: no member may be missing, be unknown, or have a value
that the type does not list. Of bodies with the same members and types one is written; each is
followed by broken copies, which the compiler must refuse.
"""

import copy
import json

CONFIG = {"compilerOptions": {
    "strict": True, "exactOptionalPropertyTypes": True, "noEmit": True, "skipLibCheck": True, "types": [],
    "module": "nodenext", "moduleResolution": "nodenext", "target": "es2022"}, "files": ["typed.ts"]}


KINDS = {"response": "Response", "list": "ItemList", "response.input_tokens": "Count", "response.compaction": "Compacted"}


def shape(value):
    """What makes two bodies alike: members, kinds of values, and words that types may list."""
    if isinstance(value, dict):
        return tuple(sorted((k, v if k in ("type", "status", "role") else shape(v)) for k, v in value.items()
                            if isinstance(v, str) or not isinstance(v, bool)))
    if isinstance(value, list):
        return tuple(sorted({repr(shape(v)) for v in value}))
    return type(value).__name__


def bodies(exchanges):
    """(name of the type, body) of all that was received without an error status."""
    for exchange in exchanges:
        if exchange["type"].startswith("text/event-stream"):
            for line in exchange["body"].splitlines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    yield f'StreamEvent<"{event["type"]}">', event
        elif exchange["status"] == 200 and exchange["type"].startswith("application/json"):
            body = json.loads(exchange["body"])
            kind = KINDS[body["object"]]
            if "deleted" not in body:
                yield kind, body


def broken(body):
    """Copies with one fault each."""
    yield "an unknown member", body | {"surprise": 1}
    some = next(name for name in ("sequence_number", "status", "has_more", "input_tokens", "created_at") if name in body)
    needed = "created_at" if "created_at" in body else some
    yield f"{some} of a wrong kind", body | {some: ["x"]}
    yield f"no {needed}", {name: value for name, value in body.items() if name != needed}
    for place in ("output", "data"):
        for index in range(len(body.get(place) or [])):
            inner = copy.deepcopy(body)
            inner[place][index]["surprise"] = 1
            yield f"an unknown member of {place}[{index}]", inner
    for place in ("item", "part", "response"):
        if place in body:
            yield f"an unknown member of {place}", body | {place: body[place] | {"surprise": 1}}


def program(exchanges):
    """The source, and the names of the types that are in it."""
    seen, out, kinds = set(), ['import type { Compacted, Count, ItemList, Response, StreamEvent } from "./wire.js";'], set()
    for kind, body in bodies(exchanges):
        key = (kind, shape(body))
        if key in seen:
            continue
        seen.add(key)
        kinds.add(kind)
        name = f"body{len(seen)}"
        out.append(f"export const {name}: {kind} = {json.dumps(body)};")
        for number, (fault, copy_) in enumerate(broken(body)):
            out.append(f"// @ts-expect-error {fault}\nexport const {name}_{number}: {kind} = {json.dumps(copy_)};")
    return "\n".join(out) + "\n", kinds
