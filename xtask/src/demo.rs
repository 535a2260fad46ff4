//! Serves the page.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::process::Stdio;

use crate::server::{self, Mount};
use crate::setup;
use crate::workspace::Workspace;

const FIRST_PORT: u16 = 8080;
const PORTS_TRIED: u16 = 20;

/// Options of `demo` and `serve`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    port: Option<u16>,
    open: bool,
    shared: bool,
    no_isolation: bool,
}

impl Options {
    /// Reads the options from the command line.
    pub fn parse(args: &[String]) -> Result<Options, String> {
        let mut options = Options::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--open" => options.open = true,
                "--shared" => options.shared = true,
                "--no-isolation" => options.no_isolation = true,
                "--port" => options.port = Some(port(args.next())?),
                other => match other.strip_prefix("--port=") {
                    Some(value) => options.port = Some(port(Some(&value.to_string()))?),
                    None => return Err(format!("unknown option {other:?}; `cargo xtask help` lists them")),
                },
            }
        }
        Ok(options)
    }
}

fn port(value: Option<&String>) -> Result<u16, String> {
    let value = value.ok_or("--port needs a number")?;
    value.parse().map_err(|_| format!("--port {value:?} is not a port (0 to 65535)"))
}

/// Serves until it is interrupted.
pub fn serve(ws: &Workspace, options: &Options) -> Result<(), String> {
    let mounts = mounts(ws, options.shared)?;
    let listener = listen(options.port)?;
    let address = address(&listener)?;
    println!("\n  the page is at {address}   (Ctrl-C ends it)");
    if options.shared {
        println!("  ../shared is at {address}shared/");
    }
    if options.open {
        open(ws, &address);
    }
    server::serve(&listener, &mounts, !options.no_isolation);
    Ok(())
}

/// What is served, and where.
fn mounts(ws: &Workspace, shared: bool) -> Result<Vec<Mount>, String> {
    let mut wanted = vec![("/", "www/dist")];
    if shared {
        wanted.insert(0, ("/shared/", "../shared"));
    }
    let mount = |(prefix, folder): (&'static str, &str)| {
        Mount::new(prefix, &ws.at(folder)).map_err(|error| {
            format!("{folder} cannot be served ({error}); `cargo xtask build` makes the page")
        })
    };
    wanted.into_iter().map(mount).collect()
}

/// The listener's address as one types it into a browser.
fn address(listener: &TcpListener) -> Result<String, String> {
    let port = listener.local_addr().map_err(|error| error.to_string())?.port();
    Ok(format!("http://localhost:{port}/"))
}

/// Takes the port asked for, or else the first free one.
fn listen(port: Option<u16>) -> Result<TcpListener, String> {
    if let Some(port) = port {
        return server::listen(port)
            .map_err(|error| format!("port {port}: {error}; another --port, or none, may do"));
    }
    for port in FIRST_PORT..FIRST_PORT + PORTS_TRIED {
        match server::listen(port) {
            Ok(listener) => return Ok(listener),
            Err(error) if error.kind() == ErrorKind::AddrInUse => println!("  port {port} is in use"),
            Err(error) => return Err(format!("port {port}: {error}")),
        }
    }
    Err(format!(
        "ports {FIRST_PORT} to {} are all in use; choose one with --port",
        FIRST_PORT + PORTS_TRIED - 1
    ))
}

fn open(ws: &Workspace, address: &str) {
    let opener = ["xdg-open", "open"].into_iter().find_map(|name| ws.find(name));
    let Some(program) = opener.or_else(|| setup::browser(ws)) else {
        println!("  no browser found to open it in");
        return;
    };
    let mut command = ws.command(&program.to_string_lossy());
    command.arg(address).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = command.spawn() {
        println!("  {} cannot be started: {error}", program.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        Options::parse(&args.iter().map(|arg| arg.to_string()).collect::<Vec<_>>())
    }

    #[test]
    fn reads_options() {
        assert_eq!(parse(&[]), Ok(Options::default()));
        let all = Options { port: Some(9000), open: true, shared: true, no_isolation: true };
        assert_eq!(parse(&["--port", "9000", "--open", "--shared", "--no-isolation"]), Ok(all));
        assert_eq!(parse(&["--port=9000"]).map(|options| options.port), Ok(Some(9000)));
        for wrong in [&["--port"][..], &["--port", "x"], &["--port=70000"], &["--prot"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_busy_port_is_named() {
        let taken = server::listen(0).unwrap();
        let port = taken.local_addr().unwrap().port();
        let message = listen(Some(port)).unwrap_err();
        assert!(message.contains(&port.to_string()), "{message}");
    }
}
