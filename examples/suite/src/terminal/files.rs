//! Files that a run leaves: each is written under a temporary name, and appears under its own once it is complete.

use super::interrupt;
use anyhow::{Context, Result, bail, ensure};
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Writes a file, which replaces an older one once it is complete.
///
/// # Errors
/// If it can't be written; an older file stays.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> Result<()> {
        match target(path)? {
            // A reader that stops early (`| head`) is no failure.
            Target::Stdout => match stdout().and_then(|mut stdout| stdout.write_all(bytes)) {
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
                written => Ok(written?),
            },
            // Written to, not replaced.
            Target::Device => Ok(File::options().write(true).open(path)?.write_all(bytes)?),
            Target::File(real) => {
                let file = {
                    let mut known = interrupt::temporary();
                    let file = temporary(&real)?;
                    *known = Some(file.path().to_owned());
                    file
                };
                let written = (|| {
                    if let Ok(older) = std::fs::metadata(&real) {
                        file.as_file().set_permissions(older.permissions())?;
                    }
                    file.as_file().write_all(bytes)?;
                    file.as_file().sync_all()?;
                    file.persist(&real)?;
                    Ok(())
                })();
                *interrupt::temporary() = None;
                written
            }
        }
    };
    write().with_context(|| format!("can't write {}", path.display()))
}

/// Checks that a file can be written, as far as that can be known before.
///
/// # Errors
/// If it can't.
pub fn probe(path: &Path) -> Result<()> {
    let probe = || -> Result<()> {
        if let Target::File(real) = target(path)? {
            // Removed before the handler of Ctrl-C may end the program.
            let _known = interrupt::temporary();
            temporary(&real)?;
        }
        Ok(())
    };
    probe().with_context(|| format!("can't write {}", path.display()))
}

/// Whether a path is one of standard output: `-`, or what the system calls it.
pub fn is_stdout(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name))
}

/// What a path leads to.
enum Target {
    Stdout,
    /// Something that is there and not a file, such as a pipe.
    Device,
    /// A file, or a new one; a link stays a link, and its target is replaced.
    File(PathBuf),
}

fn target(path: &Path) -> Result<Target> {
    if is_stdout(path) {
        return Ok(Target::Stdout);
    }
    ensure!(!path.is_dir(), "it is a directory");
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Ok(Target::Device);
    }
    Ok(Target::File(followed(path)?))
}

/// The end of a chain of links, which need not exist.
pub(super) fn followed(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..40 {
        let Ok(link) = std::fs::read_link(&path) else { return Ok(path) };
        path = path.parent().unwrap_or(Path::new("")).join(link);
    }
    bail!("too many links")
}

/// A file beside `path` that is removed unless it takes the place of it.
fn temporary(path: &Path) -> Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // By itself, as the error that follows would name the temporary file.
    std::fs::metadata(folder).with_context(|| format!("there is no folder {}", folder.display()))?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".candle-losses-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    Ok(builder.tempfile_in(folder)?)
}

/// The open standard output as a file: another one would not know what was written to it.
fn stdout() -> std::io::Result<File> {
    std::io::stdout().flush()?;
    #[cfg(unix)]
    let handle = std::os::fd::AsFd::as_fd(&std::io::stdout()).try_clone_to_owned()?;
    #[cfg(windows)]
    let handle = std::os::windows::io::AsHandle::as_handle(&std::io::stdout()).try_clone_to_owned()?;
    Ok(File::from(handle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_file_stays_until_the_new_one_is_complete() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log.csv");
        std::fs::write(&path, "old")?;
        probe(&path)?;
        assert_eq!(std::fs::read_to_string(&path)?, "old");
        write(&path, b"new")?;
        assert_eq!(std::fs::read_to_string(&path)?, "new");
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    #[test]
    #[cfg(unix)]
    fn the_target_of_a_link_is_replaced_and_not_the_link() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::os::unix::fs::symlink("file", &link)?;
        for content in [&b"first"[..], b"second"] {
            write(&link, content)?;
            assert!(link.is_symlink());
            assert_eq!(std::fs::read(&file)?, content);
        }
        Ok(())
    }

    #[test]
    fn refuses_a_folder_and_a_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("missing/log.csv")] {
            for error in [probe(&path), write(&path, b"")] {
                let error = error.unwrap_err().to_string();
                assert!(error.contains(path.to_str().unwrap()), "{error}");
            }
        }
    }
}
