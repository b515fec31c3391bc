//! The ops that come with Forkyard, one file each.

mod alloc;
mod ann;
mod bytes;
mod crash;
mod exec;
mod lookup;
mod noop;
mod python;
mod question;
mod race;
mod sleep;
mod spin;
mod topk;
mod value;

use crate::registry::Ops;

/// All of them. A version is raised when an op's results change: then its nodes run anew.
pub(crate) fn standard() -> Ops {
    Ops::empty()
        .versioned("noop", 1, noop::Noop)
        .versioned("sleep", 1, sleep::Sleep)
        .versioned("spin", 1, spin::Spin)
        .versioned("alloc", 1, alloc::Alloc)
        .versioned("crash", 1, crash::Crash)
        .versioned("value", 1, value::Constant)
        .versioned("topk", 1, topk::TopK)
        .versioned("ann", 1, ann::Ann::default())
        .versioned("lookup", 1, lookup::Lookup)
        .versioned("bytes", 1, bytes::Bytes)
        .versioned("exec", 1, exec::Exec::default())
        .versioned("race", 1, race::Race)
        .versioned("python", 1, python::Python)
}
