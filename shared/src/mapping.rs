//! Fence 1 of 2: memory that other processes share. Everything here hands out plain references, so
//! each type states who promises that the bytes behind them stay.

#![expect(unsafe_code, reason = "mapping shared memory is this file's purpose")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};

use memmap2::{Advice, Mmap, MmapOptions, MmapRaw};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::pulse::Pulse;

/// A file mapped read-only and shared: all processes that map it use the same physical pages.
///
/// The file may be one that others can change (an artifact named by the user). Then a change shows
/// through, and a truncation raises SIGBUS: workers turn that into a failed task
/// ([`crate::sys::guard_mappings`]), the coordinator never maps such a file, and results computed
/// around a change are discarded (DESIGN: artifacts). Nothing here relies on the bytes being constant
/// for memory safety: they are only ever read as integers, floats and text that is checked.
pub struct Mapping(Mmap);

impl Mapping {
    /// Maps all of `file`. An empty file is an empty mapping.
    pub fn of(file: &File) -> io::Result<Mapping> {
        // SAFETY: the mapping is read-only. That the bytes may change under a reader is the case
        // described above: readers (artifact views, scans) take every byte pattern, check every
        // offset against the length, and keep no invariant across two reads of one byte.
        unsafe { MmapOptions::new().map(file) }.map(Mapping)
    }

    /// Asks for huge pages, then brings the whole file into memory, in this order: pages that are
    /// already cached stay small. Both are hints; a kernel that declines costs page tables, not
    /// correctness.
    pub fn populate(&self) {
        if !self.0.is_empty() {
            self.0.advise(Advice::HugePage).ok();
            self.0.advise(Advice::PopulateRead).ok();
        }
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// A memory file that nobody can change or shrink any more: its bytes are `source`'s.
pub fn sealed_copy(name: &str, mut source: impl io::Read) -> io::Result<File> {
    let mut file = File::from(memory_file(name)?);
    io::copy(&mut source, &mut file)?;
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

fn memory_file(name: &str) -> io::Result<OwnedFd> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?)
}

/// One page a worker: the memory file that holds every worker's [`Pulse`].
pub struct PulseBoard {
    file: OwnedFd,
    pages: Vec<PulsePage>,
}

/// One worker's page of a [`PulseBoard`], mapped writable.
pub struct PulsePage(MmapRaw);

const PAGE_BYTES: usize = 4096;

impl PulseBoard {
    /// A board for `workers` workers, all idle.
    pub fn new(workers: usize) -> io::Result<PulseBoard> {
        let file = memory_file("forkyard-pulse")?;
        nix::unistd::ftruncate(&file, (workers * PAGE_BYTES) as i64)?;
        let pages = (0..workers).map(|index| PulsePage::map(&file, index)).collect::<io::Result<_>>()?;
        Ok(PulseBoard { file, pages })
    }

    /// The page of one worker.
    pub fn page(&self, index: usize) -> &Pulse {
        &self.pages[index]
    }

    /// The descriptor to hand to the zygote.
    pub fn file(&self) -> &OwnedFd {
        &self.file
    }
}

impl PulsePage {
    /// Maps the page of worker `index` of the board behind `file`.
    pub fn map(file: &impl AsFd, index: usize) -> io::Result<PulsePage> {
        let file = File::from(file.as_fd().try_clone_to_owned()?);
        let (offset, end) = (index * PAGE_BYTES, (index + 1) * PAGE_BYTES);
        if file.metadata()?.len() < end as u64 {
            return Err(io::Error::other("the pulse board has no such page"));
        }
        MmapOptions::new().offset(offset as u64).len(PAGE_BYTES).map_raw(&file).map(PulsePage)
    }
}

impl Deref for PulsePage {
    type Target = Pulse;

    fn deref(&self) -> &Pulse {
        // SAFETY: the mapping is PAGE_BYTES long, page aligned, and lives as long as `self`; the file
        // behind it is never shrunk (checked to hold the page in `map`, and only `PulseBoard::new`
        // sizes it). `Pulse` is `repr(C)` and made of atomics, for which every bit pattern is valid
        // and which other processes may change at any time.
        unsafe { &*self.0.as_mut_ptr().cast::<Pulse>() }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::ids::NodeId;

    #[test]
    fn a_sealed_copy_cannot_be_written() {
        let mut file = sealed_copy("test", &b"abc"[..]).unwrap();
        assert_eq!(&*Mapping::of(&file).unwrap(), b"abc");
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(1).is_err());
    }

    #[test]
    fn two_mappings_of_one_page_see_each_other() {
        let board = PulseBoard::new(2).unwrap();
        let page = PulsePage::map(board.file(), 1).unwrap();
        page.begin(NodeId(5), 9);
        assert_eq!(board.page(1).current().unwrap().node, NodeId(5));
        assert_eq!(board.page(0).current(), None);
        assert!(PulsePage::map(board.file(), 2).is_err());
    }
}
