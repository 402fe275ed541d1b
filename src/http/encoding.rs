//! Request bodies that are compressed: gzip (RFC 1952) and zstd (RFC 8878), unpacked under a limit.

use std::io::{self, Read};

use actix_web::http::header::{self, HeaderMap};
use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;
use vllm_responses_protocol::error::{ApiError, ApiErrorCode};

/// Largest window of a zstd frame, as a power of two: 8 MiB, what RFC 9659 allows over HTTP. A frame
/// that names a larger one could make us take that much memory for a few bytes.
const MAX_WINDOW: u32 = 23;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    Plain,
    Gzip,
    Zstd,
}

impl Coding {
    /// The coding that the headers name; more than one is refused, since each multiplies what a few
    /// bytes can become.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let refused = || {
            ApiError::new(
                ApiErrorCode::UnsupportedEncoding,
                "the `content-encoding` of a request body must be one of `gzip`, `zstd`, `identity`",
            )
        };
        let mut values = headers.get_all(header::CONTENT_ENCODING);
        let Some(value) = values.next() else {
            return Ok(Self::Plain);
        };
        if values.next().is_some() {
            return Err(refused());
        }
        let name = value.to_str().unwrap_or("?").trim().to_ascii_lowercase();
        match name.as_str() {
            "" | "identity" => Ok(Self::Plain),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            _ => Err(refused()),
        }
    }
}

/// Why a body was not unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnpackError {
    /// It is longer than the limit; it was unpacked so far and no further.
    TooLong,
    /// It is damaged, ends early, or is no such thing.
    Broken,
    /// There is no memory for it.
    NoRoom,
}

/// What unpacking takes beside the packed and the unpacked bytes: a window.
const GZIP_STATE: usize = 64 * 1024;
const ZSTD_STATE: usize = (1 << MAX_WINDOW) + (1 << 20);
/// The first piece of a body.
const FIRST: usize = 64 * 1024;

/// Unpacks a body of at most `limit` bytes, as far as there is `room`, which is asked before so many
/// bytes are taken. Takes time in proportion to the limit at most, so it is run where blocking is
/// allowed.
pub(super) fn unpack(
    coding: Coding,
    packed: &Bytes,
    limit: usize,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Bytes, UnpackError> {
    match coding {
        Coding::Plain => Ok(packed.clone()),
        Coding::Gzip => read_all(MultiGzDecoder::new(&packed[..]), limit, |bytes| {
            room(bytes + GZIP_STATE)
        }),
        Coding::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(&packed[..]);
            let mut decoder = decoder.map_err(|_no_memory| UnpackError::Broken)?;
            decoder
                .window_log_max(MAX_WINDOW)
                .map_err(|_unknown| UnpackError::Broken)?;
            // A frame of little has a window of little, up to twice what it unpacks to.
            read_all(decoder, limit, |bytes| {
                room(bytes + ZSTD_STATE.min(2 * bytes))
            })
        }
    }
}

fn read_all(
    mut decoder: impl Read,
    limit: usize,
    mut room: impl FnMut(usize) -> bool,
) -> Result<Bytes, UnpackError> {
    let (mut body, mut filled) = (Vec::new(), 0);
    loop {
        if filled == body.len() {
            let longest = limit.saturating_add(1);
            if filled == longest {
                return Err(UnpackError::TooLong);
            }
            // While it is copied it is there twice.
            let grown = (2 * filled).max(FIRST).min(longest);
            if !room(filled + grown) {
                return Err(UnpackError::NoRoom);
            }
            body.reserve_exact(grown - filled);
            body.resize(grown, 0);
        }
        match decoder.read(body.get_mut(filled..).unwrap_or_default()) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_damaged) => return Err(UnpackError::Broken),
        }
    }
    if filled > limit {
        return Err(UnpackError::TooLong);
    }
    body.truncate(filled);
    body.shrink_to_fit();
    Ok(body.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;

    use super::*;

    fn unpack(coding: Coding, packed: &Bytes, limit: usize) -> Result<Bytes, UnpackError> {
        super::unpack(coding, packed, limit, |_| true)
    }

    fn packed(coding: Coding, plain: &[u8]) -> Bytes {
        match coding {
            Coding::Plain => plain.to_vec().into(),
            Coding::Gzip => {
                let mut out = GzEncoder::new(Vec::new(), Compression::fast());
                out.write_all(plain).unwrap();
                out.finish().unwrap().into()
            }
            Coding::Zstd => zstd::encode_all(plain, 1).unwrap().into(),
        }
    }

    const BOTH: [Coding; 2] = [Coding::Gzip, Coding::Zstd];

    #[test]
    fn c6_bombs_stop_at_the_limit() {
        let bomb = vec![b' '; 10_000_000];
        for coding in BOTH {
            let packed = packed(coding, &bomb);
            assert!(packed.len() < 100_000, "{coding:?}: no bomb");
            assert_eq!(
                unpack(coding, &packed, 9_999_999),
                Err(UnpackError::TooLong)
            );
            assert_eq!(unpack(coding, &packed, 10_000_000).unwrap(), bomb);
        }
    }

    #[test]
    fn c6_room_is_asked_for_before_it_is_taken() {
        let plain = vec![b' '; 1_000_000];
        for coding in BOTH {
            let packed = packed(coding, &plain);
            let mut asked = Vec::new();
            let told = super::unpack(coding, &packed, 10_000_000, |bytes| {
                asked.push(bytes);
                bytes < 500_000
            });
            assert_eq!(told, Err(UnpackError::NoRoom), "{coding:?}");
            assert!(
                asked.is_sorted() && asked[0] <= 200_000,
                "{coding:?}: {asked:?}"
            );
        }
    }

    #[test]
    fn c6_every_beginning_of_a_body_is_broken() {
        for coding in BOTH {
            let whole = packed(coding, br#"{"model": "m", "input": "some text"}"#);
            for end in 0..whole.len() {
                let cut = whole.slice(..end);
                assert_eq!(
                    unpack(coding, &cut, 1000),
                    Err(UnpackError::Broken),
                    "{coding:?} {end}"
                );
            }
        }
    }

    #[test]
    fn c6_what_follows_a_body_must_be_another() {
        for coding in BOTH {
            let whole = packed(coding, b"a");
            let twice = [&whole[..], &whole[..]].concat().into();
            assert_eq!(unpack(coding, &twice, 10).unwrap(), "aa");
            let garbage = [&whole[..], b"garbage"].concat().into();
            assert_eq!(unpack(coding, &garbage, 10), Err(UnpackError::Broken));
        }
    }

    #[test]
    fn c6_a_zstd_window_beyond_the_limit_is_refused() {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(27).unwrap();
        encoder.include_contentsize(false).unwrap();
        encoder.write_all(&vec![7; 1_000_000]).unwrap();
        let packed = encoder.finish().unwrap().into();
        let refused = unpack(Coding::Zstd, &packed, 10_000_000);
        assert_eq!(refused, Err(UnpackError::Broken));
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(plain: Vec<u8>) {
            for coding in BOTH {
                prop_assert_eq!(&unpack(coding, &packed(coding, &plain), 1 << 20).unwrap()[..], &plain[..]);
            }
        }

        #[test]
        fn any_bytes_end_within_the_limit(noise: Vec<u8>, limit in 0usize..2000) {
            for coding in BOTH {
                if let Ok(body) = unpack(coding, &noise.clone().into(), limit) {
                    prop_assert!(body.len() <= limit);
                }
            }
        }
    }
}
