//! Moving every response from one database to another: page by page, then once more to compare.

use std::collections::{HashMap, HashSet};

use super::desk::Desk;
use super::messages::StoreError;
use super::rows::{KeptRow, SettingsRow, UseRow};

/// Responses of a page. Each may be megabytes.
const PAGE: i64 = 64;
/// Approvals of a page. Each is a line.
const APPROVALS: i64 = 256;

/// How far a copy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copying {
    /// What it is at.
    pub phase: Phase,
    /// Responses looked at in this phase.
    pub done: u64,
    /// Responses to look at.
    pub of: u64,
}

/// The two halves of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Writing what is missing.
    Copying,
    /// Reading both and comparing.
    Comparing,
}

/// How a copy ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Responses that were written.
    pub written: u64,
    /// Responses that were there already.
    pub found: u64,
    /// Responses of the source that are byte for byte the same in the target.
    pub equal: u64,
    /// Responses of the source whose id the target has for another response; the first few.
    pub clashes: Vec<String>,
    /// Responses that changed or came while the copy ran.
    pub missed: u64,
}

/// Clashes that are named.
const NAMED: usize = 10;

pub(super) async fn run(
    source: &mut Desk,
    target: &mut Desk,
    mut progress: impl FnMut(Copying),
) -> Result<Copied, StoreError> {
    let mut copied = Copied::default();
    for phase in [Phase::Copying, Phase::Comparing] {
        let of = source.census().await?.responses;
        let (mut after, mut done) = (String::new(), 0);
        loop {
            let page = read_page(source, &after).await?;
            let Some(last) = page.rows.last() else { break };
            after.clone_from(&last.id);
            done += u64::try_from(page.rows.len()).unwrap_or_default();
            match phase {
                Phase::Copying => transfer((source, target), page, &mut copied).await?,
                Phase::Comparing => compare((source, target), page, &mut copied).await?,
            }
            progress(Copying { phase, done, of });
        }
        // A response that was given to an owner since an earlier copy leaves the data of nobody.
        target.find_unused().await?;
        let put = transfer_approvals(source, target).await?;
        if phase == Phase::Comparing {
            copied.missed += put;
        }
    }
    Ok(copied)
}

/// Whole responses and the settings that they name.
struct Page {
    rows: Vec<KeptRow>,
    settings: HashSet<SettingsRow>,
}

async fn read_page(source: &mut Desk, after: &str) -> Result<Page, StoreError> {
    let mut rows = source.page(after, PAGE).await?;
    for row in &mut rows {
        // PostgreSQL has no NUL in text; only this column may have one.
        row.model = row.model.replace('\0', "\u{fffd}");
    }
    let settings = settings_of(source, &rows).await?;
    Ok(Page { rows, settings })
}

async fn settings_of(
    desk: &mut Desk,
    rows: &[KeptRow],
) -> Result<HashSet<SettingsRow>, StoreError> {
    let named: HashSet<(&str, &str)> = rows
        .iter()
        .map(|row| (row.owner.as_str(), row.settings_hash.as_str()))
        .collect();
    let hashes: HashSet<&str> = named.iter().map(|(_, hash)| *hash).collect();
    let hashes: Vec<String> = hashes.into_iter().map(str::to_owned).collect();
    let mut settings = HashSet::new();
    for some in hashes.chunks(64) {
        let found = desk.some_settings(some).await?;
        settings.extend(
            found
                .into_iter()
                .filter(|row| named.contains(&(row.owner.as_str(), row.hash.as_str()))),
        );
    }
    Ok(settings)
}

/// The target's rows of these ids, by id.
async fn counterparts(
    target: &mut Desk,
    rows: &[KeptRow],
) -> Result<HashMap<String, KeptRow>, StoreError> {
    let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    let there = target.some(&ids).await?;
    Ok(there.into_iter().map(|row| (row.id.clone(), row)).collect())
}

