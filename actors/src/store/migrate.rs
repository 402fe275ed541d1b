//! Brings a database to this version's schema, or refuses it.

use diesel::backend::Backend;
use diesel::migration::{MigrationSource, MigrationVersion};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::StoreStartError;

const MIGRATIONS: EmbeddedMigrations = embed_migrations!("../migrations");

/// Runs what is missing. To be called in a transaction that keeps others out: of several processes
/// that start at once, one migrates and the others find it done.
pub(super) fn migrate<DB: Backend>(
    connection: &mut impl MigrationHarness<DB>,
) -> Result<(), StoreStartError> {
    refuse_newer(connection)?;
    connection
        .run_pending_migrations(MIGRATIONS)
        .map(drop)
        .map_err(|error| StoreStartError::Migration(error.to_string()))
}

/// As [`migrate`], but what is missing is an error.
pub(super) fn check<DB: Backend>(
    connection: &mut impl MigrationHarness<DB>,
) -> Result<(), StoreStartError> {
    refuse_newer(connection)?;
    match connection.has_pending_migration(MIGRATIONS) {
        Ok(false) => Ok(()),
        Ok(true) => Err(StoreStartError::OlderSchema),
        Err(error) => Err(StoreStartError::Migration(error.to_string())),
    }
}

fn refuse_newer<DB: Backend>(
    connection: &mut impl MigrationHarness<DB>,
) -> Result<(), StoreStartError> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        StoreStartError::Migration(error.to_string())
    };
    let applied = connection.applied_migrations().map_err(failed)?;
    let known =
        <EmbeddedMigrations as MigrationSource<DB>>::migrations(&MIGRATIONS).map_err(failed)?;
    let is_known = |version: &MigrationVersion<'_>| {
        known
            .iter()
            .any(|migration| migration.name().version() == *version)
    };
    if applied.iter().all(is_known) {
        Ok(())
    } else {
        Err(StoreStartError::NewerSchema)
    }
}
