//! The oracle of a stream, from its opening to its end on both sides.

use bytes::Bytes;
use psrpc_engine::proto::{Frame, StreamBody};
use psrpc_engine::{ClientEvent, Failure, Reason, ServerEvent, StreamEvent, Time};

use super::claim_oracle::ClaimOracle;
use super::due::{CALL, Due, check_expiry};
use crate::exhaustive::scenario::{Kind, SERVERS, name};
use crate::exhaustive::scripted_users::{TO_CLIENT, TO_SERVER};
use crate::exhaustive::step::{NodeAct, StepFact};
use crate::judge::violation::{Checked, Invariant};

/// The state of a stream with a message one way or each way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamOracle {
    claim: ClaimOracle,
    /// Whether it was canceled before it was open.
    canceled: bool,
    opened: Option<Opened>,
    client: Side,
    servers: [Side; SERVERS],
    to_server: Message,
    to_client: Message,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Opened {
    Open,
    Canceled,
    Failed,
}

/// The state of the stream on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    /// It is not open on that side.
    #[default]
    Closed,
    Open,
    Ended,
}

impl Side {
    fn open(&mut self, node: usize) -> Checked {
        if *self != Side::Closed {
            return Invariant::I8.violated(format!("{} starts a second handler", name(node)));
        }
        *self = Side::Open;
        Ok(())
    }

    fn end(&mut self, node: usize) -> Checked {
        if *self != Side::Open {
            return Invariant::I8.violated(format!("it ends at {}, where it is {self:?}", name(node)));
        }
        *self = Side::Ended;
        Ok(())
    }
}

/// A message one way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Message {
    is_expected: bool,
    due: Due,
    is_delivered: bool,
}

impl Message {
    fn new(is_expected: bool) -> Self {
        Self { is_expected, due: Due::NotStarted, is_delivered: false }
    }

    fn delivered(&mut self, payload: &Bytes, sent: &str, to: Side) -> Checked {
        if payload != sent {
            return Invariant::I7.violated(format!("sent {sent:?}, received {payload:?}"));
        }
        if to != Side::Open || self.due == Due::NotStarted {
            return Invariant::I7.violated(format!("{sent:?} arrived on a stream that is {to:?}"));
        }
        if std::mem::replace(&mut self.is_delivered, true) {
            return Invariant::I7.violated(format!("{sent:?} arrived twice"));
        }
        Ok(())
    }

    fn sent(&mut self, now: Time, outcome: &Result<(), Box<Failure>>) -> Checked {
        self.due.end("a send", now)?;
        if outcome.is_ok() && !self.is_delivered {
            return Invariant::I7.violated("a send succeeded, but nothing was delivered");
        }
        Ok(())
    }

    fn end(&self, calm: bool) -> Checked {
        self.due.must_be_over("a send")?;
        if calm && self.is_expected && !self.is_delivered {
            return Invariant::I16.violated("there was no fault, but a message is missing");
        }
        Ok(())
    }
}

impl StreamOracle {
    pub(super) fn new(kind: Kind) -> Self {
        Self {
            claim: ClaimOracle::default(),
            canceled: false,
            opened: None,
            client: Side::Closed,
            servers: [Side::Closed; SERVERS],
            to_server: Message::new(kind.sends_to_server()),
            to_client: Message::new(kind.sends_to_client()),
        }
    }

    pub(super) fn client(&mut self, due: &mut Due, now: Time, fact: &StepFact) -> Checked {
        let is_over = self.opened.is_some();
        match fact {
            StepFact::Acted(NodeAct::Call) => due.begin(now),
            StepFact::Acted(NodeAct::Cancel) if !is_over => {
                self.canceled = true;
                self.claim.withdrawn = self.claim.selected.is_none();
            }
            StepFact::Received(Frame::ClaimRequest(claim)) => self.claim.bid(claim, is_over),
            StepFact::Published(_, Frame::ClaimResponse(grant)) => self.claim.grant(grant, is_over)?,
            StepFact::Published(_, frame) if is_message(frame) => self.to_server.due.begin(now),
            StepFact::Client(ClientEvent::Opened { outcome, .. }) => {
                due.end(CALL, now)?;
                self.opened = Some(match outcome {
                    Ok(_) => Opened::Open,
                    Err(failure) if failure.reason == Reason::Canceled => Opened::Canceled,
                    Err(_) => Opened::Failed,
                });
                if outcome.is_ok() {
                    self.client.open(0)?;
                    let server = self.claim.selected.map(|server| self.servers[server]);
                    if server.is_none_or(|server| server == Side::Closed) {
                        return Invariant::I5.violated("it is open, but no selected server has accepted it");
                    }
                }
            }
            StepFact::Client(ClientEvent::Stream(StreamEvent::Message { payload, .. })) => {
                self.to_client.delivered(payload, TO_CLIENT, self.client)?;
            }
            StepFact::Client(ClientEvent::Stream(StreamEvent::Sent { outcome, .. })) => {
                self.to_server.sent(now, outcome)?;
            }
            StepFact::Client(ClientEvent::Stream(StreamEvent::Ended { .. })) => self.client.end(0)?,
            _ => {}
        }
        Ok(())
    }

    pub(super) fn server(&mut self, server: usize, now: Time, fact: &StepFact) -> Checked {
        match fact {
            StepFact::Server(ServerEvent::Accepted { .. }) => {
                check_expiry(server, now)?;
                self.claim.may_run(server)?;
                self.servers[server].open(server + 1)?;
            }
            StepFact::Published(_, frame) if is_message(frame) => self.to_client.due.begin(now),
            StepFact::Server(ServerEvent::Stream(StreamEvent::Message { payload, .. })) => {
                self.to_server.delivered(payload, TO_SERVER, self.servers[server])?;
            }
            StepFact::Server(ServerEvent::Stream(StreamEvent::Sent { outcome, .. })) => {
                self.to_client.sent(now, outcome)?;
            }
            StepFact::Server(ServerEvent::Stream(StreamEvent::Ended { .. })) => {
                self.servers[server].end(server + 1)?;
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn time_advanced(&self, now: Time) -> Checked {
        self.to_server.due.time_advanced("a send", now)?;
        self.to_client.due.time_advanced("a send", now)
    }

    pub(super) fn crashed(&mut self, server: usize) {
        if std::mem::replace(&mut self.servers[server], Side::Ended) == Side::Open {
            self.to_client.due = Due::Over;
        }
    }

    pub(super) fn end(&self, calm: bool) -> Checked {
        for (node, side) in [self.client, self.servers[0], self.servers[1]].into_iter().enumerate() {
            if side == Side::Open {
                return Invariant::I8.violated(format!("it never ends at {}", name(node)));
            }
        }
        let opened = self.opened;
        if self.canceled != (opened == Some(Opened::Canceled)) {
            let canceled = if self.canceled { "canceled" } else { "not canceled" };
            return Invariant::I4.violated(format!("it was {canceled}, and its caller sees {opened:?}"));
        }
        if calm && !self.canceled && opened != Some(Opened::Open) {
            return Invariant::I16.violated("there was no fault, but it was not opened");
        }
        self.to_server.end(calm && !self.canceled)?;
        self.to_client.end(calm && !self.canceled)
    }
}

fn is_message(frame: &Frame) -> bool {
    matches!(frame, Frame::Stream(stream) if matches!(stream.body, Some(StreamBody::Message { .. })))
}
