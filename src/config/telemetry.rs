//! Keys of the log and of tracing.

use vllm_responses_actors::trace::TracingSettings;

use super::raw::Raw;
use super::validate::Reader;
use super::{LogFormat, Logging};
use crate::logging::ACCESS;

/// Judges the keys of the log only: what SIGHUP reads again.
///
/// # Errors
/// All problems, those of names and files included; nothing is to be changed then.
pub(crate) fn logging(raw: &Raw) -> Result<Logging, Vec<String>> {
    let mut reader = Reader {
        raw,
        problems: raw.problems.clone(),
    };
    let logging = reader.logging();
    match logging {
        Some(logging) if reader.problems.is_empty() => Ok(logging),
        _ => Err(reader.problems),
    }
}

impl Reader<'_> {
    pub(super) fn logging(&mut self) -> Option<Logging> {
        let rule = "must be `off`, `error`, `warn`, `info`, `debug` or `trace`";
        let level = self.read("logging.level", rule, |text| {
            text.parse::<log::LevelFilter>()
                .ok()
                .map(|level| level.as_str().to_ascii_lowercase())
        });
        let rule = "must be `text` or `json`";
        let format = self.read("logging.format", rule, |text| match text {
            "text" => Some(LogFormat::Text),
            "json" => Some(LogFormat::Json),
            _ => None,
        });
        let timings = self.switch("logging.timings");
        let model_messages = self.switch("logging.model_messages");
        let access = self.switch("logging.access");
        let filter = self.raw.rust_log.clone().or(level)?;
        let filter = if access? {
            filter
        } else {
            format!("{filter},{ACCESS}=off")
        };
        Some(Logging {
            filter,
            format: format?,
            timings: timings?,
            model_messages: model_messages?,
        })
    }

    /// `None` while it is off, or wrong and then reported.
    pub(super) fn tracing(&mut self) -> Option<TracingSettings> {
        let enabled = self.switch("tracing.enabled");
        let rule = "must be a name of 1 to 128 printable letters";
        let service_name = self.read("tracing.service_name", rule, |text| {
            let fits = (1..=128).contains(&text.len()) && !text.contains(char::is_control);
            fits.then(|| text.to_owned())
        });
        let rule = "must be a share from 0 to 1; write for example `0.01`";
        let sample_ratio = self.read("tracing.sample_ratio", rule, |text| {
            let share = text.parse::<f64>().ok()?;
            (0.0..=1.0).contains(&share).then_some(share)
        });
        let host = self.host("tracing.host");
        let port = self.port("tracing.port", 1);
        let settings = TracingSettings {
            service_name: service_name?,
            sample_ratio: sample_ratio?,
            host: host?,
            port: port?,
        };
        enabled?.then_some(settings)
    }
}
