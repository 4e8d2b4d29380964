//! Parsing of Redis URLs.
//!
//! Errors show only the scheme, because the rest of the URL may contain a password.

use redis::{ConnectionInfo, IntoConnectionInfo};

use crate::cause;
use crate::error::ConnectError;
use crate::target::{Target, TargetKind};

/// The port of a sentinel whose URL names none.
const SENTINEL_PORT: u16 = 26379;

/// The parsed scheme of a URL.
struct Scheme {
    kind: SchemeKind,
    tls: bool,
}

enum SchemeKind {
    Server,
    Socket,
    Sentinel,
    Cluster,
}

/// Returns the target that a URL names.
pub(crate) fn target(url: &str) -> Result<Target, ConnectError> {
    parse(url).map_err(|cause| ConnectError::Url { cause })
}

fn parse(url: &str) -> Result<Target, String> {
    let (name, rest) = split(url).ok_or("the URL must begin with `redis://`")?;
    let scheme = scheme(name).ok_or_else(|| unsupported(name))?;
    if scheme.tls && !cfg!(feature = "tls") {
        return Err(format!("`{name}://` needs TLS: enable the feature `tls` of psrpc-bus-redis"));
    }
    match scheme.kind {
        SchemeKind::Socket => Ok(Target::server(&settings(&format!("redis+unix://{rest}"))?, false)),
        _ if rest.contains('#') => {
            Err(format!("a `{name}://` URL has no fragment: write `#` in a password as `%23`"))
        }
        SchemeKind::Server => Ok(Target::server(&settings(&format!("redis://{rest}"))?, scheme.tls)),
        SchemeKind::Sentinel => sentinel(name, rest, scheme.tls),
        SchemeKind::Cluster => cluster(name, rest, scheme.tls),
    }
}

/// Returns the scheme of a URL and the rest, or `None` if the text before `://` is not a valid
/// scheme and may be a secret.
fn split(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some((scheme, rest))
}

fn scheme(name: &str) -> Option<Scheme> {
    let (base, suffix) = name.split_once('+').unwrap_or((name, ""));
    let tls = matches!(base, "rediss" | "valkeys");
    let kind = match (base, suffix) {
        ("redis" | "rediss" | "valkey" | "valkeys", "") => SchemeKind::Server,
        ("redis" | "rediss" | "valkey" | "valkeys", "sentinel") => SchemeKind::Sentinel,
        ("redis" | "rediss" | "valkey" | "valkeys", "cluster") => SchemeKind::Cluster,
        ("redis" | "valkey", "unix") | ("unix", "") => SchemeKind::Socket,
        _ => return None,
    };
    Some(Scheme { kind, tls })
}

fn unsupported(name: &str) -> String {
    let expected = match name.to_ascii_lowercase().as_str() {
        "redis-sentinel" | "sentinel" => "redis+sentinel",
        "rediss-sentinel" => "rediss+sentinel",
        "redis-cluster" | "cluster" => "redis+cluster",
        "rediss-cluster" => "rediss+cluster",
        "redis+socket" | "redis-socket" | "redis-unix" => "redis+unix",
        "redis+tls" | "redis+ssl" => "rediss",
        _ => "redis",
    };
    format!("the scheme is `{name}://`, expected `{expected}://`")
}

/// Parses `[user:password@]host[:port],...` and `NAME[/database]`.
fn sentinel(scheme: &str, rest: &str, tls: bool) -> Result<Target, String> {
    let Hosts { credentials, hosts, path } = hosts(scheme, rest)?;
    let (master, database) = path.split_once('/').unwrap_or((path, ""));
    if master.is_empty() {
        return Err(format!(
            "a `{scheme}://` URL ends in the name of the master: `{scheme}://HOST:PORT,HOST:PORT/NAME`"
        ));
    }
    let has_port = |host: &str| host.rsplit(']').next().is_some_and(|end| end.contains(':'));
    let hosts = hosts.map(|host| match has_port(host) {
        true => format!("redis://{credentials}{host}/{database}"),
        false => format!("redis://{credentials}{host}:{SENTINEL_PORT}/{database}"),
    });
    group(TargetKind::Sentinel { master: master.to_owned() }, hosts, tls)
}

/// Parses `[user:password@]host[:port],...`.
fn cluster(scheme: &str, rest: &str, tls: bool) -> Result<Target, String> {
    let Hosts { credentials, hosts, path } = hosts(scheme, rest)?;
    if !matches!(path, "" | "0") {
        return Err(format!("a `{scheme}://` URL ends after the addresses: a cluster has one database only"));
    }
    group(TargetKind::Cluster, hosts.map(|host| format!("redis://{credentials}{host}")), tls)
}

struct Hosts<'a, H> {
    /// The user and the password, with the `@`, or nothing.
    credentials: &'a str,
    hosts: H,
    path: &'a str,
}

