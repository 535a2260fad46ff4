//! Where things lie, and commands that find the tools.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The repository and the search path of the commands run in it.
pub struct Workspace {
    /// The repository's root folder.
    pub root: PathBuf,
    path: OsString,
}

impl Workspace {
    /// The workspace that this program belongs to.
    pub fn new() -> Self {
        let here = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&here).parent().map(Path::to_path_buf).unwrap_or_default();
        let mut workspace = Workspace { root, path: env::var_os("PATH").unwrap_or_default() };
        workspace.search_last(cargo_home().join("bin"));
        workspace
    }

    /// A path inside the repository.
    pub fn at(&self, relative: &str) -> PathBuf {
        self.root.join(relative)
    }

    /// Cargo's output folder.
    pub fn target(&self) -> PathBuf {
        match env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => self.root.join(dir),
            None => self.at("target"),
        }
    }

    /// Looks for programs in `dir` before all other places.
    pub fn search_first(&mut self, dir: PathBuf) {
        let rest: Vec<PathBuf> = env::split_paths(&self.path).collect();
        self.set_path(std::iter::once(dir).chain(rest));
    }

    /// Looks for programs in `dir` after all other places.
    fn search_last(&mut self, dir: PathBuf) {
        let rest: Vec<PathBuf> = env::split_paths(&self.path).collect();
        self.set_path(rest.into_iter().chain(std::iter::once(dir)));
    }

    fn set_path(&mut self, dirs: impl Iterator<Item = PathBuf>) {
        if let Ok(path) = env::join_paths(dirs) {
            self.path = path;
        }
    }

    /// The full path of a program, where there is one.
    pub fn find(&self, program: &str) -> Option<PathBuf> {
        env::split_paths(&self.path).map(|dir| dir.join(program)).find(|file| is_executable(file))
    }

    /// A command that runs in the repository's root.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env("PATH", &self.path)
            .env("CARGO_TERM_COLOR", "never")
            // The counter of cargo's progress bar, of which only the latest state is shown.
            .env("CARGO_TERM_PROGRESS_WHEN", "always")
            .env("CARGO_TERM_PROGRESS_WIDTH", "80")
            // Either of these would replace the flags of .cargo/config.toml and with them SIMD.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        command
    }

    /// A command given as words.
    pub fn words(&self, words: &[&str]) -> Command {
        let mut command = self.command(words[0]);
        command.args(&words[1..]);
        command
    }

    /// What a short command prints, trimmed; `None` where it cannot run or fails.
    pub fn capture(&self, words: &[&str]) -> Option<String> {
        let output = self.words(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_string())
    }
}

/// Cargo's home, where `cargo install` puts programs.
pub fn cargo_home() -> PathBuf {
    match (env::var_os("CARGO_HOME"), env::var_os("HOME")) {
        (Some(home), _) => home.into(),
        (None, Some(home)) => Path::new(&home).join(".cargo"),
        (None, None) => PathBuf::from(".cargo"),
    }
}

#[cfg(unix)]
fn is_executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_executable(file: &Path) -> bool {
    file.is_file() || file.with_extension("exe").is_file()
}
