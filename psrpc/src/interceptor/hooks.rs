//! Hooks: functions that observe the requests and responses of a client.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::info::CallInfo;
use crate::message::AnyMessage;

type RequestHook = Arc<dyn Fn(&CallInfo, &AnyMessage) + Send + Sync>;
type ResponseHook = Arc<dyn Fn(&CallInfo, &AnyMessage, Result<&AnyMessage, &Error>) + Send + Sync>;

/// The hooks of a client.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) requests: Vec<RequestHook>,
    pub(crate) responses: Vec<ResponseHook>,
}

impl Hooks {
    pub(crate) fn is_empty(&self) -> bool {
        self.requests.is_empty() && self.responses.is_empty()
    }

    pub(crate) fn append(&mut self, mut other: Self) {
        self.requests.append(&mut other.requests);
        self.responses.append(&mut other.responses);
    }

    pub(crate) fn on_request(&self, info: &CallInfo, request: &AnyMessage) {
        self.requests.iter().for_each(|hook| hook(info, request));
    }

    pub(crate) fn on_response(
        &self,
        info: &CallInfo,
        request: &AnyMessage,
        result: Result<&AnyMessage, &Error>,
    ) {
        self.responses.iter().for_each(|hook| hook(info, request, result));
    }
}

impl fmt::Debug for Hooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} request hooks, {} response hooks", self.requests.len(), self.responses.len())
    }
}