fn hosts<'a>(
    scheme: &str,
    rest: &'a str,
) -> Result<Hosts<'a, impl Iterator<Item = &'a str> + use<'a>>, String> {
    if rest.contains('?') {
        return Err(format!("a `{scheme}://` URL has no query: write `?` in a password as `%3F`"));
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if authority.matches('@').count() > 1 || path.contains('@') {
        return Err(format!(
            "a `{scheme}://` URL has credentials once, before the first host: write `@` in a password as `%40`"
        ));
    }
    let (credentials, hosts) = authority.split_at(authority.find('@').map_or(0, |at| at + 1));
    Ok(Hosts { credentials, hosts: hosts.split(','), path: path.trim_end_matches('/') })
}

/// Returns the target with the addresses of these URLs and the settings of the first.
fn group(kind: TargetKind, urls: impl Iterator<Item = String>, tls: bool) -> Result<Target, String> {
    let settings: Vec<_> = urls.map(|url| settings(&url)).collect::<Result<_, _>>()?;
    let addresses = settings.iter().map(|settings| settings.addr().clone()).collect();
    Ok(Target::new(kind, addresses, &settings[0], tls))
}

fn settings(url: &str) -> Result<ConnectionInfo, String> {
    url.into_connection_info().map_err(|error| cause::of_client(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        target(url).expect_err("it is not supported").to_string()
    }

    #[test]
    fn every_kind_of_url_has_its_target() {
        for (url, kind, names) in [
            ("redis://h", TargetKind::Server, "h:6379"),
            ("valkey://:p@h:1/2", TargetKind::Server, "h:1"),
            ("redis+unix:///tmp/socket?db=2", TargetKind::Server, "/tmp/socket"),
            ("unix:///tmp/socket", TargetKind::Server, "/tmp/socket"),
            (
                "redis+sentinel://u:p@h,g:1,[::1]/hats/2",
                TargetKind::Sentinel { master: "hats".into() },
                "h:26379,g:1,::1:26379",
            ),
            ("valkey+cluster://h,g:1", TargetKind::Cluster, "h:6379,g:1"),
        ] {
            let target = target(url).unwrap();
            assert_eq!((target.names().as_str(), target.tls), (names, false));
            assert_eq!(target.kind, kind);
            let settings = target.settings.redis_settings();
            assert_eq!(settings.db(), if url.contains('2') { 2 } else { 0 }, "{url}");
            assert_eq!(settings.password(), url.contains(":p@").then_some("p"));
        }
    }

    #[test]
    fn tls_needs_its_feature() {
        for (scheme, rest) in
            [("rediss", ""), ("valkeys", ""), ("rediss+sentinel", "/hats"), ("rediss+cluster", "")]
        {
            match target(&format!("{scheme}://:s3cret@h{rest}")) {
                Ok(target) => assert!(cfg!(feature = "tls") && target.tls),
                Err(error) => {
                    let expected = format!(
                        "invalid Redis URL: `{scheme}://` needs TLS: enable the feature `tls` of psrpc-bus-redis"
                    );
                    assert_eq!(error.to_string(), expected);
                }
            }
        }
    }

    #[test]
    fn an_unsupported_scheme_is_named_and_nothing_else_of_the_url() {
        for (scheme, expected) in [
            ("redis-sentinel", "redis+sentinel"),
            ("redis-cluster", "redis+cluster"),
            ("redis+socket", "redis+unix"),
            ("redis+ssl", "rediss"),
            ("rediss+unix", "redis"),
            ("nats", "redis"),
        ] {
            let text = refusal(&format!("{scheme}://:s3cret@x"));
            let expected = format!("the scheme is `{scheme}://`, expected `{expected}://`");
            assert_eq!(text, format!("invalid Redis URL: {expected}"));
        }
    }

    #[test]
    fn text_that_is_no_scheme_is_not_shown() {
        for url in ["s3cret", "user:s3cret@host", "user:s3cret://x", "s3cret@host://x", "://s3cret", ""] {
            assert_eq!(refusal(url), "invalid Redis URL: the URL must begin with `redis://`");
        }
        for url in [
            "redis://:s3cret@[",
            "redis://:s3cret@127.0.0.1:1/nonsense",
            "redis://:s3cret@127.0.0.1:x",
            "redis://h#s3cret",
            "redis+sentinel://:s3cret@h",
            "redis+sentinel://:s3cret@h,:s3cret@g/hats",
            "redis+cluster://u:12/s3cret@h",
            "redis+sentinel://:s3cret@h/",
            "redis+sentinel://:s3cret@h,/hats",
            "redis+sentinel://:s3cret@h/hats/nonsense",
            "redis+sentinel://:s3cret@h/hats?s3cret",
            "redis+cluster://:s3cret@h/1",
            "redis+cluster://:s3cret@",
        ] {
            assert!(!refusal(url).contains("s3cret"), "{}", refusal(url));
        }
    }
}
