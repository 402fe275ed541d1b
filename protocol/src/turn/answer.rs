//! Reading the upstream's answer: bytes of a stream, or a whole one.

use super::effect::{Action, Complained, Effects};
use super::fault::{self, Explained};
use super::numbers::{Messages, Numbers, Spoken, Standing};
use super::{Phase, Turn};
use crate::chat::chunk::{self, Choice};
use crate::chat::complaint::{Complaint, complaint_in};
use crate::chat::fault::UpstreamFault;
use crate::chat::finish::FinishReason;
use crate::chat::template::Piece;
use crate::chat::usage::ChatUsage;
use crate::normalize::{self, ModelEvent};
use crate::sse::Decoder;

/// What the bytes of an answer are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing but white space has come.
    #[default]
    Unknown,
    /// An event stream.
    Events,
    /// One JSON text; this is its beginning.
    Body(Vec<u8>),
}

/// Whether more of an event stream is to come. Behind one that is over a further call may run already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    GoesOn,
    Over,
}

/// What is known of the running model call.
#[derive(Debug, Default)]
pub(super) struct CallState {
    pub(super) finish: Option<FinishReason>,
    /// The last counts given; servers may send them with every chunk.
    pub(super) usage: Option<ChatUsage>,
    /// Whether the model has said anything.
    spoke: bool,
    /// Which choices are read.
    choices: Numbers,
    /// What whole messages have said, where a stream has such.
    messages: Messages,
    /// Frames that were no chunks.
    noise: usize,
    form: Form,
}

/// Longest whole answer in the place of a stream, in bytes: as long as one that was asked for.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Most frames of one answer that are no chunks, as one every few seconds for hours.
const MAX_NOISE: usize = 4096;

impl Turn {
    /// How many bytes the model has written up to now in streams.
    pub fn written(&self) -> usize {
        self.written
    }

    pub(super) fn bytes(&mut self, now_ms: i64, bytes: &[u8], effects: &mut Effects) {
        self.begin(effects);
        if self.is_body(bytes) {
            return self.gather_body(now_ms, bytes, effects);
        }
        let _whatever = self.events(now_ms, bytes, effects);
    }

    fn events(&mut self, now_ms: i64, bytes: &[u8], effects: &mut Effects) -> Stream {
        // Set aside, since a chunk is borrowed from it while the rest of the machine moves.
        let mut decoder = std::mem::take(&mut self.decoder);
        let ended = self.frames(&mut decoder, bytes, effects);
        // Before the answer is concluded: a further round begins with a decoder of its own.
        self.decoder = decoder;
        match ended {
            Ok(()) => Stream::GoesOn,
            Err(explained) => {
                self.take_aside(effects);
                self.broke_off(now_ms, explained, effects);
                Stream::Over
            }
        }
    }

    /// Whether the model server answers with a whole completion, or an error, where a stream was asked
    /// for. No event stream begins as JSON does.
    fn is_body(&mut self, bytes: &[u8]) -> bool {
        let Phase::Calling(call) = &mut self.phase else {
            return false;
        };
        if call.form == Form::Unknown {
            let text = bytes.strip_prefix(chunk::BOM).unwrap_or(bytes);
            call.form = match text.trim_ascii_start().first() {
                None => Form::Unknown,
                Some(b'{' | b'[') => Form::Body(Vec::new()),
                Some(_) => Form::Events,
            };
        }
        matches!(call.form, Form::Body(_))
    }

    fn gather_body(&mut self, now_ms: i64, bytes: &[u8], effects: &mut Effects) {
        if let Phase::Calling(CallState {
            form: Form::Body(body),
            ..
        }) = &mut self.phase
        {
            body.extend_from_slice(bytes);
            self.written += bytes.len();
            if body.len() > MAX_BODY {
                let fault = fault::explain(UpstreamFault::TooLong);
                self.conclude_or(now_ms, fault, effects);
            }
        }
    }

    /// The answer's bytes have ended in good order.
    pub(super) fn answer_ended(&mut self, now_ms: i64, effects: &mut Effects) {
        let Phase::Calling(call) = &mut self.phase else {
            return;
        };
        if let Form::Body(body) = std::mem::take(&mut call.form) {
            return self.answer(now_ms, &body, effects);
        }
        self.take_aside(effects);
        let fault = self.endless();
        self.conclude_or(now_ms, fault, effects);
    }

    /// The answer cannot be read on. A call of which nothing has come may be made again.
    fn broke_off(&mut self, now_ms: i64, explained: Explained, effects: &mut Effects) {
        if let Phase::Calling(call) = &self.phase
            && !call.spoke
            && call.finish.is_none()
        {
            return self.shorten_or(now_ms, explained, effects);
        }
        self.conclude_or(now_ms, explained, effects);
    }

