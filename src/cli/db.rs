//! `db`: what an operator does with the database of responses.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::Serialize;
use vllm_responses_actors::store::copy::{Copied, Copying, Phase};
use vllm_responses_actors::store::desk::{Census, Desk, Opening};
use vllm_responses_actors::store::settings::{Database, StoreSettings};

use super::{USAGE, answer, complain, inputs};
use crate::banner;
use crate::config::raw::Inputs;
use crate::config::{self, table};
use crate::keys;

const AFTER: &str = "\
The database is the one that the gateway would use: VR_DB_PATH in the environment or in `.env`,
or `database` under `[store]` in the TOML file. The gateway may run meanwhile, unless a command's
own help says otherwise.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.";

const PURGE_AFTER: &str = "\
Deleted and expired responses read as unknown at once. Their rows go when no live response
continues them; a running gateway removes them itself every VR_DB_PURGE_INTERVAL, once they
ended an hour ago. A turn that began before the end may still need them: give a shorter --grace
only when no gateway runs, or to get rid of content now.";

const ADOPT_AFTER: &str = "\
Responses made without API keys (VR_API_KEYS_FILE) belong to nobody, and no key can see them.
This gives them to a key's NAME. Stop the gateway first, or configure its keys.";

const COPY_AFTER: &str = "\
Moves a gateway from SQLite to PostgreSQL, or back:
  1. vllm-responses db copy --from responses.db --to postgresql://USER:PASSWORD@HOST/DB
     while the gateway runs: the long part.
  2. Stop the gateway, run the same command again: it writes only what is missing.
  3. Start the gateway with the new VR_DB_PATH.
Either end may be left out, and is then the database of VR_DB_PATH; so a password need not stand
on the command line. A copy that was interrupted is taken up by the next one. What clients deleted
since the first copy is deleted in the new database too, if the copies are less than 90 days apart.
At the end both databases are read and compared byte by byte; the source is never changed.";

const BACKUP_AFTER: &str = "\
Writes what the database holds at this moment to FILE, which must not be there yet and only its
owner can read. The gateway may run meanwhile. To restore, stop the gateway and put FILE where
VR_DB_PATH points.

The key that opens clients' encrypted reasoning is not in it: it stands beside the database, in
DATABASE.seal-key (or in VR_SEAL_KEYS). Keep a copy of that too, apart from the backup.

Of a PostgreSQL database make the backup with pg_dump.";

/// A command of `db`.
fn sub(name: &'static str, about: &'static str) -> Command {
    Command::new(name).about(about).after_help(AFTER).arg(
        Arg::new(table::CONFIG)
            .long("config")
            .value_name("FILE")
            .help("TOML file with the gateway's configuration [env: VR_CONFIG]"),
    )
}

/// The shape of `db`.
pub(super) fn command() -> Command {
    let status = sub("status", "Count responses, and what they take on disk").arg(
        Arg::new("json")
            .long("json")
            .action(ArgAction::SetTrue)
            .help("One JSON object instead of lines"),
    );
    let purge = sub(
        "purge",
        "Remove responses that were deleted or have expired",
    )
    .after_help(format!("{PURGE_AFTER}\n\n{AFTER}"))
    .arg(
        Arg::new("grace")
            .long("grace")
            .value_name("DURATION")
            .default_value("1h")
            .help("Leave those that ended less than this ago"),
    );
    let adopt = sub("adopt", "Give responses that have no owner to one")
        .after_help(format!("{ADOPT_AFTER}\n\n{AFTER}"))
        .arg(
            Arg::new("name")
                .value_name("NAME")
                .required(true)
                .help("NAME of an API key"),
        );
    let end = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("URL").help(help)
    };
    let copy = sub(
        "copy",
        "Copy every response to another database, and compare",
    )
    .after_help(format!("{COPY_AFTER}\n\n{AFTER}"))
    .arg(end(
        "from",
        "Where they are; a file path or a URL as in VR_DB_PATH",
    ))
    .arg(end("to", "Where they go; made and migrated when needed"));
    Command::new("db")
        .about("The database of responses: migrate, look, purge, move, back up")
        .after_help(AFTER)
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(sub(
            "migrate",
            "Make the database, or bring it to this version's schema",
        ))
        .subcommand(status)
        .subcommand(purge)
        .subcommand(adopt)
        .subcommand(copy)
        .subcommand(backup_command())
}

fn backup_command() -> Command {
    sub("backup", "Copy an SQLite database to a file, whole")
        .after_help(format!("{BACKUP_AFTER}\n\n{AFTER}"))
        .arg(
            Arg::new("file")
                .value_name("FILE")
                .required(true)
                .help("Where it goes; never overwritten"),
        )
}

