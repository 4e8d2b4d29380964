//! The panics of this process. No fault may cause any.

use std::sync::{Mutex, Once, PoisonError};

static FIRST: Mutex<Option<String>> = Mutex::new(None);

/// Records panics from now on, besides printing them.
pub fn record() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            FIRST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| info.to_string());
            print(info);
        }));
    });
}

/// Returns the first panic, if there was one.
pub fn first() -> Option<String> {
    FIRST.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
