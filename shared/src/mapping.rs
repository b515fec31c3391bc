//! Fence 1 of 2: memory that other processes share. Everything here hands out plain references, so
//! each type states who promises that the bytes behind them stay.

#![expect(unsafe_code, reason = "mapping shared memory is this file's purpose")]

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{
    AtomicU8, AtomicU64, AtomicUsize, Ordering,
    Ordering::{Acquire, Relaxed, Release},
};

use memmap2::{Advice, Mmap, MmapOptions, MmapRaw};
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::arena::ArenaError;
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
    seal(&file)?;
    Ok(file)
}

/// A memory file to be written, and then [`seal`]ed.
pub fn unsealed(name: &str) -> io::Result<File> {
    memory_file(name).map(File::from)
}

/// Makes a memory file one that nobody can change or shrink any more.
pub fn seal(file: &File) -> io::Result<()> {
    let seals =
        SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(())
}

fn memory_file(name: &str) -> io::Result<OwnedFd> {
    Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?)
}

/// One page a worker: the memory file that holds every worker's [`Pulse`].
pub struct PulseBoard {
    file: OwnedFd,
    pages: Vec<PulsePage>,
    /// So many have had a worker.
    used: AtomicUsize,
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
        Ok(PulseBoard { file, pages, used: AtomicUsize::new(0) })
    }

    /// The page of one worker.
    pub fn page(&self, index: usize) -> &Pulse {
        &self.pages[index]
    }

    /// Coordinator: a worker is about to use this page.
    pub fn begin(&self, index: usize) {
        self.pages[index].reset();
        self.used.fetch_max(index + 1, Relaxed);
    }

    /// Coordinator: how many messages workers have sent, all together.
    pub fn said(&self) -> u64 {
        let used = &self.pages[..self.used.load(Relaxed)];
        used.iter().fold(0, |sum, page| sum.wrapping_add(page.said()))
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

/// Address space for a memory file that grows under it: 64 GiB, or what the machine's limits allow.
const RANGE_MAX_BYTES: usize = 64 << 30;
const RANGE_MIN_BYTES: usize = 256 << 20;

/// How a word is stored that leads to something new, and how one is loaded that may lead somewhere. A test of all that
/// can happen in between goes by these (`arena/publication_tests.rs`).
pub(crate) const PUBLISH: Ordering = Release;
/// The other half.
pub(crate) const LOOK: Ordering = Acquire;

/// Where marks are: a byte for each word of the file, by which debug builds check every read (see
/// [`GrowingFile::keep_marks`]). So far into the file that it never grows there; nothing in between takes memory.
const MARKS_AT: usize = RANGE_MAX_BYTES / 4;
/// The word that says whether there are marks: the last one of the first page.
const HAS_MARKS_AT: u64 = PAGE_BYTES as u64 - 8;
/// The first word of a block, and each other one; what is neither is 0.
const BLOCK: u8 = 1;
const REST: u8 = 2;

/// A word of shared memory: read by everybody, written by the one [`GrowingFile`] behind it.
#[repr(transparent)]
pub struct Word(AtomicU64);

impl Word {
    /// What it holds now. Everything written before it was stored is seen too.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(LOOK)
    }
}

/// A [`GrowingFile`] as its readers see it: a reserved range of addresses, of which the bytes up to the
/// file's backed length can be read, now or once they are there.
///
/// The first word of the file is that length. Bytes may be written again while they are borrowed only
/// if the borrower had no claim on them (see [`crate::arena`]); it then sees other bytes, which is why
/// nothing here relies on them for memory safety: they are read as integers and text that is checked.
pub struct ArenaReader(MmapRaw);

