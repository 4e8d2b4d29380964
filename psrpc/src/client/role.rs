//! The client's part of the driver.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use psrpc_engine::proto::ErrorCode;
use psrpc_engine::{
    Bid, BusError, CallError, CallHandle, Client as Engine, ClientEvent, Failure, Now, Reply, StreamHandle,
};
use slab::Slab;

use crate::bus::BusEvent;
use crate::client::multi::MultiTable;
use crate::client::subscription::SubscriptionTable;
use crate::driver::{Driver, DriverState, Role};
use crate::error::Error;
use crate::info::Side;
use crate::log;
use crate::log::Note;
use crate::middleware::{PendingObservation, Watch};
use crate::selection::Choose;
use crate::stream::{Codec, StreamRole, StreamTable, StreamTask};
use crate::{guard, waiting};

/// The role of a client: passes outcomes from the engine to the callers that wait for them.
#[derive(Default)]
pub(crate) struct ClientRole {
    watch: Option<Watch>,
    /// Whether the bus reports outages through a monitor.
    is_monitored: bool,
    phase: Phase,
    /// Tasks that wait until the client is ready or closed.
    waiters: Vec<Waker>,
    /// Callers that have not taken their outcome yet.
    callers: Slab<Caller>,
    /// The keys of the callers of calls in flight, by the index of the call handle.
    in_flight: Vec<Option<usize>>,
    pub(crate) multi_calls: MultiTable,
    pub(crate) subscriptions: SubscriptionTable,
    streams: StreamTable,
}

#[derive(Default)]
enum Phase {
    #[default]
    Starting,
    Ready,
    Closed {
        error: Option<BusError>,
    },
}

/// A task that waits for a call.
struct Caller {
    choose: Option<Choose>,
    /// The codec of the stream that the call opens.
    codec: Option<Arc<Codec>>,
    outcome: Option<Outcome>,
    waker: Option<Waker>,
}

/// The outcome of a call.
pub(super) type Outcome = Result<Settled, Box<Failure>>;

/// The successful outcome of a call.
pub(super) enum Settled {
    Reply(Reply),
    /// A stream that was opened, and the key of its slot.
    Stream(StreamHandle, usize),
}

/// Work for a client, to be done after its lock is released.
pub(crate) enum ClientTask {
    Wake(Waker),
    Choose(CallHandle, Vec<Bid>, Choose),
    /// Reports an open stream to its interceptors, and then wakes the task that opened it.
    Opened(Arc<Codec>, Option<Waker>),
    Stream(StreamTask),
    /// Boxed, since it is rare and tasks are moved around.
    Observe(Box<PendingObservation>),
    Log(Box<Note>),
}

impl Role for ClientRole {
    type Engine = Engine;
    type Task = ClientTask;
    /// The tasks of a client produce no commands.
    type Command = Infallible;

    fn on_event(&mut self, event: ClientEvent, tasks: &mut Vec<ClientTask>) {
        if let Some(watch) = &mut self.watch {
            tasks.extend(watch.on_client_event(&event).map(ClientTask::Observe));
        }
        match event {
            ClientEvent::Ready => {
                self.phase = Phase::Ready;
                tasks.extend(self.waiters.drain(..).map(ClientTask::Wake));
            }
            ClientEvent::Closed { error } => {
                tasks.extend(error.clone().map(Note::SubscriptionLost).map(Box::new).map(ClientTask::Log));
                self.phase = Phase::Closed { error };
                tasks.extend(self.waiters.drain(..).map(ClientTask::Wake));
            }
            ClientEvent::Resolved { call, outcome } => {
                let waker = self.settle(call, |_, _| outcome.map(Settled::Reply));
                tasks.extend(waker.map(ClientTask::Wake));
            }
            ClientEvent::Opened { call, outcome: Ok(stream) } => {
                let mut opened = None;
                let waker = self.settle(call, |streams, codec| {
                    let codec = codec.expect("a call that opens a stream has a codec");
                    opened = Some(Arc::clone(&codec));
                    Ok(Settled::Stream(stream, streams.open(stream, codec, None)))
                });
                tasks.extend(opened.map(|codec| ClientTask::Opened(codec, waker)));
            }
            ClientEvent::Opened { call, outcome: Err(failure) } => {
                let waker = self.settle(call, |_, _| Err(failure));
                tasks.extend(waker.map(ClientTask::Wake));
            }
            ClientEvent::Stream(event) => {
                if let Some(watch) = &self.watch {
                    let observed = watch.on_stream_event(&event, |stream| self.streams.info(stream));
                    tasks.extend(observed.map(ClientTask::Observe));
                }
                self.streams.on_event(event, &mut |task| tasks.push(ClientTask::Stream(task)));
            }
            ClientEvent::Response { .. } | ClientEvent::MultiEnded { .. } => {
                tasks.extend(self.multi_calls.on_event(event).map(ClientTask::Wake));
            }
            ClientEvent::Subscribed { .. }
            | ClientEvent::Update { .. }
            | ClientEvent::Unsubscribed { .. } => {
                tasks.extend(self.subscriptions.on_event(event).map(ClientTask::Wake));
            }
            ClientEvent::Gap { lost, .. } => {
                // With a monitor, an outage is logged once, and not once for each subscription.
                if lost.is_some() || !self.is_monitored {
                    tasks.extend(Note::of_client(event.clone()).map(Box::new).map(ClientTask::Log));
                }
                tasks.extend(self.subscriptions.on_event(event).map(ClientTask::Wake));
            }
            ClientEvent::Select { call, bids } => {
                let caller = self.in_flight[call.index()];
                if let Some(choose) = caller.and_then(|caller| self.callers[caller].choose.take()) {
                    tasks.push(ClientTask::Choose(call, bids, choose));
                }
            }
            // The remaining events are only logged.
            event => tasks.extend(Note::of_client(event).map(Box::new).map(ClientTask::Log)),
        }
    }

