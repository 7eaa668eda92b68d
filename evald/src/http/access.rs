//! Who may ask.

use std::net::{IpAddr, SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, bail};
use hyper::StatusCode;
use hyper::header::{HOST, HeaderMap, ORIGIN};

use super::{AUTHORIZATION, Refusal};

/// Shortest token, in bytes: nobody guesses it.
const SHORTEST_TOKEN: usize = 16;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(Vec<SocketAddr>);

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = text.to_socket_addrs().map_err(|error| {
            format!("{text:?} is no address such as 127.0.0.1:8080 or [::1]:8080: {error}")
        })?;
        let found: Vec<_> = found.collect();
        if found.is_empty() { Err(format!("{text:?} has no address")) } else { Ok(Self(found)) }
    }
}

impl Address {
    /// Listens there.
    ///
    /// # Errors
    /// The address is taken, or not this machine's; or others than this machine could ask and there is no token.
    pub fn listen(&self, access: &Access) -> anyhow::Result<TcpListener> {
        let beyond = self.0.iter().find(|address| !address.ip().is_loopback());
        if let (Some(address), None) = (beyond, &access.token) {
            bail!(
                "{address} can be reached from other machines: give --http-token-file FILE with a secret that clients send \
                 (Authorization: Bearer ...), or listen on 127.0.0.1"
            );
        }
        TcpListener::bind(&self.0[..]).with_context(|| format!("cannot listen on {}", self.0[0]))
    }
}

/// What a request must show.
#[derive(Debug, Clone, Default)]
pub struct Access {
    token: Option<String>,
}

impl Access {
    /// With the token in the first line of a file, or with none.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or its token is too short.
    pub fn new(file: Option<&Path>) -> anyhow::Result<Self> {
        use std::os::unix::fs::MetadataExt;
        let Some(file) = file else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read the token in {}", file.display()))?;
        if std::fs::metadata(file).is_ok_and(|meta| meta.is_file() && meta.mode() & 0o077 != 0) {
            bail!("others can read the token in {0}: chmod 600 {0}", file.display());
        }
        let token = text.lines().next().unwrap_or_default().trim().to_owned();
        if token.len() < SHORTEST_TOKEN || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!(
                "the token in {} must be at least {SHORTEST_TOKEN} visible ASCII characters, as `openssl rand -hex 32` makes",
                file.display()
            );
        }
        Ok(Self { token: Some(token) })
    }

    /// Whether a request is served.
    ///
    /// Without a token, web pages must not reach the daemon through a browser on this machine: one that does tells the page's
    /// origin, or, where the page has its own name point here, that name as the host.
    pub(super) fn admit(&self, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else {
            if headers.contains_key(ORIGIN) {
                return Err(Refusal::new(StatusCode::FORBIDDEN, "web pages are served with a token only"));
            }
            let host = headers.get(HOST).map(|host| host.to_str().unwrap_or("?"));
            return match host {
                Some(host) if !is_here(host) => {
                    let detail =
                        format!("asked for as {host:?}: without a token only as localhost or by address");
                    Err(Refusal::new(StatusCode::FORBIDDEN, detail))
                }
                _ => Ok(()),
            };
        };
        if matches!(path, "/health" | "/v1/ping") {
            return Ok(());
        }
        let said = headers.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
        if said.is_some_and(|said| equal(said, token.as_bytes())) {
            return Ok(());
        }
        let detail = "this evald wants a token: send the header `Authorization: Bearer TOKEN`";
        Err(Refusal::new(StatusCode::UNAUTHORIZED, detail))
    }
}

/// Whether a host, with or without a port, is this machine by name, or an address.
fn is_here(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// Compares in a time that depends on the lengths alone.
fn equal(one: &[u8], other: &[u8]) -> bool {
    let differing = one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other));
    std::hint::black_box(differing) == 0 && one.len() == other.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(access: &Access, path: &str, headers: &[(&'static str, &str)]) -> u16 {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().expect("a value"));
        }
        access.admit(path, &map).map_or_else(|refusal| refusal.status.as_u16(), |()| 200)
    }

    #[test]
    fn without_a_token_no_web_page_comes_in() {
        let open = Access::default();
        for (headers, want) in [
            (&[("host", "localhost:8080")][..], 200),
            (&[("host", "127.0.0.1:8080")], 200),
            (&[("host", "[::1]:8080")], 200),
            (&[], 200),
            (&[("host", "evil.example:8080")], 403),
            (&[("host", "localhost.evil.example")], 403),
            (&[("host", "localhost"), ("origin", "null")], 403),
        ] {
            assert_eq!(status(&open, "/run_code", headers), want, "{headers:?}");
        }
    }

    #[test]
    fn a_token_is_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("token");
        let write = |text: &str, mode: u32| {
            use std::os::unix::fs::PermissionsExt;
            std::fs::write(&file, text).expect("written");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).expect("mode");
            Access::new(Some(&file))
        };
        assert!(write("short", 0o600).is_err());
        assert!(write("0123456789abcdef", 0o644).expect_err("open to all").to_string().contains("chmod 600"));
        let access = write("0123456789abcdef\n", 0o600).expect("a token");
        for (value, want) in [
            ("Bearer 0123456789abcdef", 200),
            ("Bearer 0123456789abcdee", 401),
            ("Bearer 0123456789abcde", 401),
            ("Bearer ", 401),
            ("0123456789abcdef", 401),
        ] {
            assert_eq!(status(&access, "/run_code", &[("authorization", value)]), want, "{value}");
        }
        assert_eq!(status(&access, "/run_code", &[]), 401);
        assert_eq!(status(&access, "/health", &[]), 200);
    }

    #[test]
    fn beyond_this_machine_only_with_a_token() {
        let address: Address = "0.0.0.0:0".parse().expect("an address");
        let error = address.listen(&Access::default()).expect_err("refused").to_string();
        assert!(error.contains("--http-token-file"), "{error}");
        assert!("127.0.0.1:0".parse::<Address>().expect("an address").listen(&Access::default()).is_ok());
        assert!("nonsense".parse::<Address>().is_err());
    }
}
