//! Whether a store lies on a file system of another machine, where locks and shared memory cannot be relied
//! on.

use std::path::Path;

use nix::sys::statfs::statfs;

/// File systems over a network, by the number that `statfs` gives them (linux/magic.h and their own sources).
const NETWORK: [(i64, &str); 13] = [
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x7375_7245, "Coda"),
    (0x5346_414f, "AFS"),
    (0x6b41_4653, "AFS"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x1983_0326, "BeeGFS"),
    (0x4750_4653, "GPFS"),
    (0x0102_1997, "9P"),
    (0x6573_5546, "FUSE: sshfs, s3fs and the like"),
];

/// The name of the network file system that a directory lies on.
pub(crate) fn network_file_system(dir: &Path) -> Option<&'static str> {
    named(statfs(dir).ok()?.filesystem_type().0)
}

fn named(magic: i64) -> Option<&'static str> {
    // The kernel's word is 32 bits wide, with or without its sign.
    NETWORK.iter().find(|(known, _)| known & 0xffff_ffff == magic & 0xffff_ffff).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_are_told_from_networks() {
        assert_eq!(named(0x6969), Some("NFS"));
        assert_eq!(named(0xff53_4d42u32 as i32 as i64), Some("CIFS"));
        // ext4, tmpfs, overlay.
        assert_eq!([0xef53, 0x0102_1994, 0x794c_7630].map(named), [None; 3]);
        assert_eq!(network_file_system(&std::env::temp_dir()), None);
    }
}