/// What went wrong, and the exit code.
struct Problem(Vec<String>, u8);

/// Usage or configuration.
fn wrong(problems: Vec<String>) -> Problem {
    Problem(problems, USAGE)
}

/// The work itself.
fn failed(problem: String) -> Problem {
    Problem(vec![problem], 1)
}

impl<E: std::error::Error> From<E> for Problem {
    fn from(error: E) -> Self {
        failed(error.to_string())
    }
}

/// Does what was asked.
pub(super) fn run(given: &ArgMatches) -> ExitCode {
    let Some((name, given)) = given.subcommand() else {
        return ExitCode::from(USAGE);
    };
    let inputs = inputs(given, &[]);
    let work = async {
        match name {
            "migrate" => migrate(&inputs).await,
            "status" => status(&inputs, given).await,
            "purge" => purge(&inputs, text(given, "grace")).await,
            "adopt" => adopt(&inputs, text(given, "name")).await,
            "backup" => backup(&inputs, text(given, "file")).await,
            _ => copy(&inputs, given).await,
        }
    };
    match actix_rt::System::new().block_on(work) {
        Ok(text) => answer(&text),
        Err(Problem(problems, code)) => {
            let lines = problems.iter().map(|problem| format!("error: {problem}"));
            complain(&lines.collect::<Vec<_>>());
            ExitCode::from(code)
        }
    }
}

fn text<'a>(given: &'a ArgMatches, name: &str) -> &'a str {
    given.get_one::<String>(name).map_or("", String::as_str)
}

async fn open(inputs: &Inputs, opening: Opening) -> Result<Desk, Problem> {
    let settings = config::load_store(inputs).map_err(wrong)?;
    let desk = Desk::open(&settings, opening).await;
    desk.map_err(|error| failed(banner::unusable(&settings, &error)))
}

async fn migrate(inputs: &Inputs) -> Result<String, Problem> {
    open(inputs, Opening::Migrate).await?;
    Ok("The database has this version's schema.\n".to_owned())
}

/// `status --json`.
#[derive(Serialize)]
struct Status {
    database: String,
    responses: u64,
    live: u64,
    deleted: u64,
    expired: u64,
    blobs: u64,
    blob_bytes: u64,
    bytes: u64,
    oldest_unix_ms: Option<i64>,
}

async fn status(inputs: &Inputs, given: &ArgMatches) -> Result<String, Problem> {
    let mut desk = open(inputs, Opening::AsItIs).await?;
    let database = banner::place(&config::load_store(inputs).map_err(wrong)?);
    let Census {
        responses,
        live,
        deleted,
        expired,
        blobs,
        blob_bytes,
        bytes,
        oldest_ms,
    } = desk.census().await?;
    if given.get_flag("json") {
        let status = Status {
            database,
            responses,
            live,
            deleted,
            expired,
            blobs,
            blob_bytes,
            bytes,
            oldest_unix_ms: oldest_ms,
        };
        let line = serde_json::to_string(&status)?;
        return Ok(format!("{line}\n"));
    }
    let oldest = oldest_ms.map_or_else(|| "-".to_owned(), date);
    Ok(format!(
        "database   {database}\nresponses  {responses}\nlive       {live}\ndeleted    {deleted}  (not yet removed)\n\
         expired    {expired}  (not yet removed)\nblobs      {blobs}  ({blob_bytes} bytes)\nbytes      {bytes}\noldest     {oldest}\n"
    ))
}

