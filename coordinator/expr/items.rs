//! The items of a `foreach`: a range, or a list kept as the text it came in.

use serde_json::value::RawValue;

use super::range::Range;

/// What there is an item each of.
#[derive(Debug, PartialEq)]
pub(crate) enum Items {
    /// Numbers, none of which is stored.
    Range {
        /// The first.
        start: i64,
        /// From one to the next.
        step: i64,
        /// How many.
        len: u32,
    },
    /// A JSON list and where in it its elements are.
    List {
        /// All of it.
        text: Box<str>,
        /// Start and end of each element.
        places: Vec<(u32, u32)>,
    },
}

impl Items {
    pub(super) fn of_range(range: &Range) -> Items {
        Items::Range { start: range.start, step: range.step, len: range.len }
    }

    /// The elements of a JSON list.
    ///
    /// # Errors
    /// What it is instead.
    pub fn of_list(text: String) -> Result<Items, String> {
        if text.len() > u32::MAX as usize {
            return Err(format!("a list of {} bytes is too long", text.len()));
        }
        let elements: Vec<&RawValue> = serde_json::from_str(&text).map_err(|_| {
            let shown: String = text.chars().take(40).collect();
            format!("`foreach` goes over a list, and this is none: {shown}")
        })?;
        let start = text.as_ptr() as usize;
        let place = |element: &&RawValue| {
            let from = element.get().as_ptr() as usize - start;
            (from as u32, (from + element.get().len()) as u32)
        };
        let places = elements.iter().map(place).collect();
        Ok(Items::List { text: text.into(), places })
    }

    pub fn len(&self) -> u32 {
        match self {
            Items::Range { len, .. } => *len,
            Items::List { places, .. } => places.len() as u32,
        }
    }

    /// One item as JSON.
    pub fn get(&self, index: u32) -> String {
        match self {
            Items::Range { start, step, .. } => (start + step * i64::from(index)).to_string(),
            Items::List { text, places } => {
                let (from, to) = places[index as usize];
                text[from as usize..to as usize].into()
            }
        }
    }

    /// Up to `count` items from this one on, as a JSON list.
    pub fn chunk(&self, first: u32, count: u32) -> String {
        let items: Vec<String> =
            (first..(first + count).min(self.len())).map(|index| self.get(index)).collect();
        format!("[{}]", items.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_where_they_were() {
        let items = Items::of_list(r#"[1, {"a": [2]}, "x"]"#.into()).unwrap();
        let all: Vec<String> = (0..items.len()).map(|index| items.get(index)).collect();
        assert_eq!(all, ["1", r#"{"a": [2]}"#, r#""x""#]);
        assert_eq!(items.chunk(1, 5), r#"[{"a": [2]},"x"]"#);
        assert!(Items::of_list("{}".into()).unwrap_err().contains("goes over a list"));
    }
}
