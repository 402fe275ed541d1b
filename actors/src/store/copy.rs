//! Moving every response from one database to another: step by step, then once more to compare. The
//! target is looked at from both sides: what the source has, and what it has no more.

use std::collections::{HashMap, HashSet};

use super::desk::Desk;
use super::messages::StoreError;
use super::rows::{HeadRow, KeptRow, SettingsRow, UseRow};
use crate::env::{Clock as _, SystemClock};

/// Heads of responses, approvals or deletions of a page. Each is a line.
const PAGE: i64 = 256;
/// Bytes of what one step reads of each database and writes at once; a response that has more goes alone.
const STEP: u64 = 4 << 20;

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
    /// Responses of the source that are byte for byte the same in the target, or were deleted there.
    pub equal: u64,
    /// Responses of the source whose id the target has for another response; the first few.
    pub clashes: Vec<String>,
    /// Responses that changed or came while the copy ran.
    pub missed: u64,
    /// Responses of the target that were deleted since the source deleted them.
    pub deleted: u64,
    /// Live responses of the target that the source does not have.
    pub strange: u64,
    /// The first few of them.
    pub strangers: Vec<String>,
}

/// Clashes and strangers that are named.
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
            let heads = source.heads(&after, PAGE).await?;
            let Some(last) = heads.last() else { break };
            after.clone_from(&last.id);
            for step in plan(target, heads).await? {
                done += u64::try_from(step.len()).unwrap_or_default();
                let page = read_page(source, &step).await?;
                match phase {
                    Phase::Copying => transfer((source, target), page, &mut copied).await?,
                    Phase::Comparing => compare((source, target), page, &mut copied).await?,
                }
                progress(Copying { phase, done, of });
            }
        }
        // A response that was given to an owner since an earlier copy leaves the data of nobody.
        target.find_unused().await?;
        let put = transfer_approvals(source, target).await?;
        if phase == Phase::Comparing {
            copied.missed += put;
        }
        copied.deleted += transfer_deletions(source, target).await?;
    }
    find_strangers((source, target), &mut copied).await?;
    Ok(copied)
}

/// Divides responses of the source into steps.
async fn plan(target: &mut Desk, heads: Vec<HeadRow>) -> Result<Vec<Vec<String>>, StoreError> {
    let ids: Vec<String> = heads.iter().map(|head| head.id.clone()).collect();
    let theirs = target.weights(&ids).await?;
    let theirs = theirs.into_iter();
    let theirs = theirs.map(|(id, taken, made)| (id, bytes(taken) + bytes(made)));
    Ok(steps(heads, &theirs.collect()))
}

fn bytes(length: i32) -> u64 {
    u64::try_from(length).unwrap_or_default()
}

/// Each with as many bytes as [`STEP`] allows: of the source with its settings, or of the target if it
/// has more.
fn steps(heads: Vec<HeadRow>, theirs: &HashMap<String, u64>) -> Vec<Vec<String>> {
    let mut steps = Vec::new();
    let mut step = Vec::new();
    let mut settings = HashSet::new();
    let mut sum = 0;
    for head in heads {
        let ours = bytes(head.taken) + bytes(head.made);
        let weight = ours.max(theirs.get(&head.id).copied().unwrap_or_default());
        let key = (head.owner, head.settings_hash);
        let their_settings = bytes(head.settings.unwrap_or_default());
        let more = if settings.contains(&key) {
            weight
        } else {
            weight + their_settings
        };
        if !step.is_empty() && sum + more > STEP {
            steps.push(std::mem::take(&mut step));
            settings.clear();
            sum = weight + their_settings;
        } else {
            sum += more;
        }
        settings.insert(key);
        step.push(head.id);
    }
    steps.push(step);
    steps
}

/// Whole responses and the settings that they name.
struct Page {
    rows: Vec<KeptRow>,
    settings: HashSet<SettingsRow>,
}

async fn read_page(source: &mut Desk, ids: &[String]) -> Result<Page, StoreError> {
    let mut rows = source.some(ids).await?;
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
    let mut named: HashMap<&str, HashSet<&str>> = HashMap::new();
    for row in rows {
        let hashes = named.entry(&row.owner).or_default();
        hashes.insert(&row.settings_hash);
    }
    let mut settings = HashSet::new();
    for (owner, hashes) in named {
        let hashes: Vec<&str> = hashes.into_iter().collect();
        settings.extend(desk.some_settings(owner, &hashes).await?);
    }
    Ok(settings)
}

fn ids_of(rows: &[KeptRow]) -> Vec<String> {
    rows.iter().map(|row| row.id.clone()).collect()
}

/// The target's rows of these ids, by id.
async fn counterparts(
    target: &mut Desk,
    rows: &[KeptRow],
) -> Result<HashMap<String, KeptRow>, StoreError> {
    let ids = ids_of(rows);
    let there = target.some(&ids).await?;
    Ok(there.into_iter().map(|row| (row.id.clone(), row)).collect())
}