impl ArenaReader {
    /// Maps the file of a [`GrowingFile`], read-only. It may have been written to already, or not yet.
    pub fn read_only(file: &impl AsFd) -> io::Result<ArenaReader> {
        let file = File::from(file.as_fd().try_clone_to_owned()?);
        if file.metadata()?.len() < PAGE_BYTES as u64 {
            return Err(io::Error::other("the file of an arena has a header"));
        }
        reserve(|len| MmapOptions::new().len(len).map_raw_read_only(&file)).map(ArenaReader)
    }

    /// How many bytes can be read.
    #[inline]
    pub fn backed_bytes(&self) -> u64 {
        // SAFETY: the first page of the file is backed from the start (`GrowingFile::new`), the mapping
        // is page aligned, and a word is an atomic, which other processes may change at any time.
        let backed = unsafe { &*self.0.as_ptr().cast::<Word>() };
        backed.get().min(self.0.len() as u64)
    }

    /// `count` words from byte `at`.
    ///
    /// # Errors
    /// When they are not aligned, or not all there.
    #[inline]
    pub fn words(&self, at: u64, count: usize) -> Result<&[Word], ArenaError> {
        let len = count.saturating_mul(8);
        if !at.is_multiple_of(8) || !self.holds(at, len) {
            return Err(ArenaError::NoSuchPlace { at, len });
        }
        self.expect_block(at, len);
        // SAFETY: the words are inside the mapping, aligned, and backed: the length only grows, and the
        // file is sealed against shrinking. They are atomics, so that changes are no data race.
        Ok(unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(at as usize).cast(), count) })
    }

    /// What the word at byte `at` holds now.
    ///
    /// # Errors
    /// When there is no such word.
    #[inline]
    pub fn load(&self, at: u64) -> Result<u64, ArenaError> {
        Ok(self.words(at, 1)?[0].get())
    }

    /// `len` bytes from byte `at`.
    ///
    /// # Errors
    /// When they are not all there.
    #[inline]
    pub fn bytes(&self, at: u64, len: usize) -> Result<&[u8], ArenaError> {
        if !self.holds(at, len) {
            return Err(ArenaError::NoSuchPlace { at, len });
        }
        self.expect_block(at, len);
        // SAFETY: the bytes are inside the mapping and backed, as above. That they stay is the promise
        // of whoever recycles them; what is left when it is broken is said at the type.
        Ok(unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(at as usize), len) })
    }

    #[inline]
    fn holds(&self, at: u64, len: usize) -> bool {
        at.checked_add(len as u64).is_some_and(|end| end <= self.backed_bytes())
    }

    /// In debug builds: these bytes, which are there, must be all of one block or a part of one.
    #[inline]
    fn expect_block(&self, at: u64, len: usize) {
        if cfg!(debug_assertions) && len > 0 {
            let (first, rest) =
                self.marks(at, len).split_first().map_or((None, &[][..]), |(a, b)| (Some(a), b));
            let is_block = first.is_none_or(|first| first.load(Relaxed) != 0)
                && rest.iter().all(|mark| mark.load(Relaxed) == REST);
            assert!(
                is_block,
                "BUG: {len} bytes read at {at} of the arena, which are not in one living block"
            );
        }
    }

    fn has_room_for_marks(&self) -> bool {
        self.0.len() >= MARKS_AT + MARKS_AT / 8
    }

    /// The marks of the words that bytes are in, which are there; none if none are kept.
    fn marks(&self, at: u64, len: usize) -> &[AtomicU8] {
        // SAFETY: the first page is backed from the start, as above.
        let has_marks = unsafe { &*self.0.as_ptr().add(HAS_MARKS_AT as usize).cast::<Word>() }.get() != 0;
        if !has_marks || len == 0 || !self.has_room_for_marks() {
            return &[];
        }
        let (first, last) = (at as usize / 8, (at as usize + len - 1) / 8);
        // SAFETY: the file never grows beyond MARKS_AT (`max_bytes`), so its marks are inside the mapping, as was just
        // looked; they are backed before the length says that what they are of is (`grow`), which the caller has
        // looked at. They are atomics, so that changes are no data race.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(MARKS_AT + first).cast(), last - first + 1) }
    }
}

