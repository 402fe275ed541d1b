//! Rows as the database has them. They never leave this folder.

use std::sync::Arc;

use diesel::{Insertable, Queryable};
use sha2::{Digest as _, Sha256};
use vllm_responses_protocol::ids::{self, Owner, ResponseId};
use vllm_responses_protocol::record::{Link, Record, SCHEMA_VERSION, Status, Stored};

use super::messages::{CHUNK, Claim, StoreError};
use super::schema::{approvals, blob_uses, blobs, deletions, responses, settings};

/// More links than any conversation has; a longer chain is a cycle or damage, and is refused.
pub(super) const MAX_LINKS: usize = 10_000;

/// A response about to be inserted.
#[derive(Insertable)]
#[diesel(table_name = responses)]
pub(super) struct NewResponse<'a> {
    id: &'a str,
    previous_response_id: Option<&'a str>,
    owner: &'a str,
    model: &'a str,
    status: &'a str,
    created_at: i64,
    completed_at: Option<i64>,
    expires_at: Option<i64>,
    input_items: &'a str,
    response: &'a str,
    settings_hash: &'a str,
    schema_version: i32,
}

/// Settings about to be inserted.
#[derive(Insertable)]
#[diesel(table_name = settings)]
pub(super) struct NewSettings<'a> {
    owner: &'a str,
    hash: &'a str,
    json: &'a str,
}

/// A record with its settings' hash, worked out before the writer's transaction begins.
#[derive(Debug)]
pub(super) struct Prepared {
    record: Box<Record>,
    hash: String,
}

impl Prepared {
    pub(super) fn new(mut record: Box<Record>) -> Self {
        // PostgreSQL has no NUL in text. The JSON columns escape it, and this one is for looking only.
        if record.model.contains('\0') {
            record.model = record.model.replace('\0', "\u{fffd}").into();
        }
        let hash = format!("{:x}", Sha256::digest(record.settings.as_bytes()));
        Self { record, hash }
    }

    /// The record and the hash of its settings.
    pub(super) fn parts(&self) -> (&Record, &str) {
        (&self.record, &self.hash)
    }

    /// Bytes of its texts.
    pub(super) fn bytes(&self) -> usize {
        let record = &*self.record;
        let data = record.blobs.iter().filter_map(|blob| blob.data.as_ref());
        let data: usize = data.map(|data| data.len()).sum();
        record.input_items.len() + record.response.len() + record.settings.len() + data
    }

    /// What tells its settings from others.
    pub(super) fn settings_key(&self) -> (&Owner, &str) {
        (&self.record.owner, &self.hash)
    }

    pub(super) fn response(&self) -> NewResponse<'_> {
        let record = &*self.record;
        NewResponse {
            id: record.id.as_str(),
            previous_response_id: record.previous.as_ref().map(ResponseId::as_str),
            owner: record.owner.as_str(),
            model: &record.model,
            status: record.status.as_str(),
            created_at: record.created_at_ms,
            completed_at: record.completed_at_ms,
            expires_at: record.expires_at_ms,
            input_items: &record.input_items,
            response: &record.response,
            settings_hash: &self.hash,
            schema_version: SCHEMA_VERSION,
        }
    }

    pub(super) fn settings(&self) -> NewSettings<'_> {
        NewSettings {
            owner: self.record.owner.as_str(),
            hash: &self.hash,
            json: &self.record.settings,
        }
    }
}

/// One response of a chain.
#[derive(Queryable)]
pub(super) struct LinkRow {
    id: String,
    status: String,
    input_items: String,
    response: String,
    /// Unix milliseconds.
    pub(super) expires_at: Option<i64>,
    pub(super) previous_response_id: Option<String>,
    /// Links between it and the last of its chain.
    pub(super) depth: i64,
}

impl LinkRow {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn link(self) -> Result<Arc<Link>, StoreError> {
        Ok(Arc::new(Link {
            id: ResponseId::new(&self.id),
            status: Status::parse(&self.status).ok_or(StoreError::Corrupt)?,
            input_items: self.input_items.into(),
            response: self.response.into(),
        }))
    }
}

/// One response and its settings.
#[derive(Queryable)]
pub(super) struct StoredRow {
    response: String,
    settings: String,
}

impl From<StoredRow> for Stored {
    fn from(row: StoredRow) -> Self {
        Self {
            response: row.response.into(),
            settings: row.settings.into(),
        }
    }
}

/// A response that has ended.
#[derive(Debug, Queryable)]
pub(super) struct DeadRow {
    /// When, in Unix milliseconds.
    pub(super) ended_ms: i64,
    pub(super) id: String,
    /// Whether a response continues it, live or not.
    pub(super) is_continued: bool,
}

/// What is left to do after a response was removed.
#[derive(Queryable)]
pub(super) struct PurgedRow {
    pub(super) id: String,
    pub(super) previous_response_id: Option<String>,
    pub(super) owner: String,
    pub(super) settings_hash: String,
}

