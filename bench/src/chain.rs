//! A conversation by `previous_response_id`, and what its turns cost the gateway as it grows.

use serde::Serialize;

use crate::check::{self, Api};
use crate::client::Client;
use crate::process;
use crate::scenario::path;

const TURNS: usize = 100;
const TOKENS: usize = 64;

/// Cost of ten early and ten late turns.
#[derive(Debug, Serialize)]
pub(crate) struct Chain {
    pub(crate) turns: usize,
    pub(crate) chains: usize,
    pub(crate) early: Span,
    pub(crate) late: Span,
}

/// Ten neighbouring turns, all chains together.
#[derive(Debug, Serialize)]
pub(crate) struct Span {
    /// First turn, counted from 1.
    pub(crate) from: usize,
    pub(crate) cpu_micros_per_turn: f64,
    /// Per message of history and request.
    pub(crate) cpu_micros_per_item: f64,
    pub(crate) millis_per_turn: f64,
}

/// Sums of the turns `from..from + 10`.
struct Sum {
    from: usize,
    cpu: u64,
    items: usize,
    micros: u128,
    turns: usize,
}

/// Runs `chains` conversations of 100 turns one after another; the stub's count of messages proves
/// that each turn saw the whole history.
pub(crate) async fn measure(address: &str, pid: u32, chains: usize) -> Result<Chain, String> {
    let mut sums = [Sum::from(11), Sum::from(91)];
    for _ in 0..chains {
        let mut client = Client::connect(address).await?;
        let mut previous = String::new();
        for turn in 1..=TURNS {
            let before = process::cpu_micros_fine(pid).ok_or("the gateway is gone")?;
            let body =
                format!(r#"{{"model":"stub-t{TOKENS}","input":"Go on."{previous},"store":true}}"#);
            let answer = client
                .post(path(Api::Responses), body.as_bytes(), b"")
                .await?;
            let response = check::response(TOKENS, &answer)
                .map_err(|fault| format!("turn {turn} of a chain: {fault}"))?;
            let items = 2 * turn - 1;
            if response.usage.input_tokens != items {
                return Err(format!(
                    "turn {turn} of a chain saw {} messages instead of {items}",
                    response.usage.input_tokens
                ));
            }
            previous = format!(r#","previous_response_id":"{}""#, response.id);
            let after = process::cpu_micros_fine(pid).ok_or("the gateway is gone")?;
            for sum in sums.iter_mut().filter(|sum| sum.holds(turn)) {
                // A thread that ended takes its past along.
                sum.cpu += after.saturating_sub(before);
                sum.items += items;
                sum.micros += answer.whole.as_micros();
                sum.turns += 1;
            }
        }
    }
    let [early, late] = sums.map(|sum| sum.span());
    Ok(Chain {
        turns: TURNS,
        chains,
        early,
        late,
    })
}

impl Sum {
    fn from(from: usize) -> Self {
        Self {
            from,
            cpu: 0,
            items: 0,
            micros: 0,
            turns: 0,
        }
    }

    fn holds(&self, turn: usize) -> bool {
        (self.from..self.from + 10).contains(&turn)
    }

    fn span(&self) -> Span {
        let turns = self.turns.max(1) as f64;
        Span {
            from: self.from,
            cpu_micros_per_turn: self.cpu as f64 / turns,
            cpu_micros_per_item: self.cpu as f64 / self.items.max(1) as f64,
            millis_per_turn: self.micros as f64 / 1000.0 / turns,
        }
    }
}
