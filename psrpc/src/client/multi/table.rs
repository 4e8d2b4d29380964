//! The multi calls of one client: events of the engine, queued for the tasks that read them.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use psrpc_engine::proto::{ErrorResponse, Text};
use psrpc_engine::{ClientEvent, Failure, MultiHandle};
use slab::Slab;

use crate::waiting;

/// The multi calls of one client.
#[derive(Default)]
pub(crate) struct MultiTable {
    callers: Slab<Caller>,
    /// The keys of the callers, by the index of the call handle.
    in_flight: Vec<Option<usize>>,
}

/// A task that reads the responses of a call. The engine bounds their number.
struct Caller {
    call: MultiHandle,
    events: VecDeque<MultiEvent>,
    ended: bool,
    waker: Option<Waker>,
}

/// An event of a multi call, queued until the caller polls.
pub(super) enum MultiEvent {
    Response(Text, Result<Bytes, ErrorResponse>),
    Failed(Box<Failure>),
}

impl MultiTable {
    pub(super) fn start(&mut self, call: MultiHandle) -> usize {
        let key = self.callers.insert(Caller { call, events: VecDeque::new(), ended: false, waker: None });
        if self.in_flight.len() <= call.index() {
            self.in_flight.resize(call.index() + 1, None);
        }
        self.in_flight[call.index()] = Some(key);
        key
    }

    /// Handles an event of a multi call, and returns the task to wake.
    pub(crate) fn on_event(&mut self, event: ClientEvent) -> Option<Waker> {
        let (ClientEvent::Response { call, .. } | ClientEvent::MultiEnded { call, .. }) = &event else {
            return None;
        };
        let slot = self.in_flight.get_mut(call.index())?;
        // A call that was dropped has no caller.
        let caller = &mut self.callers[(*slot)?];
        match event {
            ClientEvent::Response { server_id, result, .. } => {
                caller.events.push_back(MultiEvent::Response(server_id, result));
            }
            ClientEvent::MultiEnded { outcome, .. } => {
                *slot = None;
                caller.ended = true;
                caller.events.extend(outcome.err().map(MultiEvent::Failed));
            }
            _ => {}
        }
        caller.waker.take()
    }

    /// Returns the next event, and a waker to drop after the lock is released.
    pub(super) fn poll(&mut self, key: usize, cx: &Context<'_>) -> (Poll<Option<MultiEvent>>, Option<Waker>) {
        let caller = &mut self.callers[key];
        match caller.events.pop_front() {
            Some(event) => (Poll::Ready(Some(event)), None),
            None if caller.ended => (Poll::Ready(None), None),
            None => (Poll::Pending, waiting::replace(&mut caller.waker, cx)),
        }
    }

    /// Removes the caller of a call that was dropped. Returns `true` if the call is still in
    /// flight, and values to drop after the lock is released.
    pub(super) fn remove(&mut self, key: usize) -> (bool, (VecDeque<MultiEvent>, Option<Waker>)) {
        let Caller { call, events, ended, waker } = self.callers.remove(key);
        if !ended {
            self.in_flight[call.index()] = None;
        }
        (!ended, (events, waker))
    }
}
