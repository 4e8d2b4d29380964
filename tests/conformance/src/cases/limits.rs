//! Limits, and the errors of exceeding them.

use std::time::Duration;

use psrpc::proto::FrameLimits;
use psrpc::{ClientLimits, ClientOptions, ErrorCode, Reason, ServerLimits, ServerOptions};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, expect_error, unexpected};
use crate::shop::{ask, slow};

pub(super) const CASES: &[Case] = case_list! {
    "limits/calls", "I10", "a call beyond the limit on calls in flight fails at once", calls;
    "limits/requests", "I10", "a queue request beyond the limit on requests in flight is answered at once", requests;
    "limits/metadata", "I10", "metadata beyond the limit is rejected before it is sent", metadata;
    "limits/message", "I10", "a message beyond the limit is rejected before it is sent", message;
    "limits/bids", "I10", "bids beyond the limit are dropped, and counted", bids;
};

const LONG: Duration = Duration::from_secs(20);

async fn calls(env: Env) -> Verdict {
    let _unresponsive = env.unresponsive("OwnerFit", &["nobody"]).await?;
    let limits = ClientLimits { calls: 3, ..ClientLimits::DEFAULT };
    let client = env.client_with(ClientOptions::new().limits(limits)).await?;
    let mut in_flight = Vec::new();
    for _ in 0..3 {
        let caller = client.clone();
        in_flight.push(env.spawn(async move {
            caller.owner_fit("nobody", ask("top")).timeout(Duration::from_millis(300)).await
        }));
    }
    env.until("three calls are in flight", || client.client().in_flight() == 3).await?;
    let error = expect_error(client.owner_fit("nobody", ask("top")).timeout(LONG).await)?;
    check_eq!(error.to_string(), "resource_exhausted: too many calls in flight: the limit is 3", "the error");
    for call in in_flight {
        check_eq!(expect_error(call.await)?.code(), &ErrorCode::DeadlineExceeded, "the code of the others");
    }
    Ok(())
}

async fn requests(env: Env) -> Verdict {
    let limits = ServerLimits { requests: 2, ..ServerLimits::DEFAULT };
    let hatter = env.hatter("s1", 1.0);
    let server = env.server_with(&hatter, ServerOptions::new().limits(limits)).await?;
    let client = env.client().await?;
    let mut running = Vec::new();
    for _ in 0..2 {
        let caller = client.clone();
        running.push(env.spawn(async move { caller.fit(slow("slow", 500)).timeout(LONG).await }));
    }
    env.until("two handlers run", || hatter.started().len() == 2).await?;
    let error = expect_error(client.fit(ask("top")).timeout(LONG).await)?;
    check_eq!(error.code(), &ErrorCode::ResourceExhausted, "the code");
    check_eq!(server.server().counters().get(Reason::RequestsFull), 1, "the requests refused");
    for call in running {
        call.await.map_err(unexpected)?;
    }
    client.fit(ask("top")).await.map_err(unexpected)?;
    Ok(())
}

async fn metadata(env: Env) -> Verdict {
    let _server = env.server(&env.hatter("s1", 1.0)).await?;
    let client = env.client().await?;
    let limit = FrameLimits::DEFAULT.metadata_bytes;
    let error = expect_error(client.fit(ask("top")).metadata("k", "v".repeat(limit)).await)?;
    check_eq!(error.code(), &ErrorCode::InvalidArgument, "the code");
    check!(error.text().contains("bytes of metadata"), "{} does not name it", error.text());
    client.fit(ask("top")).metadata("k", "v".repeat(limit - 1)).await.map_err(unexpected)?;
    Ok(())
}

async fn message(env: Env) -> Verdict {
    let frame = FrameLimits { frame_bytes: 1000, ..FrameLimits::DEFAULT };
    let limits = ClientLimits { frame, ..ClientLimits::DEFAULT };
    let client = env.client_with(ClientOptions::new().limits(limits)).await?;
    let error = expect_error(client.fit(ask(&"x".repeat(1001))).await)?;
    check_eq!(error.code(), &ErrorCode::InvalidArgument, "the code");
    check!(error.text().contains("bytes of a frame"), "{} does not name it", error.text());
    Ok(())
}

async fn bids(env: Env) -> Verdict {
    let limits = ClientLimits { bids_per_call: 5, ..ClientLimits::DEFAULT };
    let client = env.client_with(ClientOptions::new().limits(limits)).await?;
    let foreign = env.foreign().await?;
    let mut requests = foreign.listen_to_broadcast("Pick").await?;
    let caller = client.clone();
    let call = env.spawn(async move { caller.pick(ask("top")).timeout(Duration::from_millis(500)).await });
    let request = requests.request().await?;
    for server in 0..20 {
        foreign.bid(&request, &format!("SRV_{server}"), 0.0).await?;
    }
    let error = expect_error(call.await)?;
    check_eq!(error.text(), "no servers available (received 5 responses)", "the error");
    check_eq!(client.client().counters().get(Reason::BidsFull), 15, "the bids dropped");
    Ok(())
}
