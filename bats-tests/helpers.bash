# Library of the scenario tests: `load helpers` at the top of a .bats file gives all of it.
#
# A test runs on *machines*: bundles of private namespaces (network, mounts, processes, host name) that a
# pid 1 of ours holds open. Every process, mount, interface and container of a test lives in one of them, so
# killing that pid 1 removes everything at once, and the computer that runs the tests sees none of it.
#
# One machine is the *underlay*: the bridge that carries all traffic between hosts, the gateway, and an address
# that plays the internet. The others are *hosts*, each with one interface `eth0` on that bridge. Consul runs in
# the underlay, at an address of its own.
#
#   setup_file()    { setup_underlay; start_consul; add_host a; add_host b; }
#   teardown()      { dump_logs_of_failed_test; }
#   teardown_file() { teardown_underlay; }
#
# All state is in files below WEFT_TEST_DIR, because bats runs setup_file, each test, and each `run` in
# a process of its own.
#
# Sections: helpers/machine.bash   machines, their daemons, teardown
#           helpers/underlay.bash  the underlay, hosts, counting of packets
#           helpers/consul.bash    Consul servers
#           helpers/weft.bash      node configuration, weftd, containers, calls of a CNI plugin
#           helpers/containerd.bash  containerd and ctr

# `run !` is the only way of saying "must fail" that bats notices anywhere in a test.
bats_require_minimum_version 1.5.0

WEFT_REPO=$(cd "${BASH_SOURCE[0]%/*}/.." && pwd)
WEFT_HELPERS=$WEFT_REPO/bats-tests/helpers
: "${WEFT_BIN_DIR:=${CARGO_TARGET_DIR:-$WEFT_REPO/target}/release}"
: "${WEFT_TEST_CACHE:=/var/cache/weft-test}"
: "${WEFT_TEST_CONSUL:=$WEFT_TEST_CACHE/bin/consul}"
# Seconds that any one command of a test may take.
: "${WEFT_TEST_TIMEOUT:=30}"

# Tests read what tools print, and some of it is translated.
export LC_ALL=C
# Each host has its own: see node_config.
unset WEFT_CONFIG

# shellcheck source=bats-tests/helpers/machine.bash
source "$WEFT_HELPERS/machine.bash"
# shellcheck source=bats-tests/helpers/underlay.bash
source "$WEFT_HELPERS/underlay.bash"
# shellcheck source=bats-tests/helpers/consul.bash
source "$WEFT_HELPERS/consul.bash"
# shellcheck source=bats-tests/helpers/weft.bash
source "$WEFT_HELPERS/weft.bash"
# shellcheck source=bats-tests/helpers/containerd.bash
source "$WEFT_HELPERS/containerd.bash"

# fail MESSAGE...: ends the test with a message.
fail() {
    printf '%s\n' "$*" >&2
    return 1
}

# eventually SECONDS CMD...: repeats CMD until it succeeds; fails, showing its last output, at the deadline.
eventually() {
    local deadline=$((${EPOCHREALTIME/./} + $1 * 1000000)) output
    shift
    until output=$("$@" 2>&1); do
        if ((${EPOCHREALTIME/./} > deadline)); then
            fail "gave up waiting for: $*"$'\n'"$output"
            return 1
        fi
        sleep 0.05
    done
}

# assert_equal ACTUAL EXPECTED [WHAT]: compares, and shows both sides when they differ.
assert_equal() {
    [[ $1 == "$2" ]] || fail "${3:-value} is"$'\n'"  $1"$'\n'"expected"$'\n'"  $2"
}

# assert_json JQ EXPECTED: compares what the jq path gives in $output, as left there by bats' `run`.
assert_json() {
    local actual
    # shellcheck disable=SC2154 # `run` sets output
    actual=$(jq -r "$1" <<<"$output") || fail "no JSON to look for $1 in:"$'\n'"$output" || return 1
    assert_equal "$actual" "$2" "$1 of $output"
}
