//! Each runtime reads its own clock, wherever it is called from.

use std::time::Duration;

use psrpc_tokio::{Runtime, TokioRuntime};
use tokio::runtime::Builder;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn paused_time_applies_only_to_its_own_runtime() {
    let threads = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let real = TokioRuntime::new(threads.handle().clone());
    // Sets the origin of all clocks.
    real.now();
    let paused = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let virtual_ = TokioRuntime::new(paused.handle().clone());
    let before = [real.now().time, virtual_.now().time];
    let within = paused.block_on(async {
        tokio::time::advance(HOUR).await;
        [real.now().time, virtual_.now().time]
    });
    let after = [real.now().time, virtual_.now().time];
    assert!(before[0] <= within[0] && within[0] <= after[0], "{before:?} {within:?} {after:?}");
    assert!(after[0].since(before[0]) < HOUR, "{before:?} {after:?}");
    assert_eq!((within[1].since(before[1]), after[1]), (HOUR, within[1]));
}
