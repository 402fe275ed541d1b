//! Database errors in the store's terms: whose fault, and whether trying again can help.

use diesel::result::{DatabaseErrorKind as Kind, Error as DieselError};

use super::messages::StoreError;

/// Why a statement or a transaction failed. Its words are the database's own: they hold no value of a
/// row, no URL and no password.
#[derive(Debug)]
pub(super) enum Failure {
    /// A row is at fault: others of the same transaction may pass.
    Row(StoreError),
    /// The connection is: another one, a moment later, may pass.
    Passing(StoreError),
    /// It took too long, and may be done although nobody heard of it.
    Slow(StoreError),
    /// The database is.
    Lasting(StoreError),
}

impl Failure {
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::Row(error) | Self::Passing(error) | Self::Slow(error) | Self::Lasting(error) => {
                error
            }
        }
    }

    /// Whether the same may succeed a moment later.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Passing(_))
    }

    /// Whether it may have been done all the same.
    pub(super) fn may_be_done(&self) -> bool {
        matches!(self, Self::Passing(_) | Self::Slow(_))
    }

    /// Whether a part of the group may be at fault and the others not. A database that somebody else
    /// has locked takes none of them.
    pub(super) fn may_be_of_one(&self) -> bool {
        match self {
            Self::Row(_) | Self::Slow(_) => true,
            Self::Lasting(error) => *error != StoreError::Busy,
            Self::Passing(_) => false,
        }
    }

    /// No connection could be had.
    pub(super) fn unreachable() -> Self {
        Self::Passing(StoreError::Unavailable(
            "the database cannot be reached".to_owned(),
        ))
    }
}

impl From<DieselError> for Failure {
    fn from(error: DieselError) -> Self {
        let DieselError::DatabaseError(kind, info) = &error else {
            let failed = StoreError::Unavailable("the statement failed".to_owned());
            return if matches!(error, DieselError::SerializationError(_)) {
                Self::Row(failed)
            } else if matches!(error, DieselError::BrokenTransactionManager) {
                Self::Passing(failed)
            } else {
                Self::Lasting(failed)
            };
        };
        let words = info.message();
        let error = StoreError::Unavailable(words.to_owned());
        if matches!(
            kind,
            Kind::UniqueViolation | Kind::CheckViolation | Kind::NotNullViolation
        ) {
            Self::Row(error)
        } else if matches!(
            kind,
            Kind::ClosedConnection
                | Kind::UnableToSendCommand
                | Kind::SerializationFailure
                | Kind::ReadOnlyTransaction
        ) || words.contains("deadlock")
        {
            Self::Passing(error)
        } else if matches!(kind, Kind::Unknown) && words.contains("locked") {
            // SQLite's words for a lock that somebody else holds.
            Self::Lasting(StoreError::Busy)
        } else {
            Self::Lasting(error)
        }
    }
}
