//! The client: commands, frames and time in; frames and events out.

mod call;

use psrpc_proto::{Channel, ErrorResponse, Frame, IdGenerator, Seed, Text};

pub use self::call::Call;
use self::call::{Calls, Io, Owner};
use crate::config::ClientConfig;
use crate::engine::Engine;
use crate::error::{BusError, CallError, ConfigError, Failure};
use crate::event::ClientEvent;
use crate::incoming;
use crate::map::HashKeys;
use crate::output::Publish;
use crate::route::{check_own_id, check_service};
use crate::subscriptions::{Ended, Subscriptions};
use crate::timers::{TimerId, TimerKind};
use crate::{
    CallHandle, Counters, Now, Output, Reason, SubscriptionHandle, SubscriptionKind, Timeout, Token,
};

/// The client's side of the protocol for one service (PROTOCOL sections 5 and 6). Drive it as [`Engine`] says.
///
/// It subscribes to its channels at once; calls can be made after [`ClientEvent::Ready`].
pub struct Client {
    config: ClientConfig,
    ids: IdGenerator,
    phase: Phase,
    subscriptions: Subscriptions<Role>,
    calls: Calls,
    io: Io,
}

enum Phase {
    /// Some of its subscriptions are not live yet.
    Starting {
        missing: u32,
    },
    Open,
    /// It makes no more calls, and waits for the end of its subscriptions, until the timer fires; what the bus said, if
    /// the bus closed it.
    Closing {
        error: Option<BusError>,
        timer: TimerId,
    },
    Closed,
}

/// What comes in on a subscription.
#[derive(Clone, Copy)]
enum Role {
    Bids,
    Responses,
}

impl Client {
    /// A client that draws its ids and hashes from `seed`.
    ///
    /// # Errors
    ///
    /// When the service or the id cannot be carried by every bus.
    pub fn new(mut config: ClientConfig, seed: Seed) -> Result<Self, ConfigError> {
        check_service(config.service.as_str())?;
        let mut ids = IdGenerator::new(seed);
        let keys = HashKeys { first: ids.bits(), second: ids.bits() };
        if config.id.is_empty() {
            config.id = ids.client();
        }
        check_own_id(&config.id, config.limits.frame.id_bytes)?;
        let mut client = Self {
            ids,
            phase: Phase::Starting { missing: 2 },
            subscriptions: Subscriptions::new(),
            calls: Calls::new(keys, config.limits),
            io: Io::new(),
            config,
        };
        let (service, id) = (client.config.service.as_str(), client.config.id.as_str());
        for (role, channel) in [
            (Role::Bids, Channel::claim_request(service, id)),
            (Role::Responses, Channel::response(service, id)),
        ] {
            client.subscriptions.subscribe(&mut client.io, role, &channel, SubscriptionKind::Plain);
        }
        Ok(client)
    }

    /// Its id on the wire.
    pub fn id(&self) -> &Text {
        &self.config.id
    }

    /// Its service, by the name on the wire.
    pub fn service(&self) -> &Text {
        &self.config.service
    }

    /// How many calls are in flight.
    pub fn in_flight(&self) -> usize {
        self.calls.len()
    }

    /// What happened so far.
    pub fn counters(&self) -> &Counters {
        &self.io.counters
    }

    /// Makes a call. It ends with exactly one [`ClientEvent::Resolved`], at its deadline at the latest.
    ///
    /// # Errors
    ///
    /// When the call cannot be made as it stands; nothing is published then.
    pub fn call(&mut self, now: Now, call: Call) -> Result<CallHandle, CallError> {
        match self.phase {
            Phase::Open => {}
            Phase::Starting { .. } => return Err(CallError::NotReady),
            Phase::Closing { .. } | Phase::Closed => return Err(CallError::Closed),
        }
        let ClientConfig { service, id, timeout, affinity_timeout, short_circuit_timeout, .. } = &self.config;
        if call.route.service() != service {
            return Err(CallError::WrongService { route: call.route, service: service.clone() });
        }
        let rules = self.calls.check(&call, *affinity_timeout, *short_circuit_timeout)?;
        let names = loop {
            let request_id = self.ids.request();
            if let Some(vacancy) = self.calls.vacancy(&request_id) {
                break (request_id, vacancy, id.clone());
            }
        };
        self.calls.start(now, &mut self.io, names, call, rules, *timeout)
    }

    /// Ends a call: it resolves as canceled, and a claimed call that was not granted yet runs nowhere.
    pub fn cancel(&mut self, call: CallHandle) {
        self.calls.cancel(&mut self.io, call);
    }

    /// Answers [`ClientEvent::Select`]: the server that shall run the call, `None` if none suits, or the error that
    /// the call fails with. Ignored when the call is over.
    pub fn select(&mut self, now: Now, call: CallHandle, choice: Result<Option<Text>, ErrorResponse>) {
        self.calls.select(now, &mut self.io, call, choice);
    }

