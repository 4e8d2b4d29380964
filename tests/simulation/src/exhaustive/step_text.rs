//! Steps as text, for people who read a failing schedule.

use std::fmt;

use psrpc_engine::proto::{Frame, StreamBody};
use psrpc_engine::{ClientEvent, ServerEvent, Time};

use super::histories::Histories;
use super::scenario::{TIMEOUT, name};
use super::step::{NodeAct, NodeInput, StepFact};
use super::world_state::{Move, Pending, TakenStep};
use crate::frame_text::FrameText;

/// Describes a step and the outputs of the node.
pub(super) fn show_step(taken: &TakenStep, histories: &Histories) -> String {
    let input = |pending: &Pending| InputText(histories.input(pending.input));
    let what = match &taken.choice {
        Move::Arrive(pending) => format!("{} {}", name(pending.to()), input(pending)),
        Move::Duplicate(pending) => format!("{} {} (duplicated)", name(pending.to()), input(pending)),
        Move::Timeout(node) => format!("{} runs its timer", name(*node)),
        Move::Crash(node) => format!("{} crashes", name(*node)),
    };
    let mut line = format!("at {:.2}: {what}", in_timeouts(taken.at));
    let done = taken.at_node.and_then(|(node, history)| histories.last_step(node, history).ok());
    for text in done.into_iter().flat_map(|done| &done.step.facts).filter_map(output_text) {
        line += "; ";
        line += &text;
    }
    for lost in &taken.lost {
        line += &format!("; LOST: {} to {}", input(lost), name(lost.to()));
    }
    line
}

/// Converts a time to multiples of the timeout of the call.
fn in_timeouts(time: Time) -> f64 {
    time.since(Time::ZERO).as_secs_f64() / TIMEOUT.as_secs_f64()
}

/// Describes an output of a node.
fn output_text(fact: &StepFact) -> Option<String> {
    match fact {
        StepFact::Received(_) | StepFact::Acted(_) => None,
        StepFact::Published(_, frame) => Some(format!("publishes {}", ShortStreamText(frame))),
        StepFact::Client(ClientEvent::Dropped(dropped)) | StepFact::Server(ServerEvent::Dropped(dropped)) => {
            Some(format!("drops it: {}", dropped.reason))
        }
        StepFact::Client(event) => Some(format!("reports {event:?}")),
        StepFact::Server(event) => Some(format!("reports {event:?}")),
    }
}

struct InputText<'a>(&'a NodeInput);

impl fmt::Display for InputText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            NodeInput::Tick => write!(f, "runs its timer"),
            NodeInput::Frame(_, frame) => write!(f, "gets {}", ShortStreamText(frame)),
            NodeInput::Act(act) => f.write_str(match act {
                NodeAct::Call => "makes the call",
                NodeAct::Cancel => "cancels the call",
                NodeAct::Answer(_) => "responds",
                NodeAct::Publish => "publishes an update",
                NodeAct::Subscribed(_) => "gets its subscription confirmed",
                NodeAct::Unsubscribe => "unsubscribes",
                NodeAct::Unsubscribed(_) => "gets the end of its subscription confirmed",
            }),
        }
    }
}

struct ShortStreamText<'a>(&'a Frame);

impl fmt::Display for ShortStreamText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Frame::Stream(stream) = self.0 else { return FrameText(self.0).fmt(f) };
        match &stream.body {
            Some(StreamBody::Open { .. }) => write!(f, "opening {}", stream.request_id),
            Some(StreamBody::Message { payload }) => write!(f, "message {} {payload:?}", stream.request_id),
            Some(StreamBody::Ack) => write!(f, "ack of {}", stream.request_id),
            Some(StreamBody::Close { text, .. }) => write!(f, "close ({text})"),
            None => write!(f, "empty frame of the stream"),
        }
    }
}
