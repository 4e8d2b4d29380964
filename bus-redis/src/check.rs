//! Checks of a server's kind and role, made when the bus connects and at each interval.
//!
//! A master that became a replica answers pings, and accepts messages that only its own clients
//! receive. `HELLO` reports the role, and needs no right. A node of a cluster forwards messages in
//! either role, so the bus checks instead that the node is connected to its cluster.

use redis::{Cmd, ServerError, Value};

use crate::cause;
use crate::target::TargetKind;

/// Returns the command whose reply [`problem`] judges.
pub(crate) fn command(kind: &TargetKind) -> Cmd {
    let (name, argument) = match kind {
        TargetKind::Server | TargetKind::Sentinel { .. } => ("HELLO", "3"),
        TargetKind::Cluster => ("CLUSTER", "INFO"),
    };
    let mut command = redis::cmd(name);
    command.arg(argument);
    command
}

/// Returns the reason why the bus cannot use the server, if there is one.
pub(crate) fn problem(kind: &TargetKind, reply: &Value) -> Option<String> {
    match (kind, reply) {
        (_, Value::ServerError(error)) if error.code() == "NOAUTH" => {
            Some(cause::of_server(&text(error), None))
        }
        (TargetKind::Cluster, Value::ServerError(error)) => is_no_node(error)
            .then(|| "the server is no node of a Redis Cluster: use `redis://` for a single server".into()),
        (TargetKind::Cluster, reply) => problem_of_node(&string(reply)?),
        (kind, Value::Map(fields)) => problem_of_server(kind, fields),
        _ => None,
    }
}

fn problem_of_server(kind: &TargetKind, fields: &[(Value, Value)]) -> Option<String> {
    let field = |name: &str| {
        let field = fields.iter().find(|(field, _)| string(field).as_deref() == Some(name));
        field.and_then(|(_, value)| string(value)).unwrap_or_default()
    };
    let problem = match (field("mode").as_str(), field("role").as_str()) {
        ("sentinel", _) => {
            "the server is a sentinel: use `redis+sentinel://HOST:PORT/NAME` with the name of the master"
        }
        ("cluster", _) => "the server is a node of a Redis Cluster: use `redis+cluster://`",
        (_, "replica" | "slave") => match kind {
            TargetKind::Sentinel { .. } => "the server that the sentinels name is a read-only replica",
            _ => "the server is a read-only replica: the bus needs the master",
        },
        _ => return None,
    };
    Some(problem.into())
}

/// Detects a node that is cut off from the majority of the masters. Only a majority marks slots as
/// failed, so such a node reports a failed state without failed slots. A cluster with failed slots
/// still forwards messages and is not a problem.
fn problem_of_node(info: &str) -> Option<String> {
    let has = |line| info.lines().any(|found| found.trim_end() == line);
    (has("cluster_state:fail") && has("cluster_slots_fail:0")).then(|| {
        "the node is cut off from its cluster, or the cluster is not set up (cluster_state:fail)".into()
    })
}

/// Returns `true` if this is the error of a server without a cluster, or of a sentinel.
fn is_no_node(error: &ServerError) -> bool {
    let text = text(error);
    text.contains("cluster support disabled") || text.starts_with("ERR unknown command")
}

fn text(error: &ServerError) -> String {
    format!("{} {}", error.code(), error.details().unwrap_or_default())
}

fn string(value: &Value) -> Option<String> {
    redis::from_redis_value_ref(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(mode: &str, role: &str) -> Value {
        let text = |text: &str| Value::BulkString(text.into());
        Value::Map(vec![
            (text("proto"), Value::Int(3)),
            (text("mode"), text(mode)),
            (text("role"), text(role)),
            (text("modules"), Value::Array(Vec::new())),
        ])
    }

    #[test]
    fn a_server_of_the_wrong_kind_or_role_is_a_problem() {
        let problem = |mode, role| problem(&TargetKind::Server, &server(mode, role)).unwrap_or_default();
        assert_eq!(problem("standalone", "master"), "");
        assert!(problem("standalone", "replica").contains("read-only replica"));
        assert!(problem("sentinel", "").contains("redis+sentinel://"));
        assert!(problem("cluster", "replica").contains("redis+cluster://"));
        assert_eq!(super::problem(&TargetKind::Server, &Value::Map(Vec::new())), None);
    }

    #[test]
    fn a_long_error_of_the_server_is_cut() {
        let reply =
            redis::parse_redis_value(format!("-NOAUTH {}\r\n", "x".repeat(10_000)).as_bytes()).unwrap();
        let problem = problem(&TargetKind::Server, &reply).unwrap();
        assert!(problem.starts_with("NOAUTH xxx") && problem.ends_with("x..."), "{problem}");
        assert!(problem.len() < 600, "{problem}");
    }

    #[test]
    fn a_node_that_is_cut_off_is_a_problem_and_one_of_a_cluster_with_lost_slots_is_not() {
        let problem = |info: &str| problem(&TargetKind::Cluster, &Value::BulkString(info.into()));
        assert_eq!(problem("cluster_state:ok\r\ncluster_slots_fail:0\r\n"), None);
        assert_eq!(problem("cluster_state:fail\r\ncluster_slots_fail:5461\r\n"), None);
        assert!(problem("cluster_state:fail\r\ncluster_slots_fail:0\r\n").is_some());
    }
}
