//! Places in a request, and the list of what is wrong with it.

use std::fmt;

use crate::error::{ApiError, ApiErrorCode, head};

/// Problems beyond this many are counted only: the body has no room for more.
const MAX_KEPT: usize = 24;

/// Longest member name shown; the rest of a longer one is left out.
const MAX_NAME: usize = 64;

/// Where a value stands, as `input[0].content[1].type`. Costs nothing until it is written.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// The whole body.
    Root,
    /// A member of an object.
    Member(&'a Place<'a>, &'a str),
    /// An element of an array.
    Element(&'a Place<'a>, usize),
}

impl<'a> Place<'a> {
    pub(crate) fn member(&'a self, name: &'a str) -> Place<'a> {
        Place::Member(self, name)
    }

    pub(crate) fn element(&'a self, index: usize) -> Place<'a> {
        Place::Element(self, index)
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Place::Root => Ok(()),
            Place::Member(Place::Root, name) => f.write_str(shown(name)),
            Place::Member(parent, name) => write!(f, "{parent}.{}", shown(name)),
            Place::Element(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A member name, cut to a length that fits a message.
pub(crate) fn shown(name: &str) -> &str {
    head(name, MAX_NAME)
}

/// What is wrong with a request, in the order of its text.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    kept: Vec<Problem>,
    more: usize,
}

#[derive(Debug)]
struct Problem {
    code: ApiErrorCode,
    param: Option<String>,
    sentence: String,
}

impl Problems {
    /// Adds `sentence` about the value at `place`.
    pub(crate) fn add(
        &mut self,
        place: &Place<'_>,
        code: ApiErrorCode,
        sentence: impl fmt::Display,
    ) {
        if self.kept.len() == MAX_KEPT {
            self.more += 1;
            return;
        }
        let param = match place {
            Place::Root => None,
            Place::Member(..) | Place::Element(..) => Some(place.to_string()),
        };
        self.kept.push(Problem {
            code,
            param,
            sentence: sentence.to_string(),
        });
    }

    /// The value at `place` must be `wanted`, as "a string".
    pub(crate) fn wrong_type(&mut self, place: &Place<'_>, wanted: &str) {
        let sentence = match place {
            Place::Root => format!("the request body must be {wanted}"),
            Place::Member(..) | Place::Element(..) => format!("`{place}` must be {wanted}"),
        };
        self.add(place, ApiErrorCode::InvalidType, sentence);
    }

    /// The value at `place` is of the right type, but must be `wanted`.
    pub(crate) fn invalid(&mut self, place: &Place<'_>, wanted: impl fmt::Display) {
        self.add(
            place,
            ApiErrorCode::InvalidValue,
            format_args!("`{place}` must be {wanted}"),
        );
    }

    /// The word at `place` must be one of `words`.
    pub(crate) fn wrong_word(&mut self, place: &Place<'_>, words: &[&str]) {
        self.invalid(place, OneOf(words));
    }

    /// There must be something at `place`.
    pub(crate) fn missing(&mut self, place: &Place<'_>) {
        self.add(
            place,
            ApiErrorCode::MissingRequiredParameter,
            format_args!("`{place}` is required"),
        );
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// All of it, a sentence each, for what is no request.
    pub(crate) fn into_sentences(self) -> Vec<String> {
        let more = (self.more > 0).then(|| format!("and {} more", self.more));
        let kept = self.kept.into_iter().map(|problem| problem.sentence);
        kept.chain(more).collect()
    }

    /// All of it as one error; `None` when nothing is wrong.
    ///
    /// `param` and `code` are the first problem's, the message lists all (decision 4).
    pub(crate) fn into_error(self) -> Option<ApiError> {
        let mut kept = self.kept.into_iter();
        let first = kept.next()?;
        let mut error = ApiError::new(first.code, first.sentence);
        error.param = first.param;
        for problem in kept {
            error.message.push_str("; ");
            error.message.push_str(&problem.sentence);
        }
        if self.more > 0 {
            error.message.push_str("; and ");
            error.message.push_str(&self.more.to_string());
            error.message.push_str(" more");
        }
        Some(error)
    }
}

/// Writes allowed words as "one of `a`, `b`", or "`a`".
pub(crate) struct OneOf<'a>(pub(crate) &'a [&'a str]);

impl fmt::Display for OneOf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() > 1 {
            f.write_str("one of ")?;
        }
        for (index, word) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}`{word}`")?;
        }
        Ok(())
    }
}
