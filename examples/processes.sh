#!/usr/bin/env bash
# Runs examples as several processes on the bus with the URL $1, and checks what they say. They are built.
set -euo pipefail
cd "$(dirname "$0")/.."
bus=$1
said=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$said"' EXIT

# run EXAMPLE ARGUMENT...: becomes the example, which must not keep the inputs of others (3, 4 and 5) open.
run() { exec "${CARGO_TARGET_DIR:-target}/debug/examples/$1" --bus "$bus" "${@:2}" 3>&- 4>&- 5>&-; }

# hear NAME LINE: waits until the one of this name says the line.
hear() {
    for _ in {1..300}; do
        grep -qxF "$2" "$said/$1" 2>/dev/null && return
        sleep 0.1
    done
    echo "$1 does not say \"$2\" but:"
    cat "$said/$1"
    return 1
}

# expect WANTED FOUND
expect() {
    [ "$1" = "$2" ] && return
    printf 'expected:\n%s\nfound:\n%s\n' "$1" "$2"
    return 1
}

server_and_client() {
    exec 3> >(run server --name elm >"$said/server")
    hear server "machine elm serves the studio until its input ends"
    expect "elm renders the castle" "$(run client)"
    exec 3>&-
    hear server "machine elm has shut down, with nothing left undone"
}

# The idle worker gets the job; the other one is told to stop while it works, and finishes.
worker_pool() {
    run worker_pool work oak --slots 2 >"$said/oak" &
    local oak=$!
    hear oak "oak is here, for 2 at a time"
    run worker_pool submit castle --millis 3000 >"$said/castle" &
    hear oak "oak starts castle"
    run worker_pool work elm >"$said/elm" &
    local elm=$!
    hear elm "elm is here, for 1 at a time"
    expect "tower was done by elm" "$(run worker_pool submit tower --millis 10)"
    kill -INT "$oak"
    wait "$oak"
    expect "oak is here, for 2 at a time
oak starts castle
oak stops
oak has done castle
oak has finished what it had accepted, and goes" "$(cat "$said/oak")"
    hear castle "castle was done by oak"
    kill -INT "$elm"
    wait "$elm"
}

region_stats() {
    exec 3> >(run region_stats serve paris europe >"$said/paris")
    exec 4> >(run region_stats serve milan europe >"$said/milan")
    hear paris "paris serves europe"
    hear milan "milan serves europe"
    run region_stats watch europe >"$said/watcher" &
    local watcher=$!
    hear watcher "watching europe"
    echo >&3
    hear watcher "europe hears: paris has opened room 1"
    echo >&4
    hear watcher "europe hears: milan has opened room 1"
    expect 'rooms in europe: {"milan": 1, "paris": 1}' "$(run region_stats collect europe --servers 2)"
    exec 3>&-
    hear paris "paris has shut down"
    expect 'rooms in europe: {"milan": 1}' "$(run region_stats collect europe)"
    exec 4>&-
    hear milan "milan has shut down"
    kill "$watcher"
}

chat() {
    exec 3> >(run chat host lobby >"$said/lobby")
    hear lobby "the lobby is open"
    exec 4> >(run chat enter lobby ann >"$said/ann")
    hear ann "room: welcome, ann; others here: 0"
    exec 5> >(run chat enter lobby bob >"$said/bob")
    hear ann "room: bob has entered"
    echo "hello!" >&4
    hear bob "ann: hello!"
    echo "hi ann" >&5
    hear ann "bob: hi ann"
    exec 5>&-
    hear ann "room: bob has left"
    hear bob "bob hears no more: stream closed"
    exec 3>&-
    hear lobby "the lobby is closed"
    hear ann "ann hears no more: EOF"
    exec 4>&-
}

for example in server_and_client worker_pool region_stats chat; do
    echo "$example"
    "$example"
done