async fn transfer(
    (source, target): (&mut Desk, &mut Desk),
    page: Page,
    copied: &mut Copied,
) -> Result<(), StoreError> {
    let there = counterparts(target, &page.rows).await?;
    let deleted = target.deleted_of(&ids_of(&page.rows)).await?;
    let mut missing = Vec::new();
    for mut row in page.rows {
        match there.get(&row.id) {
            Some(other) if row.has_come_as(other) => copied.found += 1,
            // Named when both are compared.
            Some(other) if !row.is_same_response(other) => {}
            Some(_) | None => {
                if row.deleted_at.is_none() && deleted.contains(&row.id) {
                    // It is deleted there; what continues it may need it still.
                    row.deleted_at = Some(SystemClock.now_ms());
                    row.expires_at = row.deleted_at;
                }
                missing.push(row);
            }
        }
    }
    let settings: Vec<SettingsRow> = page.settings.into_iter().collect();
    let ids = ids_of(&missing);
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
    let ids = ids_of(rows);
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
        let page = source.approvals((&owner, &request), PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(put);
        };
        owner.clone_from(&last.owner);
        request.clone_from(&last.request);
        let new = target.put_approvals(&page).await?;
        put += u64::try_from(new).unwrap_or_default();
    }
}

/// Deletes in the target what was deleted in the source and is gone there. Says how much was not
/// deleted yet.
async fn transfer_deletions(source: &mut Desk, target: &mut Desk) -> Result<u64, StoreError> {
    let (mut after, mut deleted) = (String::new(), 0);
    loop {
        let page = source.deletions(&after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(deleted);
        };
        after.clone_from(&last.id);
        let new = target.take_over(&page).await?;
        deleted += u64::try_from(new).unwrap_or_default();
    }
}

/// Counts what only the target has: its own, or what the source deleted so long ago that it forgot.
async fn find_strangers(
    (source, target): (&mut Desk, &mut Desk),
    copied: &mut Copied,
) -> Result<(), StoreError> {
    let now_ms = SystemClock.now_ms();
    let mut after = String::new();
    loop {
        let ids = target.living(&after, now_ms, PAGE).await?;
        let Some(last) = ids.last() else {
            return Ok(());
        };
        after.clone_from(last);
        let known = source.weights(&ids).await?;
        let known: HashSet<String> = known.into_iter().map(|(id, ..)| id).collect();
        for id in ids {
            if known.contains(&id) {
                continue;
            }
            copied.strange += 1;
            if copied.strangers.len() < NAMED {
                copied.strangers.push(id);
            }
        }
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
    let deleted = target.deleted_of(&ids_of(&page.rows)).await?;
    for row in page.rows {
        let is_whole = same_settings && !other_data.contains(&row.id);
        match there.get(&row.id) {
            Some(other) if row.has_come_as(other) && is_whole => copied.equal += 1,
            None if deleted.contains(&row.id) => copied.equal += 1,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn head(id: usize, settings: usize, lengths: [i32; 3]) -> HeadRow {
        let [taken, made, length] = lengths;
        HeadRow {
            id: id.to_string(),
            owner: String::new(),
            settings_hash: settings.to_string(),
            taken,
            made,
            settings: Some(length),
        }
    }

    #[test]
    fn a_step_is_bounded_by_bytes_and_has_every_response_once() {
        const MIB: i32 = 1 << 20;
        let sizes = |heads: Vec<HeadRow>, theirs: &HashMap<String, u64>| {
            let all: Vec<String> = heads.iter().map(|head| head.id.clone()).collect();
            let steps = steps(heads, theirs);
            assert_eq!(steps.concat(), all);
            steps.iter().map(Vec::len).collect::<Vec<_>>()
        };
        let none = HashMap::new();
        let small = |id| head(id, 0, [10, 10, 10]);
        assert_eq!(sizes((0..256).map(small).collect(), &none), [256]);
        // 24 MiB each, the attack's.
        let large = |id| head(id, 0, [24 * MIB, 0, 10]);
        assert_eq!(sizes((0..5).map(large).collect(), &none), [1; 5]);
        let middling = |id| head(id, 0, [MIB / 2, MIB / 2, 0]);
        assert_eq!(sizes((0..9).map(middling).collect(), &none), [4, 4, 1]);
        // Settings count once a step.
        let shared = |id| head(id, 0, [MIB, 0, 2 * MIB]);
        assert_eq!(sizes((0..5).map(shared).collect(), &none), [2, 2, 1]);
        let own = |id| head(id, id, [1, 0, 2 * MIB]);
        assert_eq!(sizes((0..3).map(own).collect(), &none), [1; 3]);
        // What the target has under the same ids is read too.
        let theirs = (0..4).map(|id: usize| (id.to_string(), 3 << 20)).collect();
        assert_eq!(sizes((0..5).map(small).collect(), &theirs), [1, 1, 1, 2]);
    }
}