    /// Takes the frames that these bytes complete; fails with what to say if the answer, which has
    /// ended here, was not whole.
    fn frames(
        &mut self,
        decoder: &mut Decoder,
        bytes: &[u8],
        effects: &mut Effects,
    ) -> Result<(), Explained> {
        let bytes = if decoder.is_between_frames() {
            self.known_frames(bytes, effects)
        } else {
            bytes
        };
        self.check_size()?;
        if bytes.is_empty() {
            return Ok(());
        }
        if decoder.push(bytes).is_err() {
            return Err(fault::explain(UpstreamFault::TooLong));
        }
        while let Some(frame) = decoder.next_frame() {
            if frame.data.trim_ascii() == b"[DONE]" {
                self.extra_bytes += decoder.pending();
                return Err(self.endless());
            }
            if frame.event == b"error" && chunk::is_nothing(frame.data) {
                continue;
            }
            if frame.event == b"error" && !chunk::has_choices(frame.data) {
                return Err(complained(&complaint_in(frame.data), effects));
            }
            self.chunk(frame.data, effects)?;
            self.check_size()?;
        }
        Ok(())
    }

    /// Takes the frames at the beginning of `bytes` that are known by their bytes, without decoding
    /// them; gives the rest.
    fn known_frames<'b>(&mut self, bytes: &'b [u8], effects: &mut Effects) -> &'b [u8] {
        let mut rest = bytes;
        while let Some((piece, text, behind)) = self.template.recognise_frame(rest) {
            self.known(piece, text, effects);
            rest = behind;
        }
        rest
    }

    /// A response has so many items and not more.
    fn check_size(&self) -> Result<(), Explained> {
        if self.composer.is_full() {
            return Err(fault::explain(UpstreamFault::TooLong));
        }
        Ok(())
    }

    fn known(&mut self, piece: Piece, text: &str, effects: &mut Effects) {
        if let Phase::Calling(call) = &mut self.phase {
            call.choices.comes_back();
        }
        let event = match piece {
            Piece::Text => ModelEvent::Text(text),
            Piece::Reasoning => ModelEvent::Reasoning(text),
        };
        self.written += event.size();
        let (composer, mut out) = self.composing(effects);
        composer.apply(event, &mut out);
    }

    /// Takes one chunk of the stream.
    fn chunk(&mut self, data: &[u8], effects: &mut Effects) -> Result<(), Explained> {
        if let Some((piece, text)) = self.template.recognise(data) {
            self.known(piece, text, effects);
            return Ok(());
        }
        let mut spare = Vec::new();
        let mut chunk = match chunk::read(data, &mut spare) {
            Ok(chunk) => chunk,
            Err(_no_object) if chunk::is_nothing(data) => return Ok(()),
            Err(_no_object) if self.is_noise(data) => return Ok(()),
            Err(_malformed) => return Err(fault::bad_chunk()),
        };
        if let Some(complaint) = chunk.complaint() {
            return Err(complained(&complaint, effects));
        }
        let usage = chunk.counts();
        let choice = chunk
            .choices
            .0
            .take_if(|choice| !self.is_ours(choice, data));
        if choice.is_none() {
            self.template.learn(data, &chunk);
        }
        if matches!(&self.phase, Phase::Calling(call) if call.choices.has_moved()) {
            self.take_aside(effects);
        }
        let finish = chunk
            .choices
            .0
            .as_mut()
            .and_then(|choice| self.choice(choice, effects));
        self.note(usage, finish);
        Ok(())
    }

    /// Whether this choice is of the answer; see [`Numbers`].
    fn is_ours(&mut self, choice: &Choice<'_>, data: &[u8]) -> bool {
        let Phase::Calling(call) = &mut self.phase else {
            return false;
        };
        let spoken = if call.spoke {
            Spoken::Something
        } else {
            Spoken::Nothing
        };
        call.choices.takes(choice, spoken, data)
    }

    /// Takes the chunks that waited, now that they are known to be of the answer.
    fn take_aside(&mut self, effects: &mut Effects) {
        let Phase::Calling(call) = &mut self.phase else {
            return;
        };
        let aside = call.choices.take_aside();
        for chunk in aside {
            // Its complaint, if it had one, ended the answer before it could wait.
            let _whatever = self.chunk(&chunk, effects);
        }
    }

    /// Takes what one chunk adds.
    fn choice(&mut self, choice: &mut Choice<'_>, effects: &mut Effects) -> Option<FinishReason> {
        let message = choice.message.take();
        let (mut finish, by_delta) = self.said(choice, normalize::chunk, effects);
        let Phase::Calling(call) = &mut self.phase else {
            return finish;
        };
        call.messages.by_delta |= by_delta;
        if let Some(mut message) = message.filter(|_| !call.messages.by_delta) {
            let stands = if finish.is_some() {
                Standing::Last
            } else {
                Standing::Within
            };
            call.messages.reduce(&mut message, stands);
            let is_whole = finish.is_some() && !call.spoke;
            (finish, _) = if is_whole {
                choice.message = Some(message);
                self.said(choice, normalize::answer, effects)
            } else {
                choice.delta = Some(message);
                self.said(choice, normalize::chunk, effects)
            };
        }
        finish
    }

    /// Takes what `read` finds in a choice; also tells whether that was anything.
    fn said(
        &mut self,
        choice: &mut Choice<'_>,
        read: for<'a, 'b, 'c> fn(
            &'a mut Choice<'b>,
            &'c mut dyn FnMut(ModelEvent<'a>),
        ) -> Option<FinishReason>,
        effects: &mut Effects,
    ) -> (Option<FinishReason>, bool) {
        let (mut spoke, mut written) = (false, 0);
        let (composer, mut out) = self.composing(effects);
        let finish = read(choice, &mut |event| {
            spoke |= !matches!(event, ModelEvent::Tokens(_));
            written += event.size();
            composer.apply(event, &mut out);
        });
        self.written += written;
        if let Phase::Calling(call) = &mut self.phase {
            call.spoke |= spoke;
        }
        (finish, spoke)
    }

    /// Whether a frame is something else than a chunk that a stream may have in it: proxies keep a
    /// connection alive with words. There may be [`MAX_NOISE`] of them in one answer.
    fn is_noise(&mut self, data: &[u8]) -> bool {
        let Phase::Calling(call) = &mut self.phase else {
            return false;
        };
        call.noise += 1;
        call.noise <= MAX_NOISE && !matches!(data.trim_ascii_start().first(), Some(b'{' | b'['))
    }

    /// What is said of an answer that has no end.
    fn endless(&self) -> Explained {
        // Nothing but words: it was no stream of chunks.
        if matches!(&self.phase, Phase::Calling(call) if call.noise > 0 && !call.spoke) {
            return fault::bad_chunk();
        }
        fault::cut_short()
    }

    /// Takes a whole answer.
    pub(super) fn answer(&mut self, now_ms: i64, body: &[u8], effects: &mut Effects) {
        if is_event_stream(body) {
            self.tell_lists(effects);
            if self.events(now_ms, body, effects) == Stream::GoesOn {
                self.take_aside(effects);
                let fault = self.endless();
                self.conclude_or(now_ms, fault, effects);
            }
            return;
        }
        let mut spare = Vec::new();
        let mut answer = match chunk::read(body, &mut spare) {
            Ok(answer) => answer,
            // The connection may end in good order before the announced length is there (U4).
            Err(error) if error.is_eof() || body.trim_ascii().is_empty() => {
                return self.fail(fault::cut_short(), effects);
            }
            Err(_malformed) => {
                return self.fail(fault::explain(UpstreamFault::WrongContentType), effects);
            }
        };
        if let Some(complaint) = answer.complaint() {
            let explained = complained(&complaint, effects);
            return self.shorten_or(now_ms, explained, effects);
        }
        self.tell_lists(effects);
        let usage = answer.counts();
        let finish = answer.choices.0.as_mut().and_then(|choice| {
            // Whole JSON with a message is a whole answer, whatever else it says.
            let is_whole = choice.message.is_some() || choice.delta.is_some();
            let whole = is_whole.then_some(FinishReason::Stop);
            let (composer, mut out) = self.composing(effects);
            let finish = normalize::answer(choice, &mut |event| composer.apply(event, &mut out));
            finish.or(whole)
        });
        self.note(usage, finish);
        if let Err(explained) = self.check_size() {
            return self.fail(explained, effects);
        }
        self.conclude_or(now_ms, fault::cut_short(), effects);
    }

    /// Keeps what is known of the running model call.
    fn note(&mut self, usage: Option<ChatUsage>, finish: Option<FinishReason>) {
        if let Phase::Calling(call) = &mut self.phase {
            call.usage = match (call.usage, usage) {
                (Some(before), Some(later)) => Some(later.over(before)),
                (before, later) => later.or(before),
            };
            call.finish = finish.or(call.finish);
        }
    }
}

/// What a model server said instead of an answer; the operator is to hear of it too.
fn complained(complaint: &Complaint<'_>, effects: &mut Effects) -> Explained {
    let explained = fault::explain_in_answer(complaint);
    effects.actions.push(Action::Complained(Complained {
        status: complaint.status,
        code: explained.error.code,
        words: explained.error.message.as_str().into(),
    }));
    explained
}

/// Some servers stream whatever they are asked for.
fn is_event_stream(body: &[u8]) -> bool {
    let body = body.strip_prefix(chunk::BOM).unwrap_or(body);
    let body = body.trim_ascii_start();
    [&b"data:"[..], b"event:", b":"]
        .iter()
        .any(|mark| body.starts_with(mark))
}
