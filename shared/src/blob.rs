//! Where a blob lies: `blobs/ab/<digest>`, by the first byte of its digest.

use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// The path of a blob below a store's `blobs/`.
pub fn blob_path(blobs_dir: &Path, digest: Digest) -> PathBuf {
    let hex = digest.to_hex();
    blobs_dir.join(&hex[..2]).join(hex)
}
