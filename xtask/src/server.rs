//! A static file server for the page and its tests: this machine only, cross-origin isolated.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

/// Longest request head that is read.
const MAX_HEAD_BYTES: u64 = 16 * 1024;
const PATIENCE: Duration = Duration::from_secs(60);

/// These isolate the page, which shared memory (threads) needs.
const ISOLATION: &str = "Cross-Origin-Opener-Policy: same-origin\r\n\
    Cross-Origin-Embedder-Policy: require-corp\r\n";

/// Sent with every answer. The first lets pages that are isolated themselves load from here.
const HEADERS: &str = "Cross-Origin-Resource-Policy: same-origin\r\n\
    X-Content-Type-Options: nosniff\r\n\
    Cache-Control: no-cache\r\n\
    Accept-Ranges: bytes\r\n\
    Connection: close\r\n";

/// A folder and the address under which it is served.
#[derive(Clone, Debug)]
pub struct Mount {
    prefix: &'static str,
    folder: PathBuf,
}

impl Mount {
    /// Serves `folder` under `prefix`, which starts and ends with a slash.
    pub fn new(prefix: &'static str, folder: &Path) -> io::Result<Self> {
        Ok(Mount { prefix, folder: folder.canonicalize()? })
    }
}

/// Opens a port of this machine that no other machine can reach.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

/// Answers requests for as long as the program runs. A more special mount stands before a
/// more general one.
pub fn serve(listener: &TcpListener, mounts: &[Mount], isolated: bool) {
    for stream in listener.incoming().flatten() {
        let mounts = mounts.to_vec();
        // Whoever closes the connection midway has no use for an error.
        thread::spawn(move || answer(Connection { stream, isolated }, &mounts).ok());
    }
}

/// A connection, for one answer.
struct Connection {
    stream: TcpStream,
    /// Whether pages are to be cross-origin isolated.
    isolated: bool,
}

impl Connection {
    /// Begins the answer: status, the headers that all have, and some more.
    fn head(&mut self, status: &str, more: &str) -> io::Result<()> {
        let isolation = if self.isolated { ISOLATION } else { "" };
        write!(self.stream, "HTTP/1.1 {status}\r\n{isolation}{HEADERS}{more}\r\n")
    }
}

fn answer(mut stream: Connection, mounts: &[Mount]) -> io::Result<()> {
    stream.stream.set_read_timeout(Some(PATIENCE))?;
    stream.stream.set_write_timeout(Some(PATIENCE))?;
    let Some(request) = Request::read(&stream.stream)? else {
        return plain(&mut stream, "400 Bad Request", true);
    };
    let with_body = match request.method.as_str() {
        "GET" => true,
        "HEAD" => false,
        _ => return plain(&mut stream, "405 Method Not Allowed", true),
    };
    let Some(file) = resolve(mounts, &request.target) else {
        return plain(&mut stream, "404 Not Found", with_body);
    };
    send(&mut stream, &file, &request, with_body)
}

/// What matters of a request.
struct Request {
    method: String,
    target: String,
    range: Option<String>,
    if_none_match: Option<String>,
}

impl Request {
    /// Reads a request's head; `None` where it is not one.
    fn read(stream: &TcpStream) -> io::Result<Option<Request>> {
        let mut reader = BufReader::new(stream.take(MAX_HEAD_BYTES));
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut words = line.split_whitespace();
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
        let mut request = Request {
            method: method.to_string(),
            target: target.to_string(),
            range: None,
            if_none_match: None,
        };
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim();
            if line.is_empty() {
                return Ok(Some(request));
            }
            let Some((name, value)) = line.split_once(':') else { continue };
            let value = Some(value.trim().to_string());
            match name.to_ascii_lowercase().as_str() {
                "range" => request.range = value,
                "if-none-match" => request.if_none_match = value,
                _ => {}
            }
        }
    }
}

/// The file that a request's target names; `None` where there is none inside a mount.
fn resolve(mounts: &[Mount], target: &str) -> Option<PathBuf> {
    let path = target.split(['?', '#']).next()?;
    let path = percent_decoded(path)?;
    let (mount, rest) = mounts.iter().find_map(|mount| Some((mount, path.strip_prefix(mount.prefix)?)))?;
    let mut file = mount.folder.clone();
    for part in rest.split('/').filter(|part| !part.is_empty()) {
        if part == ".." || part.contains(['\\', '\0', ':']) {
            return None;
        }
        file.push(part);
    }
    if file.is_dir() {
        file.push("index.html");
    }
    // Links are followed before the check: none leads out of the folder.
    let file = file.canonicalize().ok()?;
    (file.starts_with(&mount.folder) && file.is_file()).then_some(file)
}

