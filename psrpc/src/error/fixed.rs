//! The errors that every implementation of PSRPC has, known by their reason where they are ours and
//! by code and text where they come from a peer.

use psrpc_engine::Reason;
use psrpc_engine::proto::ErrorCode;

use super::Error;

/// Declares the errors in one table: constructor, predicate, code, text, and the reason of ours
/// that is the same.
macro_rules! fixed {
    ($($(#[$doc:meta])* $name:ident, $is:ident = $code:ident, $text:literal, $reason:expr;)*) => {
        /// Errors that PSRPC itself has, with the codes and texts of Go (PROTOCOL section 10).
        ///
        /// The predicates hold for such an error of ours, and for one that a peer answered with;
        /// [`reason`](Self::reason) tells these apart.
        impl Error {
            $(
                $(#[$doc])*
                pub fn $name() -> Self {
                    Self::new(ErrorCode::$code, $text)
                }

                #[doc = concat!("Whether it is \"", $text, "\"; see [`", stringify!($name), "`](Self::", stringify!($name), ").")]
                pub fn $is(&self) -> bool {
                    let reason: Option<Reason> = $reason;
                    (reason.is_some() && self.reason() == reason)
                        || (*self.code() == ErrorCode::$code && self.text() == $text)
                }
            )*
        }

        /// The error and predicate of every row.
        #[cfg(test)]
        const ALL: &[(fn() -> Error, fn(&Error) -> bool, Option<Reason>)] =
            &[$((Error::$name, Error::$is, $reason)),*];
    };
}

fixed! {
    /// The caller gave up: `canceled`.
    canceled, is_canceled = Canceled, "request canceled", Some(Reason::Canceled);
    /// The deadline passed before an answer came: `deadline_exceeded`.
    timed_out, is_timed_out = DeadlineExceeded, "request timed out", Some(Reason::TimedOut);
    /// No server took the call: `unavailable`.
    no_response, is_no_response = Unavailable, "no response from servers", Some(Reason::NoResponse);
    /// The server does not have the method: `unimplemented`.
    unimplemented, is_unimplemented = Unimplemented, "method is not implemented", None;
    /// The server ended the stream: `unavailable`.
    eof, is_eof = Unavailable, "EOF", Some(Reason::Eof);
    /// The client was closed: `canceled`.
    client_closed, is_client_closed = Canceled, "client is closed", Some(Reason::ClientClosed);
    /// The server was closed: `canceled`.
    server_closed, is_server_closed = Canceled, "server is closed", Some(Reason::ServerClosed);
    /// The stream was closed: `canceled`.
    stream_closed, is_stream_closed = Canceled, "stream closed", None;
    /// Who reads the stream did not keep up: `unavailable`.
    slow_consumer, is_slow_consumer = Unavailable, "stream message discarded by slow consumer", Some(Reason::SlowConsumer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_errors_are_those_of_go_and_each_is_known_as_itself_alone() {
        let rows = psrpc_vectors::fixed_errors();
        assert_eq!(rows.len(), ALL.len());
        for (index, (row, (error, ..))) in rows.iter().zip(ALL).enumerate() {
            let error = error();
            assert_eq!(
                (error.code().as_str(), error.text()),
                (row.code.as_str(), row.text.as_str()),
                "{}",
                row.name
            );
            let known: Vec<_> = ALL.iter().map(|(_, is, _)| is(&error)).collect();
            assert_eq!(known.iter().position(|known| *known), Some(index), "{}", row.name);
            assert_eq!(known.iter().filter(|known| **known).count(), 1, "{}", row.name);
        }
    }

    #[test]
    fn an_error_of_ours_is_known_by_its_reason_whatever_its_text() {
        for (_, is, reason) in ALL {
            let Some(reason) = *reason else { continue };
            assert!(is(&Error::new(ErrorCode::Internal, "other").with_reason(reason)), "{reason}");
            assert!(!is(&Error::new(ErrorCode::Internal, "other").with_reason(Reason::Answered)), "{reason}");
        }
        assert!(!Error::new(ErrorCode::Internal, "EOF").is_eof(), "the code counts too");
    }
}
