//! Expressions in manifests: `{{ nodes.a.result.score + vars.bias }}`. What they may name, what they mean, and
//! how much they may cost. They read no file, call nothing outside, and know nothing of a run: what they see
//! is handed to them as a [`Scope`].

mod expression;
mod filters;
mod items;
mod range;
mod scan;
mod scope;
mod template;

pub(crate) use expression::{Expression, Uses};
pub(crate) use items::Items;
pub(crate) use scan::has_expression;
pub(crate) use scope::Scope;
pub(crate) use template::Template;

/// Steps that one evaluation may take.
const FUEL: u64 = 10_000_000;

/// Bytes that one evaluation may produce, and that it may read of one result.
pub(crate) const LIMIT_BYTES: usize = 8 << 20;