async fn transfer(
    (source, target): (&mut Desk, &mut Desk),
    page: Page,
    copied: &mut Copied,
) -> Result<(), StoreError> {
    let there = counterparts(target, &page.rows).await?;
    let mut missing = Vec::new();
    for row in page.rows {
        match there.get(&row.id) {
            Some(other) if *other == row => copied.found += 1,
            // Named when both are compared.
            Some(other) if !row.is_same_response(other) => {}
            Some(_) | None => missing.push(row),
        }
    }
    let settings: Vec<SettingsRow> = page.settings.into_iter().collect();
    let ids: Vec<String> = missing.iter().map(|row| row.id.clone()).collect();
    let uses = source.uses_of(&ids).await?;
    for (owner, hash) in data_of(&uses) {
        transfer_data(source, target, (owner, hash)).await?;
    }
    target.put(&missing, &settings, &uses).await?;
    copied.written += u64::try_from(missing.len()).unwrap_or_default();
    Ok(())
}

/// The data that these uses name, each once.
fn data_of(uses: &[UseRow]) -> HashSet<(&str, &str)> {
    let keys = uses.iter();
    keys.map(|row| (row.owner.as_str(), row.hash.as_str()))
        .collect()
}

/// Copies data that is not there, before the responses that use it.
async fn transfer_data(
    source: &mut Desk,
    target: &mut Desk,
    (owner, hash): (&str, &str),
) -> Result<(), StoreError> {
    if target.blob(owner, hash).await?.is_some() {
        return Ok(());
    }
    // One that is not there has not been there for its response either; both are compared later.
    let Some(blob) = source.blob(owner, hash).await? else {
        return Ok(());
    };
    let mut chunks = Vec::new();
    for position in 0.. {
        let Some(chunk) = source.chunk(owner, hash, position).await? else {
            break;
        };
        chunks.push(chunk);
    }
    target.put_whole(&blob, &chunks).await
}

/// The responses of these whose data is not byte for byte the same.
async fn with_other_data(
    source: &mut Desk,
    target: &mut Desk,
    rows: &[KeptRow],
) -> Result<HashSet<String>, StoreError> {
    let ids: Vec<String> = rows.iter().map(|row| row.id.clone()).collect();
    let (ours, theirs) = (source.uses_of(&ids).await?, target.uses_of(&ids).await?);
    let mut other = HashSet::new();
    for key in data_of(&ours) {
        if !same_data(source, target, key).await? {
            other.insert(key);
        }
    }
    let differs = |row: &&UseRow| {
        let key = (row.owner.as_str(), row.hash.as_str());
        !theirs.contains(row) || other.contains(&key)
    };
    Ok(ours
        .iter()
        .filter(differs)
        .map(|row| row.response.clone())
        .collect())
}

async fn same_data(
    source: &mut Desk,
    target: &mut Desk,
    (owner, hash): (&str, &str),
) -> Result<bool, StoreError> {
    for position in 0.. {
        let ours = source.chunk(owner, hash, position).await?;
        if ours != target.chunk(owner, hash, position).await? {
            return Ok(false);
        }
        if ours.is_none() {
            // Data has at least one chunk.
            return Ok(position > 0);
        }
    }
    Ok(true)
}

/// Copies what was approved: it may not be approved once more in the target. Says how much was not
/// there.
async fn transfer_approvals(source: &mut Desk, target: &mut Desk) -> Result<u64, StoreError> {
    let (mut owner, mut request, mut put) = (String::new(), String::new(), 0);
    loop {
        let page = source.approvals((&owner, &request), APPROVALS).await?;
        let Some(last) = page.last() else {
            return Ok(put);
        };
        owner.clone_from(&last.owner);
        request.clone_from(&last.request);
        let new = target.put_approvals(&page).await?;
        put += u64::try_from(new).unwrap_or_default();
    }
}

async fn compare(
    (source, target): (&mut Desk, &mut Desk),
    page: Page,
    copied: &mut Copied,
) -> Result<(), StoreError> {
    let there = counterparts(target, &page.rows).await?;
    let settings = settings_of(target, &page.rows).await?;
    let same_settings = page.settings.is_subset(&settings);
    let other_data = with_other_data(source, target, &page.rows).await?;
    for row in page.rows {
        match there.get(&row.id) {
            Some(other) if *other == row && same_settings && !other_data.contains(&row.id) => {
                copied.equal += 1;
            }
            Some(other) if !row.is_same_response(other) => {
                copied.missed += 1;
                if copied.clashes.len() < NAMED {
                    copied.clashes.push(row.id);
                }
            }
            Some(_) | None => copied.missed += 1,
        }
    }
    Ok(())
}
