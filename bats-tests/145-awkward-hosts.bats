#!/usr/bin/env bats
# Hosts and containers that are not set up as one would wish, and those who try to get around a rule. No Consul, no agent.

load helpers

RED='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "ipam": {"type": "weft-ipam"}}'

setup_file() {
    setup_underlay
    add_host a
    weftctl a network create red --subnet 10.9.0.0/24
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

# add CONTAINER [CONF]: a new container on the network, red unless told.
add() {
    add_container a "$1"
    cni a ADD "$1" eth0 "${2:-$RED}"
}

@test "a container of an internal network that sends to the bridge's MAC gets no further than its network" {
    local conf=${RED/red/inner} mac
    weftctl a network create inner --subnet 10.7.0.0/24 --internal --vni 5001
    add inner1 "$conf"
    add inner2 "$conf"
    mac=$(in_host a cat /sys/class/net/wb5001/address)
    in_container a inner1 ip neigh add 10.7.0.99 lladdr "$mac" dev eth0
    in_container a inner1 ip route add default via 10.7.0.99
    # The host routes already, for red.
    add red1
    assert_equal "$(in_host a sysctl -n net.ipv4.ip_forward)" 1
    capture_start escape "src net 10.7.0.0/24"
    run ! ping_from a inner1 "$WEFT_OUTSIDE_IP"
    run ! ping_from a inner1 "$(cni_ip a red1)"
    capture_stop escape
    assert_equal "$(capture_count escape)" 0 "packets that left the host"
    run in_host a nft list table inet weft
    [[ $output == *'iifname @internal drop'* ]]
    ping_from a inner1 "$(cni_ip a inner2)"
    cni a DEL red1 eth0 "$RED"
    cni a DEL inner1 eth0 "$conf"
    cni a DEL inner2 eth0 "$conf"
    weftctl a network remove inner
    run in_host a nft list table inet weft
    [[ $output != *5001* ]]
}
