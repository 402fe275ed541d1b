"""SDK clients whose traffic is kept and validated: every byte that they receive from `/v1/responses`."""

import json

import httpx2
from openai import OpenAI

import strict


class Tee:
    """A response body that keeps a copy of what passed."""

    def __init__(self, inner):
        self.inner, self.raw, self.ended = inner, bytearray(), False

    def __iter__(self):
        for chunk in self.inner:
            self.raw += chunk
            yield chunk
        self.ended = True

    async def __aiter__(self):
        async for chunk in self.inner:
            self.raw += chunk
            yield chunk
        self.ended = True

    def close(self):
        self.inner.close()

    async def aclose(self):
        await self.inner.aclose()


class SyncTee(Tee, httpx2.SyncByteStream):
    pass


class AsyncTee(Tee, httpx2.AsyncByteStream):
    pass


class Recorder:
    """Remembers each exchange of its clients; `check` validates them."""

    def __init__(self):
        self.exchanges = []

    def keep(self, request, response, tee):
        response.stream = tee(response.stream)
        self.exchanges.append((request, response, response.stream))
        return response

    def streams(self):
        """The events of each stream, in the order of the requests."""
        return [strict.check_stream(bytes(tee.raw), tee.ended) for _, response, tee in self.exchanges
                if response.headers.get("content-type", "").startswith("text/event-stream")]

    def last_body(self):
        return json.loads(bytes(self.exchanges[-1][2].raw))

    def check(self):
        for request, response, tee in self.exchanges:
            path, kind = request.url.path, response.headers.get("content-type", "")
            assert response.headers.get("x-request-id"), f"{path}: no x-request-id"
            if not path.startswith("/v1/responses") or (not tee.ended and "json" in kind):
                continue
            if kind.startswith("text/event-stream"):
                assert "content-encoding" not in response.headers
                strict.check_stream(bytes(tee.raw), tee.ended)
            else:
                check_body(path, response.status_code, json.loads(bytes(tee.raw)))


def check_body(path, status, body):
    if status >= 400:
        assert set(body) == {"error"} and set(body["error"]) == {"message", "type", "param", "code"}, body
    elif path.endswith("/input_items"):
        strict.check_items(body)
    elif body.get("object") == "response" and "deleted" not in body:
        strict.check_response(body)


class RecordingTransport(httpx2.HTTPTransport):
    def __init__(self, recorder):
        super().__init__()
        self.recorder = recorder

    def handle_request(self, request):
        return self.recorder.keep(request, super().handle_request(request), SyncTee)


class AsyncRecordingTransport(httpx2.AsyncHTTPTransport):
    def __init__(self, recorder):
        super().__init__()
        self.recorder = recorder

    async def handle_async_request(self, request):
        return self.recorder.keep(request, await super().handle_async_request(request), AsyncTee)


# Compressed bodies would be recorded compressed.
SETTINGS = {"api_key": "any", "max_retries": 0, "timeout": 60, "default_headers": {"accept-encoding": "identity"}}


def sync_client(url, recorder):
    return OpenAI(base_url=url + "/v1", http_client=httpx2.Client(transport=RecordingTransport(recorder)), **SETTINGS)
