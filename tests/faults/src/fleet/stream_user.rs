//! The streams of a client: short ones, and one that stays open all the time.

use std::pin::pin;
use std::time::Duration;

use psrpc::{ClientStream, OpenStream, PendingSend, RecvHalf};
use psrpc_simulation::handlers::{HABIT, STREAM};
use psrpc_simulation::hats::{Ask, Reply};
use psrpc_simulation::judge::services::stream_messages::Direction;
use psrpc_simulation::judge::violation::Invariant;

use super::STEP;
use super::client_user::{ActKind, ClientUser, best_bid, first_bid};

/// How many messages are sent on a short stream.
const MESSAGES: usize = 3;

/// The timeout of the long stream's opening and sends. It is short, since a send that is lost while
/// the service comes back delays the next one.
const TIMEOUT: Duration = Duration::from_millis(400);

impl ClientUser {
    /// Opens a stream, sends a few messages and waits for a reply to each. Returns `true` if all
    /// succeeded.
    pub(super) async fn short_stream(&self, timeout: Duration) -> bool {
        let Some((id, stream)) = self.open(false, timeout).await else { return false };
        for _ in 0..MESSAGES {
            let sent = self.send(id, timeout, |message| stream.send(message)).await;
            let Some(Some(reply)) = self.crew.run_for(timeout, pin!(stream.next())).await else { break };
            self.crew.ledger.message_received(id, Direction::ToClient, reply.number);
            if !sent {
                break;
            }
        }
        let replies = self.crew.ledger.received(id, Direction::ToClient);
        stream.close(None);
        while let Some(reply) = stream.next().await {
            self.crew.ledger.message_received(id, Direction::ToClient, reply.number);
        }
        replies == MESSAGES
    }

    /// Keeps a stream open until the fleet stops, and sends messages on it. Opens another if it
    /// ends.
    pub(super) async fn keep_stream(&self) {
        while !self.crew.is_stopped() {
            match self.open(true, TIMEOUT).await {
                Some((id, stream)) => self.use_stream(id, stream).await,
                None => self.crew.sleep(STEP).await,
            }
        }
    }

    async fn use_stream(&self, id: usize, stream: ClientStream<Ask, Reply>) {
        let (sending, receiving) = stream.split();
        let (own, name) = (self.clone(), format!("replies on stream {id}"));
        self.crew.tasks.spawn(name, async move { own.take_all(id, receiving).await });
        while !self.crew.is_stopped() && sending.cause().is_none() {
            let start = self.crew.now();
            if self.send(id, TIMEOUT, |message| sending.send(message)).await {
                let goal = self.goal(ActKind::LongStream);
                self.crew.progress.succeeded(&goal, start, self.crew.now());
            }
            self.crew.sleep(STEP).await;
        }
        sending.close(None);
    }

    async fn take_all(&self, id: usize, receiving: RecvHalf<Reply>) {
        while let Some(reply) = receiving.next().await {
            self.crew.ledger.message_received(id, Direction::ToClient, reply.number);
        }
        self.crew.ledger.received_all(id, Direction::ToClient);
    }

    /// Opens a stream, and returns it with its number in the ledger.
    async fn open(&self, by_affinity: bool, timeout: Duration) -> Option<(usize, ClientStream<Ask, Reply>)> {
        let id = self.crew.ledger.new_stream();
        let opening: OpenStream<Ask, Reply> = match by_affinity {
            true => self.client.pick_parade().selection(best_bid(timeout)),
            false => self.client.parade().selection(first_bid(timeout)),
        };
        let start = self.crew.now();
        let opened = opening.metadata(STREAM, id.to_string()).metadata(HABIT, "0").timeout(timeout).await;
        self.check_time(start + timeout, || format!("stream {id} was not open in time"));
        opened.ok().map(|stream| (id, stream))
    }

    async fn send<'a>(
        &self,
        id: usize,
        timeout: Duration,
        send: impl FnOnce(Ask) -> PendingSend<'a>,
    ) -> bool {
        let (ledger, start) = (&self.crew.ledger, self.crew.now());
        let number = ledger.add_message(id, Direction::ToServer);
        let sent = send(Ask { number, ..Ask::default() }).timeout(timeout).await;
        if sent.is_ok() {
            ledger.message_sent(id, Direction::ToServer, number, start);
        }
        self.check_time(start + timeout, || format!("message {number} of stream {id} was not sent in time"));
        sent.is_ok()
    }

    fn check_time(&self, due: psrpc::Time, what: impl FnOnce() -> String) {
        let ledger = &self.crew.ledger;
        if self.crew.now() > ledger.latest_allowed(self.node, due) {
            ledger.judge(Invariant::I1.violated(what()));
        }
    }
}
