#!/usr/bin/env bats
# The ground that the other files stand on: what the helpers promise must hold before weft is judged by them.

load helpers

setup_file() {
    setup_underlay
    start_consul
    add_host a
    add_host b
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

@test "hosts have names, and reach each other and the outside over the underlay" {
    run in_host a hostname
    assert_equal "$output" a
    ping_from a - "$(underlay_ip b)"
    ping_from b - "$WEFT_OUTSIDE_IP"
}

@test "a host sees its own interfaces only" {
    run in_host a ls /sys/class/net
    assert_equal "$output" $'eth0\nlo'
}

@test "what a host writes below /etc, /opt, /run and /var stays there" {
    for tree in /etc /opt /run /var/lib; do
        in_host a touch "$tree/weft-was-here"
        run ! in_host b test -e "$tree/weft-was-here"
        [[ ! -e $tree/weft-was-here ]]
    done
}

@test "an unplugged host is cut off until it is plugged in again" {
    unplug_host b
    run ! ping_from a - "$(underlay_ip b)"
    plug_host b
    eventually 5 ping_from a - "$(underlay_ip b)"
}

@test "a killed Consul is gone, and comes back with its data" {
    consul_cmd kv put weft/test kept
    stop_consul
    run ! consul_cmd kv get weft/test
    restart_consul
    run consul_cmd kv get weft/test
    assert_equal "$output" kept
}

@test "hosts reach Consul" {
    run in_host a curl --silent --fail "$(consul_url)/v1/status/leader"
    [[ $output == *:8300* ]]
}

@test "a capture counts what matches its filter and nothing else" {
    capture_start pings icmp and src host "$(underlay_ip a)"
    ping_from a - "$(underlay_ip b)" 3
    capture_stop pings
    run capture_count pings
    assert_equal "$output" 3
}

@test "a daemon dies with its host" {
    add_host c
    start_daemon c sleeper sleep 1000
    daemon_runs c sleeper
    local pid
    pid=$(machine_pid c)
    kill_machine c
    process_gone "$pid"
    run ! pgrep -f "$WEFT_TEST_DIR/machines/c"
}

@test "containers of a host reach nothing until a plugin wires them, then their neighbours" {
    local conf='{"cniVersion":"1.0.0","name":"ref","type":"bridge","bridge":"ref0","isGateway":true,
        "ipam":{"type":"host-local","subnet":"10.8.0.0/24"}}'
    add_container a c1
    add_container a c2
    run ! ping_from a c1 10.8.0.1
    run cni a ADD c1 eth0 "$conf"
    assert_json '.ips[0].address' 10.8.0.2/24
    cni a ADD c2 eth0 "$conf"
    ping_from a c2 "$(cni_ip a c1)"
    cni a DEL c1 eth0 "$(with_prev_result a c1 eth0 "$conf")"
    run ! ping_from a c2 "$(cni_ip a c1)"
}

@test "eventually waits for what comes late, and gives up on what never does" {
    (sleep 0.3 && touch "$BATS_TEST_TMPDIR/late") 3>&- &
    eventually 5 test -e "$BATS_TEST_TMPDIR/late"
    run ! eventually 1 false
}

@test "teardown leaves no process, no mount and no file" {
    local dir outer=$WEFT_TEST_DIR
    setup_underlay
    dir=$WEFT_TEST_DIR
    add_host x
    start_daemon x sleeper sleep 1000
    teardown_underlay
    run ! pgrep -f "$dir"
    run ! grep -F "$dir" /proc/mounts
    [[ ! -e $dir && -d $outer ]]
}

@test "a node's configuration is its own, and names its address and its Consul" {
    run ! in_host a cat /etc/weft/weft.toml
    write_node_config a
    run in_host a cat /etc/weft/weft.toml
    [[ $output == *"underlay = \"$(underlay_ip a)\""*"address = \"$(consul_url)\""* ]]
    run ! in_host b cat /etc/weft/weft.toml
}

@test "hosts are different machines" {
    [[ $(in_host a cat /etc/machine-id) =~ ^[0-9a-f]{32}$ ]]
    [[ $(in_host a cat /etc/machine-id) != "$(in_host b cat /etc/machine-id)" ]]
}
