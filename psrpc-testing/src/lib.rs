//! Test tools for PSRPC services: a bus that drops, delays, duplicates, reorders and refuses frames
//! on demand ([`FaultyBus`]), the two ends of a stream ([`stream_pair`]), and a runtime that a test
//! can stop ([`StoppableRuntime`]).
//!
//! A [`FaultyBus`] wraps any bus. Pass clones of it to the clients and servers under test, and
//! [inject](FaultyBus::inject) faults with [`Rule`]s before or while calls run. Its random numbers
//! come from a seed, and it waits on the given runtime. So a test in virtual time, such as tokio's
//! paused time, runs the same way each time and without real delays.
//!
//! ```
//! use std::time::Duration;
//!
//! use psrpc::proto::Frame;
//! use psrpc_testing::{FaultyBus, Rule};
//! use psrpc::{Client, ClientOptions, Handlers, Reason, Request, Runtime, Server, ServerOptions};
//! # use psrpc::{Error, Method, MethodProperties, Routing, Service};
//! # const FIT_PROPERTIES: MethodProperties =
//! #     MethodProperties { routing: Routing::Queue, require_claim: true };
//! # const FIT: Method = Method::call(0, "Fit", FIT_PROPERTIES);
//! # static HATS: Service = Service { name: "Hats", methods: &[FIT] };
//! use psrpc_bus_local::LocalBus;
//! use psrpc_tokio::TokioRuntime;
//!
//! #[tokio::main(flavor = "current_thread", start_paused = true)]
//! async fn main() -> Result<(), Error> {
//!     let runtime = TokioRuntime::current()?;
//!     let bus = FaultyBus::new(LocalBus::new(), runtime.clone(), 1);
//!     let handlers = Handlers::new(&HATS, ())
//!         .unary(&HATS.methods[0], |_, order: Request<String>| async move { Ok(order.to_uppercase()) });
//!     let server = Server::new(bus.clone(), runtime.clone(), handlers, ServerOptions::new())?;
//!     server.register(&[&HATS.methods[0]], &[]).await?;
//!     let client = Client::new(bus.clone(), runtime, &HATS, ClientOptions::new()).await?;
//!     let fit = |order: &str| client.call::<_, String>(&HATS.methods[0], &[], order.to_owned());
//!
//!     // Late responses do no harm ...
//!     let late = Rule::delay(Duration::from_millis(500))
//!         .when(|_, frame| matches!(frame, Frame::Response(_)));
//!     let late = bus.inject(late);
//!     assert_eq!(fit("bowler").await?, "BOWLER");
//!     bus.remove(late);
//!
//!     // ... and a lost request fails the call. Check that the faults were injected.
//!     bus.inject(Rule::drop().channel("Hats|Fit|REQ").first(1));
//!     assert_eq!(fit("fez").await.unwrap_err().reason(), Some(Reason::NoResponse));
//!     assert_eq!((bus.injected().delayed, bus.injected().dropped), (1, 1));
//!     assert_eq!(fit("fez").await?, "FEZ");
//!     Ok(())
//! }
//! ```

#![forbid(unsafe_code)]
#![deny(missing_docs, missing_debug_implementations)]

mod catch;
mod delay_queue;
mod faulty_bus;
mod injected;
mod link;
mod pump;
mod rule;
mod stoppable;
mod stream_pair;
mod waiting;

pub use faulty_bus::FaultyBus;
pub use injected::Injected;
pub use rule::{Rule, RuleId};
pub use stoppable::StoppableRuntime;
pub use stream_pair::stream_pair;
