//! Synchronization primitives: those of the standard library, or those of shuttle in the build of
//! `tests/threads`, where shuttle controls the interleaving of threads.

#[cfg(debug_assertions)]
use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::PoisonError;

#[cfg(psrpc_shuttle)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, Once};
#[cfg(not(psrpc_shuttle))]
pub(crate) use std::sync::{Mutex, MutexGuard, Once};

#[cfg(all(debug_assertions, not(psrpc_shuttle)))]
thread_local! {
    /// The number of locks that this thread holds.
    static HELD: Cell<u32> = const { Cell::new(0) };
}

#[cfg(all(debug_assertions, psrpc_shuttle))]
shuttle::thread_local! {
    static HELD: Cell<u32> = Cell::new(0);
}

/// The lock of a driver or a bus: a mutex that ignores poisoning. While it is held, do not wake
/// tasks, run or drop user code, encode or compress.
///
/// Debug builds check this with [`assert_unlocked`], which every wake calls.
#[derive(Default)]
pub struct Lock<T>(Mutex<T>);

/// The guard of a [`Lock`].
pub struct LockGuard<'a, T> {
    guard: MutexGuard<'a, T>,
    #[cfg(debug_assertions)]
    _held: Held,
}

impl<T> Lock<T> {
    /// Returns a lock around `value`.
    pub fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Acquires the lock. Ignores a panic of an earlier holder.
    pub fn lock(&self) -> LockGuard<'_, T> {
        LockGuard {
            guard: self.0.lock().unwrap_or_else(PoisonError::into_inner),
            #[cfg(debug_assertions)]
            _held: Held::new(),
        }
    }
}

impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for LockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard").finish_non_exhaustive()
    }
}

impl<T> Deref for LockGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for LockGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

/// One lock in the count of locks that this thread holds.
#[cfg(debug_assertions)]
struct Held;

#[cfg(debug_assertions)]
impl Held {
    fn new() -> Self {
        HELD.with(|held| held.set(held.get() + 1));
        Self
    }
}

#[cfg(debug_assertions)]
impl Drop for Held {
    fn drop(&mut self) {
        HELD.with(|held| held.set(held.get() - 1));
    }
}

/// Asserts that this thread holds no [`Lock`]. Called before an operation that is not allowed under
/// a lock; `operation` names it in the panic message.
///
/// # Panics
///
/// Panics in debug builds if the thread holds a lock.
#[inline]
pub fn assert_unlocked(operation: &str) {
    #[cfg(debug_assertions)]
    if !std::thread::panicking() {
        // Accessible even while the thread exits, since the cell has no destructor.
        let held = HELD.with(Cell::get);
        assert!(held == 0, "{operation} while a lock of a driver or a bus is held");
    }
    #[cfg(not(debug_assertions))]
    let _ = operation;
}
