// The official Node SDK: every endpoint that the gateway has.

import assert from "node:assert/strict";
import OpenAI, { NotFoundError, BadRequestError } from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { baseURL, main, modelSaw, recordingFetch, test } from "./stand.mjs";

const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0, fetch: recordingFetch });
const WEATHER = {
  type: "function",
  name: "get_weather",
  description: "Weather of a city",
  strict: true,
  parameters: {
    type: "object",
    properties: { city: { type: "string", enum: ["Paris", "Rome"] } },
    required: ["city"],
    additionalProperties: false,
  },
};
const SCHEMA = { type: "object", properties: { q: { type: "string" } }, required: ["q"] };
const TYPED = [
  { type: "custom", name: "patch", format: { type: "grammar", syntax: "lark", definition: "start: /.+/" } },
  { type: "namespace", name: "files", description: "Files.", tools: [{ ...WEATHER, name: "read" }] },
  { type: "tool_search", execution: "client", description: "Finds tools.", parameters: SCHEMA },
  { type: "local_shell" },
  { type: "shell", environment: { type: "local" } },
  { type: "apply_patch" },
];

const create = (body) => client.responses.create(body);

async function events(body) {
  const all = [];
  for await (const event of await create({ ...body, stream: true })) all.push(event);
  return all;
}

async function collect(page) {
  const all = [];
  for await (const item of page) all.push(item);
  return all;
}

test("create", async () => {
  const response = await create({ model: "text", input: "hello" });
  assert.equal(response.output_text, "HELLO");
  assert.equal(response.status, "completed");
  const thought = await create({ model: "reasoning", input: "2+2?", reasoning: { effort: "low", summary: "auto" } });
  assert.deepEqual(thought.output.map((item) => item.type), ["reasoning", "message"]);
  const cut = await create({ model: "length", input: "x" });
  assert.equal(cut.incomplete_details.reason, "max_output_tokens");
  const refused = await create({ model: "refusal", input: "x" });
  assert.equal(refused.output[0].content[0].type, "refusal");
});

test("create, streamed", async () => {
  const got = await events({ model: "text", input: "hello there" });
  const deltas = got.filter((event) => event.type === "response.output_text.delta").map((event) => event.delta);
  assert.equal(deltas.join(""), "HELLO THERE");
  assert.equal(got.at(-1).type, "response.completed");
  for (const model of ["reasoning", "length", "refusal"]) {
    const last = (await events({ model, input: "x", reasoning: { summary: "auto" } })).at(-1);
    assert.equal(last.type, model === "length" ? "response.incomplete" : "response.completed");
  }
  const include = ["message.output_text.logprobs"];
  const scored = await events({ model: "logprobs", input: "hi", top_logprobs: 2, include });
  assert.equal(scored.find((event) => event.type === "response.output_text.delta").logprobs.length, 1);
});

test("stream helper", async () => {
  const stream = client.responses.stream({ model: "tools", input: "x", tools: [WEATHER] });
  const seen = [];
  stream.on("response.function_call_arguments.delta", (event) => seen.push(event.snapshot));
  const final = await stream.finalResponse();
  assert.equal(seen.at(-1), '{"city": "Paris"}');
  assert.equal(final.output[0].arguments, seen.at(-1));
});

test("parse with zodTextFormat", async () => {
  const Person = z.object({ name: z.string(), age: z.number().int() });
  const text = { format: zodTextFormat(Person, "person") };
  const response = await client.responses.parse({ model: "json", input: "Who?", text });
  assert.deepEqual(response.output_parsed, { name: "Ada", age: 36 });
  const [sent] = await modelSaw();
  assert.equal(sent.response_format.json_schema.name, "person");
});

test("tool loop", async () => {
  const first = await create({ model: "parallel", input: "x", tools: [WEATHER, { ...WEATHER, name: "get_time" }] });
  const outputs = first.output.map(({ call_id }, n) => ({ type: "function_call_output", call_id, output: `result ${n}` }));
  const second = await create({ model: "tools", previous_response_id: first.id, input: outputs });
  assert.equal(second.output_text, "The tool says: result 0; result 1");
});

