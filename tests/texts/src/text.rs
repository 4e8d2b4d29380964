//! A text and its kind.

use std::fmt;

/// A text that a user can see. Its `Display` is a line of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text {
    pub(crate) kind: Kind,
    /// The text with its placeholders.
    pub(crate) text: String,
}

/// How a text reaches the user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// An error.
    Error,
    /// Help of a command-line program.
    Help,
    /// A compiler warning for users of an item: `must_use`, `deprecated`.
    Lint,
    /// A log message.
    Log {
        level: String,
        /// Empty if the macro names none.
        target: String,
        fields: Vec<String>,
    },
    /// A panic.
    Panic,
    /// Output of a command-line program.
    Print,
    /// Any other text.
    Other,
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Error => f.write_str("error")?,
            Kind::Help => f.write_str("help")?,
            Kind::Lint => f.write_str("lint")?,
            Kind::Log { level, target, fields } => {
                write!(f, "log {level} {target}[{}]", fields.join(" "))?;
            }
            Kind::Panic => f.write_str("panic")?,
            Kind::Print => f.write_str("print")?,
            Kind::Other => f.write_str("text")?,
        }
        write!(f, " {:?}", self.text)
    }
}
