//! Measures bitpane beside its peers.

use std::process::Stdio;
use std::time::Duration;

use crate::build;
use crate::process;
use crate::setup;
use crate::workspace::Workspace;

const INSTALL_LIMIT: Duration = Duration::from_secs(20 * 60);
/// Options of the runner that only look: nothing is built for them.
const LOOKING: [&str; 2] = ["--help", "--list"];

/// Builds the package, installs the peers and runs tests/bench/run.mjs with `options`.
pub fn run(ws: &mut Workspace, options: &[String]) -> Result<bool, String> {
    let looks = options.iter().any(|option| LOOKING.contains(&option.as_str()));
    if !looks {
        setup::all(ws).into_result()?;
        build::everything(ws)?;
    }
    let mut install = ws.words(&["npm", "ci", "--prefix", "tests/bench", "--no-audit", "--no-fund"]);
    process::run(ws, "peers", &mut install, INSTALL_LIMIT).into_result("peers")?;
    let mut runner = ws.words(&["node", "tests/bench/run.mjs"]);
    runner.args(options).stdin(Stdio::null());
    if let Some(chromium) = setup::browser(ws) {
        runner.env("CHROMIUM", chromium);
    }
    let status = runner.status().map_err(|error| format!("node: {error}"))?;
    Ok(status.success())
}