/// A memory file that grows under its mappings, and that only the process which made it can write.
pub struct GrowingFile {
    file: File,
    reader: ArenaReader,
    has_marks: bool,
}

impl GrowingFile {
    /// A file of one page, all zero but for its first word.
    pub fn new(name: &str) -> io::Result<GrowingFile> {
        let file = File::from(memory_file(name)?);
        fallocate(&file, FallocateFlags::empty(), 0, PAGE_BYTES as i64)?;
        // Mapped before it is sealed: afterwards nobody can map it writable, not even its maker.
        let reader = reserve(|len| MmapOptions::new().len(len).map_raw(&file)).map(ArenaReader)?;
        fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SHRINK))?;
        let new = GrowingFile { file, reader, has_marks: false };
        new.publish(PAGE_BYTES as u64);
        Ok(new)
    }

    /// The descriptor to hand to readers.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// The file as its readers see it.
    #[inline]
    pub fn reader(&self) -> &ArenaReader {
        &self.reader
    }

    /// The length it cannot outgrow.
    pub fn max_bytes(&self) -> u64 {
        if self.has_marks { MARKS_AT as u64 } else { self.reader.0.len() as u64 }
    }

    /// From now on only what was marked as a block may be read, by anybody; in builds without debug assertions nobody looks.
    /// Where there is no room for marks, there are none.
    pub fn keep_marks(&mut self) -> io::Result<()> {
        if self.reader.has_room_for_marks() {
            self.back_marks(0, self.reader.backed_bytes())?;
            self.has_marks = true;
            self.raw_store(HAS_MARKS_AT, 1);
        }
        Ok(())
    }

    fn back_marks(&self, start: u64, end: u64) -> io::Result<()> {
        let (from, to) = (MARKS_AT as u64 + start / 8, MARKS_AT as u64 + end.div_ceil(8));
        Ok(fallocate(&self.file, FallocateFlags::empty(), from as i64, (to - from) as i64)?)
    }

    /// Marks bytes as one block.
    ///
    /// # Panics
    /// When there is one.
    pub fn mark(&mut self, at: u64, len: u64) {
        assert_eq!(self.ends_of(at, len), (0, 0), "BUG: a block at {at}, where there is one");
        self.write_marks(at, len, (BLOCK, REST));
    }

    /// They are no block any more.
    ///
    /// # Panics
    /// When they were none.
    pub fn unmark(&mut self, at: u64, len: u64) {
        let words = if len > 8 { (BLOCK, REST) } else { (BLOCK, BLOCK) };
        let after = (at + len).next_multiple_of(8);
        let goes_on = after < self.reader.backed_bytes() && self.ends_of(after, 8).0 == REST;
        let is_block = self.ends_of(at, len) == words && !goes_on;
        assert!(!self.has_marks || is_block, "BUG: {len} bytes at {at} are no block");
        self.write_marks(at, len, (0, 0));
    }

    /// The marks of the first and the last word of these bytes.
    fn ends_of(&self, at: u64, len: u64) -> (u8, u8) {
        assert!(self.reader.holds(at, len as usize), "BUG: a block of {len} bytes at {at}");
        let marks = self.reader.marks(at, len as usize);
        let of = |mark: Option<&AtomicU8>| mark.map_or(0, |mark| mark.load(Relaxed));
        (of(marks.first()), of(marks.last()))
    }

    fn write_marks(&mut self, at: u64, len: u64, (first, rest): (u8, u8)) {
        let marks = self.reader.marks(at, len as usize);
        if marks.is_empty() {
            return;
        }
        let place = marks.as_ptr().cast::<u8>().cast_mut();
        // SAFETY: they are inside the mapping and backed (`marks`), and mapped writable by `new`. Nobody but this process
        // writes here, and who looks at the marks of what is not its own block has a bug to be told of.
        unsafe {
            place.write_bytes(rest, marks.len());
            place.write(first);
        }
    }

    /// Backs it up to byte `end` with memory; what is new is zero.
    pub fn grow(&mut self, end: u64) -> io::Result<()> {
        let start = self.reader.backed_bytes();
        if end > self.max_bytes() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        if end > start {
            fallocate(&self.file, FallocateFlags::empty(), start as i64, (end - start) as i64)?;
            if self.has_marks {
                self.back_marks(start, end)?;
            }
            self.publish(end);
        }
        Ok(())
    }

    /// Publishes `value` in the word at byte `at`: who reads it sees everything written before.
    ///
    /// # Panics
    /// When there is no such word, or it is the first one.
    #[inline]
    pub fn store(&mut self, at: u64, value: u64) {
        let there = at != 0 && self.reader.words(at, 1).is_ok();
        assert!(there, "BUG: a word stored at {at}");
        self.raw_store(at, value);
    }

    /// Writes `bytes` at byte `at`, which nobody has a claim to.
    ///
    /// # Panics
    /// When there is no room, or it is the first word.
    pub fn write(&mut self, at: u64, bytes: &[u8]) {
        assert!(at >= 8 && self.reader.holds(at, bytes.len()), "BUG: {} bytes at {at}", bytes.len());
        // SAFETY: the place is inside the mapping, backed, and mapped writable (`new`). `&mut self`
        // ends every borrow through this mapping; borrowers in other mappings have no claim on it.
        unsafe {
            let place = self.reader.0.as_mut_ptr().add(at as usize);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, bytes.len());
        }
    }

    fn publish(&self, backed: u64) {
        self.raw_store(0, backed);
    }

    fn raw_store(&self, at: u64, value: u64) {
        // SAFETY: the callers have checked that the word is there, aligned and backed; `new` mapped it
        // writable; it is only ever accessed as an atomic.
        unsafe { &*self.reader.0.as_mut_ptr().add(at as usize).cast::<AtomicU64>() }.store(value, PUBLISH);
    }
}

