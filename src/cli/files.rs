//! Files that a run leaves behind: opened before it starts, so that a path that can't be written is told at once, filled
//! aside, and put in place whole.

use anyhow::{Context, Result, ensure};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Writes a file, which appears under its name, in place of an older one, once it is whole.
///
/// ```
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("predictions.csv");
/// candle_losses::cli::write(&path, b"price\n12.5\n")?;
/// assert_eq!(std::fs::read(&path)?, b"price\n12.5\n");
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// If it can't be written; what was there stays.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    Output::create(path)?.write(bytes)
}

/// Whether a path is one of standard output: `-`, or what the system calls it.
pub fn is_stdout(path: &Path) -> bool {
    ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"].iter().any(|name| path == Path::new(name))
}

/// A file to be: what is written to it appears under its name by [`Output::commit`] only.
pub(super) struct Output {
    path: PathBuf,
    file: Target,
}

enum Target {
    Aside(NamedTempFile),
    /// Standard output, or something that is there and no file: it is written to, not replaced.
    Itself(File),
}

impl Output {
    pub fn create(path: &Path) -> Result<Self> {
        if is_stdout(path) {
            // The one that is open: another would not know what was written to it, as where it is sent to a file.
            let file = stdout().with_context(|| format!("can't write {}", path.display()))?;
            return Ok(Self { path: path.to_owned(), file: Target::Itself(file) });
        }
        ensure!(!path.is_dir(), "can't write {}: it is a directory", path.display());
        if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
            let file =
                File::options().write(true).open(path).with_context(|| format!("can't write {}", path.display()))?;
            return Ok(Self { path: path.to_owned(), file: Target::Itself(file) });
        }
        // A link stays one: what it leads to is replaced.
        let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = match real.parent() {
            Some(folder) if folder != Path::new("") => folder,
            _ => Path::new("."),
        };
        // By itself, as the error that follows would name a file that nobody asked for.
        let there = std::fs::metadata(folder);
        there.with_context(|| format!("can't write {}: there is no folder {}", path.display(), folder.display()))?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".candle-losses-");
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder).with_context(|| format!("can't write {}", path.display()))?;
        Ok(Self { path: real, file: Target::Aside(file) })
    }

    pub fn file(&mut self) -> &mut File {
        match &mut self.file {
            Target::Aside(file) => file.as_file_mut(),
            Target::Itself(file) => file,
        }
    }

    /// Writes all there is to it, and commits.
    pub fn write(mut self, bytes: &[u8]) -> Result<()> {
        let path = self.path.clone();
        self.file().write_all(bytes).with_context(|| format!("can't write {}", path.display()))?;
        self.commit()
    }

    /// Puts the file under its name, in place of an older one.
    pub fn commit(self) -> Result<()> {
        let Self { path, file } = self;
        let Target::Aside(file) = file else { return Ok(()) };
        let persist = || -> std::io::Result<()> {
            file.as_file().sync_all()?;
            file.persist(&path)?;
            Ok(())
        };
        persist().with_context(|| format!("can't write {}", path.display()))
    }
}

/// Standard output as a file.
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
    fn an_older_file_stays_until_the_new_one_is_whole() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("log.csv");
        std::fs::write(&path, "old")?;
        let mut output = Output::create(&path)?;
        output.file().write_all(b"half")?;
        drop(output);
        assert_eq!(std::fs::read_to_string(&path)?, "old");
        let mut output = Output::create(&path)?;
        output.file().write_all(b"new")?;
        output.commit()?;
        assert_eq!(std::fs::read_to_string(&path)?, "new");
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    #[test]
    #[cfg(unix)]
    fn what_a_link_leads_to_is_replaced_and_not_the_link() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        std::fs::write(&file, "old")?;
        std::os::unix::fs::symlink(&file, &link)?;
        Output::create(&link)?.write(b"new")?;
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&file)?, "new");
        Ok(())
    }

    #[test]
    fn refuses_a_folder_and_a_missing_one() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path().to_owned(), folder.path().join("missing/log.csv")] {
            let error = Output::create(&path).err().unwrap().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
