//! The multi calls of one client: from the engine's events to the tasks that wait for them.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use psrpc_engine::proto::{ErrorResponse, Text};
use psrpc_engine::{ClientEvent, Failure, MultiHandle};
use slab::Slab;

use crate::waiting;

/// What was told of multi calls, and who waits for it.
#[derive(Default)]
pub(crate) struct MultiTable {
    callers: Slab<Caller>,
    /// The callers of the calls in flight, by the index of the calls' handles.
    in_flight: Vec<Option<usize>>,
}

/// Somebody who collects answers. The engine bounds how many there are.
struct Caller {
    call: MultiHandle,
    events: VecDeque<MultiEvent>,
    ended: bool,
    waker: Option<Waker>,
}

/// What a call has to tell, as it is kept until somebody looks.
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

    /// Takes an event of a multi call, and gives who waits for it.
    pub(crate) fn on_event(&mut self, event: ClientEvent) -> Option<Waker> {
        let (ClientEvent::Response { call, .. } | ClientEvent::MultiEnded { call, .. }) = &event else {
            return None;
        };
        let slot = self.in_flight.get_mut(call.index())?;
        // Nobody waits for a call that was dropped.
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

    /// What was told next, and what is to be dropped without the lock.
    pub(super) fn poll(&mut self, key: usize, cx: &Context<'_>) -> (Poll<Option<MultiEvent>>, Option<Waker>) {
        let caller = &mut self.callers[key];
        match caller.events.pop_front() {
            Some(event) => (Poll::Ready(Some(event)), None),
            None if caller.ended => (Poll::Ready(None), None),
            None => (Poll::Pending, waiting::replace(&mut caller.waker, cx)),
        }
    }

    /// Nobody waits for a call any more: whether it is in flight, and what is to be dropped without the lock.
    pub(super) fn remove(&mut self, key: usize) -> (bool, (VecDeque<MultiEvent>, Option<Waker>)) {
        let Caller { call, events, ended, waker } = self.callers.remove(key);
        if !ended {
            self.in_flight[call.index()] = None;
        }
        (!ended, (events, waker))
    }
}
