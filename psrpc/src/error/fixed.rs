//! The errors that PSRPC itself defines. Local ones are recognized by reason, and those of a peer
//! by code and text.

use psrpc_engine::Reason;
use psrpc_engine::proto::ErrorCode;

use super::Error;

/// Declares the errors in one table: constructor, predicate, code, text, and the equivalent
/// reasons.
macro_rules! fixed {
    ($($(#[$doc:meta])* $name:ident, $is:ident = $code:ident, $text:literal, $reasons:expr;)*) => {
        /// Errors that PSRPC itself defines, with the codes and texts of Go (PROTOCOL section 10).
        ///
        /// The predicates hold both for an error raised locally and for one returned by a peer. Use
        /// [`reason`](Self::reason) to tell the two apart.
        impl Error {
            $(
                $(#[$doc])*
                pub fn $name() -> Self {
                    Self::new(ErrorCode::$code, $text)
                }

                #[doc = concat!("Returns `true` if this is \"", $text, "\"; see [`", stringify!($name), "`](Self::", stringify!($name), ").")]
                pub fn $is(&self) -> bool {
                    const REASONS: &[Reason] = &$reasons;
                    self.reason().is_some_and(|reason| REASONS.contains(&reason))
                        || (*self.code() == ErrorCode::$code && self.text() == $text)
                }
            )*
        }

        /// The constructor, predicate and reasons of every row.
        #[cfg(test)]
        const ALL: &[(fn() -> Error, fn(&Error) -> bool, &[Reason])] =
            &[$((Error::$name, Error::$is, &$reasons)),*];
    };
}

fixed! {
    /// Returns the error of a call whose caller gave up: `canceled`.
    canceled, is_canceled = Canceled, "request canceled", [Reason::Canceled];
    /// Returns the error of a call that got no response before its deadline: `deadline_exceeded`.
    timed_out, is_timed_out = DeadlineExceeded, "request timed out", [Reason::TimedOut];
    /// Returns the error of a call that no server took: `unavailable`.
    no_response, is_no_response = Unavailable, "no response from servers",
        [Reason::NoResponse, Reason::NobodySubscribed];
    /// Returns the error of a server that does not have the method: `unimplemented`.
    unimplemented, is_unimplemented = Unimplemented, "method is not implemented", [];
    /// Returns the error of a stream that the server ended: `unavailable`.
    eof, is_eof = Unavailable, "EOF", [Reason::Eof];
    /// Returns the error of a client that was closed: `canceled`.
    client_closed, is_client_closed = Canceled, "client is closed", [Reason::ClientClosed];
    /// Returns the error of a server that was closed: `canceled`.
    server_closed, is_server_closed = Canceled, "server is closed", [Reason::ServerClosed];
    /// Returns the error of a stream that was closed: `canceled`.
    stream_closed, is_stream_closed = Canceled, "stream closed", [];
    /// Returns the error of a stream whose reader fell behind: `unavailable`.
    slow_consumer, is_slow_consumer = Unavailable, "stream message discarded by slow consumer", [Reason::SlowConsumer];
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
        let pairs = ALL.iter().flat_map(|(_, is, reasons)| reasons.iter().map(move |reason| (is, *reason)));
        for (is, reason) in pairs {
            assert!(is(&Error::new(ErrorCode::Internal, "other").with_reason(reason)), "{reason}");
            assert!(!is(&Error::new(ErrorCode::Internal, "other").with_reason(Reason::Answered)), "{reason}");
        }
        assert!(!Error::new(ErrorCode::Internal, "EOF").is_eof(), "the code counts too");
    }
}
