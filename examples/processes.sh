#!/usr/bin/env bash
# Runs examples as several processes on the bus with the URL $1 and checks their output. The examples must be built.
set -euo pipefail
cd "$(dirname "$0")/.."
bus=$1
output=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$output"' EXIT

# run EXAMPLE ARGUMENT...: executes the example with the stdin pipes of the others (3, 4 and 5) closed.
run() { exec "${CARGO_TARGET_DIR:-target}/debug/examples/$1" --bus "$bus" "${@:2}" 3>&- 4>&- 5>&-; }

# wait_for NAME LINE: waits until the process NAME prints LINE.
wait_for() {
    for _ in {1..300}; do
        grep -qxF "$2" "$output/$1" 2>/dev/null && return
        sleep 0.1
    done
    echo "$1 did not print \"$2\", but:"
    cat "$output/$1"
    return 1
}

# expect EXPECTED FOUND
expect() {
    [ "$1" = "$2" ] && return
    printf 'expected:\n%s\nfound:\n%s\n' "$1" "$2"
    return 1
}

server_and_client() {
    exec 3> >(run server --name elm >"$output/server")
    wait_for server "machine elm serves the studio until stdin ends"
    expect "elm renders the castle" "$(run client)"
    exec 3>&-
    wait_for server "machine elm has shut down, after finishing all accepted requests"
}

# The idle worker gets the second job. The other worker is stopped while it works, and finishes its job before it exits.
worker_pool() {
    run worker_pool work oak --slots 2 >"$output/oak" &
    local oak=$!
    wait_for oak "oak is ready, slots: 2"
    run worker_pool submit castle --millis 3000 >"$output/castle" &
    wait_for oak "oak starts castle"
    run worker_pool work elm >"$output/elm" &
    local elm=$!
    wait_for elm "elm is ready, slots: 1"
    expect "tower was done by elm" "$(run worker_pool submit tower --millis 10)"
    kill -INT "$oak"
    wait "$oak"
    expect "oak is ready, slots: 2
oak starts castle
oak is shutting down
oak has done castle
oak has finished its accepted jobs" "$(cat "$output/oak")"
    wait_for castle "castle was done by oak"
    kill -INT "$elm"
    wait "$elm"
}

region_stats() {
    exec 3> >(run region_stats serve paris europe >"$output/paris")
    exec 4> >(run region_stats serve milan europe >"$output/milan")
    wait_for paris "paris serves europe"
    wait_for milan "milan serves europe"
    run region_stats watch europe >"$output/watcher" &
    local watcher=$!
    wait_for watcher "watching europe"
    echo >&3
    wait_for watcher "europe: paris opened room 1"
    echo >&4
    wait_for watcher "europe: milan opened room 1"
    expect 'rooms in europe: {"milan": 1, "paris": 1}' "$(run region_stats collect europe --servers 2)"
    exec 3>&-
    wait_for paris "paris has shut down"
    expect 'rooms in europe: {"milan": 1}' "$(run region_stats collect europe)"
    exec 4>&-
    wait_for milan "milan has shut down"
    kill "$watcher"
}

chat() {
    exec 3> >(run chat host lobby >"$output/lobby")
    wait_for lobby "the lobby is open"
    exec 4> >(run chat enter lobby ann >"$output/ann")
    wait_for ann "room: welcome, ann; others here: 0"
    exec 5> >(run chat enter lobby bob >"$output/bob")
    wait_for ann "room: bob has entered"
    echo "hello!" >&4
    wait_for bob "ann: hello!"
    echo "hi ann" >&5
    wait_for ann "bob: hi ann"
    exec 5>&-
    wait_for ann "room: bob has left"
    wait_for bob "bob: the stream ended: stream closed"
    exec 3>&-
    wait_for lobby "the lobby is closed"
    wait_for ann "ann: the stream ended: EOF"
    exec 4>&-
}

for example in server_and_client worker_pool region_stats chat; do
    echo "$example"
    "$example"
done