/// `2026-11-25 00:16 UTC`, from Unix milliseconds.
fn date(ms: i64) -> String {
    let minutes = ms.div_euclid(60_000);
    let (days, minute) = (minutes.div_euclid(1440), minutes.rem_euclid(1440));
    // Days to a date, in years that begin in March, so that the leap day is the last (Howard Hinnant's
    // algorithm `civil_from_days`).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (minute / 60, minute % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

async fn purge(inputs: &Inputs, grace: &str) -> Result<String, Problem> {
    let grace = config::duration(grace).ok_or_else(|| {
        wrong(vec![
            "`--grace` must be a duration; write for example `1h`".into(),
        ])
    })?;
    let mut desk = open(inputs, Opening::AsItIs).await?;
    let rows = desk.purge(grace).await?;
    Ok(format!("Removed {rows} responses.\n"))
}

async fn adopt(inputs: &Inputs, name: &str) -> Result<String, Problem> {
    if !keys::valid_name(name) {
        let rule = "the name must be 1 to 64 letters, digits, `.`, `_` or `-`";
        return Err(wrong(vec![rule.to_owned()]));
    }
    let mut desk = open(inputs, Opening::AsItIs).await?;
    let rows = desk.adopt(name).await?;
    Ok(format!(
        "{name} now owns {rows} responses that nobody owned.\n"
    ))
}

async fn backup(inputs: &Inputs, file: &str) -> Result<String, Problem> {
    let mut desk = open(inputs, Opening::AsItIs).await?;
    desk.back_up(Path::new(file))?;
    Ok(format!(
        "{file} is a whole copy of the database. Keep the seal key too: the file beside the database \
         whose name ends in `.seal-key`, or VR_SEAL_KEYS.\n"
    ))
}

async fn copy(inputs: &Inputs, given: &ArgMatches) -> Result<String, Problem> {
    let end = |name: &str| -> Result<StoreSettings, Problem> {
        let settings = config::load_store(inputs).map_err(wrong)?;
        let Some(url) = given.get_one::<String>(name) else {
            return Ok(settings);
        };
        let database =
            Database::parse(url).map_err(|rule| wrong(vec![format!("`--{name}`: {rule}")]))?;
        Ok(StoreSettings {
            database,
            ..settings
        })
    };
    let (from, to) = (end("from")?, end("to")?);
    if from.database == to.database {
        let rule = "`--from` and `--to` are the same database; name another one";
        return Err(wrong(vec![rule.to_owned()]));
    }
    let mut source = Desk::open(&from, Opening::AsItIs)
        .await
        .map_err(|error| failed(format!("`--from` ({}): {error}", banner::place(&from))))?;
    let mut target = Desk::open(&to, Opening::Migrate)
        .await
        .map_err(|error| failed(format!("`--to` ({}): {error}", banner::place(&to))))?;
    let mut bar = Bar::default();
    let copied = source.copy_to(&mut target, |at| bar.show(at)).await?;
    verdict(&copied)
}

fn verdict(copied: &Copied) -> Result<String, Problem> {
    let Copied {
        written,
        found,
        equal,
        clashes,
        missed,
        deleted,
        strange,
        strangers,
    } = copied;
    let deleted = match deleted {
        0 => String::new(),
        some => format!(", {some} deleted as in the source"),
    };
    let counts =
        format!("{written} written, {found} there before, {equal} compared and equal{deleted}");
    if !clashes.is_empty() {
        return Err(failed(format!(
            "{counts}; the target has other responses under ids of the source, such as {}: \
             copy to an empty database",
            clashes.join(", ")
        )));
    }
    if *missed > 0 {
        return Err(failed(format!(
            "{counts}; {missed} changed or came while the copy ran: stop the gateway and run it again"
        )));
    }
    if *strange > 0 {
        return Err(failed(format!(
            "{counts}; {strange} of the target are not in the source, such as {}: were they not made \
             there, then they were deleted in the source, too long ago to tell: copy to an empty \
             database",
            strangers.join(", ")
        )));
    }
    Ok(format!("{counts}.\n"))
}

/// Progress on stderr: one line that is written over on a terminal, else a line for each tenth.
#[derive(Default)]
struct Bar {
    tenth: Option<(Phase, u64)>,
}

impl Bar {
    const WIDTH: u64 = 30;

    fn show(&mut self, Copying { phase, done, of }: Copying) {
        let of = of.max(done).max(1);
        let word = match phase {
            Phase::Copying => "copying",
            Phase::Comparing => "comparing",
        };
        let mut stderr = std::io::stderr();
        let written = if stderr.is_terminal() {
            let full = usize::try_from(done * Self::WIDTH / of).unwrap_or_default();
            let bar = format!("{:<30}", "#".repeat(full));
            let end = if done == of { "\n" } else { "" };
            write!(stderr, "\r{word:>9} [{bar}] {done}/{of}{end}")
        } else {
            let tenth = Some((phase, done * 10 / of));
            if tenth == self.tenth {
                return;
            }
            self.tenth = tenth;
            writeln!(stderr, "{word} {done}/{of}")
        };
        // Progress that nobody can see is no reason to stop.
        written.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use vllm_responses_actors::store::sweep::GRACE;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00 UTC");
        assert_eq!(date(951_782_399_000), "2000-02-28 23:59 UTC");
        assert_eq!(date(951_782_400_000), "2000-02-29 00:00 UTC");
        assert_eq!(date(1_735_689_599_999), "2024-12-31 23:59 UTC");
        assert_eq!(date(1_764_029_759_000), "2025-11-25 00:15 UTC");
        assert_eq!(date(-1), "1969-12-31 23:59 UTC");
    }

    #[test]
    fn the_help_tells_the_grace_that_the_gateway_has() {
        let told = config::duration("1h");
        assert_eq!(told, Some(GRACE));
    }
}
