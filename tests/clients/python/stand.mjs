// What the test programs of Node share: cases, a fetch that keeps what it received, the scripted upstream.
//
// environment: GATEWAY_URL, UPSTREAM_URL; RESULTS and EXCHANGES are files to write.

import { appendFileSync } from "node:fs";

export const baseURL = `${process.env.GATEWAY_URL}/v1`;
const scripted = `${process.env.UPSTREAM_URL}/scripted`;
const queue = [];
let [pending, bodies] = [[], []];
let running = "";

export function test(name, body) {
  queue.push({ name, body });
}

/** The bodies that the model server was sent in this case. */
export async function modelSaw() {
  return (await (await fetch(scripted)).json()).requests;
}

/** The bodies that the gateway was sent in this case, by way of `recordingFetch`. */
export const received = () => bodies.map((body) => JSON.parse(body));

/** Global fetch, keeping each answer of the Responses API. */
export async function recordingFetch(input, init) {
  if (init?.body) bodies.push(init.body);
  const response = await fetch(input, init);
  const { pathname } = new URL(response.url);
  if (!pathname.startsWith("/v1/responses") || !response.body) return response;
  const [mine, theirs] = response.body.tee();
  const { status, headers } = response;
  pending.push(keep({ case: running, path: pathname, status, type: headers.get("content-type") ?? "" }, mine));
  return new Response(theirs, { status, headers });
}

async function keep(exchange, stream) {
  const decoder = new TextDecoder();
  let [body, whole] = ["", true];
  try {
    for await (const chunk of stream) body += decoder.decode(chunk, { stream: true });
  } catch {
    whole = false;
  }
  write(process.env.EXCHANGES, { ...exchange, body, whole });
}

function write(file, line) {
  appendFileSync(file, JSON.stringify(line) + "\n");
}

function limited(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} took more than a minute`)), 60_000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

async function run({ name, body }) {
  running = name;
  [pending, bodies] = [[], []];
  let error = null;
  try {
    await fetch(scripted, { method: "DELETE" });
    await limited(body(), "the case");
    await limited(Promise.all(pending), "a body");
    const { violations } = await (await fetch(scripted)).json();
    if (violations.length) throw new Error(`the model server was sent nonsense: ${violations.join("; ")}`);
  } catch (problem) {
    error = String(problem?.stack ?? problem);
  }
  write(process.env.RESULTS, { name, error });
}

/** Runs the cases, one after the other. To be called last. */
export async function main() {
  for (const one of queue) await run(one);
  process.exit(0); // clients keep connections open
}
