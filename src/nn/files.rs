//! Atomic replacement of files.

use candle_core::{Result, bail};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Writes a file atomically: an existing file is replaced only when the new one is complete, and its permissions are kept. Symbolic
/// links are followed. A target that is not a regular file, such as a pipe, is written directly. Several threads and processes may
/// write the same path at once.
///
/// # Errors
/// If the file can't be written. On error, an existing file is kept.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> Result<()> {
        if cfg!(all(target_family = "wasm", target_os = "unknown")) {
            bail!("there is no file system to write to")
        }
        // Also a regular file that standard output goes to must not be replaced.
        let is_special = ["/dev", "/proc"].iter().any(|folder| path.starts_with(folder));
        if is_special || fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Ok(OpenOptions::new().write(true).open(path)?.write_all(bytes)?);
        }
        let path = &end_of_links(path)?;
        let (mut file, part) = create_part(path)?;
        let written = (|| {
            if let Ok(older) = fs::metadata(path) {
                keep_owner(&file, &older);
                file.set_permissions(older.permissions())?;
            }
            file.write_all(bytes)?;
            file.sync_all()?;
            drop(file);
            fs::rename(&part, path)
        })();
        if written.is_err() {
            let _ = fs::remove_file(&part);
        }
        Ok(written?)
    };
    write().map_err(|error| error.with_path(path))
}

/// Gives a file the owner of an older one, as far as this process may.
#[cfg(unix)]
fn keep_owner(file: &File, older: &fs::Metadata) {
    use std::os::unix::fs::{MetadataExt, fchown};
    let _ = fchown(file, Some(older.uid()), Some(older.gid()));
}

#[cfg(not(unix))]
fn keep_owner(_: &File, _: &fs::Metadata) {}

/// Follows a chain of links to its end, which need not exist.
fn end_of_links(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        let Ok(link) = fs::read_link(&path) else { return Ok(path) };
        path = path.parent().unwrap_or(Path::new("")).join(link);
    }
    bail!("too many levels of symbolic links")
}

/// Creates a temporary file in the folder of `path`. Its name has the process id and a counter; an existing file is never reused.
fn create_part(path: &Path) -> std::io::Result<(File, PathBuf)> {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    loop {
        // Short, as the name of the file may be as long as the file system allows.
        let call = CALLS.fetch_add(1, Ordering::Relaxed);
        let name = format!(".candle-losses-{}-{call}.part", std::process::id());
        let part = path.with_file_name(name);
        match OpenOptions::new().write(true).create_new(true).open(&part) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            file => return Ok((file?, part)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_writes_leave_one_whole_file() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("weights");
        std::thread::scope(|scope| {
            let writers = (0..8u8).map(|byte| {
                let path = &path;
                scope.spawn(move || (0..25).try_for_each(|_| replace(path, &vec![byte; 100_000])))
            });
            let writers = writers.collect::<Vec<_>>();
            writers.into_iter().try_for_each(|writer| writer.join().unwrap())
        })?;
        let found = fs::read(&path)?;
        assert!(found.len() == 100_000 && found.iter().all(|byte| *byte == found[0]));
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    #[cfg(unix)]
    #[test]
    fn links_devices_and_permissions_stay() -> Result<()> {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir()?;
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        // The target of the link does not exist at first.
        symlink("file", &link)?;
        replace(&link, b"first")?;
        assert!(link.is_symlink() && fs::read(&file)? == b"first");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640))?;
        replace(&link, b"second")?;
        assert!(link.is_symlink() && fs::read(&file)? == b"second");
        assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o640);
        let long = folder.path().join("n".repeat(250));
        replace(&long, b"long")?;
        assert_eq!(fs::read(&long)?, b"long");
        replace(Path::new("/dev/null"), b"third")?;
        assert!(!Path::new("/dev/null").is_file());
        symlink("circle", folder.path().join("circle"))?;
        let error = replace(&folder.path().join("circle"), b"").unwrap_err().to_string();
        assert!(error.contains("symbolic links") && error.contains("circle"), "{error}");
        Ok(())
    }

    #[test]
    fn a_failure_names_the_file_and_leaves_nothing() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let error = replace(&folder.path().join("missing/weights"), b"").unwrap_err().to_string();
        assert!(error.contains("missing/weights"), "{error}");
        assert!(replace(folder.path(), b"").is_err(), "a folder is not replaced");
        assert_eq!(fs::read_dir(folder.path())?.count(), 0);
        Ok(())
    }
}
