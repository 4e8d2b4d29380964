//! A list of tasks to wake, and of values to drop, once no lock is held.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::task::Waker;

use crate::sync::assert_unlocked;

/// The tasks to wake once no lock is held. Dropping it wakes them.
///
/// A waker runs code of the runtime, and may run the woken task at once. So no lock of a bus or a
/// driver may be held at that time. Declare the list before the lock guard, so that it is dropped
/// after the guard:
///
/// ```
/// use psrpc::bus::{Lock, Sink, WakeList};
/// use psrpc::proto::Frame;
///
/// fn deliver(subscribers: &Lock<Vec<Sink>>, frame: &Frame) {
///     let mut wakes = WakeList::new();
///     for sink in subscribers.lock().iter() {
///         sink.deliver(frame.clone(), &mut wakes);
///     }
/// }
/// ```
#[derive(Debug, Default)]
pub struct WakeList {
    /// There is rarely more than one waker.
    first: Option<Waker>,
    rest: Option<Box<Rest>>,
}

#[derive(Debug, Default)]
struct Rest {
    wakers: Vec<Waker>,
    /// Dropped after all tasks are woken.
    discarded: Vec<Discarded>,
}

/// A value whose destructor may run foreign code.
struct Discarded(#[expect(dead_code, reason = "it is only dropped")] Box<dyn Send>);

impl fmt::Debug for Discarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discarded").finish_non_exhaustive()
    }
}

impl WakeList {
    /// Returns an empty list.
    pub const fn new() -> Self {
        Self { first: None, rest: None }
    }

    /// Adds a task.
    #[inline]
    pub fn push(&mut self, waker: Waker) {
        if self.first.is_none() {
            self.first = Some(waker);
        } else {
            self.rest.get_or_insert_default().wakers.push(waker);
        }
    }

    /// Drops a value once no lock is held, since its destructor may run foreign code.
    pub fn discard(&mut self, value: impl Send + 'static) {
        self.rest.get_or_insert_default().discarded.push(Discarded(Box::new(value)));
    }
}

impl Extend<Waker> for WakeList {
    fn extend<T: IntoIterator<Item = Waker>>(&mut self, wakers: T) {
        wakers.into_iter().for_each(|waker| self.push(waker));
    }
}

impl Drop for WakeList {
    /// Wakes each task, even if the waker of another one panics, and then drops the discarded
    /// values.
    #[inline]
    fn drop(&mut self) {
        let first = self.first.take();
        if let Some(rest) = self.rest.take() {
            return rest.wake(first);
        }
        if let Some(first) = first {
            assert_unlocked("a task is woken");
            match std::thread::panicking() {
                true => Rest::default().wake(Some(first)),
                false => first.wake(),
            }
        }
    }
}

impl Rest {
    #[cold]
    fn wake(self, first: Option<Waker>) {
        // Bound to a variable, so that it is dropped last, even if a waker panics.
        let Self { wakers, discarded: _discarded } = self;
        assert_unlocked("a task is woken or a discarded value is dropped");
        let mut panic = None;
        for waker in first.into_iter().chain(wakers) {
            let woken = catch_unwind(AssertUnwindSafe(|| waker.wake()));
            panic = panic.or(woken.err());
        }
        if let Some(panic) = panic.filter(|_| !std::thread::panicking()) {
            resume_unwind(panic);
        }
    }
}
