//! Installs what is missing, and says in a line what that is.

use std::env;
use std::fs;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process;
use crate::workspace::{Workspace, cargo_home};

/// The wasm-pack to install where there is none; any that is there already will do.
const WASM_PACK_VERSION: &str = "0.15.1";
const NODE_AT_LEAST: u32 = 20;
const NODE_HINT: &str = "install Node 20 or newer, with npm: https://nodejs.org/en/download";
const APT_PACKAGES: [&str; 2] = ["chromium", "chromium-driver"];

/// A browser engine besides Chromium's.
struct Engine {
    name: &'static str,
    /// What Debian calls it.
    packages: &'static [&'static str],
    /// The names that its program may have.
    programs: &'static [&'static str],
}

const OTHER_ENGINES: [Engine; 2] = [
    Engine { name: "Firefox", packages: &["firefox-esr"], programs: &["firefox-esr", "firefox"] },
    // WebKit opens its pages on a display, which Xvfb is.
    Engine { name: "WebKit", packages: &["webkit2gtk-driver", "xvfb"], programs: &["WebKitWebDriver"] },
];

impl Engine {
    fn program(&self, ws: &Workspace) -> Option<PathBuf> {
        self.programs.iter().find_map(|name| ws.find(name))
    }
}

const DOWNLOAD_LIMIT: Duration = Duration::from_secs(20 * 60);
const COMPILE_LIMIT: Duration = Duration::from_secs(30 * 60);

/// What the other commands rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// rustc with the WebAssembly target, clippy, rustfmt and the library's sources.
    Toolchain,
    /// wasm-bindgen in the version of Cargo.lock.
    WasmBindgen,
    /// wasm-pack, for its test command.
    WasmPack,
    /// Node, npm and the packages of package-lock.json.
    Node,
    /// A Chromium and its driver; a Firefox where it can be had.
    Chromium,
}

const ALL: [Tool; 5] = [Tool::Toolchain, Tool::WasmBindgen, Tool::WasmPack, Tool::Node, Tool::Chromium];

/// What could not be made ready, and why.
#[derive(Default)]
pub struct Report {
    problems: Vec<(Tool, String)>,
}

impl Report {
    /// Why a tool is not ready; `None` where it is.
    pub fn problem(&self, tool: Tool) -> Option<&str> {
        self.problems.iter().find(|(missing, _)| *missing == tool).map(|(_, why)| why.as_str())
    }

    /// Fails with every problem at once.
    pub fn into_result(self) -> Result<(), String> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = self.problems.into_iter().map(|(_, why)| why).collect();
        Err(lines.join("\nxtask: "))
    }
}

/// Makes ready what any command needs.
pub fn all(workspace: &mut Workspace) -> Report {
    ready(workspace, |_| true)
}

/// Makes ready what a build needs.
pub fn for_build(workspace: &mut Workspace) -> Report {
    ready(workspace, |tool| matches!(tool, Tool::Toolchain | Tool::WasmBindgen | Tool::Node))
}

/// Makes ready the tools that are wanted; goes on where one cannot be had.
pub fn ready(workspace: &mut Workspace, is_wanted: impl Fn(Tool) -> bool) -> Report {
    let mut report = Report::default();
    for tool in ALL.into_iter().filter(|&tool| is_wanted(tool)) {
        let result = match tool {
            Tool::Toolchain => toolchain(workspace),
            Tool::WasmBindgen => wasm_bindgen(workspace),
            Tool::WasmPack => wasm_pack(workspace),
            Tool::Node => node(workspace),
            Tool::Chromium => browsers(workspace),
        };
        match result {
            Ok(what) => println!("  ready    {what}"),
            Err(why) => {
                println!("  MISSING  {why}");
                report.problems.push((tool, why));
            }
        }
    }
    report
}

/// Runs an installing command; its failure names the command to run by hand.
fn install(ws: &Workspace, what: &str, command: &mut Command, limit: Duration) -> Result<(), String> {
    let shown = show(command);
    println!("  install  {what}: {shown}");
    let outcome = process::run(ws, &format!("install {what}"), command, limit);
    match &outcome.failure {
        None => Ok(()),
        Some(reason) => {
            println!("{}", outcome.excerpt());
            Err(format!("{what} cannot be installed ({reason}); the command that would: {shown}"))
        }
    }
}

