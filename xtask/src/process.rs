//! Runs a command, shows what it is at while it runs, and keeps its output in a log.

use std::fs;
use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use crate::workspace::Workspace;

/// Where no terminal redraws a line, a command that runs long says so this often.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// How long a command's leftover children may keep its output open once it has ended.
const GRACE: Duration = Duration::from_secs(2);
/// Lines of output shown when a command fails; the log has them all.
const SHOWN_LINES: usize = 100;

/// How a command ended.
pub struct Outcome {
    /// Everything it printed, standard output and standard error in the order of arrival.
    pub output: String,
    /// How long it ran.
    pub elapsed: Duration,
    /// Why it counts as failed; `None` when it succeeded.
    pub failure: Option<String>,
    log: PathBuf,
}

impl Outcome {
    /// The output's end and the place of the rest, for a person who wants to know why.
    pub fn excerpt(&self) -> String {
        let lines: Vec<&str> = self.output.lines().collect();
        let skipped = lines.len().saturating_sub(SHOWN_LINES);
        let mut text = String::new();
        if skipped > 0 {
            text.push_str(&format!("    | ... {skipped} lines before these ...\n"));
        }
        for line in &lines[skipped..] {
            text.push_str(&format!("    | {line}\n"));
        }
        text.push_str(&format!("    full output: {}", self.log.display()));
        text
    }

    /// The outcome as a result that carries the excerpt.
    pub fn into_result(self, title: &str) -> Result<Outcome, String> {
        match &self.failure {
            None => Ok(self),
            Some(reason) => Err(format!("{title}: {reason}\n{}", self.excerpt())),
        }
    }
}

/// Runs `command` under `title` for at most `limit`.
pub fn run(workspace: &Workspace, title: &str, command: &mut Command, limit: Duration) -> Outcome {
    let log = log_file(workspace, title);
    let start = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let program = command.get_program().to_string_lossy().into_owned();
            let failure = Some(format!("cannot run {program}: {error}"));
            return Outcome { output: String::new(), elapsed: start.elapsed(), failure, log };
        }
    };
    let pieces = listen(&mut child);
    let mut screen = Screen::new(title, start);
    let mut output = String::new();
    let ended = follow(&mut child, &pieces, &mut output, &mut screen, start + limit);
    screen.clear();
    let failure = match ended {
        Ok(Some(status)) if status.success() => None,
        Ok(Some(status)) => Some(describe(status)),
        Ok(None) => Some(format!("stopped after {} s", limit.as_secs())),
        Err(error) => Some(format!("cannot wait for it: {error}")),
    };
    // A log that cannot be written is no reason to fail: the excerpt still shows the end.
    let _ = fs::write(&log, &output);
    Outcome { output, elapsed: start.elapsed(), failure, log }
}

/// Reads until the command ends or its time is up (`None`).
fn follow(
    child: &mut Child,
    pieces: &Receiver<Piece>,
    output: &mut String,
    screen: &mut Screen,
    deadline: Instant,
) -> io::Result<Option<ExitStatus>> {
    let mut ended: Option<(ExitStatus, Instant)> = None;
    loop {
        match pieces.recv_timeout(Duration::from_millis(200)) {
            Ok(piece) => {
                screen.status(&piece.text);
                if piece.whole_line {
                    output.push_str(&piece.text);
                    output.push('\n');
                }
            }
            Err(RecvTimeoutError::Timeout) => screen.tick(),
            Err(RecvTimeoutError::Disconnected) => {
                if let Some((status, _)) = ended {
                    return Ok(Some(status));
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
        match ended {
            Some((status, at)) if at.elapsed() > GRACE => return Ok(Some(status)),
            Some(_) => {}
            None => ended = child.try_wait()?.map(|status| (status, Instant::now())),
        }
        if ended.is_none() && Instant::now() > deadline {
            end_with_descendants(child);
            child.wait()?;
            return Ok(None);
        }
    }
}

/// A stretch of output up to a line feed, or up to a carriage return that redraws the line.
struct Piece {
    text: String,
    whole_line: bool,
}

fn listen(child: &mut Child) -> Receiver<Piece> {
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        let sender = sender.clone();
        thread::spawn(move || split(stdout, &sender));
    }
    if let Some(stderr) = child.stderr.take() {
        thread::spawn(move || split(stderr, &sender));
    }
    receiver
}

fn split(mut source: impl Read, sender: &Sender<Piece>) {
    let mut held: Vec<u8> = Vec::new();
    let mut buffer = [0u8; 8192];
    loop {
        let n_bytes = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(n_bytes) => n_bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        for &byte in &buffer[..n_bytes] {
            match byte {
                b'\n' | b'\r' => {
                    let text = plain(&String::from_utf8_lossy(&held));
                    held.clear();
                    if sender.send(Piece { text, whole_line: byte == b'\n' }).is_err() {
                        return;
                    }
                }
                _ => held.push(byte),
            }
        }
    }
    if !held.is_empty() {
        let _ = sender.send(Piece { text: plain(&String::from_utf8_lossy(&held)), whole_line: true });
    }
}

/// The text without terminal escapes.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            out.push(c);
            continue;
        }
        if chars.next() == Some('[') {
            // A control sequence ends with its first letter or the like.
            for c in chars.by_ref() {
                if ('\u{40}'..='\u{7e}').contains(&c) {
                    break;
                }
            }
        }
    }
    out
}