/// The text with `%xx` replaced; `None` where that is malformed or not UTF-8.
fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn send(to: &mut Connection, path: &Path, request: &Request, with_body: bool) -> io::Result<()> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    let file_bytes = meta.len();
    let tag = entity_tag(&meta);
    if request.if_none_match.as_deref() == Some(tag.as_str()) {
        return to.head("304 Not Modified", &format!("ETag: {tag}\r\n"));
    }
    let (status, start, n_bytes, extra) = match part(request.range.as_deref(), file_bytes) {
        Part::Whole => ("200 OK", 0, file_bytes, String::new()),
        Part::Range { start, end } => {
            let extra = format!("Content-Range: bytes {start}-{}/{file_bytes}\r\n", end - 1);
            ("206 Partial Content", start, end - start, extra)
        }
        Part::Outside => {
            let extra = format!("Content-Range: bytes */{file_bytes}\r\nContent-Length: 0\r\n");
            return to.head("416 Range Not Satisfiable", &extra);
        }
    };
    let mime = mime_type(path);
    let more = format!("ETag: {tag}\r\n{extra}Content-Type: {mime}\r\nContent-Length: {n_bytes}\r\n");
    to.head(status, &more)?;
    if with_body {
        file.seek(SeekFrom::Start(start))?;
        io::copy(&mut file.take(n_bytes), &mut to.stream)?;
    }
    to.stream.flush()
}

/// Changes whenever the file does, as far as its length and time tell.
fn entity_tag(meta: &fs::Metadata) -> String {
    let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    format!("\"{:x}-{:x}\"", meta.len(), modified.unwrap_or_default().as_nanos())
}

/// The stretch of a file that a request wants: `start..end` in bytes.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Range { start: u64, end: u64 },
    Outside,
}

/// Reads a Range header. Several ranges at once, or what is malformed, get the whole file,
/// as RFC 9110 section 14.2 allows.
fn part(header: Option<&str>, file_bytes: u64) -> Part {
    let spec = header.and_then(|value| value.strip_prefix("bytes="));
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else { return Part::Whole };
    let (start, end) = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(start), Ok(last)) if start <= last => (start, last.saturating_add(1).min(file_bytes)),
        (Ok(start), Err(_)) if last.trim().is_empty() => (start, file_bytes),
        (Err(_), Ok(n_last)) if first.trim().is_empty() => (file_bytes.saturating_sub(n_last), file_bytes),
        _ => return Part::Whole,
    };
    if start < end { Part::Range { start, end } } else { Part::Outside }
}

/// A short answer without a file.
fn plain(to: &mut Connection, status: &str, with_body: bool) -> io::Result<()> {
    let body = if with_body { status } else { "" };
    let len = status.len();
    to.head(status, &format!("Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len}\r\n"))?;
    to.stream.write_all(body.as_bytes())
}

