//! Parsing of NATS URLs.

use std::fmt;

use crate::credentials::Credentials;
use crate::error::{ConnectError, UrlProblem};

const DEFAULT_PORT: u16 = 4222;

/// The servers in a list of URLs.
#[derive(Clone, PartialEq)]
pub(crate) struct Servers {
    /// The URLs without credentials.
    pub(crate) addresses: Vec<String>,
    /// The first credentials found: the client library uses one set for all servers.
    pub(crate) credentials: Option<Credentials>,
    /// Whether the URLs require TLS.
    pub(crate) tls: bool,
}

struct Url {
    scheme: &'static str,
    host_and_port: String,
    credentials: Option<Credentials>,
}

impl Servers {
    /// Parses a comma-separated list of URLs.
    pub(crate) fn parse(urls: &str) -> Result<Self, ConnectError> {
        let mut servers = Servers { addresses: Vec::new(), credentials: None, tls: false };
        for (number, url) in (1..).zip(urls.split(',')) {
            let refuse = |problem| Err(ConnectError::Url { number, problem });
            let url = match parse(url.trim()) {
                Ok(url) => url,
                Err(problem) => return refuse(problem),
            };
            let tls = url.scheme == "tls";
            if number > 1 && tls != servers.tls {
                return refuse(UrlProblem::MixedSchemes);
            }
            servers.tls = tls;
            servers.addresses.push(format!("{}://{}", url.scheme, url.host_and_port));
            servers.credentials = servers.credentials.or(url.credentials);
        }
        Ok(servers)
    }

    /// Returns the URL of a server that the cluster announced.
    pub(crate) fn announced(&self, host_and_port: &str) -> String {
        format!("{}://{host_and_port}", if self.tls { "tls" } else { "nats" })
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.addresses.join(", "))
    }
}

fn parse(url: &str) -> Result<Url, UrlProblem> {
    let (scheme, rest) = url.split_once("://").ok_or(UrlProblem::NoScheme)?;
    // Errors show the scheme. Other text before `://` may be a secret.
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    if !is_scheme {
        return Err(UrlProblem::NoScheme);
    }
    let scheme = match scheme {
        "nats" => "nats",
        "tls" if cfg!(feature = "tls") => "tls",
        "tls" => return Err(UrlProblem::Tls),
        _ => return Err(UrlProblem::Scheme(scheme.to_owned())),
    };
    // Split at the last `@`: a password may contain one that is not percent-encoded.
    let (credentials, address) = match rest.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials), address),
        None => (None, rest),
    };
    let credentials = credentials.map(|text| match text.split_once(':') {
        Some((name, password)) => Ok(Credentials::user(decode(name)?, decode(password)?)),
        None => Ok(Credentials::token(decode(text)?)),
    });
    let address = address.strip_suffix('/').unwrap_or(address);
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| UrlProblem::Port)?),
        _ => (address, DEFAULT_PORT),
    };
    let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let name = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let valid = match v6 {
        Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && name(host),
    };
    if port == 0 {
        return Err(UrlProblem::Port);
    }
    if !valid {
        return Err(UrlProblem::Host);
    }
    Ok(Url { scheme, host_and_port: format!("{host}:{port}"), credentials: credentials.transpose()? })
}

/// Percent-decodes a user or a password.
fn decode(text: &str) -> Result<String, UrlProblem> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digit = |at| part.as_bytes().get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let (high, low) = digit(0).zip(digit(1)).ok_or(UrlProblem::Credentials)?;
        bytes.push((high * 16 + low) as u8);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).map_err(|_| UrlProblem::Credentials)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_credentials_are_separated() {
        let servers = Servers::parse("nats://a, nats://me:p%40s:s@b:1/,nats://[::1]").ok().unwrap();
        assert_eq!(servers.to_string(), "nats://a:4222, nats://b:1, nats://[::1]:4222");
        assert!(servers.credentials == Some(Credentials::user("me", "p@s:s")));
        let servers = Servers::parse("nats://t%C3%B6ken@a").ok().unwrap();
        assert!(servers.credentials == Some(Credentials::token("töken")));
    }

    #[test]
    fn errors_do_not_show_the_url() {
        let error = |url| Servers::parse(url).err().unwrap().to_string();
        let expected = "expected `nats://[user:password@]host[:port]` or `tls://...`";
        let problem =
            |problem| format!("invalid URL {number} of a NATS server: {problem}; {expected}", number = 1);
        for url in ["me:secret@a", "me:secret@nats://a", "secret://a@b", "://secret"] {
            let reason = match url {
                "secret://a@b" => "the scheme `secret:` is not supported",
                _ => "the scheme is missing",
            };
            assert_eq!(error(url), problem(reason), "{url}");
        }
        assert_eq!(error("redis://me:secret@a"), problem("the scheme `redis:` is not supported"));
        #[cfg(not(feature = "tls"))]
        assert_eq!(error("tls://a"), problem("TLS (`tls:`) requires the feature `tls` of psrpc-bus-nats"));
        for (url, reason) in [
            ("nats://", "the host is missing or invalid"),
            ("nats://me:secret@/b", "the host is missing or invalid"),
            ("nats://a:secret", "the port is not a number from 1 to 65535"),
            ("nats://a:0", "the port is not a number from 1 to 65535"),
            ("nats://me:se%cret@a", "the user or password is not percent-encoded UTF-8"),
            ("nats://me:se%ff@a", "the user or password is not percent-encoded UTF-8"),
            ("nats://me:secret%4@a", "the user or password is not percent-encoded UTF-8"),
        ] {
            assert_eq!(error(url), problem(reason), "{url}");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn all_urls_require_tls_or_none_does() {
        let servers = Servers::parse("tls://me:secret@a, tls://[::1]:5").ok().unwrap();
        assert_eq!(servers.to_string(), "tls://a:4222, tls://[::1]:5");
        assert_eq!(servers.announced("10.0.0.1:4222"), "tls://10.0.0.1:4222");
        for urls in ["tls://a,nats://secret@b", "nats://a,tls://secret@b"] {
            let error = Servers::parse(urls).err().unwrap().to_string();
            let expected = "invalid URL 2 of a NATS server: `nats:` and `tls:` cannot be mixed; \
                            expected `nats://[user:password@]host[:port]` or `tls://...`";
            assert_eq!(error, expected);
        }
    }
}