/// The command as one would type it.
fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn toolchain(ws: &Workspace) -> Result<String, String> {
    let version = || ws.capture(&["rustc", "--version"]).unwrap_or_default();
    if missing_component(ws).is_none() {
        return Ok(version());
    }
    // Without arguments rustup reads rust-toolchain.toml; the variable would hide that file.
    let mut command = ws.words(&["rustup", "toolchain", "install"]);
    command.env_remove("RUSTUP_TOOLCHAIN");
    install(ws, "the toolchain of rust-toolchain.toml", &mut command, DOWNLOAD_LIMIT)?;
    match missing_component(ws) {
        None => Ok(version()),
        Some(what) => {
            Err(format!("the toolchain lacks {what}; the command that installs it: rustup toolchain install"))
        }
    }
}

/// The first part of rust-toolchain.toml that the toolchain in use lacks.
fn missing_component(ws: &Workspace) -> Option<&'static str> {
    let Some(sysroot) = ws.capture(&["rustc", "--print", "sysroot"]) else { return Some("rustc") };
    let parts = [
        ("lib/rustlib/wasm32-unknown-unknown", "the target wasm32-unknown-unknown"),
        ("lib/rustlib/src/rust/library", "rust-src"),
        ("bin/cargo-clippy", "clippy"),
        ("bin/cargo-fmt", "rustfmt"),
    ];
    let absent = |file: &str| !Path::new(&sysroot).join(file).exists();
    parts.into_iter().find(|(file, _)| absent(file)).map(|(_, name)| name)
}

fn wasm_bindgen(ws: &mut Workspace) -> Result<String, String> {
    let lock = fs::read_to_string(ws.at("Cargo.lock")).map_err(|error| format!("Cargo.lock: {error}"))?;
    let version = locked_version(&lock, "wasm-bindgen").ok_or("Cargo.lock names no wasm-bindgen")?;
    let what = format!("wasm-bindgen {version}");
    // A user's other version stays as it is: this one then goes into a folder of its own.
    let own = cargo_home().join("bitpane").join(format!("wasm-bindgen-{version}"));
    if own.join("bin").is_dir() {
        ws.search_first(own.join("bin"));
    }
    let present = ws.capture(&["wasm-bindgen", "--version"]);
    if present.as_deref() == Some(&what) && ws.find("wasm-bindgen-test-runner").is_some() {
        return Ok(what);
    }
    let exact = format!("wasm-bindgen-cli@{version}");
    let mut command = cargo_install(ws, &exact);
    if present.is_some() {
        command.arg("--root").arg(&own);
    }
    install(ws, &what, &mut command, COMPILE_LIMIT)?;
    if present.is_some() {
        ws.search_first(own.join("bin"));
    }
    Ok(what)
}

fn wasm_pack(ws: &Workspace) -> Result<String, String> {
    if let Some(version) = ws.capture(&["wasm-pack", "--version"]) {
        return Ok(version);
    }
    let what = format!("wasm-pack {WASM_PACK_VERSION}");
    let mut command = cargo_install(ws, &format!("wasm-pack@{WASM_PACK_VERSION}"));
    command.arg("--locked");
    install(ws, &what, &mut command, COMPILE_LIMIT)?;
    Ok(what)
}

/// `cargo install`, with what makes these tools compile in half the time.
fn cargo_install(ws: &Workspace, package: &str) -> Command {
    let mut command = ws.words(&["cargo", "install", package]);
    command
        // The two tools share dependencies; an interrupted installation goes on where it was.
        .env("CARGO_TARGET_DIR", ws.target().join("tools"))
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16");
    command
}

/// The version of a package in the text of a Cargo.lock.
fn locked_version(lock: &str, package: &str) -> Option<String> {
    let heading = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != heading).skip(1);
    let version = lines.next()?.strip_prefix("version = \"")?;
    Some(version.strip_suffix('"')?.to_string())
}