/// The largest mapping that the limits of this process allow.
fn reserve(map: impl Fn(usize) -> io::Result<MmapRaw>) -> io::Result<MmapRaw> {
    let mut len = RANGE_MAX_BYTES;
    loop {
        match map(len) {
            Err(_) if len > RANGE_MIN_BYTES => len /= 2,
            done => return done,
        }
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

    #[test]
    fn a_reader_that_mapped_first_sees_what_is_written_later() {
        let mut file = GrowingFile::new("test").unwrap();
        let reader = ArenaReader::read_only(file.file()).unwrap();
        assert!(reader.bytes(8192, 3).is_err());
        file.grow(1 << 20).unwrap();
        file.write(8192, b"abc");
        file.store(8, 7);
        assert_eq!(reader.bytes(8192, 3).unwrap(), b"abc");
        assert_eq!(reader.load(8).unwrap(), 7);
    }

    #[test]
    fn places_that_are_not_there_are_refused() {
        let file = GrowingFile::new("test").unwrap();
        let reader = file.reader();
        assert!(reader.bytes(PAGE_BYTES as u64 - 1, 2).is_err());
        assert!(reader.bytes(u64::MAX, 2).is_err());
        assert!(reader.words(4, 1).is_err());
        assert!(reader.words(0, usize::MAX).is_err());
        assert!(reader.words(PAGE_BYTES as u64, 1).is_err());
    }

    #[test]
    fn nobody_else_can_write_a_growing_file_or_shrink_it() {
        let mut file = GrowingFile::new("test").unwrap();
        assert!(MmapOptions::new().len(PAGE_BYTES).map_raw(file.file()).is_err());
        assert!(file.file().set_len(0).is_err());
        assert!((file.file()).write_all(b"x").is_err());
        assert!(file.grow(u64::MAX / 2).is_err());
        file.grow(2 << 20).unwrap();
    }
}
