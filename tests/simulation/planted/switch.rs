//! Planted defects: the module `planted` of psrpc-engine in the copy of the tree.
//!
//! psrpc-planted adds `defects! { .. }` with the names and descriptions of
//! tests/simulation/defects.txt.

use alloc::string::String;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Evaluates to `true` if the defect is planted.
macro_rules! planted {
    ($defect:ident) => {
        $crate::planted::Defect::$defect.is_planted()
    };
}

/// The index in [`Defect::ALL`] of the planted defect plus 1, or 0 if none is planted.
static PLANTED: AtomicUsize = AtomicUsize::new(0);

/// Plants a defect in the whole process, or none. Replaces the one planted before.
pub fn plant(defect: Option<Defect>) {
    PLANTED.store(defect.map_or(0, |defect| defect as usize + 1), Ordering::Relaxed);
}

macro_rules! defects {
    ($(#[doc = $what:literal] $defect:ident)*) => {
        /// A bug that can be planted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Defect {
            $(#[doc = $what] $defect,)*
        }

        impl Defect {
            /// Every defect.
            pub const ALL: &'static [Defect] = &[$(Defect::$defect),*];

            /// Returns a sentence that describes the bug.
            pub fn what(self) -> &'static str {
                match self {
                    $(Defect::$defect => $what.trim_ascii(),)*
                }
            }

            /// Returns the name in snake case.
            pub fn name(self) -> String {
                let mut name = String::new();
                for letter in match self { $(Defect::$defect => stringify!($defect),)* }.chars() {
                    if letter.is_ascii_uppercase() && !name.is_empty() {
                        name.push('_');
                    }
                    name.push(letter.to_ascii_lowercase());
                }
                name
            }

            /// Returns `true` if this defect is planted.
            pub fn is_planted(self) -> bool {
                PLANTED.load(Ordering::Relaxed) == self as usize + 1
            }
        }
    };
}
