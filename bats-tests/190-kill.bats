#!/usr/bin/env bats
# Calls that are killed at any moment: no address is ever held twice, and none is lost.

load helpers

setup() {
    setup_underlay
    # The driver makes thousands of calls.
    # shellcheck disable=SC2034 # read by in_machine
    WEFT_TEST_TIMEOUT=60
}

teardown() {
    dump_logs_of_failed_test
    teardown_underlay
}

# drive HOST PLUGIN OPTION...: runs the driver and leaves its counts in $output.
drive() {
    local host=$1 plugin=$2
    shift 2
    run in_host "$host" "$WEFT_HELPERS/kill-driver.py" --plugin "$plugin" "$@"
    [[ $status == 0 ]] || fail "$output"
    echo "# $plugin: $output" >&3
}

# assert_killed MIN: so many ADDs and DELs were killed, some of them before and some after the moment that counts.
assert_killed() {
    assert_json ".killed_adds >= $1 and .killed_dels >= $1" true
    assert_json '0 < .killed_adds_reserved and .killed_adds_reserved < .killed_adds' true
    assert_json '0 < .killed_dels_freed and .killed_dels_freed < .killed_dels' true
}

@test "weft-ipam on a single node survives kills at any moment" {
    add_host a
    drive a weft-ipam --calls 2400
    assert_killed 100
}

@test "weft and weft-ipam below it on a single node survive kills at any moment" {
    add_host a
    drive a weft --calls 500 --networks 2 --slots 3
    assert_killed 20
    run -0 in_host a ip -brief link show type veth
    [[ $output != *wv* ]] || fail "$output"
}

# kill_agent_again_and_again HOST: until there is a file `enough`.
kill_agent_again_and_again() {
    while [[ -d $WEFT_TEST_DIR && ! -e $WEFT_TEST_DIR/enough ]]; do
        start_weftd "$1"
        sleep "0.$((RANDOM % 10))"
        stop_weftd "$1" KILL
    done
}

@test "a node of a cluster, whose agent is killed too, survives kills at any moment" {
    start_consul
    add_host a
    write_node_config a
    kill_agent_again_and_again a 3>&- &
    local killer=$!
    drive a weft-ipam --calls 2400
    assert_killed 100
    drive a weft --calls 200 --networks 2 --slots 3
    assert_killed 10
    touch "$WEFT_TEST_DIR/enough"
    wait "$killer"
}

@test "calls that are killed in sandboxes that live on lose no address for longer than to the next GC" {
    add_host a
    drive a weft --living --calls 480
    assert_json '.killed_adds >= 40 and .killed_dels >= 20 and .lost_before_gc >= 5' true
    # With the gateway's and the host's own, these are all 256 but network and broadcast.
    assert_json .usable_after_gc 253
    run in_host a ls /run/weft/calls
    assert_equal "$output" ""
}
