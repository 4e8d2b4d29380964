//! A node: an engine with its user, driven as the engine's contract says.

use psrpc_engine::{Client, Counters, Due, Engine, Output, Server, SubscriptionHandle, Time};

use super::fact::{Act, Fact, Input, Step, Subscription};
use super::scene::{CLIENT, Scene, clocks};
use super::user::{Caller, Host};

/// A node of either side.
pub(super) enum Node {
    Client(Box<Driven<Client, Caller>>),
    Server(Box<Driven<Server, Host>>),
}

/// An engine, its user, and what its bus knows of it.
pub(super) struct Driven<E, U> {
    engine: E,
    user: U,
    subscriptions: Vec<Subscription>,
    /// The schedule has not begun: the bus confirms at once.
    starting: bool,
}

/// The layer above an engine.
pub(super) trait User<E: Engine> {
    /// The engine has something to tell.
    fn on_event(&mut self, engine: &mut E, now: Time, event: E::Event, step: &mut Step);

    /// The user does something by itself.
    fn act(&mut self, engine: &mut E, now: Time, act: Act, step: &mut Step);

    /// How many things an engine holds.
    fn holds(engine: &E) -> usize;

    /// What it counts.
    fn counters(engine: &E) -> &Counters;
}

impl Node {
    /// A node before the schedule begins, with its subscriptions live, and what it did until then.
    pub(super) fn new(scene: &Scene, place: usize) -> (Self, Step) {
        let seed = [place as u8 + 1; 32];
        if place == CLIENT {
            let engine = Client::new(scene.client(), seed).expect("the scene is sound");
            let mut node = Driven::new(engine, Caller::new(*scene));
            let step = node.start(|_, step| step.acts.push(Act::Call));
            (Node::Client(Box::new(node)), step)
        } else {
            let server = place - 1;
            let engine = Server::new(scene.server(server), seed).expect("the scene is sound");
            let mut node = Driven::new(engine, Host::new(*scene, server));
            let step = node.start(|node, step| node.user.start(&mut node.engine, step));
            (Node::Server(Box::new(node)), step)
        }
    }

    pub(super) fn step(&mut self, now: Time, input: &Input) -> Step {
        match self {
            Node::Client(node) => node.step(now, input),
            Node::Server(node) => node.step(now, input),
        }
    }
}

impl<E: Engine, U: User<E>> Driven<E, U>
where
    E::Event: Clone,
    Fact: From<E::Event>,
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

    fn step(&mut self, now: Time, input: &Input) -> Step {
        let mut step = Step::new();
        match input {
            // One call of each kind is far from what one round does.
            Input::Tick => assert_eq!(self.engine.handle_timeout(clocks(now)), Due::Nothing),
            Input::Frame(subscription, frame) => {
                step.facts.push(Fact::Heard(frame.clone()));
                self.engine.handle_frame(clocks(now), *subscription, frame.clone());
            }
            Input::Act(act) => {
                step.facts.push(Fact::Did(*act));
                match *act {
                    Act::Subscribed(subscription) => {
                        self.engine.handle_subscribed(clocks(now), subscription, Ok(()));
                    }
                    Act::Unsubscribed(subscription) => {
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
                        self.subscriptions.push(Subscription { handle, channel, kind });
                        if self.starting {
                            self.engine.handle_subscribed(clocks(now), handle, Ok(()));
                        } else {
                            step.acts.push(Act::Subscribed(handle));
                        }
                    }
                    Output::Unsubscribe { subscription } => self.leave(subscription, step),
                    Output::Event(event) => {
                        step.facts.push(event.clone().into());
                        self.user.on_event(&mut self.engine, now, event, step);
                    }
                }
            }
            let Some(outgoing) = self.engine.poll_publish() else { break };
            let token = outgoing.token();
            let (channel, frame) = outgoing.take();
            step.facts.push(Fact::Published(channel, frame));
            self.engine.handle_published(clocks(now), token, Ok(None));
        }
        step.subscriptions.clone_from(&self.subscriptions);
        step.timer = self.engine.poll_timeout().map(|timeout| timeout.at);
        step.drops = U::counters(&self.engine).reasons().map(|(_, count)| count).sum();
        step.holds = U::holds(&self.engine);
    }

    fn leave(&mut self, left: SubscriptionHandle, step: &mut Step) {
        self.subscriptions.retain(|subscription| subscription.handle != left);
        step.acts.push(Act::Unsubscribed(left));
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
            holds: 0,
        }
    }
}
