//! The selection of a server by its bid.

use std::time::Duration;

use psrpc::{ClientOptions, Error, ErrorCode, Reason, Selection};

use super::case_list;
use crate::case::{Case, Verdict, check, check_eq};
use crate::env::{Env, code_and_text, expect_error, unexpected};
use crate::proto::{ShopClient, ShopServer};
use crate::shop::{Hatter, ask};

pub(super) const CASES: &[Case] = case_list! {
    "selection/best-wins", "section 6", "the server with the highest affinity takes the call", best;
    "selection/only-one-runs", "I2", "servers that were not selected do not run the request", only_one;
    "selection/short-circuit", "section 6", "after the first bid, a call waits for the short circuit timeout rather than the affinity timeout", short_circuit;
    "selection/short-circuit/default", "section 6", "the short circuit timeout is 200 ms by default", short_circuit_default;
    "selection/affinity-timeout", "section 6", "without a short circuit timeout, a call waits for the affinity timeout", affinity_timeout;
    "selection/maximum", "section 6", "a bid of the maximum affinity wins at once", maximum;
    "selection/first-available", "section 6", "with accept_first_available the first bid wins at once", first_available;
    "selection/minimum", "section 6", "bids below the minimum affinity cannot win", minimum;
    "selection/minimum-reached", "section 6", "a bid of exactly the minimum affinity can win", minimum_reached;
    "selection/zero-cannot-win", "section 6", "a bid of 0 is counted and cannot win", zero;
    "selection/negative-bids-nothing", "section 5", "a server with a negative affinity makes no bid", negative;
    "selection/function", "section 6", "the selection function decides, and sees every bid above the minimum", function;
    "selection/function-none", "section 6", "a call fails if the selection function selects no bid", function_none;
    "selection/function-error", "section 6", "an error of the selection function fails the call", function_error;
    "selection/function-without-bids", "section 6", "the selection function is called even if there are no bids", function_without_bids;
    "selection/function-panics", "features X2", "a selection function that panics fails only its own call", function_panics;
    "selection/none", "section 6", "without any selection option, a call waits for its deadline", none;
    "selection/refused-on-queue", "features X4", "options that have no effect on queue calls are rejected", refused_on_queue;
    "selection/on-queue", "section 6", "timeouts, accept_first_available and zero affinities work on queue calls", on_queue;
    "selection/function-at-deadline", "I1", "the selection function is called at the deadline too, but no bid is granted", function_at_deadline;
    "selection/not-finite", "section 6", "an option that is NaN is rejected, and the error names it", not_finite;
    "selection/client-default", "features C2", "the client's selection timeout is the default of its calls", client_default;
};

/// A timeout so long that no call reaches it by accident.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(100);

/// Creates servers with these affinities, labelled by index.
async fn servers(env: &Env, affinities: &[f32]) -> Result<Vec<(Hatter, ShopServer)>, String> {
    let mut servers = Vec::new();
    for (place, affinity) in affinities.iter().enumerate() {
        let hatter = env.hatter(&format!("s{place}"), *affinity);
        servers.push((hatter.clone(), env.server(&hatter).await?));
    }
    Ok(servers)
}

async fn pick(client: &ShopClient, selection: Selection) -> Result<String, Error> {
    Ok(client.pick(ask("top")).timeout(LONG).selection(selection).await?.server)
}

async fn best(env: Env) -> Verdict {
    let client = env.client().await?;
    // In each position, since any server's bid may arrive first.
    for place in 0..3 {
        let mut affinities = [0.5, 0.4, 0.3];
        affinities[place] = 0.9;
        let servers = servers(&env, &affinities).await?;
        let best = format!("s{place}");
        check_eq!(pick(&client, Selection::new()).await.map_err(unexpected)?, best, "the responding server");
        for (_, server) in servers {
            server.shutdown().await;
        }
    }
    Ok(())
}

