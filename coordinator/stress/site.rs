//! Where a stress works: a directory beside the store that a run would use, or in the system's temporary directory. It is
//! gone when the stress ends; what one left that was killed, the next one clears.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// What names of such directories begin with.
const PREFIX: &str = ".forkyard-stress-";

/// The file in it that is locked while somebody works there.
const OWNER: &str = "owner";

pub(super) struct Site {
    path: PathBuf,
    _owner: File,
}

impl Site {
    /// Makes one, and clears those that nobody works in any more.
    ///
    /// # Errors
    /// When it can be made nowhere.
    pub fn make(store: &Path) -> io::Result<Site> {
        let parent = store.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Site::make_in(parent).or_else(|_| Site::make_in(&std::env::temp_dir()))
    }

    fn make_in(parent: &Path) -> io::Result<Site> {
        clear(parent);
        let path = std::path::absolute(parent)?.join(format!("{PREFIX}{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        let owner = File::create(path.join(OWNER))?;
        owner.lock()?;
        Ok(Site { path, _owner: owner })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.path).ok();
    }
}

/// Clears what killed ones left.
fn clear(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        let owner = File::open(entry.path().join(OWNER));
        let in_use = owner.is_ok_and(|owner| matches!(owner.try_lock(), Err(TryLockError::WouldBlock)));
        if !in_use {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_works_in_is_cleared() {
        let parent = tempfile::tempdir().unwrap();
        let left = parent.path().join(format!("{PREFIX}1"));
        fs::create_dir(&left).unwrap();
        let site = Site::make(&parent.path().join("store")).unwrap();
        assert!(!left.exists() && site.path("").exists());
        clear(parent.path());
        assert!(site.path("").exists(), "somebody works there");
        let path = site.path("");
        drop(site);
        assert!(!path.exists());
    }
}