    /// Closes the client: pending calls resolve at once with "client is closed", and its subscriptions end. It is
    /// [closed](ClientEvent::Closed) when the bus has confirmed that, or after the configured timeout.
    pub fn close(&mut self, now: Now) {
        self.shut(now, None);
    }

    fn shut(&mut self, now: Now, error: Option<BusError>) {
        if let Phase::Closing { .. } | Phase::Closed = self.phase {
            return;
        }
        match error.clone() {
            Some(error) => self.calls.fail_all(&mut self.io, |evidence| {
                Failure::bus(Reason::SubscriptionLost, error.clone(), evidence)
            }),
            None => self.calls.fail_all(&mut self.io, Failure::closed),
        }
        self.subscriptions.unsubscribe_all(&mut self.io);
        let at = now.time + self.config.close_timeout;
        self.phase = Phase::Closing { error, timer: self.io.timers.arm(at, TimerKind::Drain, Owner::Close) };
        self.close_if_left();
    }

    fn close_if_left(&mut self) {
        if let Phase::Closing { timer, .. } = self.phase {
            if self.subscriptions.is_empty() {
                self.io.timers.disarm(timer);
                self.closed();
            }
        }
    }

    fn closed(&mut self) {
        if let Phase::Closing { error, .. } = core::mem::replace(&mut self.phase, Phase::Closed) {
            self.subscriptions = Subscriptions::new();
            self.io.withdraw(|_| false);
            self.io.event(ClientEvent::Closed { error });
        }
    }
}

impl Engine for Client {
    type Event = ClientEvent;

    fn handle_subscribed(
        &mut self,
        now: Now,
        subscription: SubscriptionHandle,
        result: Result<(), BusError>,
    ) {
        match result {
            Ok(()) => {
                if self.subscriptions.live(subscription).is_none() {
                    return;
                }
                if let Phase::Starting { missing } = &mut self.phase {
                    *missing -= 1;
                    if *missing == 0 {
                        self.phase = Phase::Open;
                        self.io.event(ClientEvent::Ready);
                    }
                }
            }
            Err(error) => {
                if self.subscriptions.ended(subscription).is_some() {
                    self.shut(now, Some(error));
                    self.close_if_left();
                }
            }
        }
    }

    fn handle_unsubscribed(&mut self, now: Now, subscription: SubscriptionHandle) {
        match self.subscriptions.ended(subscription) {
            Some((_, Ended::Lost)) => self.shut(now, Some(BusError::new("the bus ended the subscription"))),
            Some((_, Ended::Left)) => self.close_if_left(),
            None => {}
        }
    }

    fn handle_gap(&mut self, now: Now, subscription: SubscriptionHandle, lost: Option<u64>) {
        if self.subscriptions.role(subscription).is_some() {
            self.io.counters.lost += lost.unwrap_or(1);
            self.calls.on_gap(now);
            self.io.event(ClientEvent::Gap { subscription, lost });
        }
    }

    fn handle_published(&mut self, _: Now, token: Token, result: Result<Option<u64>, BusError>) {
        match token.0 {
            Publish::Request(call) => self.calls.on_request_published(&mut self.io, call, result),
            Publish::Grant(call) => self.calls.on_grant_published(&mut self.io, call, result),
            _ => {}
        }
    }

    fn handle_frame(&mut self, now: Now, subscription: SubscriptionHandle, frame: Frame) {
        let Some(role) = self.subscriptions.role(subscription) else { return };
        let Some(frame) = incoming::accept(&mut self.io, frame, &self.config.limits.frame) else { return };
        match (role, frame) {
            (Role::Bids, Frame::ClaimRequest(claim)) => self.calls.on_claim(now, &mut self.io, claim),
            (Role::Responses, Frame::Response(response)) => self.calls.on_response(&mut self.io, response),
            (_, frame) => incoming::unexpected(&mut self.io, &frame),
        }
    }

    fn handle_untaken(&mut self, _: Now, _: SubscriptionHandle, frame: Frame) {
        if let Some(frame) = incoming::accept(&mut self.io, frame, &self.config.limits.frame) {
            incoming::drop_frame(&mut self.io, &frame, Reason::Untaken);
        }
    }

    fn handle_timeout(&mut self, now: Now) {
        while let Some((owner, _)) = self.io.timers.fire(now.time) {
            match owner {
                Owner::Call(call) => self.calls.on_timeout(now, &mut self.io, call),
                Owner::Close => self.closed(),
            }
        }
    }

    fn handle_full(&mut self, token: Token, channel: Channel, frame: Frame) {
        self.io.block(token, channel, frame);
    }

    fn handle_room(&mut self) {
        self.io.unblock();
    }

    fn poll_output(&mut self) -> Option<Output<ClientEvent>> {
        let calls = &self.calls;
        self.io.pop(|publish| match publish {
            Publish::Request(call) | Publish::Grant(call) => calls.contains(call),
            _ => true,
        })
    }

    fn poll_timeout(&self) -> Option<Timeout> {
        self.io.timers.next()
    }
}