fn node(ws: &Workspace) -> Result<String, String> {
    let version = ws.capture(&["node", "--version"]).ok_or(format!("there is no node; {NODE_HINT}"))?;
    if major(&version).is_none_or(|major| major < NODE_AT_LEAST) {
        return Err(format!("node {version} is too old; {NODE_HINT}"));
    }
    if ws.find("npm").is_none() {
        return Err(format!("there is no npm; {NODE_HINT}"));
    }
    let lock = ws.at("package-lock.json");
    let wanted = fs::read(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    // The stamp lies inside what it stands for, so that both go together.
    let stamp = ws.at("node_modules/.installed-package-lock.json");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(format!("node {version} and the packages of package-lock.json"));
    }
    let mut command = ws.words(&["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    install(ws, "the packages of package-lock.json", &mut command, DOWNLOAD_LIMIT)?;
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(format!("node {version} and the packages of package-lock.json"))
}

/// The number before the first point of `v20.1.2` or of `Chromium 120.0.1`.
fn major(version: &str) -> Option<u32> {
    let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The browser to test in: the one that `CHROME` names, or the first that is found.
pub fn browser(ws: &Workspace) -> Option<PathBuf> {
    if let Some(named) = env::var_os("CHROME") {
        return Some(named.into());
    }
    ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"]
        .into_iter()
        .find_map(|name| ws.find(name))
}

/// Chromium, which the tests need, and other engines, without which some of them are skipped.
fn browsers(ws: &Workspace) -> Result<String, String> {
    let mut found = chromium(ws)?;
    for engine in &OTHER_ENGINES {
        if engine.program(ws).is_none() && ws.find("apt-get").is_some() {
            let mut command = apt_get(ws, &["install", "-y", "--no-install-recommends"]);
            command.args(engine.packages);
            if let Err(why) = install(ws, &engine.packages.join(" and "), &mut command, DOWNLOAD_LIMIT) {
                println!("  without  {why}; its tests are skipped");
            }
        }
        match engine.program(ws) {
            Some(program) => found += &format!("; {}", program.display()),
            None => found += &format!("; no {}", engine.name),
        }
    }
    Ok(found)
}

fn chromium(ws: &Workspace) -> Result<String, String> {
    if let Some(found) = browser_with_driver(ws) {
        return Ok(found);
    }
    let packages = APT_PACKAGES.join(" and ");
    if ws.find("apt-get").is_none() {
        return Err(format!(
            "Chromium or chromedriver is missing and there is no apt-get; install both with this system's \
             package manager (on Debian: apt-get install {})",
            APT_PACKAGES.join(" ")
        ));
    }
    let mut update = apt_get(ws, &["update"]);
    install(ws, "the package lists", &mut update, DOWNLOAD_LIMIT)?;
    let mut install_packages = apt_get(ws, &["install", "-y", "--no-install-recommends"]);
    install_packages.args(APT_PACKAGES);
    install(ws, &packages, &mut install_packages, DOWNLOAD_LIMIT)?;
    browser_with_driver(ws).ok_or(format!("{packages} are installed, but not found on PATH"))
}

fn browser_with_driver(ws: &Workspace) -> Option<String> {
    let (browser, driver) = (browser(ws)?, ws.find("chromedriver")?);
    Some(format!("{} and {}", browser.display(), driver.display()))
}

/// apt-get as root; sudo may ask for a password only where someone can type one.
fn apt_get(ws: &Workspace, args: &[&str]) -> Command {
    let is_root = ws.capture(&["id", "-u"]).as_deref() == Some("0");
    let mut words = Vec::new();
    if !is_root {
        words.push("sudo");
        if !io::stdin().is_terminal() {
            words.push("-n");
        }
    }
    words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-o", "DPkg::Lock::Timeout=300"]);
    words.extend(args);
    ws.words(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_of_the_named_package_only() {
        let lock = "[[package]]\nname = \"wasm-bindgen-macro\"\nversion = \"0.1.0\"\n\n\
                    [[package]]\nname = \"wasm-bindgen\"\nversion = \"0.2.9\"\nsource = \"x\"\n";
        assert_eq!(locked_version(lock, "wasm-bindgen").as_deref(), Some("0.2.9"));
        assert_eq!(locked_version(lock, "wasm-pack"), None);
    }

    #[test]
    fn reads_major_versions() {
        assert_eq!(major("v20.20.2"), Some(20));
        assert_eq!(major("Chromium 156.0.1"), Some(156));
        assert_eq!(major("none"), None);
    }

    #[test]
    fn a_report_names_every_problem() {
        let problems = vec![(Tool::Node, "no node".to_string()), (Tool::Chromium, "no browser".to_string())];
        let report = Report { problems };
        assert_eq!(report.problem(Tool::Node), Some("no node"));
        assert_eq!(report.problem(Tool::WasmPack), None);
        let message = report.into_result().unwrap_err();
        assert!(message.contains("no node") && message.contains("no browser"));
    }
}
