//! Reading the upstream's answer: bytes of a stream, or a whole one.

use super::effect::Effects;
use super::fault::{self, Explained};
use super::{Phase, Turn};
use crate::chat::answer::Answer;
use crate::chat::chunk::{ChatUsage, Chunk};
use crate::chat::fault::UpstreamFault;
use crate::chat::template::Piece;
use crate::normalize::{self, FinishReason, ModelEvent};
use crate::sse::Decoder;

impl Turn {
    pub(super) fn bytes(&mut self, now_ms: i64, bytes: &[u8], effects: &mut Effects) {
        self.begin(effects);
        // Set aside, since a chunk is borrowed from it while the rest of the machine moves.
        let mut decoder = std::mem::take(&mut self.decoder);
        let ended = self.frames(&mut decoder, bytes, effects);
        // Before the answer is concluded: a further round begins with a decoder of its own.
        self.decoder = decoder;
        if let Err(explained) = ended {
            self.conclude_or(now_ms, explained, effects);
        }
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
        if bytes.is_empty() {
            return Ok(());
        }
        if decoder.push(bytes).is_err() {
            return Err(fault::explain(UpstreamFault::TooLong));
        }
        while let Some(frame) = decoder.next_frame() {
            if frame.data == b"[DONE]" {
                self.extra_bytes += decoder.pending();
                return Err(fault::cut_short());
            }
            self.chunk(frame.data, effects)?;
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

    fn known(&mut self, piece: Piece, text: &str, effects: &mut Effects) {
        let event = match piece {
            Piece::Text => ModelEvent::Text(text, Vec::new()),
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
        // A derived struct would also be read from an array.
        if data.trim_ascii_start().first() != Some(&b'{') {
            return Err(fault::bad_chunk());
        }
        let mut chunk: Chunk<'_> =
            serde_json::from_slice(data).map_err(|_malformed| fault::bad_chunk())?;
        if let Some(error) = &chunk.error {
            return Err(fault::explain_in_stream(error));
        }
        self.template.learn(data, &chunk);
        let mut written = 0;
        let finish = chunk.choices.0.as_mut().and_then(|choice| {
            let (composer, mut out) = self.composing(effects);
            normalize::chunk(choice, &mut |event| {
                written += event.size();
                composer.apply(event, &mut out);
            })
        });
        self.written += written;
        self.note(chunk.usage, finish);
        Ok(())
    }

    /// Takes a whole answer.
    pub(super) fn answer(&mut self, now_ms: i64, body: &[u8], effects: &mut Effects) {
        let mut answer = match serde_json::from_slice::<Answer<'_>>(body) {
            Ok(answer) => answer,
            // The connection may end in good order before the announced length is there (U4).
            Err(error) if error.is_eof() => return self.fail(fault::cut_short(), effects),
            Err(_malformed) => {
                return self.fail(fault::explain(UpstreamFault::WrongContentType), effects);
            }
        };
        if let Some(error) = &answer.error {
            let explained = fault::explain_in_stream(error);
            self.fail(explained, effects);
            return;
        }
        self.tell_lists(effects);
        let finish = answer.choices.first_mut().and_then(|choice| {
            let (composer, mut out) = self.composing(effects);
            normalize::answer(choice, &mut |event| composer.apply(event, &mut out))
        });
        self.note(answer.usage, finish);
        self.conclude_or(now_ms, fault::cut_short(), effects);
    }

    /// Keeps what is known of the running model call.
    fn note(&mut self, usage: Option<ChatUsage>, finish: Option<FinishReason>) {
        if let Phase::Calling(call) = &mut self.phase {
            call.usage = usage.or(call.usage);
            call.finish = finish.or(call.finish);
        }
    }
}
