//! Where a request stands in a trace, as two headers say it: <https://www.w3.org/TR/trace-context/>.

use std::fmt;

/// The header with the ids.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what tracing systems add for themselves.
pub const TRACESTATE: &str = "tracestate";

/// Bytes of a `tracestate` that are kept: what the specification asks for at least. A longer one is
/// left out as a whole, which it allows.
const MAX_STATE: usize = 512;
/// Members of a `tracestate`, at most.
const MAX_MEMBERS: usize = 32;
/// Version, trace, span and flags with the dashes between.
const LENGTH: usize = 55;

/// Trace, span and flags of the work that something belongs to. Never all zeros.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// Which trace.
    pub trace_id: u128,
    /// The span that is the parent of what the receiver does.
    pub span_id: u64,
    /// Bit 0: the sender records it.
    pub flags: u8,
    state: Box<str>,
}

impl TraceContext {
    /// A context with a checked `tracestate`; one that is too long or has strange letters is dropped.
    pub fn new(trace_id: u128, span_id: u64, flags: u8, state: &str) -> Option<Self> {
        let fits = state.len() <= MAX_STATE
            && state.split(',').count() <= MAX_MEMBERS
            && state.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        (trace_id != 0 && span_id != 0).then(|| Self {
            trace_id,
            span_id,
            flags,
            state: if fits {
                state.trim().into()
            } else {
                Box::default()
            },
        })
    }

    /// Reads both headers; an unusable `traceparent` makes both worthless. A version that is not
    /// known is read like the one that is, as the specification asks.
    pub fn parse(parent: &str, state: &str) -> Option<Self> {
        let parent = parent.trim();
        let (known, rest) = parent.split_at_checked(LENGTH)?;
        let mut parts = known.split('-');
        let mut field = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            let lower = part
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            lower.then_some(part)
        };
        let (version, trace, span, flags) = (field(2)?, field(32)?, field(16)?, field(2)?);
        let ends = match version {
            "00" => rest.is_empty(),
            "ff" => false,
            _ => rest.is_empty() || rest.starts_with('-'),
        };
        if !ends {
            return None;
        }
        Self::new(
            u128::from_str_radix(trace, 16).ok()?,
            u64::from_str_radix(span, 16).ok()?,
            u8::from_str_radix(flags, 16).ok()?,
            state,
        )
    }

    /// The `traceparent` to send.
    pub fn parent(&self) -> String {
        format!(
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id, self.span_id, self.flags
        )
    }

    /// The `tracestate` to send; empty when there is none.
    pub fn state(&self) -> &str {
        &self.state
    }
}

/// The state is the client's own text and is not shown.
impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parent())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_good_pair_comes_back_as_it_was() {
        let context = TraceContext::parse(GOOD, "a=1, b=2").unwrap();
        assert_eq!(
            (context.parent().as_str(), context.state()),
            (GOOD, "a=1, b=2")
        );
        assert_eq!(context.flags, 1);
    }

    #[test]
    fn what_is_no_context_is_none() {
        let zero_trace = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let zero_span = "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01";
        let upper = GOOD.to_ascii_uppercase();
        let longer = format!("{GOOD}-x");
        let forbidden = GOOD.replacen("00", "ff", 1);
        for wrong in ["", "00", zero_trace, zero_span, &upper, &longer, &forbidden] {
            assert_eq!(TraceContext::parse(wrong, ""), None, "{wrong}");
        }
    }

    #[test]
    fn a_later_version_may_be_longer() {
        let later = format!("{}-more", GOOD.replacen("00", "01", 1));
        let context = TraceContext::parse(&later, "").unwrap();
        assert_eq!(context.parent(), GOOD);
        assert_eq!(
            TraceContext::parse(&later.replace("-more", "more"), ""),
            None
        );
    }

    #[test]
    fn a_state_that_is_too_much_is_left_out_alone() {
        for state in [
            "a=1,".repeat(33),
            "x".repeat(513),
            "a=\n".to_owned(),
            "a=é".to_owned(),
        ] {
            let context = TraceContext::parse(GOOD, &state).unwrap();
            assert_eq!(context.state(), "", "{state}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(parent in ".{0,80}", state in ".{0,80}") {
            if let Some(context) = TraceContext::parse(&parent, &state) {
                let again = TraceContext::parse(&context.parent(), context.state());
                prop_assert_eq!(again, Some(context));
            }
        }

        #[test]
        fn all_ids_survive(trace in 1u128.., span in 1u64.., flags: u8) {
            let context = TraceContext::new(trace, span, flags, "k=v").unwrap();
            prop_assert_eq!(TraceContext::parse(&context.parent(), "k=v"), Some(context));
        }
    }
}