    fn on_bus_event(&mut self, engine: &mut Engine, now: Now, event: BusEvent, tasks: &mut Vec<ClientTask>) {
        if let BusEvent::LockRefused { cause, .. } = &event {
            engine.lock_refused(now, cause);
        }
        tasks.extend(self.watch.as_ref().map(|watch| ClientTask::Observe(watch.on_bus_event(&event))));
        tasks.extend(Note::of_bus(&event).map(Box::new).map(ClientTask::Log));
    }

    fn perform(driver: &Arc<Driver<Self>>, task: ClientTask, _: &mut Vec<Infallible>) {
        match task {
            ClientTask::Wake(waker) => waker.wake(),
            ClientTask::Opened(codec, waker) => {
                codec.opened();
                waker.into_iter().for_each(Waker::wake);
            }
            ClientTask::Stream(task) => driver.perform_stream_task(task),
            ClientTask::Observe(observed) => observed.deliver(Side::Client, &*driver.runtime),
            ClientTask::Log(note) => {
                let (service, id) =
                    driver.with_state(|state| (state.engine.service().clone(), state.engine.id().clone()));
                note.write(Side::Client, &service, &id);
            }
            ClientTask::Choose(call, bids, choose) => {
                let choice = guard::catch(|| choose(&bids))
                    .unwrap_or_else(|panicked| {
                        log::panicked(Side::Client, "a selection function", None, &panicked);
                        Err(Error::new(ErrorCode::Internal, "the selection function panicked"))
                    })
                    .map(|bid| bid.map(|bid| bid.server_id.clone()))
                    .map_err(Error::into_response);
                driver.execute(|state, now| state.engine.select(now, call, choice));
            }
        }
    }

    fn carry_out(_: &mut DriverState<Self>, _: Now, command: Infallible) -> Option<Infallible> {
        match command {}
    }

    fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }
}

impl ClientRole {
    pub(super) fn new(watch: Option<Watch>, is_monitored: bool) -> Self {
        Self { watch, is_monitored, ..Self::default() }
    }

    /// Stores the outcome of a call that ended, and returns the task to wake.
    fn settle(
        &mut self,
        call: CallHandle,
        outcome: impl FnOnce(&mut StreamTable, Option<Arc<Codec>>) -> Outcome,
    ) -> Option<Waker> {
        // A call that was dropped has no caller.
        let caller = &mut self.callers[self.in_flight[call.index()].take()?];
        caller.outcome = Some(outcome(&mut self.streams, caller.codec.take()));
        caller.waker.take()
    }

    /// Returns the outcome of a call, if it has ended, and values to drop after the lock is
    /// released.
    pub(super) fn poll_outcome(
        &mut self,
        key: usize,
        cx: &Context<'_>,
    ) -> (Poll<Outcome>, Option<DiscardedCaller>) {
        let caller = &mut self.callers[key];
        match caller.outcome.take() {
            Some(outcome) => (Poll::Ready(outcome), Some(DiscardedCaller::of(self.callers.remove(key)))),
            None => (Poll::Pending, waiting::replace(&mut caller.waker, cx).map(DiscardedCaller::waker)),
        }
    }

    /// Removes the caller of a call that was dropped. Returns the outcome, if the call has ended,
    /// and values to drop after the lock is released.
    pub(super) fn remove_caller(
        &mut self,
        call: CallHandle,
        key: usize,
    ) -> (Option<Outcome>, DiscardedCaller) {
        let mut caller = self.callers.remove(key);
        let outcome = caller.outcome.take();
        // After the call has ended, its index may belong to another call.
        if outcome.is_none() {
            self.in_flight[call.index()] = None;
        }
        (outcome, DiscardedCaller::of(caller))
    }

    pub(super) fn poll_ready(&mut self, engine: &Engine, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        match &self.phase {
            Phase::Ready => Poll::Ready(Ok(())),
            Phase::Closed { error: Some(error) } => Poll::Ready(Err(error.clone().into())),
            Phase::Closed { error: None } => {
                Poll::Ready(Err(engine.closed().unwrap_or(CallError::Closed).into()))
            }
            Phase::Starting => {
                waiting::wait(&mut self.waiters, cx);
                Poll::Pending
            }
        }
    }

    pub(super) fn poll_closed(&mut self, cx: &Context<'_>) -> Poll<()> {
        if self.is_finished() {
            return Poll::Ready(());
        }
        waiting::wait(&mut self.waiters, cx);
        Poll::Pending
    }

    pub(super) fn wait_for(
        &mut self,
        call: CallHandle,
        choose: Option<Choose>,
        codec: Option<Arc<Codec>>,
    ) -> usize {
        let caller = self.callers.insert(Caller { choose, codec, outcome: None, waker: None });
        if self.in_flight.len() <= call.index() {
            self.in_flight.resize(call.index() + 1, None);
        }
        self.in_flight[call.index()] = Some(caller);
        caller
    }
}

impl StreamRole for ClientRole {
    fn streams(&mut self) -> &mut StreamTable {
        &mut self.streams
    }
}

/// Values of a caller to drop after the lock is released, since a selection function may hold
/// values with user-defined destructors.
#[expect(dead_code, reason = "it is only dropped")]
pub(super) struct DiscardedCaller(Option<Choose>, Option<Arc<Codec>>, Option<Waker>);

impl DiscardedCaller {
    fn of(caller: Caller) -> Self {
        Self(caller.choose, caller.codec, caller.waker)
    }

    fn waker(waker: Waker) -> Self {
        Self(None, None, Some(waker))
    }
}
