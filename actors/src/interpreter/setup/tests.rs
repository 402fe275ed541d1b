//! Set-up against a local registry.
