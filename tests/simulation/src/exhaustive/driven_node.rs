//! A driven node: an engine with its scripted user, driven according to the contract of the engine.

use psrpc_engine::{Client, Due, Engine, Output, Server, SubscriptionHandle, Time};

use super::scenario::{CLIENT, Scenario, clocks};
use super::scripted_users::{ScriptedClient, ScriptedServer, ScriptedUser};
use super::step::{NodeAct, NodeInput, NodeSubscription, Step, StepFact};

/// A node: the client or a server.
pub(super) enum DrivenNode {
    Client(Box<Driven<Client, ScriptedClient>>),
    Server(Box<Driven<Server, ScriptedServer>>),
}

/// An engine with its user, and its subscriptions on the bus.
pub(super) struct Driven<E, U> {
    engine: E,
    user: U,
    subscriptions: Vec<NodeSubscription>,
    /// Whether the schedule has yet to begin. Until then the bus confirms subscriptions at once.
    starting: bool,
}

impl DrivenNode {
    /// Returns a node before the start of the schedule, with its subscriptions live, and the step
    /// that it has taken so far.
    pub(super) fn new(scenario: &Scenario, node_index: usize) -> (Self, Step) {
        let seed = [node_index as u8 + 1; 32];
        if node_index == CLIENT {
            let engine = Client::new(scenario.client(), seed).expect("the scenario's options are valid");
            let mut node = Driven::new(engine, ScriptedClient::new(*scenario));
            let step = node.start(|_, step| step.acts.push(NodeAct::Call));
            (DrivenNode::Client(Box::new(node)), step)
        } else {
            let server = node_index - 1;
            let engine =
                Server::new(scenario.server(server), seed).expect("the scenario's options are valid");
            let mut node = Driven::new(engine, ScriptedServer::new(*scenario, server));
            let step = node.start(|node, step| node.user.start(&mut node.engine, step));
            (DrivenNode::Server(Box::new(node)), step)
        }
    }

    pub(super) fn step(&mut self, now: Time, input: &NodeInput) -> Step {
        match self {
            DrivenNode::Client(node) => node.step(now, input),
            DrivenNode::Server(node) => node.step(now, input),
        }
    }
}

impl<E: Engine, U: ScriptedUser<E>> Driven<E, U>
where
    E::Event: Clone,
    StepFact: From<E::Event>,
{
    fn new(engine: E, user: U) -> Self {
        Self { engine, user, subscriptions: Vec::new(), starting: true }
    }

    fn start(&mut self, act: impl FnOnce(&mut Self, &mut Step)) -> Step {
        let mut step = Step::new();
        act(self, &mut step);
        self.drain(Time::ZERO, &mut step);
        self.starting = false;
        step
    }

    fn step(&mut self, now: Time, input: &NodeInput) -> Step {
        let mut step = Step::new();
        match input {
            // One call has far fewer timeouts than `handle_timeout` handles in one round.
            NodeInput::Tick => assert_eq!(self.engine.handle_timeout(clocks(now)), Due::Nothing),
            NodeInput::Frame(subscription, frame) => {
                step.facts.push(StepFact::Received(frame.clone()));
                self.engine.handle_frame(clocks(now), *subscription, frame.clone());
            }
            NodeInput::Act(act) => {
                step.facts.push(StepFact::Acted(*act));
                match *act {
                    NodeAct::Subscribed(subscription) => {
                        self.engine.handle_subscribed(clocks(now), subscription, Ok(()));
                    }
                    NodeAct::Unsubscribed(subscription) => {
                        self.engine.handle_unsubscribed(clocks(now), subscription);
                    }
                    act => self.user.act(&mut self.engine, now, act, &mut step),
                }
            }
        }
        self.drain(now, &mut step);
        step
    }

    fn drain(&mut self, now: Time, step: &mut Step) {
        loop {
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Subscribe { subscription: handle, channel, kind } => {
                        self.subscriptions.push(NodeSubscription { handle, channel, kind });
                        if self.starting {
                            self.engine.handle_subscribed(clocks(now), handle, Ok(()));
                        } else {
                            step.acts.push(NodeAct::Subscribed(handle));
                        }
                    }
                    Output::Unsubscribe { subscription } => self.unsubscribe(subscription, step),
                    Output::Event(event) => {
                        step.facts.push(event.clone().into());
                        self.user.on_event(&mut self.engine, now, event, step);
                    }
                }
            }
            let Some(outgoing) = self.engine.poll_publish() else { break };
            let token = outgoing.token();
            let (channel, frame) = outgoing.take();
            step.facts.push(StepFact::Published(channel, frame));
            self.engine.handle_published(clocks(now), token, Ok(None));
        }
        step.subscriptions.clone_from(&self.subscriptions);
        step.timer = self.engine.poll_timeout().map(|timeout| timeout.at);
        step.drops = U::counters(&self.engine).reasons().map(|(_, count)| count).sum();
        step.table_entries = U::table_entries(&self.engine);
    }

    fn unsubscribe(&mut self, ended: SubscriptionHandle, step: &mut Step) {
        self.subscriptions.retain(|subscription| subscription.handle != ended);
        step.acts.push(NodeAct::Unsubscribed(ended));
    }
}

impl Step {
    const fn new() -> Self {
        Self {
            facts: Vec::new(),
            acts: Vec::new(),
            subscriptions: Vec::new(),
            timer: None,
            drops: 0,
            table_entries: 0,
        }
    }
}