async fn only_one(env: Env) -> Verdict {
    let servers = servers(&env, &[0.5, 0.9, 0.1]).await?;
    let client = env.client().await?;
    pick(&client, Selection::new().short_circuit_timeout(SHORT)).await.map_err(unexpected)?;
    env.sleep(SHORT).await;
    let started: Vec<_> = servers.iter().map(|(hatter, _)| hatter.started().len()).collect();
    check_eq!(started, [0, 1, 0], "the handlers started");
    Ok(())
}

async fn short_circuit(env: Env) -> Verdict {
    let _servers = servers(&env, &[0.5]).await?;
    let client = env.client().await?;
    let selection = Selection::new().affinity_timeout(LONG).short_circuit_timeout(SHORT);
    let (server, elapsed) = env.time(pick(&client, selection)).await;
    check_eq!(server.map_err(unexpected)?, "s0", "the responding server");
    check!(elapsed >= SHORT && elapsed < LONG / 2, "took {elapsed:?}");
    Ok(())
}

async fn short_circuit_default(env: Env) -> Verdict {
    let _servers = servers(&env, &[0.5]).await?;
    let client = env.client().await?;
    let (server, elapsed) = env.time(pick(&client, Selection::new())).await;
    check_eq!(server.map_err(unexpected)?, "s0", "the responding server");
    // The affinity timeout is 1 s.
    check!((Duration::from_millis(200)..Duration::from_millis(900)).contains(&elapsed), "took {elapsed:?}");
    Ok(())
}

async fn affinity_timeout(env: Env) -> Verdict {
    let _servers = servers(&env, &[0.5]).await?;
    let client = env.client().await?;
    let selection = Selection::none().affinity_timeout(SHORT);
    let (server, elapsed) = env.time(pick(&client, selection)).await;
    check_eq!(server.map_err(unexpected)?, "s0", "the responding server");
    // The default is 1 s.
    check!(elapsed >= SHORT && elapsed < Duration::from_millis(900), "took {elapsed:?}");
    Ok(())
}

async fn maximum(env: Env) -> Verdict {
    let _servers = servers(&env, &[0.5, 0.9]).await?;
    let client = env.client().await?;
    let selection = Selection::none().affinity_timeout(LONG).maximum_affinity(0.9);
    let (server, elapsed) = env.time(pick(&client, selection)).await;
    check_eq!(server.map_err(unexpected)?, "s1", "the responding server");
    check!(elapsed < LONG / 2, "took {elapsed:?}");
    Ok(())
}

async fn first_available(env: Env) -> Verdict {
    let _servers = servers(&env, &[0.5]).await?;
    let client = env.client().await?;
    let selection = Selection::none().affinity_timeout(LONG).accept_first_available(true);
    let (server, elapsed) = env.time(pick(&client, selection)).await;
    check_eq!(server.map_err(unexpected)?, "s0", "the responding server");
    check!(elapsed < LONG / 2, "took {elapsed:?}");
    Ok(())
}

async fn minimum(env: Env) -> Verdict {
    let servers = servers(&env, &[0.5, 0.6]).await?;
    let client = env.client().await?;
    let selection = Selection::new().minimum_affinity(0.9).affinity_timeout(SHORT);
    let error = expect_error(pick(&client, selection).await)?;
    check_eq!(code_and_text(&error), "unavailable: no servers available (received 2 responses)", "the error");
    check_eq!(error.reason(), Some(Reason::NotAcceptable), "the reason");
    check_eq!((error.evidence().bids, error.evidence().below_minimum), (2, 2), "the evidence");
    check!(servers.iter().all(|(hatter, _)| hatter.started().is_empty()), "a handler started");
    Ok(())
}

async fn minimum_reached(env: Env) -> Verdict {
    let _servers = servers(&env, &[0.5]).await?;
    let client = env.client().await?;
    let selection = Selection::new().minimum_affinity(0.5).short_circuit_timeout(SHORT);
    check_eq!(pick(&client, selection).await.map_err(unexpected)?, "s0", "the responding server");
    Ok(())
}

