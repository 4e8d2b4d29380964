//! Conversions between errors and [`tonic::Status`].

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use psrpc_engine::proto::{Any, ErrorCode, GrpcCode};
use tonic::{Code, Status};

use super::Error;

/// `google.rpc.Status`, in which gRPC carries the details of an error.
#[derive(Clone, PartialEq, Message)]
struct RichStatus {
    #[prost(int32, tag = 1)]
    code: i32,
    #[prost(string, tag = 2)]
    message: String,
    #[prost(message, repeated, tag = 3)]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = 1)]
    type_url: String,
    #[prost(bytes = "bytes", tag = 2)]
    value: Bytes,
}

impl From<Error> for Status {
    /// Converts the code (PROTOCOL section 10), the text and the details. The error becomes the
    /// source of the status; the source is not sent.
    fn from(error: Error) -> Self {
        let number = error.code().grpc().number();
        let (code, message) = (Code::from_i32(number), error.text());
        let mut status = if error.details().is_empty() {
            Status::new(code, message)
        } else {
            let details = error.details().iter().map(|Any { type_url, value }| Detail {
                type_url: type_url.as_str().to_owned(),
                value: value.clone(),
            });
            let rich = RichStatus { code: number, message: message.to_owned(), details: details.collect() };
            Status::with_details(code, message, rich.encode_to_vec().into())
        };
        status.set_source(Arc::new(error));
        status
    }
}

impl From<Status> for Error {
    /// Converts the code, the text and the details. Ignores details that are not a
    /// `google.rpc.Status`. The status with its metadata stays available through
    /// [`Error::get_ref`], but is not sent.
    fn from(status: Status) -> Self {
        let code = ErrorCode::from(GrpcCode::from_number(status.code().into()));
        let rich = RichStatus::decode(status.details()).unwrap_or_default();
        let mut error = Self::new(code, status.message());
        error.0.details = rich
            .details
            .into_iter()
            .map(|Detail { type_url, value }| Any { type_url: type_url.into(), value })
            .collect();
        error.0.inner = Some(Box::new(status));
        error
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn every_code_becomes_what_go_makes_of_it_and_every_status_comes_back() {
        for row in psrpc_vectors::error_codes().into_iter().filter(|row| !row.code.is_empty()) {
            let status = Status::from(Error::new(row.code.as_str().into(), "no hat"));
            assert_eq!(
                (i32::from(status.code()), status.message()),
                (row.grpc_number, "no hat"),
                "{}",
                row.code
            );
            assert!(status.details().is_empty());
        }
        for row in psrpc_vectors::error_codes_from_grpc().into_iter().filter(|row| row.grpc_number != 0) {
            let error = Error::from(Status::new(Code::from_i32(row.grpc_number), "no hat"));
            assert_eq!((error.code().as_str(), error.text()), (row.code.as_str(), "no hat"));
        }
    }

    #[test]
    fn details_survive_both_ways() {
        let details = [("type.googleapis.com/hats.v1.Measure", "twelve"), ("x/hats.v1.Colour", "")];
        let details = details.map(|(name, value)| Any { type_url: name.into(), value: value.into() });
        let error = Error::new(ErrorCode::OutOfRange, "too large").with_any_detail(details[0].clone());
        let status = Status::from(error.with_any_detail(details[1].clone()));
        let rich = RichStatus::decode(status.details()).unwrap();
        assert_eq!((rich.code, rich.message.as_str()), (11, "too large"));
        let error = Error::from(status);
        assert_eq!((error.code(), error.text()), (&ErrorCode::OutOfRange, "too large"));
        assert_eq!(error.details(), details);
    }

    #[test]
    fn details_that_are_none_are_left_out() {
        let error =
            Error::from(Status::with_details(Code::NotFound, "no hat", b"\xff\xff".as_slice().into()));
        assert_eq!((error.code(), error.details()), (&ErrorCode::NotFound, &[][..]));
    }

    #[test]
    fn each_keeps_the_other() {
        let status = Status::from(Error::no_response());
        assert!(status.source().unwrap().downcast_ref::<Error>().unwrap().is_no_response());
        let error = Error::from(Status::not_found("no hat"));
        let inner = error.get_ref().unwrap();
        assert_eq!(inner.downcast_ref::<Status>().unwrap().code(), Code::NotFound);
    }

    #[test]
    fn a_handler_passes_a_status_on() {
        fn handler() -> Result<(), Error> {
            Err(Status::permission_denied("not your hat"))?
        }
        let error = handler().unwrap_err();
        assert_eq!((error.code(), error.text()), (&ErrorCode::PermissionDenied, "not your hat"));
    }
}
