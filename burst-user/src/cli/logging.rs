//! The log: to standard error, for people or as JSON lines.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::exit::Failure;

/// What is logged unless BURST_LOG says otherwise. aya tells of every section it reads at lower levels.
const DEFAULT: &str = "info,aya=warn,aya_obj=warn";

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Lines for people; in colour on a terminal.
    #[default]
    Human,
    /// One JSON object per line.
    Json,
}

/// Starts to log.
///
/// # Errors
/// When BURST_LOG cannot be understood.
pub fn start(form: Form) -> Result<(), Failure> {
    use std::io::IsTerminal;
    let filter = filter(std::env::var("BURST_LOG").ok().as_deref())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match form {
        Form::Human => builder.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
        Form::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("cannot start to log: {error}").into())
}

/// What BURST_LOG says, on top of the defaults for libraries.
fn filter(said: Option<&str>) -> Result<EnvFilter, Failure> {
    let directives = match said {
        None | Some("") => DEFAULT.to_owned(),
        // The later directive for a target counts.
        Some(said) => format!("{DEFAULT},{said}"),
    };
    EnvFilter::builder().parse(directives).map_err(|error| {
        let said = said.unwrap_or_default();
        let fix = "write for example BURST_LOG=debug or BURST_LOG=info,burst::netlink=debug";
        crate::exit::Exit::Usage.because(anyhow::anyhow!("BURST_LOG is {said:?}: {error}; {fix}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_adds_to_the_defaults() {
        for (said, expected) in [
            (None, "aya=warn,aya_obj=warn,info"),
            (Some(""), "aya=warn,aya_obj=warn,info"),
            (Some("debug"), "aya=warn,aya_obj=warn,debug"),
            (Some("aya=debug"), "aya=debug,aya_obj=warn,info"),
        ] {
            let filter = filter(said).unwrap().to_string();
            let mut parts: Vec<_> = filter.split(',').collect();
            parts.sort_unstable();
            let mut wanted: Vec<_> = expected.split(',').collect();
            wanted.sort_unstable();
            assert_eq!(parts, wanted, "{said:?}");
        }
    }

    #[test]
    fn nonsense_is_a_usage_error_that_says_how_to_write_it() {
        let failure = filter(Some("burst=loud")).unwrap_err();
        assert_eq!(failure.exit, crate::exit::Exit::Usage);
        assert!(failure.to_string().starts_with("BURST_LOG is \"burst=loud\": "), "{failure}");
    }
}