/// The line that is redrawn while a command runs, or now and then repeated where none can be.
struct Screen<'a> {
    title: &'a str,
    start: Instant,
    status: String,
    redraws: bool,
    last: Instant,
}

impl<'a> Screen<'a> {
    fn new(title: &'a str, start: Instant) -> Self {
        Screen { title, start, status: String::new(), redraws: io::stdout().is_terminal(), last: start }
    }

    fn status(&mut self, text: &str) {
        let text = text.trim();
        if !text.is_empty() {
            self.status = text.chars().take(60).collect();
        }
        self.tick();
    }

    fn tick(&mut self) {
        let pause = if self.redraws { Duration::from_millis(150) } else { HEARTBEAT };
        if self.last.elapsed() < pause {
            return;
        }
        self.last = Instant::now();
        let seconds = self.start.elapsed().as_secs();
        if self.redraws {
            print!("\r\u{1b}[2K  {}  {seconds} s  {}", self.title, self.status);
        } else {
            println!("  {}  {seconds} s  {}", self.title, self.status);
        }
        let _ = io::stdout().flush();
    }

    fn clear(&self) {
        if self.redraws {
            print!("\r\u{1b}[2K");
            let _ = io::stdout().flush();
        }
    }
}

/// Ends a command and everything it started: a browser outlives the script that drives it.
fn end_with_descendants(child: &mut Child) {
    let mut doomed = vec![child.id()];
    let mut next = 0;
    while next < doomed.len() {
        doomed.extend(children_of(doomed[next]));
        next += 1;
    }
    let _ = child.kill();
    let pids = doomed[1..].iter().map(u32::to_string);
    let _ = Command::new("kill").arg("-KILL").args(pids).stderr(Stdio::null()).status();
}

/// The direct children of a process; none where the system has no /proc.
fn children_of(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid: &u32| parent_of(pid) == Some(parent)).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // `pid (name) state parent ...`, where the name may hold anything, brackets too.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn describe(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("exit status {code}"),
        None => "ended by a signal".to_string(),
    }
}

fn log_file(workspace: &Workspace, title: &str) -> PathBuf {
    let name: String =
        title.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let folder = workspace.target().join("xtask");
    let _ = fs::create_dir_all(&folder);
    folder.join(format!("{name}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: Duration) -> Outcome {
        let workspace = Workspace::new();
        run(&workspace, "process test", &mut workspace.words(&["sh", "-c", script]), limit)
    }

    #[test]
    fn keeps_both_streams_and_drops_redrawn_lines() {
        let outcome = shell("printf 'a\\rb\\nc'; printf '\\033[1md\\033[0m\\n' >&2", Duration::from_secs(20));
        assert_eq!(outcome.failure, None);
        let mut lines: Vec<&str> = outcome.output.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["b", "c", "d"]);
    }

    #[test]
    fn reports_the_exit_status() {
        assert_eq!(shell("exit 3", Duration::from_secs(20)).failure.as_deref(), Some("exit status 3"));
    }

    #[test]
    fn ends_what_takes_too_long_and_its_children() {
        let start = Instant::now();
        let outcome = shell("sleep 60 & sleep 60", Duration::from_millis(300));
        assert!(outcome.failure.is_some_and(|reason| reason.starts_with("stopped after")));
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn does_not_wait_for_a_child_left_behind() {
        let start = Instant::now();
        assert_eq!(shell("sleep 20 & exit 0", Duration::from_secs(60)).failure, None);
        assert!(start.elapsed() < Duration::from_secs(15));
    }

    #[test]
    fn names_a_program_that_is_not_there() {
        let workspace = Workspace::new();
        let mut command = workspace.command("bitpane-no-such-program");
        let outcome = run(&workspace, "absent", &mut command, Duration::from_secs(1));
        assert!(outcome.failure.is_some_and(|reason| reason.contains("bitpane-no-such-program")));
    }
}
