// What the gateway may send, in the Node SDK's own types: the whole list of differences.

import type * as sdk from "openai/resources/responses/responses";
import type { ResponseItemList } from "openai/resources/responses/input-items";
import type { InputTokenCountResponse } from "openai/resources/responses/input-tokens";

type Replaced<T, V> = T extends unknown ? Omit<T, keyof V> & V : never;

/** Its twin in a list of input items must have a status. */
type WithStatus<T> = T extends { type: "custom_tool_call" } ? Replaced<T, { status: Status }> : T;
type Status = "in_progress" | "completed" | "incomplete";
type Item = WithStatus<sdk.ResponseOutputItem>;

/** A description that was not given is null, as in the live API. */
type Format<T> = T extends { type: "json_schema" } ? Replaced<T, { description?: string | null }> : T;
type Text = Replaced<sdk.ResponseTextConfig, { format: Format<sdk.ResponseFormatTextConfig> }>;

/** Open Responses requires members that the SDK lacks, and null for what there is not. */
type OpenResponses = {
  presence_penalty: number;
  frequency_penalty: number;
  store: boolean;
  usage: sdk.ResponseUsage | null;
  user: string | null;
};

/** `output_text` is made by the SDK, and access programs are OpenAI's own. */
type Sent = Omit<sdk.Response, "output_text" | "access_programs">;

export type Response = Replaced<Sent, OpenResponses & { output: Item[]; text: Text }>;

type Event<T extends string> = Extract<sdk.ResponseStreamEvent, { type: T }>;
type Nested = { type: string; code: string; message: string; param: string | null };
type Lifecycle = "created" | "in_progress" | "completed" | "incomplete" | "failed";

export type StreamEvent<T extends string> = T extends `response.${Lifecycle}`
  ? Replaced<Event<T>, { response: Response }>
  : T extends `response.output_item.${"added" | "done"}`
    ? Replaced<Event<T>, { item: Item }>
    : // Older SDKs typed the name of the function here.
      T extends "response.function_call_arguments.done"
      ? Event<T> & { name: string }
      : // Clients differ in the error shape that they read: the event has the flat and the nested form.
        T extends "error"
        ? Event<T> & { error: Nested }
        : Event<T>;

/** The user's messages are kept as they were; to the type they are no output. */
export type Compacted = Replaced<sdk.CompactedResponse, { output: Array<Item | sdk.ResponseInputMessageItem> }>;
export type ItemList = ResponseItemList;
export type Count = InputTokenCountResponse;
