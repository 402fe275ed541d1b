//! Conversations by `previous_response_id`: what turns cost the gateway as one grows, and what a turn
//! costs behind a long history.

use std::time::Duration;

use serde::Serialize;

use crate::check::{self, Api, Response};
use crate::client::{Answer, Client};
use crate::process::Tree;
use crate::report::median;
use crate::scenario::path;
use crate::servers::Target;

/// The spans whose costs are compared.
const EARLY: usize = 11;
const LATE: usize = 191;
const SPAN: usize = 10;
const TURNS: usize = LATE + SPAN - 1;
const TOKENS: usize = 64;
/// Turns of the long history, and bytes of input of each: 5 MB.
const LONG_TURNS: usize = 50;
const LONG_INPUT: usize = 100_000;

/// Cost of ten early and ten late turns.
#[derive(Debug, Serialize)]
pub(crate) struct Chain {
    pub(crate) server: String,
    pub(crate) chains: usize,
    pub(crate) early: Span,
    pub(crate) late: Span,
}

/// Ten neighbouring turns, all chains together.
#[derive(Debug, Serialize)]
pub(crate) struct Span {
    /// First and last turn, counted from 1.
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) cpu_micros_per_turn: Option<f64>,
    /// Per message of history and request.
    pub(crate) cpu_micros_per_item: Option<f64>,
    /// Median.
    pub(crate) millis_per_turn: f64,
}

/// One turn behind 5 MB of history, beside the same 5 MB sent straight to the model server.
#[derive(Debug, Serialize)]
pub(crate) struct Long {
    pub(crate) server: String,
    pub(crate) history_bytes: usize,
    /// Medians.
    pub(crate) millis: f64,
    pub(crate) direct_millis: f64,
    pub(crate) relay_millis: f64,
    pub(crate) cpu_micros_per_turn: Option<f64>,
    pub(crate) relay_cpu_micros: Option<f64>,
}

/// Sums of the turns `from..from + SPAN`.
struct Sum {
    from: usize,
    cpu: Option<u64>,
    items: usize,
    millis: Vec<f64>,
}

/// Runs `chains` conversations of 200 turns one after another; the stub's count of messages proves
/// that each turn saw the whole history.
pub(crate) async fn measure(target: &Target, chains: usize) -> Result<Chain, String> {
    let mut sums = [Sum::from(EARLY), Sum::from(LATE)];
    for _ in 0..chains {
        let tree = target.pid.map(Tree::of);
        let mut talk = Talk::begin(target).await?;
        for turn in 1..=TURNS {
            let before = tree.as_ref().and_then(Tree::cpu_micros_fine);
            let answer = talk.turn("Go on.").await?;
            let after = tree.as_ref().and_then(Tree::cpu_micros_fine);
            for sum in sums.iter_mut().filter(|sum| sum.holds(turn)) {
                sum.add(before.zip(after), talk.items(), &answer);
            }
        }
    }
    let [early, late] = sums.map(Sum::span);
    Ok(Chain {
        server: target.name.clone(),
        chains,
        early,
        late,
    })
}

/// Stores a conversation of 5 MB, then continues its last turn `times` times.
pub(crate) async fn long(
    target: &Target,
    (direct, relay): (&Target, &Target),
    times: usize,
) -> Result<Long, String> {
    let input = "The quick brown fox jumps. ".repeat(LONG_INPUT / 27 + 1);
    let input = input.get(..LONG_INPUT).unwrap_or_default();
    let mut talk = Talk::begin(target).await?;
    for _ in 0..LONG_TURNS {
        talk.turn(input).await?;
    }
    let (history, turns) = (talk.previous.clone(), talk.turns);
    let tree = target.pid.map(Tree::of);
    let before = tree.as_ref().and_then(Tree::cpu_micros_fine);
    let mut millis = Vec::new();
    for _ in 0..times {
        (talk.previous, talk.turns) = (history.clone(), turns);
        millis.push(as_millis(talk.turn("Go on.").await?.whole));
    }
    let after = tree.as_ref().and_then(Tree::cpu_micros_fine);
    let whole = whole_history(input);
    let (direct_millis, _) = sent(direct, &whole, times).await?;
    let (relay_millis, relay_cpu_micros) = sent(relay, &whole, times).await?;
    Ok(Long {
        server: target.name.clone(),
        history_bytes: LONG_TURNS * LONG_INPUT,
        millis: median(millis),
        direct_millis,
        relay_millis,
        cpu_micros_per_turn: before.zip(after).map(|it| per(it, times)),
        relay_cpu_micros,
    })
}

