//! Measures the memory of registered topics in a server, without the memory of its bus.

use psrpc::bus::{Accepted, Bus, Full, Offer, Sink, Subscription, WakeList};
use psrpc::engine::SubscriptionKind;
use psrpc::engine::proto::Channel;
use tokio::task::JoinSet;

use crate::BenchError;
use crate::work::{self, Work};

/// The number of concurrent registrations.
const AT_A_TIME: usize = 1000;

/// Creates a server that serves a claimed queue method on `count` topics.
pub(crate) async fn server(count: usize) -> Result<psrpc::Server, BenchError> {
    let server = work::server(Forgetful)?;
    let mut joining = JoinSet::new();
    for number in 0..count {
        let server = server.clone();
        joining.spawn(async move { server.register(&[Work::Queue.method()], &[&number.to_string()]).await });
        if joining.len() == AT_A_TIME {
            joined(&mut joining).await?;
        }
    }
    joined(&mut joining).await?;
    Ok(server)
}

async fn joined(joining: &mut JoinSet<Result<(), psrpc::Error>>) -> Result<(), BenchError> {
    while let Some(joined) = joining.join_next().await {
        joined??;
    }
    Ok(())
}

/// A bus that accepts everything and stores nothing.
struct Forgetful;

impl Bus for Forgetful {
    fn publish(&self, offer: Offer<'_>, _: &mut WakeList) -> Result<Accepted, Full> {
        drop(offer.take());
        Ok(Accepted::Done(None))
    }

    fn subscribe(&self, _: &Channel, _: SubscriptionKind, sink: Sink, wakes: &mut WakeList) -> Subscription {
        sink.live(wakes);
        // Dropping the sink would end the subscription.
        std::mem::forget(sink);
        Subscription::new(|| {})
    }
}
