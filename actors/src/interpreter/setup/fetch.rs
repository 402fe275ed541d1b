//! Downloads: over HTTPS from a registry, resumed after an interruption, by `npm` when that fails.
//!
//! Nothing leaves this module that does not have the checksum it was asked for by. Files are small
//! enough (under 50 MB) to be held in memory, so what was checked is what is unpacked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use awc::http::StatusCode;
use awc::http::header::{CONTENT_RANGE, RANGE};
use awc::{Client, ClientResponse, Connector};
use futures_util::StreamExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::error::{Doing as _, SetupError};
use super::hash;
use super::progress::Progress;
use crate::tls;

/// Longest wait for a connection, and then for the status line.
const CONNECT: Duration = Duration::from_secs(30);
/// Longest silence within a download.
const STALL: Duration = Duration::from_secs(60);
/// Longest run of `npm`.
const NPM: Duration = Duration::from_secs(900);
/// Tries at one file; what an earlier one received is kept.
const ATTEMPTS: u32 = 3;
/// Wait before the second try; doubled before the third.
const PAUSE: Duration = Duration::from_secs(1);
/// Bound on a file whose size is not pinned: the largest wheel has a quarter of it.
pub(super) const LARGEST: u64 = 128 << 20;

/// What to do about a download with another checksum.
const GET_AGAIN: &str = "run the set-up again, or use another mirror";

/// A file to be had.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Its name, here and in an archive.
    pub(super) name: String,
    /// Its address.
    pub(super) url: String,
    /// Lower-case hexadecimal.
    pub(super) sha256: String,
    /// Most bytes that are taken.
    pub(super) most: u64,
    /// `NAME@VERSION` of the npm package that it is, if any.
    pub(super) npm: Option<String>,
    /// The setting that names another place for it.
    pub(super) mirror: &'static str,
}

/// The folder of downloads and the client that fills it.
pub(super) struct Downloads {
    folder: PathBuf,
    client: Client,
    /// The npm program; `None` leaves it out.
    npm: Option<PathBuf>,
}

/// Why one try failed.
enum Failure {
    /// Another try may help.
    Passing(String),
    /// It will not.
    Lasting(String),
    /// The disk, not the network.
    Here(SetupError),
}

impl Downloads {
    /// Downloads into `folder`, which is made if need be.
    pub(super) fn new(folder: PathBuf, npm: Option<PathBuf>) -> Result<Self, SetupError> {
        fs::create_dir_all(&folder).doing("make", &folder)?;
        let connector = Connector::new()
            .rustls_0_23(tls::trusting_system())
            .timeout(CONNECT);
        let client = Client::builder()
            .connector(connector)
            .disable_timeout()
            .finish();
        Ok(Self {
            folder,
            client,
            npm,
        })
    }

