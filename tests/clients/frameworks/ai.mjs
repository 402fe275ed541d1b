// The Vercel AI SDK with both providers that speak the Responses API: its tools really run.

import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenResponses } from "@ai-sdk/open-responses";
import { Output, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { baseURL, main, modelSaw, received, recordingFetch, test } from "./stand.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;
const openai = createOpenAI({ baseURL, apiKey: "any", fetch: recordingFetch });
const open = createOpenResponses({ name: "gateway", url: `${baseURL}/responses`, apiKey: "any", fetch: recordingFetch });
const withOpenAI = (name) => openai.responses(name);
const PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const tools = {
  get_weather: tool({
    description: "Weather of a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `sunny in ${city}`,
  }),
};
const loop = (model) => ({ model, prompt: "weather?", tools, stopWhen: stepCountIs(4), maxRetries: 0 });

async function generate(model) {
  const { text, usage, finishReason } = await generateText({ model: model("text"), prompt: "hello", maxRetries: 0 });
  assert.equal(text, "HELLO");
  assert.equal(finishReason, "stop");
  assert.ok(usage.inputTokens > 0);
}

async function toolLoop(model) {
  const { text, steps } = await generateText(loop(model("o3-stub")));
  assert.equal(text, "The tool says: sunny in Ada");
  assert.equal(steps.length, 2);
  assert.equal((await modelSaw()).at(-1).messages[1].reasoning, "I think for the 1. time.");
}

async function streamedLoop(model, shows) {
  const result = streamText(loop(model("o3-stub")));
  const types = new Set();
  for await (const part of result.fullStream) types.add(part.type);
  assert.equal(await result.text, "The tool says: sunny in Ada");
  for (const type of [shows, "tool-call", "tool-result", "text-delta", "finish"]) assert.ok(types.has(type), type);
  assert.ok(!types.has("error"));
}

async function structured(model) {
  const schema = z.object({ city: z.string() });
  const { output } = await generateText({ model: model("json"), prompt: "Which?", output: Output.object({ schema }), maxRetries: 0 });
  assert.deepEqual(output, { city: "Ada" });
}

async function image(model) {
  const content = [{ type: "text", text: "What?" }, { type: "image", image: PIXEL }];
  const { text } = await generateText({
    model: model("image"), instructions: "Be nice.", messages: [{ role: "user", content }], maxRetries: 0 });
  assert.match(text, /^I see 1: data:image\/png;base64,/);
  assert.deepEqual((await modelSaw())[0].messages[0], { role: "system", content: "Be nice." });
}

test("@ai-sdk/openai: generateText", () => generate(withOpenAI));
test("@ai-sdk/openai: tool loop, reasoning replayed by item_reference", async () => {
  await toolLoop(withOpenAI);
  const second = received().at(-1);
  assert.deepEqual(second.input.map((item) => item.type ?? item.role), ["user", "item_reference", "function_call", "function_call_output"]);
});
test("@ai-sdk/openai: streamText with tools", () => streamedLoop(withOpenAI, "tool-input-delta"));
test("@ai-sdk/openai: Output.object", () => structured(withOpenAI));
test("@ai-sdk/openai: image and system", () => image(withOpenAI));
test("@ai-sdk/openai: sealed reasoning with store: false", async () => {
  const settings = { store: false, reasoningEffort: "low", reasoningSummary: "auto", include: ["reasoning.encrypted_content"] };
  const { text } = await generateText({ ...loop(withOpenAI("o3-stub")), providerOptions: { openai: settings } });
  assert.equal(text, "The tool says: sunny in Ada");
  assert.equal((await modelSaw()).at(-1).messages[1].reasoning, "I think for the 1. time.");
});
test("@ai-sdk/openai: hosted code interpreter", async () => {
  const hosted = { code_interpreter: openai.tools.codeInterpreter() };
  const { text } = await generateText({ model: withOpenAI("python"), prompt: "print(6 * 7)", tools: hosted, maxRetries: 0 });
  assert.match(text, /42/);
});
test("@ai-sdk/open-responses: generateText", () => generate(open));
test("@ai-sdk/open-responses: tool loop, reasoning replayed in full", async () => {
  await toolLoop(open);
  assert.equal(received().at(-1).input[1].type, "reasoning");
});
test("@ai-sdk/open-responses: streamText with tools", () => streamedLoop(open, "reasoning-delta"));
test("@ai-sdk/open-responses: Output.object", () => structured(open));
test("@ai-sdk/open-responses: image and system", () => image(open));

await main();
