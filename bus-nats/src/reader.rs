//! The task of a subject: subscribes, reads, and unsubscribes so that nothing is lost that the server has handed out.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_nats::{Message, Subscriber};
use futures_core::Stream;
use psrpc::SubscriptionKind;
use tokio::sync::{OwnedSemaphorePermit, watch};

use crate::link::{Link, Proof};
use crate::shared::Shared;
use crate::subject::Subject;

/// The queue group of every queue subscription (PROTOCOL section 2).
const GROUP: &str = "bus";

/// More messages than a server can count to: told to unsubscribe after so many, it does so at once, while the client
/// library goes on handing out what is on its way. The library's own `unsubscribe` and `drain` would throw that away.
const AT_ONCE: u64 = u64::MAX;

/// Runs a subject until nobody listens to it any more, or the runtime drops the task.
pub(crate) fn run(shared: Arc<Shared>, subject: Arc<Subject>) -> impl Future<Output = ()> + Send {
    let reader = Reader { link: shared.link.subscribe(), shared, subject };
    reader.run()
}

struct Reader {
    shared: Arc<Shared>,
    subject: Arc<Subject>,
    link: watch::Receiver<Link>,
}

impl Reader {
    async fn run(mut self) {
        let opening = Arc::clone(&self.shared.opening).acquire_owned();
        let Some(opening) = self.unless_deserted(opening).await else { return };
        let Some(Ok(subscriber)) = self.unless_deserted(self.subscribe()).await else { return };
        self.read(subscriber, opening.ok()).await;
    }

    /// What `future` ends with, unless everybody has left by then.
    async fn unless_deserted<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let deserted = async {
            while !self.subject.is_deserted() {
                self.subject.changed.notified().await;
            }
        };
        tokio::select! {
            result = future => Some(result),
            () = deserted => {
                self.subject.dim();
                None
            }
        }
    }

    async fn subscribe(&self) -> Result<Subscriber, async_nats::SubscribeError> {
        let (client, name) = (&self.shared.client, self.subject.name.to_string());
        // In the order in which the client numbers them.
        let mut sids = self.shared.sids.lock().await;
        *sids += 1;
        self.subject.set_sid(*sids);
        match self.subject.kind {
            SubscriptionKind::Plain => client.subscribe(name).await,
            SubscriptionKind::Queue => client.queue_subscribe(name, GROUP.to_owned()).await,
        }
    }

    /// Reads until nobody is left, or the client has stopped. `opening` is dropped once the subscription is live.
    async fn read(&mut self, mut subscriber: Subscriber, mut opening: Option<OwnedSemaphorePermit>) {
        let mut proof = Proof::default();
        let mut unsubscribed = false;
        // The connection that there is, and the one on which the subscription was live last.
        let (mut link, mut live_on) = (Link::Down, Link::Down);
        // Whether anything but a message has come.
        let mut changed = true;
        loop {
            if std::mem::take(&mut changed) {
                link = *self.link.borrow_and_update();
                if link == Link::Down {
                    proof.give_up();
                    self.drain(&mut subscriber).await;
                    if self.subject.dim() {
                        return;
                    }
                } else if live_on != Link::Down && live_on != link {
                    // The round trip that made the link `Up` came after the client had subscribed again.
                    proof.give_up();
                    live_on = link;
                    self.drain(&mut subscriber).await;
                    self.subject.live(true);
                    if self.subject.gone() {
                        return;
                    }
                }
                if link != Link::Down && !proof.is_asked() && self.subject.begin() {
                    if self.subject.is_deserted() && !unsubscribed {
                        unsubscribed = tokio::select! {
                            asked = subscriber.unsubscribe_after(AT_ONCE) => asked.is_ok(),
                            _ = self.link.changed() => {
                                changed = true;
                                continue;
                            }
                        };
                    }
                    proof.ask(&self.shared.echo);
                }
            }
            tokio::select! {
                message = poll_fn(|cx| poll_next(&mut subscriber, cx)) => match message {
                    Some(message) => {
                        // It proves as much as an answer does.
                        if live_on == Link::Down && link != Link::Down {
                            live_on = link;
                            self.subject.live(false);
                        }
                        self.route(message);
                        continue;
                    }
                    None => return,
                },
                // Had the server refused the subscription, its task would have taken that before: on one thread, tasks
                // run in the order in which they are woken.
                () = proof.answered() => {
                    live_on = link;
                    self.subject.live(false);
                    drop(opening.take());
                    self.drain(&mut subscriber).await;
                    if self.subject.gone() {
                        return;
                    }
                }
                link = self.link.changed() => if link.is_err() { return },
                () = self.subject.changed.notified() => if self.subject.is_empty() { return },
            }
            changed = true;
        }
    }

    /// Routes what has arrived by now.
    async fn drain(&self, subscriber: &mut Subscriber) {
        let capacity = self.shared.options.subscription_capacity;
        // What has arrived is to be seen whatever tokio thinks of this task's share.
        tokio::task::unconstrained(poll_fn(|cx| {
            for _ in 0..capacity {
                let Poll::Ready(Some(message)) = poll_next(subscriber, cx) else { break };
                self.route(message);
            }
            Poll::Ready(())
        }))
        .await;
    }

    fn route(&self, message: Message) {
        self.subject.route(message.payload, &self.shared.options.frame_limits);
    }
}

impl Drop for Reader {
    /// Also when the runtime drops the task.
    fn drop(&mut self) {
        self.shared.ended(&self.subject);
    }
}

fn poll_next(subscriber: &mut Subscriber, cx: &mut Context<'_>) -> Poll<Option<Message>> {
    Pin::new(subscriber).poll_next(cx)
}
