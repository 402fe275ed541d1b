//! Texts whose large data is kept in the store, on their way to a model server or a client: the data is
//! read piece by piece while the text is sent.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::Recipient;
use bytes::Bytes;
use futures_util::StreamExt as _;
use vllm_responses_protocol::blob::{BlobRef, Marks, Piece};
use vllm_responses_protocol::ids::{IdSource as _, Owner};

use crate::ask::ask;
use crate::env::SystemIds;
use crate::http1::{Payload, Pieces, Unread};
use crate::memory::CallersPlaces;
use crate::store::messages::{CHUNK, ReadChunk};

/// The store's own deadlines are shorter; this one is for a store actor that died.
const LIMIT: Duration = Duration::from_secs(8);

/// What puts data back into marked texts; cheap to clone.
#[derive(Clone, Debug)]
pub struct Blobs {
    /// What stands for data in this process.
    pub marks: Marks,
    chunks: Recipient<ReadChunk>,
}

impl Blobs {
    /// With marks that nobody knows, and data from there.
    pub fn fresh(chunks: Recipient<ReadChunk>) -> Self {
        Self {
            marks: Marks::new(SystemIds.next_bits()),
            chunks,
        }
    }

    /// A marked text of this owner's, whole.
    pub fn whole(&self, owner: &Owner, text: Bytes) -> Whole {
        let parts: Vec<Part> = self
            .marks
            .cut(&text)
            .into_iter()
            .map(|piece| match piece {
                Piece::Text(range) => Part::Text(text.slice(range)),
                Piece::Blob(blob) => Part::Blob(blob),
            })
            .collect();
        if let [_] = parts.as_slice() {
            return Whole::Text(text);
        }
        Whole::Parts(Parts {
            length: self.marks.whole_length(&text),
            pieces: parts.into(),
            owner: owner.clone(),
            chunks: self.chunks.clone(),
        })
    }
}

/// A whole text.
#[derive(Clone, Debug)]
pub enum Whole {
    /// It is here.
    Text(Bytes),
    /// Its data is in the store.
    Parts(Parts),
}

impl Whole {
    /// How long it is.
    pub fn length(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Parts(parts) => parts.length,
        }
    }

    /// How many bytes are read at once, beside the text that is here.
    pub fn window(&self) -> usize {
        match self {
            Self::Text(_) => 0,
            // One is sent, and one on its way from the database.
            Self::Parts(_) => 2 * CHUNK,
        }
    }
}

impl From<Whole> for Payload {
    fn from(whole: Whole) -> Self {
        match whole {
            Whole::Text(text) => Self::Bytes(text),
            Whole::Parts(parts) => Self::Pieces {
                length: parts.length,
                read: Rc::new(move || parts.read(None)),
            },
        }
    }
}

/// A text whose data is in the store.
#[derive(Clone, Debug)]
pub struct Parts {
    pieces: Arc<[Part]>,
    length: usize,
    owner: Owner,
    chunks: Recipient<ReadChunk>,
}

#[derive(Clone, Debug)]
enum Part {
    Text(Bytes),
    Blob(BlobRef),
}

impl Parts {
    /// How long the whole text is.
    pub fn length(&self) -> usize {
        self.length
    }

    /// Reads it from its beginning; each chunk in one of these places, where they are given.
    pub fn read(&self, places: Option<CallersPlaces>) -> Pieces {
        let reader = Reader {
            ready: VecDeque::new(),
            parts: self.pieces.iter().cloned().collect(),
            position: 0,
            left: 0,
            owner: self.owner.clone(),
            chunks: self.chunks.clone(),
            places,
        };
        futures_util::stream::try_unfold(reader, Reader::next).boxed_local()
    }
}

/// Where the reading of a text is.
struct Reader {
    /// What was read and is not taken.
    ready: VecDeque<Bytes>,
    /// What is not read to its end.
    parts: VecDeque<Part>,
    /// Of the next chunk of the first part.
    position: usize,
    /// Bytes of it that are still to come, once it is begun.
    left: usize,
    owner: Owner,
    chunks: Recipient<ReadChunk>,
    places: Option<CallersPlaces>,
}

impl Reader {
    async fn next(mut self) -> Result<Option<(Bytes, Self)>, Unread> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(Some((piece, self)));
            }
            match self.parts.front().cloned() {
                None => return Ok(None),
                Some(Part::Text(text)) => {
                    self.parts.pop_front();
                    self.ready.push_back(text);
                }
                Some(Part::Blob(blob)) => self.read_more(blob).await?,
            }
        }
    }

    /// Reads the next chunk of the first part.
    async fn read_more(&mut self, blob: BlobRef) -> Result<(), Unread> {
        if self.position == 0 {
            self.left = blob.bytes();
        }
        let pieces = self.chunk(blob).await?;
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let left = self.left.checked_sub(length).filter(|_| length > 0);
        self.left = left.ok_or(Unread::Gone)?;
        self.ready = pieces.into();
        self.position += 1;
        if self.left == 0 {
            self.position = 0;
            self.parts.pop_front();
        }
        Ok(())
    }

    async fn chunk(&self, blob: BlobRef) -> Result<Vec<Bytes>, Unread> {
        let _place = match &self.places {
            Some(places) => Some(places.take().await.ok_or(Unread::Unavailable)?),
            None => None,
        };
        let read = ReadChunk {
            owner: self.owner.clone(),
            blob,
            position: self.position,
        };
        match ask(&self.chunks, read, LIMIT).await {
            Ok(Ok(Some(chunk))) => Ok(chunk),
            Ok(Ok(None)) => {
                log::error!("data that a stored conversation refers to is not there");
                Err(Unread::Gone)
            }
            Ok(Err(error)) => {
                log::warn!("data of a stored conversation was not read: {error}");
                Err(Unread::Unavailable)
            }
            Err(error) => {
                log::warn!("data of a stored conversation was not read: {error}");
                Err(Unread::Unavailable)
            }
        }
    }
}