/// A whole row of `responses`, for moving.
#[derive(Clone, Debug, PartialEq, Eq, Insertable, Queryable)]
#[diesel(table_name = responses)]
pub(super) struct KeptRow {
    pub(super) id: String,
    pub(super) previous_response_id: Option<String>,
    pub(super) owner: String,
    pub(super) model: String,
    pub(super) status: String,
    pub(super) created_at: i64,
    pub(super) completed_at: Option<i64>,
    pub(super) expires_at: Option<i64>,
    pub(super) deleted_at: Option<i64>,
    pub(super) input_items: String,
    pub(super) response: String,
    pub(super) settings_hash: String,
    pub(super) schema_version: i32,
}

impl KeptRow {
    /// Whether this is the other row at another time of its life.
    pub(super) fn is_same_response(&self, other: &Self) -> bool {
        let then = Self {
            owner: other.owner.clone(),
            expires_at: other.expires_at,
            deleted_at: other.deleted_at,
            ..self.clone()
        };
        then == *other
    }

    /// Whether nothing is left to copy: the other is this row, or was deleted where it is.
    pub(super) fn has_come_as(&self, other: &Self) -> bool {
        let is_deleted = other.deleted_at.is_some() && self.owner == other.owner;
        self == other || (is_deleted && self.is_same_response(other))
    }
}

/// What is known of a row of `responses` before it is read.
#[derive(Debug, Queryable)]
pub(super) struct HeadRow {
    pub(super) id: String,
    pub(super) owner: String,
    pub(super) settings_hash: String,
    /// Bytes of `input_items`.
    pub(super) taken: i32,
    /// Bytes of `response`.
    pub(super) made: i32,
    /// Bytes of its settings; none when they are not there.
    pub(super) settings: Option<i32>,
}

/// A response that was deleted and is gone: a whole row of `deletions`.
#[derive(Clone, Debug, PartialEq, Eq, Insertable, Queryable)]
#[diesel(table_name = deletions)]
pub(super) struct DeletionRow {
    pub(super) id: String,
    /// Unix milliseconds.
    pub(super) gone_at: i64,
}

/// A whole row of `settings`, for moving.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Insertable, Queryable)]
#[diesel(table_name = settings)]
pub(super) struct SettingsRow {
    pub(super) owner: String,
    pub(super) hash: String,
    pub(super) json: String,
}

/// A call that was approved and made: a whole row of `approvals`.
#[derive(Clone, Debug, PartialEq, Eq, Insertable, Queryable)]
#[diesel(table_name = approvals)]
pub(super) struct ApprovalRow {
    pub(super) owner: String,
    /// Digest of the approval request's id: of one size, and without the NUL that PostgreSQL has not.
    pub(super) request: String,
    /// The response that asked; empty when the id does not tell.
    pub(super) origin: String,
    /// The response that made the call.
    pub(super) response: String,
    pub(super) claimed_at: i64,
}

impl ApprovalRow {
    /// The rows of a claim, in one order everywhere: two that want the same must not wait in a circle.
    pub(super) fn of(claim: &Claim, now_ms: i64) -> Vec<Self> {
        let rows = claim.requests.iter().map(|request| Self {
            owner: claim.owner.as_str().to_owned(),
            request: format!("{:x}", Sha256::digest(request.as_bytes())),
            origin: ids::response_of(request).map_or_else(String::new, |id| id.to_string()),
            response: claim.response.as_str().to_owned(),
            claimed_at: now_ms,
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort_by(|a, b| a.request.cmp(&b.request));
        rows.dedup_by(|a, b| a.request == b.request);
        rows
    }
}

/// A whole row of `blobs`.
#[derive(Clone, Debug, PartialEq, Eq, Insertable, Queryable)]
#[diesel(table_name = blobs)]
pub(super) struct BlobRow {
    pub(super) owner: String,
    /// SHA-256 of the data, in hexadecimal digits.
    pub(super) hash: String,
    /// Length of the data.
    pub(super) bytes: i64,
    /// Unix milliseconds.
    pub(super) created_at: i64,
    /// 1 when it was seen that no response uses it; one may have come to do so.
    pub(super) unused: i32,
}

impl BlobRow {
    pub(super) fn new(owner: &str, hash: &str, bytes: usize, now_ms: i64) -> Self {
        Self {
            owner: owner.to_owned(),
            hash: hash.to_owned(),
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            created_at: now_ms,
            unused: 0,
        }
    }
}

/// A whole row of `blob_uses`.
#[derive(Clone, Debug, PartialEq, Eq, Insertable, Queryable)]
#[diesel(table_name = blob_uses)]
pub(super) struct UseRow {
    pub(super) response: String,
    pub(super) owner: String,
    pub(super) hash: String,
}

impl UseRow {
    /// What a response uses.
    pub(super) fn of(new: &Prepared) -> impl Iterator<Item = Self> {
        let record = &*new.record;
        record.blobs.iter().map(|blob| Self {
            response: record.id.as_str().to_owned(),
            owner: record.owner.as_str().to_owned(),
            hash: blob.at.digits(),
        })
    }
}

/// Data in chunks.
pub(super) fn chunks_of(data: &str) -> impl Iterator<Item = &str> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let most = CHUNK.min(rest.len());
        let cut = (0..=most).rev().find(|at| rest.is_char_boundary(*at))?;
        let (chunk, more) = rest.split_at_checked(cut)?;
        rest = more;
        (!chunk.is_empty()).then_some(chunk)
    })
}
