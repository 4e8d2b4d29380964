//! Planted defects: plausible bugs, each a condition at the place of the code that is right, for a simulator to find.
//!
//! Not for use, and no part of what versions promise: they are there with the feature `planted` alone.

use alloc::string::String;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Whether a defect is planted.
macro_rules! planted {
    ($defect:ident) => {
        $crate::planted::Defect::$defect.is_planted()
    };
}

/// The place of the defect that is planted in [`Defect::ALL`], counted from 1; 0 for none.
static PLANTED: AtomicUsize = AtomicUsize::new(0);

/// Plants a defect in every engine of this process, instead of the one that was; or none.
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

            /// What the bug is, in a sentence.
            pub fn what(self) -> &'static str {
                match self {
                    $(Defect::$defect => $what.trim_ascii(),)*
                }
            }

            /// The name, in snake case.
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

            pub(crate) fn is_planted(self) -> bool {
                PLANTED.load(Ordering::Relaxed) == self as usize + 1
            }
        }
    };
}

defects! {
    // Calls, seen from the client.

    /// A call ends a nanosecond after its deadline.
    CallLateByOne
}
