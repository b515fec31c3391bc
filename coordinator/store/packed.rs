//! Results end to end in one piece of memory: `key, length as u16, record` for each. So they stand in the log and
//! in the index.

use forkyard_shared::digest::Digest;

/// Appends a result.
pub(super) fn push(packed: &mut Vec<u8>, key: Digest, record: &[u8]) {
    let len = u16::try_from(record.len()).expect("a record is shorter than 64 KiB");
    packed.extend(key.0);
    packed.extend(len.to_le_bytes());
    packed.extend(record);
}

/// The result that starts here, and what comes after it; `None` at the end, or where the bytes are damaged.
pub(super) fn next(packed: &[u8]) -> Option<(Digest, &[u8], &[u8])> {
    let (key, rest) = packed.split_first_chunk::<32>()?;
    let (len, rest) = rest.split_first_chunk::<2>()?;
    let (record, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
    Some((Digest(*key), record, rest))
}

/// Hands out all results, as far as the bytes are sound; what is left of them.
pub(super) fn each(mut packed: &[u8], mut each: impl FnMut(Digest, &[u8])) -> &[u8] {
    while let Some((key, record, rest)) = next(packed) {
        each(key, record);
        packed = rest;
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_pushed_comes_back_up_to_where_it_is_damaged() {
        let mut packed = Vec::new();
        let keys = [1u8, 2, 3].map(|n| Digest::of(&[n]));
        for (n, key) in keys.iter().enumerate() {
            push(&mut packed, *key, &vec![n as u8; 10 * n]);
        }
        let read = |packed: &[u8]| {
            let mut found = Vec::new();
            let left = each(packed, |key, record| found.push((key, record.to_vec())));
            (found, left.len())
        };
        let all: Vec<_> = keys.iter().enumerate().map(|(n, key)| (*key, vec![n as u8; 10 * n])).collect();
        assert_eq!(read(&packed), (all.clone(), 0));
        assert_eq!(read(&packed[..packed.len() - 1]), (all[..2].to_vec(), 34 + 19));
    }
}