/// The chat request that such a conversation makes.
fn whole_history(input: &str) -> Vec<u8> {
    let answer = crate::answers::WORD.repeat(TOKENS);
    let turn = format!(
        r#"{{"role":"user","content":"{input}"}},{{"role":"assistant","content":"{answer}"}},"#
    );
    format!(
        r#"{{"model":"stub-t{TOKENS}","messages":[{}{{"role":"user","content":"Go on."}}]}}"#,
        turn.repeat(LONG_TURNS)
    )
    .into_bytes()
}

/// Median milliseconds, and CPU µs, of sending this body.
async fn sent(target: &Target, body: &[u8], times: usize) -> Result<(f64, Option<f64>), String> {
    let mut client = Client::connect(&target.address).await?;
    let tree = target.pid.map(Tree::of);
    let before = tree.as_ref().and_then(Tree::cpu_micros_fine);
    let mut millis = Vec::new();
    for _ in 0..times {
        let answer = client.post(path(Api::Chat), body, b"").await?;
        check::plain(Api::Chat, TOKENS, &answer)
            .map_err(|fault| format!("a long history, {}: {fault}", target.name))?;
        millis.push(as_millis(answer.whole));
    }
    let after = tree.as_ref().and_then(Tree::cpu_micros_fine);
    Ok((median(millis), before.zip(after).map(|it| per(it, times))))
}

fn as_millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn per((before, after): (u64, u64), times: usize) -> f64 {
    // A thread that ended takes its past along.
    after.saturating_sub(before) as f64 / times.max(1) as f64
}

/// A conversation under way.
struct Talk {
    client: Client,
    previous: String,
    turns: usize,
}

impl Talk {
    async fn begin(target: &Target) -> Result<Self, String> {
        Ok(Self {
            client: Client::connect(&target.address).await?,
            previous: String::new(),
            turns: 0,
        })
    }

    /// One more turn, checked.
    async fn turn(&mut self, input: &str) -> Result<Answer, String> {
        self.turns += 1;
        let body = format!(
            r#"{{"model":"stub-t{TOKENS}","input":"{input}"{},"store":true}}"#,
            self.previous
        );
        let sent = self.client.post(path(Api::Responses), body.as_bytes(), b"");
        let answer = sent.await?;
        let response: Response = check::response(TOKENS, &answer)
            .map_err(|fault| format!("turn {} of a chain: {fault}", self.turns))?;
        let (saw, items) = (response.usage.input_tokens, self.items());
        if saw != items {
            return Err(format!(
                "turn {} of a chain saw {saw} messages instead of {items}",
                self.turns
            ));
        }
        self.previous = format!(r#","previous_response_id":"{}""#, response.id);
        Ok(answer)
    }

    /// Messages that the model saw in the last turn.
    fn items(&self) -> usize {
        2 * self.turns - 1
    }
}

impl Sum {
    fn from(from: usize) -> Self {
        Self {
            from,
            cpu: Some(0),
            items: 0,
            millis: Vec::new(),
        }
    }

    fn holds(&self, turn: usize) -> bool {
        (self.from..self.from + SPAN).contains(&turn)
    }

    fn add(&mut self, cpu: Option<(u64, u64)>, items: usize, answer: &Answer) {
        let spent = cpu.map(|(before, after)| after.saturating_sub(before));
        self.cpu = self.cpu.zip(spent).map(|(sum, spent)| sum + spent);
        self.items += items;
        self.millis.push(as_millis(answer.whole));
    }

    fn span(self) -> Span {
        let per = |count: usize| Some(self.cpu? as f64 / count.max(1) as f64);
        Span {
            from: self.from,
            to: self.from + SPAN - 1,
            cpu_micros_per_turn: per(self.millis.len()),
            cpu_micros_per_item: per(self.items),
            millis_per_turn: median(self.millis),
        }
    }
}
