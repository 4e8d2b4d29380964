//! What comes with psrpc to be put around calls and handlers.
//!
//! | what | how |
//! |---|---|
//! | calls that failed are made again | [`Retry`], an interceptor |

mod retry;

pub use self::retry::{Attempt, Attempts, Retry};