    /// The file's bytes, checked. What an earlier set-up downloaded is used.
    pub(super) async fn get(
        &self,
        wanted: &Wanted,
        progress: &mut dyn Progress,
    ) -> Result<Vec<u8>, SetupError> {
        let path = self.folder.join(&wanted.name);
        match fs::read(&path) {
            Ok(bytes) if hash::sha256(&bytes) == wanted.sha256 => return Ok(bytes),
            Ok(_) => fs::remove_file(&path).doing("remove", &path)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).doing("read", &path),
        }
        progress.step(&format!("downloading {}", wanted.name));
        match self.download(wanted, progress).await {
            Ok(bytes) => {
                fs::rename(self.part(wanted), &path).doing("rename to", &path)?;
                Ok(bytes)
            }
            Err(error @ SetupError::Download { .. }) => {
                self.by_npm(wanted, progress).await.ok_or(error)?
            }
            Err(error) => Err(error),
        }
    }

    fn part(&self, wanted: &Wanted) -> PathBuf {
        self.folder.join(format!("{}.part", wanted.name))
    }

    async fn download(
        &self,
        wanted: &Wanted,
        progress: &mut dyn Progress,
    ) -> Result<Vec<u8>, SetupError> {
        let part = self.part(wanted);
        let mut pause = PAUSE;
        let mut left = ATTEMPTS;
        loop {
            left -= 1;
            let resumed = size_of_file(&part) > 0;
            let reason = match self.attempt(wanted, &part, progress).await {
                Ok(()) => {
                    let bytes = fs::read(&part).doing("read", &part)?;
                    match hash::check(&wanted.name, &bytes, &wanted.sha256, GET_AGAIN) {
                        Ok(()) => return Ok(bytes),
                        Err(error) => {
                            fs::remove_file(&part).doing("remove", &part)?;
                            // The beginning may have been another file's: once more, from nothing.
                            if !resumed || left == 0 {
                                return Err(error);
                            }
                            continue;
                        }
                    }
                }
                Err(Failure::Here(error)) => return Err(error),
                Err(Failure::Lasting(reason)) => return Err(unreachable(wanted, reason)),
                Err(Failure::Passing(reason)) => reason,
            };
            if left == 0 {
                return Err(unreachable(wanted, reason));
            }
            progress.detail(&format!("{reason}; trying again"));
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Fills the partial file to its end.
    async fn attempt(
        &self,
        wanted: &Wanted,
        part: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(), Failure> {
        let have = size_of_file(part);
        let mut request = self.client.get(&wanted.url).no_decompress();
        if have > 0 {
            request = request.insert_header((RANGE, format!("bytes={have}-")));
        }
        let response = timeout(CONNECT, request.send())
            .await
            .map_err(|_elapsed| Failure::Passing("no answer within 30 s".to_owned()))?
            .map_err(|error| Failure::Passing(error.to_string()))?;
        let from = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if resumes_at(&response, have) => have,
            StatusCode::RANGE_NOT_SATISFIABLE | StatusCode::PARTIAL_CONTENT => {
                fs::remove_file(part)
                    .doing("remove", part)
                    .map_err(Failure::Here)?;
                return Err(Failure::Passing("it cannot be resumed".to_owned()));
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(Failure::Passing(format!("status {}", status.as_u16())));
            }
            status => return Err(Failure::Lasting(format!("status {}", status.as_u16()))),
        };
        receive(response, wanted, (part, from), progress).await
    }

    /// Asks `npm`, which knows its user's proxies, mirrors and tokens. `None` where there is no npm or
    /// it has no luck either: the first reason is the better one then.
    async fn by_npm(
        &self,
        wanted: &Wanted,
        progress: &mut dyn Progress,
    ) -> Option<Result<Vec<u8>, SetupError>> {
        let package = wanted.npm.as_deref()?;
        let npm = self.npm.as_deref()?;
        progress.detail(&format!("asking npm for {package}"));
        let mut command = Command::new(npm);
        command
            .args(["pack", package, "--silent", "--ignore-scripts"])
            .arg("--pack-destination")
            .arg(&self.folder)
            // The network has had its tries: npm's own would be more than a minute of waiting.
            .arg("--fetch-retries=0")
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let status = timeout(NPM, command.status()).await.ok()?.ok()?;
        if !status.success() {
            return None;
        }
        let path = self.folder.join(&wanted.name);
        let bytes = fs::read(&path).ok()?;
        let checked = hash::check(&wanted.name, &bytes, &wanted.sha256, GET_AGAIN);
        Some(checked.map(|()| bytes))
    }
}

/// Appends the body to the partial file.
async fn receive<S>(
    mut response: ClientResponse<S>,
    wanted: &Wanted,
    (part, from): (&Path, u64),
    progress: &mut dyn Progress,
) -> Result<(), Failure>
where
    S: futures_util::Stream<Item = Result<bytes::Bytes, awc::error::PayloadError>> + Unpin,
{
    let length = response
        .headers()
        .get(awc::http::header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let total = length.map_or(wanted.most, |length| from.saturating_add(length));
    let mut file = open_at(part, from).map_err(Failure::Here)?;
    let mut done = from;
    progress.bytes(done, total);
    loop {
        let chunk = timeout(STALL, response.next())
            .await
            .map_err(|_elapsed| Failure::Passing("no bytes for 60 s".to_owned()))?;
        let Some(chunk) = chunk else { break };
        let chunk = chunk.map_err(|error| Failure::Passing(error.to_string()))?;
        done = done.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if done > wanted.most {
            drop(file);
            fs::remove_file(part)
                .doing("remove", part)
                .map_err(Failure::Here)?;
            let reason = format!("it is larger than {} bytes", wanted.most);
            return Err(Failure::Lasting(reason));
        }
        file.write_all(&chunk)
            .doing("write", part)
            .map_err(Failure::Here)?;
        progress.bytes(done, total);
    }
    if done < total && length.is_some() {
        return Err(Failure::Passing("the connection ended early".to_owned()));
    }
    file.sync_all().doing("write", part).map_err(Failure::Here)
}

fn open_at(part: &Path, from: u64) -> Result<File, SetupError> {
    let mut options = OpenOptions::new();
    if from == 0 {
        options.write(true).create(true).truncate(true);
    } else {
        options.append(true);
    }
    options.open(part).doing("write", part)
}

/// Whether the answer goes on where the partial file ends.
fn resumes_at<S>(response: &ClientResponse<S>, have: u64) -> bool {
    response
        .headers()
        .get(CONTENT_RANGE)
        .and_then(|value| value.to_str().ok()?.strip_prefix("bytes ")?.split_once('-'))
        .is_some_and(|(start, _)| start.parse() == Ok(have))
}

/// 0 for a file that is not there.
fn size_of_file(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

fn unreachable(wanted: &Wanted, reason: String) -> SetupError {
    SetupError::Download {
        what: wanted.name.clone(),
        url: without_user(&wanted.url),
        reason,
        mirror: wanted.mirror,
    }
}

/// The address without a user and password, which a mirror's may hold.
fn without_user(url: &str) -> String {
    let Ok(mut url) = url::Url::parse(url) else {
        return "an address that is no URL".to_owned();
    };
    // Fails only for URLs that cannot have them.
    url.set_username("").unwrap_or_default();
    url.set_password(None).unwrap_or_default();
    url.set_query(None);
    url.into()
}
