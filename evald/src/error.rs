//! The crate's error: one lower-case line for people.

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What stopped the daemon or one of its parts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host lacks what the tier needs, or the tier cannot be had.
    #[error("{0}")]
    Host(String),
    /// An environment (interpreter, preloaded modules) cannot be used.
    #[error("environment {name}: {reason}")]
    Environment {
        /// The environment's name.
        name: String,
        /// Why, and the mend where there is one.
        reason: String,
    },
    /// A step of the sandbox's set-up failed.
    #[error("cannot {step}: {cause}")]
    Setup {
        /// What was being done.
        step: String,
        /// The system's answer.
        cause: std::io::Error,
    },
    /// A zygote ended, or does not answer.
    #[error("{0}")]
    Zygote(String),
}

/// Names the step that an operating-system error belongs to.
pub(crate) trait Step<T> {
    fn step(self, step: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<std::io::Error>> Step<T> for std::result::Result<T, E> {
    fn step(self, step: impl Into<String>) -> Result<T> {
        self.map_err(|cause| Error::Setup { step: step.into(), cause: cause.into() })
    }
}