test("custom, namespace, search, shell and patch tools", async () => {
  const types = ["custom_tool_call", "function_call", "tool_search_call", "local_shell_call", "shell_call", "apply_patch_call"];
  for (const [n, tool] of TYPED.entries()) {
    const request = { model: "tools", input: "x", tools: [tool] };
    assert.equal((await create(request)).output[0].type, types[n]);
    assert.equal((await events(request)).at(-1).response.output[0].type, types[n]);
  }
});

test("retrieve and delete", async () => {
  const made = await create({ model: "text", input: "keep me", metadata: { a: "b" } });
  assert.deepEqual(await client.responses.retrieve(made.id), made);
  await client.responses.delete(made.id);
  await assert.rejects(client.responses.retrieve(made.id), NotFoundError);
});

test("continue by previous_response_id", async () => {
  const first = await create({ model: "remember", input: "My name is Ada." });
  const second = await create({ model: "remember", input: "What is my name?", previous_response_id: first.id });
  assert.equal(second.output_text, "Your name is Ada.");
});

test("input items", async () => {
  const first = await create({ model: "tools", input: "one", tools: [WEATHER] });
  const answer = { type: "function_call_output", call_id: first.output[0].call_id, output: "done" };
  const second = await create({ model: "text", input: [answer], previous_response_id: first.id });
  const items = await collect(client.responses.inputItems.list(second.id, { order: "asc", limit: 2 }));
  assert.deepEqual(items.map((item) => item.type), ["message", "function_call", "function_call_output"]);
});

test("input tokens", async () => {
  const counted = await client.responses.inputTokens.count({ model: "text", input: "one two three" });
  assert.deepEqual(counted, { object: "response.input_tokens", input_tokens: 3 });
});

test("models", async () => {
  const ids = (await collect(client.models.list())).map((model) => model.id);
  assert.ok(ids.includes("text"));
  assert.equal((await client.models.retrieve("text")).id, "text");
  await assert.rejects(client.models.retrieve("nobody"), NotFoundError);
});

test("errors", async () => {
  await assert.rejects(create({ model: "text", input: "x", temperature: 3 }), (error) => {
    assert.ok(error instanceof BadRequestError && error.requestID);
    assert.equal(error.param, "temperature");
    return true;
  });
  await assert.rejects(create({ model: "too-long", input: "x" }), { code: "context_length_exceeded" });
  const got = [];
  const failing = async () => {
    for await (const event of await create({ model: "late-error", input: "x", stream: true })) got.push(event.type);
  };
  await assert.rejects(failing(), /engine died|model server/i);
  assert.equal(got[0], "response.created");
});

test("sealed reasoning without retention", async () => {
  const request = { model: "reasoning", store: false, include: ["reasoning.encrypted_content"] };
  const first = await create({ ...request, input: "2+2?" });
  const [thought, said] = first.output;
  const { id, encrypted_content } = thought;
  const sealed = { type: "reasoning", id, summary: [], encrypted_content };
  const user = (content) => ({ role: "user", content });
  await events({ ...request, input: [user("2+2?"), sealed, said, user("sure?")] });
  assert.equal((await modelSaw())[1].messages[1].reasoning_content, "Two and two make four.");
});

test("compaction", async () => {
  const first = await create({ model: "text", input: "paint it red" });
  const compacted = await client.responses.compact({ model: "text", previous_response_id: first.id });
  assert.deepEqual(compacted.output.map((item) => item.type), ["message", "compaction"]);
  await create({ model: "text", input: [...compacted.output, { role: "user", content: "go on" }] });
  const told = (await modelSaw()).at(-1).messages.map((message) => message.content);
  assert.equal(told[0], "paint it red");
  assert.match(told[1], /^Summary of the conversation so far:/);
  const trigger = { model: "text", input: [{ role: "user", content: "x" }, { type: "compaction_trigger" }] };
  assert.equal((await events(trigger)).at(-1).response.output[0].type, "compaction");
});

await main();