async fn zero(env: Env) -> Verdict {
    let _servers = servers(&env, &[0.0, 0.0]).await?;
    let client = env.client().await?;
    let error = expect_error(pick(&client, Selection::new()).await)?;
    check_eq!(error.text(), "no servers available (received 2 responses)", "the error");
    Ok(())
}

async fn negative(env: Env) -> Verdict {
    let _servers = servers(&env, &[-0.5]).await?;
    let client = env.client().await?;
    let error = expect_error(pick(&client, Selection::new().affinity_timeout(SHORT)).await)?;
    check_eq!(error.text(), "no response from servers", "the error");
    check_eq!(error.reason(), Some(Reason::NoResponse), "the reason");
    Ok(())
}

async fn function(env: Env) -> Verdict {
    let _servers = servers(&env, &[0.5, 0.9, 0.0, 0.7]).await?;
    let client = env.client().await?;
    let selection = Selection::new().affinity_timeout(SHORT * 3).short_circuit_timeout(Duration::ZERO);
    let selection = selection.minimum_affinity(0.6).choose(|bids| {
        let mut seen: Vec<_> = bids.iter().map(|claim| claim.affinity).collect();
        seen.sort_by(f32::total_cmp);
        if seen != [0.7, 0.9] {
            return Err(Error::new(ErrorCode::Internal, format!("the function saw {seen:?}")));
        }
        Ok(bids.iter().min_by(|a, b| a.affinity.total_cmp(&b.affinity)))
    });
    check_eq!(pick(&client, selection).await.map_err(unexpected)?, "s3", "the responding server");
    Ok(())
}

async fn function_none(env: Env) -> Verdict {
    let servers = servers(&env, &[0.5]).await?;
    let client = env.client().await?;
    let error = expect_error(pick(&client, Selection::new().choose(|_| Ok(None))).await)?;
    check_eq!(error.text(), "no servers available (received 1 responses)", "the error");
    check!(servers[0].0.started().is_empty(), "a handler started");
    Ok(())
}

async fn function_error(env: Env) -> Verdict {
    let _servers = servers(&env, &[0.5]).await?;
    let client = env.client().await?;
    let selection =
        Selection::new().choose(|_| Err(Error::new(ErrorCode::ResourceExhausted, "the function said no")));
    let error = expect_error(pick(&client, selection).await)?;
    check_eq!(error.to_string(), "resource_exhausted: the function said no", "the error");
    check_eq!(error.reason(), Some(Reason::SelectionFailed), "the reason");
    Ok(())
}

async fn function_without_bids(env: Env) -> Verdict {
    let _unresponsive = env.unresponsive("Pick", &[]).await?;
    let client = env.client().await?;
    let selection = Selection::new()
        .affinity_timeout(SHORT)
        .choose(|bids| Err(Error::new(ErrorCode::NotFound, format!("{} bids", bids.len()))));
    check_eq!(expect_error(pick(&client, selection).await)?.to_string(), "not_found: 0 bids", "the error");
    Ok(())
}

async fn function_panics(env: Env) -> Verdict {
    let _servers = servers(&env, &[0.5]).await?;
    let client = env.client().await?;
    let selection = Selection::new().choose(|_| panic!("requested by the test"));
    let error = expect_error(pick(&client, selection).await)?;
    check_eq!(error.to_string(), "internal: the selection function panicked", "the error");
    check_eq!(
        pick(&client, Selection::new()).await.map_err(unexpected)?,
        "s0",
        "the responding server, the next call"
    );
    Ok(())
}

