//! Multi calls in flight, as streams of responses.

use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use prost::Message;
use psrpc_engine::proto::ErrorCode;
use psrpc_engine::{Evidence, MultiCall as EngineCall, MultiHandle, Reason};

use super::table::MultiEvent;
use crate::client::Client;
use crate::error::Error;
use crate::responses::Response;

/// A multi call in flight. Dropping it ends the call.
pub(super) struct InFlight<Res> {
    client: Client,
    call: MultiHandle,
    key: usize,
    response: PhantomData<fn() -> Res>,
}

impl<Res> InFlight<Res> {
    pub(super) fn start(client: Client, call: EngineCall) -> Result<Self, Error> {
        let (call, key) = client.driver().execute(|state, now| {
            let call = state.engine.multi_call(now, call)?;
            Ok::<_, Error>((call, state.role.multi_calls.start(call)))
        })?;
        Ok(Self { client, call, key, response: PhantomData })
    }
}

impl<Res: Message + Default> Stream for InFlight<Res> {
    type Item = Result<Response<Res>, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (polled, _replaced) =
            self.client.driver().with_state(|state| state.role.multi_calls.poll(self.key, cx));
        polled.map(|event| Some(into_response(event?)))
    }
}

fn into_response<Res: Message + Default>(event: MultiEvent) -> Result<Response<Res>, Error> {
    match event {
        MultiEvent::Response(server_id, Ok(payload)) => match Res::decode(payload) {
            Ok(message) => Ok(Response::new(server_id, message)),
            Err(error) => {
                let error = Error::from_source(ErrorCode::MalformedResult, error);
                Err(error.with_reason(Reason::MalformedResult).of_server(server_id))
            }
        },
        MultiEvent::Response(server_id, Err(error)) => {
            Err(Error::from_response(error, Evidence { selected: Some(server_id), ..Evidence::default() }))
        }
        MultiEvent::Failed(failure) => Err((*failure).into()),
    }
}

impl<Res> Drop for InFlight<Res> {
    fn drop(&mut self) {
        let discarded = self.client.driver().execute(|state, now| {
            let (in_flight, discarded) = state.role.multi_calls.remove(self.key);
            if in_flight {
                state.engine.cancel_multi(now, self.call);
            }
            discarded
        });
        // Dropped after the lock is released.
        drop(discarded);
    }
}
