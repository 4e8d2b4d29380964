//! The service: echoes bytes.

use std::sync::Arc;

use bytes::Bytes;
use psrpc::proto::MethodProperties;
use psrpc::{Error, Handlers, Method, MethodKind, Request, Routing, ServerStream, Service};

/// The message type of updates.
pub(crate) const UPDATE: &str = "google.protobuf.BytesValue";

const fn properties(routing: Routing, require_claim: bool) -> MethodProperties {
    MethodProperties { routing, require_claim }
}

/// The service. Its methods are in the order of [`Work`](super::Work).
pub(crate) static SERVICE: Service = Service {
    name: "Bench",
    methods: &[
        Method::call(0, "Queue", properties(Routing::Queue, true)),
        Method::call(1, "Affinity", properties(Routing::Affinity, true)),
        Method::call(2, "Single", properties(Routing::Queue, false)),
        Method::call(3, "Multi", properties(Routing::Multi, false)),
        Method::stream(4, "Stream", properties(Routing::Queue, true)),
        Method::subscription(5, "Subscription", properties(Routing::Multi, false)).messages("", UPDATE),
    ],
};

/// Returns the handlers of the service.
pub(super) fn handlers() -> Handlers<()> {
    SERVICE.methods.iter().fold(Handlers::new(&SERVICE, ()), |handlers, method| match method.kind {
        MethodKind::Call => handlers.unary(method, echo),
        MethodKind::Stream => handlers.stream(method, discard),
        MethodKind::Subscription => handlers,
    })
}

async fn echo(_: Arc<()>, request: Request<Bytes>) -> Result<Bytes, Error> {
    Ok(request.into_message())
}

async fn discard(_: Arc<()>, stream: ServerStream<Bytes, Bytes>) -> Result<(), Error> {
    while stream.next().await.is_some() {}
    Ok(())
}
