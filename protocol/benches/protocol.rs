//! Micro-benchmarks of what a request and a token cost in this crate.
//!
//! `cargo bench -p vllm-responses-protocol`. Compare runs on one machine with each other; what the
//! whole gateway costs is measured by `bench/run`.

#![expect(clippy::unwrap_used, reason = "a program for people at a terminal")]

use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use vllm_responses_protocol::blob::Marks;
use vllm_responses_protocol::chat::chunk::Chunk;
use vllm_responses_protocol::chat::template::Template;
use vllm_responses_protocol::history;
use vllm_responses_protocol::ids::{CountingIds, Owner, ResponseId};
use vllm_responses_protocol::record::{Chain, Link, Status};
use vllm_responses_protocol::responses::event::{
    Delivery, Event, ReasoningEvents, TextDelta, Writer,
};
use vllm_responses_protocol::responses::item::Item;
use vllm_responses_protocol::responses::request::{CreateRequest, Rules};
use vllm_responses_protocol::responses::response::Identity;
use vllm_responses_protocol::seal::SealKeys;
use vllm_responses_protocol::sse::Decoder;
use vllm_responses_protocol::tools::{LoopLimits, Offers};
use vllm_responses_protocol::translate::Efforts;
use vllm_responses_protocol::turn::effect::{Effects, Input};
use vllm_responses_protocol::turn::{Purpose, Seed, Turn};

const TOKENS: usize = 256;
const TURNS: usize = 100;
const CHUNK: &str = r#"{"id":"chatcmpl-b3918194d0472041","object":"chat.completion.chunk","created":1795336662,"model":"m","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null,"token_ids":null}]}"#;
const FINISH: &str =
    r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}"#;

fn main() {
    divan::main();
}

fn frame(data: &str) -> Vec<u8> {
    format!("data: {data}\n\n").into_bytes()
}

fn turn(body: &str) -> Turn {
    let mut ids = CountingIds::default();
    let request = CreateRequest::decode(body.as_bytes(), &Rules::default(), &mut ids).unwrap();
    let identity = Identity {
        id: ResponseId::new("resp_00000000000000000000000000000001"),
        model: request.model.clone(),
        previous: None,
        created_at_ms: 1_700_000_000_000,
        metadata: request.metadata.clone(),
        settings: request.settings.echo(),
        input_transformations: Vec::new(),
    };
    Turn::new(Seed {
        purpose: Purpose::Answer,
        request,
        owner: Owner::default(),
        identity,
        expires_at_ms: None,
        reasoning_events: ReasoningEvents::default(),
        ids: Box::new(ids),
        offers: Offers::default(),
        limits: LoopLimits::default(),
        seal_keys: Arc::new(SealKeys::new([7; 32], &[], None)),
        efforts: Efforts::AsAsked,
        marks: Marks::new(0),
    })
}

fn chain() -> Chain {
    let input = r#"[{"type":"message","id":"msg_1","status":"completed","role":"user","content":[{"type":"input_text","text":"Go on."}]}]"#;
    let response = format!(
        r#"{{"id":"resp_1","output":[{{"type":"message","id":"msg_2","status":"completed","role":"assistant","content":[{{"type":"output_text","text":"{}","annotations":[],"logprobs":[]}}]}}]}}"#,
        " word".repeat(64)
    );
    let link = Arc::new(Link {
        id: ResponseId::new("resp_1"),
        status: Status::Completed,
        input_items: input.into(),
        response: response.into(),
    });
    Chain {
        links: vec![link; TURNS],
        expires_at_ms: None,
        settings: None,
    }
}

#[divan::bench]
fn sse_decode(bencher: Bencher<'_, '_>) {
    let bytes = frame(CHUNK).repeat(TOKENS);
    bencher.counter(ItemsCount::new(TOKENS)).bench(|| {
        let mut decoder = Decoder::default();
        decoder.push(black_box(&bytes)).unwrap();
        while let Some(frame) = decoder.next_frame() {
            black_box(frame);
        }
    });
}

#[divan::bench]
fn chunk_parse(bencher: Bencher<'_, '_>) {
    bencher
        .counter(ItemsCount::new(1_usize))
        .bench(|| serde_json::from_str::<Chunk<'_>>(black_box(CHUNK)).unwrap());
}

#[divan::bench]
fn chunk_recognise(bencher: Bencher<'_, '_>) {
    let mut template = Template::default();
    template.learn(CHUNK.as_bytes(), &serde_json::from_str(CHUNK).unwrap());
    let frame = frame(CHUNK);
    bencher
        .counter(ItemsCount::new(1_usize))
        .bench(|| black_box(template.recognise_frame(black_box(&frame))).is_some());
}

#[divan::bench]
fn event_encode(bencher: Bencher<'_, '_>) {
    let mut writer = Writer::new(Delivery::Events, ReasoningEvents::OpenAi);
    let event = Event::TextDelta(TextDelta {
        item_id: "msg_00000000000000000000000000000001",
        output_index: 0,
        content_index: 0,
        delta: " word",
        logprobs: &[],
    });
    let mut buffer = Vec::with_capacity(1024);
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        buffer.clear();
        writer.event(&mut buffer, black_box(&event));
    });
}

/// A whole streamed turn, an upstream read a token.
#[divan::bench]
fn turn_step(bencher: Bencher<'_, '_>) {
    let token = frame(CHUNK);
    let end = [frame(FINISH), frame("[DONE]")].concat();
    let begin = || turn(r#"{"model":"m","input":"x","stream":true,"store":false}"#);
    bencher
        .counter(ItemsCount::new(TOKENS))
        .with_inputs(begin)
        .bench_local_values(|mut turn| {
            let mut effects = Effects::default();
            turn.step(0, Input::History(Vec::new()), &mut effects);
            turn.step(0, Input::UpstreamOpened, &mut effects);
            for _ in 0..TOKENS {
                turn.step(0, Input::UpstreamBytes(&token), &mut effects);
            }
            turn.step(0, Input::UpstreamBytes(&end), &mut effects);
            assert!(turn.is_over());
            effects
        });
}

#[divan::bench]
fn rehydrate(bencher: Bencher<'_, '_>) {
    let chain = chain();
    bencher
        .counter(ItemsCount::new(2 * TURNS))
        .bench_local(|| history::from_chain(black_box(&chain), Marks::new(0)).unwrap());
}

/// From the client's bytes to the body of the model call, without and with a history.
#[divan::bench(args = [0, TURNS])]
fn request_to_upstream_body(bencher: Bencher<'_, '_>, turns: usize) {
    let mut chain = chain();
    chain.links.truncate(turns);
    let items: Vec<Item> = history::from_chain(&chain, Marks::new(0)).unwrap();
    bencher
        .counter(ItemsCount::new(2 * turns + 1))
        .with_inputs(|| items.clone())
        .bench_local_values(|items| {
            let mut turn = turn(r#"{"model":"m","input":"x"}"#);
            let mut effects = Effects::default();
            turn.step(0, Input::History(items), &mut effects);
            effects
        });
}
