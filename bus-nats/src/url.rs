//! Parsing of NATS URLs.

use std::fmt;

use crate::error::{ConnectError, UrlProblem};

const DEFAULT_PORT: u16 = 4222;

/// The servers in a list of URLs.
#[derive(Clone, PartialEq)]
pub(crate) struct Servers {
    /// The URLs without credentials.
    pub(crate) addresses: Vec<String>,
    /// The first credentials found: the client library uses one set for all servers.
    pub(crate) credentials: Option<Credentials>,
}

/// The credentials in a URL.
#[derive(Clone, PartialEq)]
pub(crate) enum Credentials {
    Token(String),
    User { name: String, password: String },
}

impl Servers {
    /// Parses a comma-separated list of URLs.
    pub(crate) fn parse(urls: &str) -> Result<Self, ConnectError> {
        let mut servers = Servers { addresses: Vec::new(), credentials: None };
        for (number, url) in (1..).zip(urls.split(',')) {
            let refuse = |problem| ConnectError::Url { number, problem };
            let (address, credentials) = parse(url.trim()).map_err(refuse)?;
            servers.addresses.push(address);
            servers.credentials = servers.credentials.or(credentials);
        }
        Ok(servers)
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.addresses.join(", "))
    }
}

/// Parses a URL into an address and credentials.
fn parse(url: &str) -> Result<(String, Option<Credentials>), UrlProblem> {
    let (scheme, rest) = url.split_once("://").ok_or(UrlProblem::NoScheme)?;
    match scheme {
        "nats" => {}
        "tls" => return Err(UrlProblem::Tls),
        _ => return Err(UrlProblem::Scheme(scheme.to_owned())),
    }
    // Split at the last `@`: a password may contain one that is not percent-encoded.
    let (credentials, address) = match rest.rsplit_once('@') {
        Some((credentials, address)) => (Some(credentials), address),
        None => (None, rest),
    };
    let credentials = credentials.map(|text| match text.split_once(':') {
        Some((name, password)) => Ok(Credentials::User { name: decode(name)?, password: decode(password)? }),
        None => Ok(Credentials::Token(decode(text)?)),
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
    Ok((format!("nats://{host}:{port}"), credentials.transpose()?))
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
        let user = Credentials::User { name: "me".to_owned(), password: "p@s:s".to_owned() };
        assert!(servers.credentials == Some(user));
        let servers = Servers::parse("nats://t%C3%B6ken@a").ok().unwrap();
        assert!(servers.credentials == Some(Credentials::Token("töken".to_owned())));
    }

    #[test]
    fn errors_do_not_show_the_url() {
        let error = |url| Servers::parse(url).err().unwrap().to_string();
        let expected = "expected `nats://[user:password@]host[:port]`";
        let problem =
            |problem| format!("invalid URL {number} of a NATS server: {problem}; {expected}", number = 1);
        assert_eq!(error("me:secret@a"), problem("the scheme is missing"));
        assert_eq!(error("redis://me:secret@a"), problem("the scheme `redis:` is not supported"));
        assert_eq!(error("tls://a"), problem("TLS (`tls:`) is not supported yet"));
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
}
