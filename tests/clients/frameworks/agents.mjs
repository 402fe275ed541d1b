// The OpenAI Agents SDK for JavaScript: its runner drives the gateway, its tools really run.

import assert from "node:assert/strict";
import {
  Agent, OpenAIResponsesModel, codeInterpreterTool, handoff, run, setTracingDisabled, tool,
} from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";
import { baseURL, main, modelSaw, recordingFetch, test } from "./stand.mjs";

setTracingDisabled(true); // it would send traces to OpenAI
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0, fetch: recordingFetch });
const model = (name) => new OpenAIResponsesModel(client, name);
const getWeather = tool({
  name: "get_weather",
  description: "Weather of a city.",
  parameters: z.object({ city: z.string() }),
  execute: ({ city }) => `sunny in ${city}`,
});
const helper = (more) =>
  new Agent({ name: "Helper", instructions: "Be nice.", model: model("o3-stub"), tools: [getWeather], ...more });
const LOOP = ["reasoning_item", "tool_call_item", "tool_call_output_item", "reasoning_item", "message_output_item"];
const kinds = (result) => result.newItems.map((item) => item.type);

test("tool loop", async () => {
  const result = await run(helper(), "weather?");
  assert.equal(result.finalOutput, "The tool says: sunny in Ada");
  assert.deepEqual(kinds(result), LOOP);
  assert.equal((await modelSaw()).at(-1).messages[2].reasoning, "I think for the 1. time.");
});

test("tool loop, streamed", async () => {
  const result = await run(helper(), "weather?", { stream: true });
  let text = "";
  for await (const piece of result.toTextStream()) text += piece;
  await result.completed;
  assert.equal(text, "The tool says: sunny in Ada");
  assert.deepEqual(kinds(result), LOOP);
});

test("structured output", async () => {
  const outputType = z.object({ city: z.string() });
  const result = await run(new Agent({ name: "Asker", model: model("json"), outputType }), "Which?");
  assert.deepEqual(result.finalOutput, { city: "Ada" });
});

test("handoff", async () => {
  const expert = new Agent({ name: "Expert", model: model("text"), handoffDescription: "Knows more." });
  const router = new Agent({ name: "Router", instructions: "Route.", model: model("tools"), handoffs: [handoff(expert)] });
  const result = await run(router, "weather?");
  assert.equal(result.lastAgent.name, "Expert");
  assert.equal(result.finalOutput, "WEATHER?");
  assert.deepEqual((await modelSaw()).at(-1).messages.map((message) => message.role), ["user", "assistant", "tool"]);
});

test("previousResponseId", async () => {
  const agent = new Agent({ name: "Talker", model: model("remember") });
  const first = await run(agent, "My name is Ada.");
  const second = await run(agent, "What is my name?", { previousResponseId: first.lastResponseId });
  assert.equal(second.finalOutput, "Your name is Ada.");
  assert.equal((await modelSaw()).at(-1).messages.length, 3);
});

test("reasoning sent back with store: false", async () => {
  const modelSettings = {
    store: false,
    reasoning: { effort: "low", summary: "auto" },
    providerData: { include: ["reasoning.encrypted_content"] },
  };
  const result = await run(helper({ modelSettings }), "weather?");
  assert.equal(result.finalOutput, "The tool says: sunny in Ada");
  const last = (await modelSaw()).at(-1);
  assert.equal(last.reasoning_effort, "low");
  assert.equal(last.messages[2].reasoning, "I think for the 1. time.");
});

test("hosted code interpreter", async () => {
  const tools = [codeInterpreterTool({ container: { type: "auto" } })];
  const result = await run(new Agent({ name: "Coder", model: model("python"), tools }), "print(6 * 7)");
  assert.match(result.finalOutput, /42/);
});

await main();
