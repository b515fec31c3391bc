//! `range(from, to, step)`: minijinja's own stops at 100,000 numbers, and would make a list of them.

use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr};
use minijinja::{Error, ErrorKind, Value};

/// A longer range can be the whole of a `foreach`, but nothing goes through it inside an expression: filters
/// cost no steps.
const LISTED_MAX: u32 = 1_000_000;

/// Numbers at equal distances, none of which is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Range {
    pub start: i64,
    pub step: i64,
    pub len: u32,
}

impl Range {
    pub fn get(&self, index: u32) -> i64 {
        self.start + self.step * i64::from(index)
    }

    /// `range(to)`, `range(from, to)`, `range(from, to, step)`.
    pub fn call(first: i64, second: Option<i64>, step: Option<i64>) -> Result<Value, Error> {
        let wrong = |message: &'static str| Error::new(ErrorKind::InvalidOperation, message);
        let (start, end) = second.map_or((0, first), |end| (first, end));
        let step = step.unwrap_or(1);
        let span = match step {
            0 => return Err(wrong("a range needs a step other than 0")),
            1.. => end.saturating_sub(start),
            _ => start.saturating_sub(end),
        };
        let len = span.max(0) as u64;
        let len = u32::try_from(len.div_ceil(step.unsigned_abs()));
        let len = len.ok().filter(|len| start.checked_add(step.saturating_mul(i64::from(*len))).is_some());
        let len = len.ok_or_else(|| {
            wrong("a range has at most 4,294,967,295 numbers, none of them beyond 64 bits: give each item more to do, or use several nodes")
        })?;
        Ok(Value::from_object(Range { start, step, len }))
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let index = i64::try_from(key.clone()).ok()?;
        u32::try_from(index).ok().filter(|index| *index < self.len).map(|index| self.get(index).into())
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        if self.len > LISTED_MAX {
            let why = "inside an expression a range has at most 1,000,000 numbers";
            let wrong = Value::from(Error::new(ErrorKind::InvalidOperation, why));
            return Enumerator::Iter(Box::new(std::iter::once(wrong)));
        }
        let range = **self;
        Enumerator::Iter(Box::new((0..self.len).map(move |index| range.get(index).into())))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.len as usize)
    }
}