async fn none(env: Env) -> Verdict {
    let _unresponsive = env.unresponsive("Pick", &[]).await?;
    let client = env.client().await?;
    let call = client.pick(ask("top")).timeout(SHORT * 3).selection(Selection::none());
    let (error, elapsed) = env.time(call.into_future()).await;
    check_eq!(expect_error(error)?.text(), "no response from servers", "the error");
    check!(elapsed >= SHORT * 3, "took {elapsed:?}");
    Ok(())
}

async fn refused_on_queue(env: Env) -> Verdict {
    let _servers = servers(&env, &[0.5]).await?;
    let client = env.client().await?;
    let refused = [
        (Selection::new().minimum_affinity(0.5), "minimum_affinity"),
        (Selection::new().maximum_affinity(0.5), "maximum_affinity"),
        (Selection::new().choose(|_| Ok(None)), "the selection function"),
    ];
    for (selection, option) in refused {
        let error = expect_error(client.fit(ask("top")).selection(selection).await)?;
        check_eq!(error.code(), &ErrorCode::InvalidArgument, "the code for {option}");
        check!(error.text().contains(option), "{} does not name {option}", error.text());
    }
    Ok(())
}

async fn on_queue(env: Env) -> Verdict {
    let client = env.client().await?;
    let fit = |selection| client.fit(ask("top")).timeout(LONG).selection(selection);
    let zeros = || Selection::new().minimum_affinity(0.0).maximum_affinity(0.0);
    let (error, elapsed) = env.time(fit(zeros().affinity_timeout(SHORT)).into_future()).await;
    check_eq!(expect_error(error)?.text(), "no response from servers", "the error");
    check!(elapsed < LONG / 2, "took {elapsed:?}");
    let _servers = servers(&env, &[0.5]).await?;
    for selection in [zeros(), Selection::none().accept_first_available(true)] {
        fit(selection).await.map_err(unexpected)?;
    }
    // These options replace the default, by which the first bid wins at once.
    for selection in
        [Selection::none().affinity_timeout(SHORT * 3), Selection::none().short_circuit_timeout(SHORT * 3)]
    {
        let (answered, elapsed) = env.time(fit(selection).into_future()).await;
        answered.map_err(unexpected)?;
        check!(elapsed >= SHORT * 3, "took {elapsed:?}");
    }
    Ok(())
}

async fn function_at_deadline(env: Env) -> Verdict {
    let servers = servers(&env, &[0.5]).await?;
    let client = env.client().await?;
    let patient = |choose: fn(&[psrpc::Bid]) -> Result<Option<&psrpc::Bid>, Error>| {
        let selection = Selection::none().choose(choose);
        client.pick(ask("top")).timeout(SHORT * 3).selection(selection)
    };
    let refusing = patient(|bids| Err(Error::new(ErrorCode::NotFound, format!("{} bids", bids.len()))));
    check_eq!(expect_error(refusing.await)?.to_string(), "not_found: 1 bids", "the error");
    let choosing = patient(|bids| Ok(bids.first()));
    check_eq!(expect_error(choosing.await)?.code(), &ErrorCode::DeadlineExceeded, "the code");
    check!(servers[0].0.started().is_empty(), "the handler ran");
    Ok(())
}

async fn not_finite(env: Env) -> Verdict {
    let client = env.client().await?;
    let error = expect_error(pick(&client, Selection::new().minimum_affinity(f32::NAN)).await)?;
    check_eq!(error.to_string(), "invalid_argument: minimum_affinity must be a finite number", "the error");
    Ok(())
}

async fn client_default(env: Env) -> Verdict {
    let _unresponsive = env.unresponsive("Fit", &[]).await?;
    let client = env.client_with(ClientOptions::new().selection_timeout(SHORT)).await?;
    let (error, elapsed) = env.time(client.fit(ask("top")).timeout(LONG).into_future()).await;
    check_eq!(expect_error(error)?.text(), "no response from servers", "the error");
    // The default is 1 s.
    check!(elapsed >= SHORT && elapsed < Duration::from_millis(900), "took {elapsed:?}");
    Ok(())
}
