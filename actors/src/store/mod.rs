//! The store: responses in SQLite or PostgreSQL.

pub mod messages;
pub mod settings;
