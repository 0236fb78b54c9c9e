#!/usr/bin/env bats
# What goes on while Consul is gone, while an agent dies, and while nodes come.

load helpers

NET='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "vni": 4201, "isGateway": true, "ipMasq": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}'

setup() {
    local host
    start_cluster a b
    for host in a b; do
        add_container "$host" one
        cni "$host" ADD one eth0 "$NET"
    done
    eventually 3 ping_from a one "$(cni_ip b one)"
}

teardown() {
    dump_logs_of_failed_test
    teardown_underlay
}

@test "without Consul: ADD, CHECK and DEL work while a block has room, and traffic flows" {
    stop_consul
    add_container a two
    cni a ADD two eth0 "$NET"
    cni a CHECK two eth0 "$(with_prev_result a two eth0 "$NET")"
    ping_from b one "$(cni_ip a two)"
    ping_from a one "$(cni_ip b one)"
    cni a DEL two eth0 "$NET"
    run -0 in_host a ls /run/weft/networks/red/reservations
    [[ $output != *two@eth0* ]]
}

@test "without Consul and without room: ADD says to try again, and names the store's address" {
    stop_consul
    local i
    # A /24 has blocks of 16; the first one lacks the network's, the gateway's and the node's address.
    for i in {1..16}; do
        add_container a "more$i"
        if ! cni a ADD "more$i" eth0 "$NET"; then
            break
        fi
    done
    run cni a ADD "more$i" eth0 "$NET"
    [[ $status != 0 ]]
    assert_json .code 11
    assert_json ".msg + .details | contains(\"$(consul_url)\")" true
    # Nothing half-made is left.
    run in_container a "more$i" ip -j link show
    assert_json '[.[] | select(.ifname == "eth0")] | length' 0
    run in_host a ls /run/weft/networks/red/reservations
    [[ $status == 0 && $output != *"more$i@"* ]]
    # And with Consul back, the same call succeeds.
    restart_consul
    cni a ADD "more$i" eth0 "$NET"
    eventually 5 ping_from b one "$(cni_ip a "more$i")"
}

@test "the first container of a new node is reachable from the others within 300 ms" {
    add_host c
    write_node_config c
    start_weftd c
    add_container c first
    cni c ADD first eth0 "$NET"
    local start=${EPOCHREALTIME/./} ip took
    ip=$(cni_ip c first)
    until in_container a one busybox ping -c 1 -W 1 "$ip"; do :; done
    took=$(((${EPOCHREALTIME/./} - start) / 1000))
    echo "reachable after $took ms"
    # A ping that is lost costs its whole second, so one that is answered in time was the first.
    ((took < 300)) || fail "it took $took ms"
    ping_from c first "$(cni_ip a one)"
    ping_from c first "$(cni_ip b one)"
}

@test "killing and restarting agents loses no packet" {
    local ip host
    ip=$(cni_ip b one)
    start_daemon a ping nsenter --net=/run/netns/one busybox ping -i 0.01 -c 400 "$ip"
    sleep 0.5
    for host in a b; do
        stop_weftd "$host" KILL
        sleep 0.3
        start_weftd "$host"
    done
    sleep 0.5
    stop_weftd a
    start_weftd a
    eventually 10 daemon_stopped a ping
    run cat "$WEFT_TEST_DIR/logs/a.ping.log"
    [[ $output == *"400 packets transmitted, 400 packets received, 0% packet loss"* ]] ||
        fail "$(tail -n 4 <<<"$output")"
}

@test "an agent stops within two seconds of SIGTERM and leaves the data plane as it is" {
    local start=${EPOCHREALTIME/./}
    stop_weftd a
    ((${EPOCHREALTIME/./} - start < 2000000))
    ping_from a one "$(cni_ip b one)"
    ping_from b one "$(cni_ip a one)"
}

@test "an agent that was away catches up with what changed meanwhile" {
    stop_weftd a KILL
    add_host c
    write_node_config c
    start_weftd c
    add_container c first
    cni c ADD first eth0 "$NET"
    run ! ping_from a one "$(cni_ip c first)"
    start_weftd a
    eventually 3 ping_from a one "$(cni_ip c first)"
}

# log_has HOST COUNT TEXT: the log of weftd has that many lines with the text.
log_has() {
    [[ $(grep -c "$3" "$WEFT_TEST_DIR/logs/$1.weftd.log") == "$2" ]]
}

@test "an agent goes on after Consul was away, with its peers reachable all the time" {
    stop_consul
    eventually 5 log_has a 1 'keeping the last known state'
    sleep 1
    ping_from a one "$(cni_ip b one)"
    # One outage, not one of each of its watches.
    log_has a 1 'keeping the last known state' || fail "$(cat "$WEFT_TEST_DIR/logs/a.weftd.log")"
    restart_consul
    eventually 15 log_has a 1 'answers again'
    add_host c
    write_node_config c
    start_weftd c
    add_container c first
    cni c ADD first eth0 "$NET"
    eventually 10 ping_from a one "$(cni_ip c first)"
}

@test "a bridge that went down and up again gets its peers back" {
    in_host a ip link set wb4201 down
    in_host a ip link set wb4201 up
    eventually 3 ping_from a one "$(cni_ip b one)"
    eventually 3 ping_from a - "$(cni_ip b one)"
}

@test "a second machine with the name of a node is turned away, and both machines are named" {
    add_host c
    write_node_config c
    sed -i 's/^node = .*/node = "a"/' "$(node_config c)"
    in_host c sh -c 'echo ffffffffffffffffffffffffffffffff >/etc/machine-id'
    add_container c one
    run cni c ADD one eth0 "$NET"
    [[ $status != 0 ]]
    assert_json '.msg + .details | contains("ffffffffffffffffffffffffffffffff")' true
    assert_json ".msg + .details | contains(\"$(in_host a cat /etc/machine-id)\")" true
    run in_host c env WEFT_CONFIG="$(node_config c)" "$WEFT_BIN_DIR/weftd"
    [[ $status != 0 && $output == *ffffffffffffffffffffffffffffffff* ]]
}
