//! Compression with zstd, where it pays. Ignorant of what it packs and of where the packed bytes go.

use std::io;

/// Shorter values stay as they are: they take one block of a disk, packed or not.
pub const PACK_MIN_BYTES: usize = 4 << 10;

/// How much of a value is tried before all of it is packed.
pub const SAMPLE_BYTES: usize = 64 << 10;

/// The fastest level with a dictionary of its own: the disk is to wait, not the processor.
pub(crate) const LEVEL: i32 = 1;

/// Whether packing what starts like this makes it at least a fifth shorter.
pub fn pays(start: &[u8]) -> bool {
    let sample = &start[..start.len().min(SAMPLE_BYTES)];
    sample.len() >= PACK_MIN_BYTES
        && zstd::bulk::compress(sample, LEVEL).is_ok_and(|packed| packed.len() * 5 <= sample.len() * 4)
}

/// The packed bytes, if packing pays.
pub fn pack(bytes: &[u8]) -> Option<Vec<u8>> {
    let promising = bytes.len() >= PACK_MIN_BYTES && (bytes.len() <= SAMPLE_BYTES || pays(bytes));
    let packed = promising.then(|| zstd::bulk::compress(bytes, LEVEL).ok()).flatten();
    packed.filter(|packed| packed.len() * 5 <= bytes.len() * 4)
}

/// What was packed, which had at most `most` bytes.
///
/// # Errors
/// When these are no packed bytes, or too many.
pub fn unpack(packed: &[u8], most: usize) -> io::Result<Vec<u8>> {
    zstd::bulk::decompress(packed, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_pays_and_noise_does_not() {
        let text = "the same line again\n".repeat(1000).into_bytes();
        let packed = pack(&text).expect("it is much shorter");
        assert!(packed.len() < text.len() / 10);
        assert_eq!(unpack(&packed, text.len()).unwrap(), text);
        let noise: Vec<u8> =
            (0..20_000u32).flat_map(|n| crate::digest::Digest::of(&n.to_le_bytes()).0).collect();
        assert!(pack(&noise).is_none() && !pays(&noise));
        assert!(pack(&text[..PACK_MIN_BYTES - 1]).is_none());
    }

    #[test]
    fn what_is_not_packed_is_an_error_and_so_is_too_much() {
        assert!(unpack(b"plain", 100).is_err());
        assert!(unpack(&pack(&[0; 10_000]).unwrap(), 9_999).is_err());
    }
}