fn mime_type(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()).unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json; charset=utf-8",
        "txt" | "md" | "ts" => "text/plain; charset=utf-8",
        "wasm" => "application/wasm",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "bmp" => "image/bmp",
        "ico" => "image/vnd.microsoft.icon",
        "webmanifest" => "application/manifest+json",
        // gguf, safetensors and everything else are bytes to a browser.
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a page and, outside of it, a file that must not be served.
    struct Site {
        base: PathBuf,
        mounts: Vec<Mount>,
    }

    impl Site {
        fn new(name: &str) -> Site {
            let base = std::env::temp_dir().join(format!("bitpane-xtask-{name}-{}", std::process::id()));
            let folder = base.join("site");
            fs::create_dir_all(folder.join("sub")).unwrap();
            fs::write(folder.join("index.html"), "<p>page").unwrap();
            fs::write(folder.join("a b.gguf"), "0123456789").unwrap();
            fs::write(base.join("secret.txt"), "secret").unwrap();
            let extra = base.join("extra");
            fs::create_dir_all(&extra).unwrap();
            fs::write(extra.join("x.wasm"), "wasm").unwrap();
            let mounts = vec![Mount::new("/extra/", &extra).unwrap(), Mount::new("/", &folder).unwrap()];
            Site { base, mounts }
        }

        /// Sends a request to the site's server; returns head and body.
        fn ask(&self, request: &str) -> (String, String) {
            self.ask_isolated(request, true)
        }

        fn ask_isolated(&self, request: &str, isolated: bool) -> (String, String) {
            let listener = listen(0).unwrap();
            let address = listener.local_addr().unwrap();
            let mounts = self.mounts.clone();
            thread::spawn(move || serve(&listener, &mounts, isolated));
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            (head.to_string(), body.to_string())
        }
    }

    impl Drop for Site {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.base);
        }
    }

    #[test]
    fn serves_a_page_with_the_isolation_headers() {
        let site = Site::new("page");
        let (head, body) = site.ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK"));
        for header in [
            "Cross-Origin-Opener-Policy: same-origin",
            "Cross-Origin-Embedder-Policy: require-corp",
            "Cross-Origin-Resource-Policy: same-origin",
            "Content-Type: text/html; charset=utf-8",
            "Content-Length: 7",
        ] {
            assert!(head.contains(header), "{header} is not in {head}");
        }
        assert_eq!(body, "<p>page");
        let (head, _) = site.ask_isolated("GET / HTTP/1.1\r\nHost: x\r\n\r\n", false);
        assert!(
            head.starts_with("HTTP/1.1 200 OK") && !head.contains("Opener") && !head.contains("Embedder")
        );
        let (head, _) = site.ask("GET /extra/x.wasm?v=1 HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Type: application/wasm"));
    }

    #[test]
    fn answers_ranges_heads_and_known_tags() {
        let site = Site::new("ranges");
        let (head, body) = site.ask("GET /a%20b.gguf HTTP/1.1\r\nRange: bytes=2-4\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 206") && head.contains("Content-Range: bytes 2-4/10"));
        assert_eq!(body, "234");
        let (head, _) = site.ask("GET /a%20b.gguf HTTP/1.1\r\nrange: bytes=10-\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 416") && head.contains("bytes */10"));
        let (head, body) = site.ask("HEAD /a%20b.gguf HTTP/1.1\r\n\r\n");
        assert!(head.contains("Content-Length: 10") && body.is_empty());
        let tag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).unwrap();
        let (head, _) = site.ask(&format!("GET /a%20b.gguf HTTP/1.1\r\nIf-None-Match: {tag}\r\n\r\n"));
        assert!(head.starts_with("HTTP/1.1 304"));
    }

    #[test]
    fn refuses_what_is_not_there_or_not_its_business() {
        let site = Site::new("refuses");
        for target in
            ["/none", "/sub", "/../secret.txt", "/%2e%2e/secret.txt", "/sub/..%2f..%2fsecret.txt", "/%zz"]
        {
            let (head, body) = site.ask(&format!("GET {target} HTTP/1.1\r\n\r\n"));
            assert!(head.starts_with("HTTP/1.1 404"), "{target}: {head}");
            assert!(!body.contains("secret"));
        }
        assert!(site.ask("POST / HTTP/1.1\r\n\r\n").0.starts_with("HTTP/1.1 405"));
        assert!(site.ask("\r\n\r\n").0.starts_with("HTTP/1.1 400"));
    }

    #[cfg(unix)]
    #[test]
    fn a_link_does_not_lead_out_of_the_folder() {
        let site = Site::new("links");
        std::os::unix::fs::symlink(site.base.join("secret.txt"), site.base.join("site/link.txt")).unwrap();
        assert!(site.ask("GET /link.txt HTTP/1.1\r\n\r\n").0.starts_with("HTTP/1.1 404"));
    }

    #[test]
    fn reads_ranges_as_the_rfc_says() {
        let range = |start, end| Part::Range { start, end };
        let cases = [
            ("bytes=0-0", range(0, 1)),
            ("bytes=5-", range(5, 10)),
            ("bytes=-3", range(7, 10)),
            ("bytes=-30", range(0, 10)),
            ("bytes=8-99", range(8, 10)),
            ("bytes=10-11", Part::Outside),
            ("bytes=-0", Part::Outside),
            ("bytes=4-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=0-18446744073709551615", range(0, 10)),
        ];
        for (header, wanted) in cases {
            assert_eq!(part(Some(header), 10), wanted, "{header}");
        }
        assert_eq!(part(None, 10), Part::Whole);
    }
}
