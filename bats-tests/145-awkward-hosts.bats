#!/usr/bin/env bats
# Hosts and containers that are not set up well, and those that try to get around a rule. No Consul, no agent.

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
    run -0 in_host a nft list table inet weft
    [[ $output != *5001* ]]
}

DUAL='{"cniVersion": "1.0.0", "name": "dual", "type": "weft", "ipam": {"type": "weft-ipam"}}'

# advertise: the underlay's router says that it is one, to all that listen.
advertise() {
    in_machine underlay sysctl -qw net.ipv6.conf.all.forwarding=1
    in_machine underlay python3 - <<'PYTHON'
import socket, struct
link = socket.if_nametoindex("br0")
with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as router:
    router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    router.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, link)
    # Type 134, hop limit 64, for 1800 seconds (RFC 4861, section 4.2).
    router.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, link))
PYTHON
}

# has_advertised_route: the host has the default route that an advertisement brought.
has_advertised_route() {
    in_host a ip -6 route show default proto ra | grep -q eth0
}

# advertised: an advertisement was sent and heeded.
advertised() {
    advertise
    has_advertised_route
}

@test "a host that lives by router advertisements keeps its IPv6 default route when it gets a network" {
    eventually 10 advertised
    weftctl a network create dual --subnet 10.6.0.0/24 --subnet fd06::/64
    add first "$DUAL"
    assert_equal "$(in_host a sysctl -n net.ipv6.conf.all.forwarding)" 1
    has_advertised_route
    # Nor is it deaf to the next one.
    in_host a ip -6 route del default proto ra
    eventually 5 advertised
    cni a DEL first eth0 "$DUAL"
}

@test "a container and a host that come without IPv6 get it where weft has an IPv6 address for them" {
    local conf=${DUAL/dual/six}
    in_host a sysctl -qw net.ipv6.conf.default.disable_ipv6=1
    weftctl a network create six --subnet fd16::/64
    add_container a none
    in_container a none sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
    cni a ADD none eth0 "$conf"
    cni a CHECK none eth0 "$(with_prev_result a none eth0 "$conf")"
    ping_from a none fd16::1
    cni a DEL none eth0 "$conf"
    weftctl a network remove six
    in_host a sysctl -qw net.ipv6.conf.default.disable_ipv6=0
}

@test "DEL asks nobody: neither a store that cannot be opened nor a missing certificate is in its way" {
    local conf
    add leaver
    cat >"$(node_config a)" <<'TOML'
[store]
type = "consul"
address = "https://127.0.0.1:8501"
ca_file = "/etc/weft/no-such-ca.pem"
TOML
    conf=$(jq '.cniVersion = "1.1.0"' <<<"$RED")
    run ! cni a STATUS '' '' "$conf"
    [[ $output == *no-such-ca.pem* ]]
    run cni a DEL leaver eth0 "$RED"
    rm "$(node_config a)"
    assert_equal "$status:$output" 0:
    run ! in_container a leaver ip link show eth0
    run -0 weftctl a network inspect red
    [[ $output != *leaver* ]]
}

@test "a route to a subnet that is written with a host in it is a route to the subnet" {
    local conf
    conf=$(jq '.ipam.routes = [{dst: "10.77.1.5/16"}, {dst: "0.0.0.0/0"}]' <<<"$RED")
    run add router "$conf"
    assert_json '.routes[0].dst' 10.77.0.0/16
    cni a CHECK router eth0 "$(with_prev_result a router eth0 "$conf")"
    run in_container a router ip route get 10.77.200.1
    [[ $output == *'via 10.9.0.1'* ]]
    # Nor does it matter how an earlier result had it.
    cni a CHECK router eth0 "$(with_prev_result a router eth0 "$conf" | jq '.prevResult.routes[0].dst = "10.77.1.5/16"')"
    cni a DEL router eth0 "$conf"
}

@test "a route in a container that has got a second way is there for CHECK" {
    add twoways
    in_container a twoways ip link add eth1 type bridge
    in_container a twoways ip address add 198.18.255.1/24 dev eth1
    in_container a twoways ip link set eth1 up
    in_container a twoways ip route replace default nexthop via 198.18.255.2 nexthop via 10.9.0.1
    cni a CHECK twoways eth0 "$(with_prev_result a twoways eth0 "$RED")"
    cni a DEL twoways eth0 "$RED"
}

@test "a host with a default route by several ways takes the first one's interface for the underlay" {
    local via
    via=$(underlay_address 1)
    in_host a ip link add eth1 type bridge
    in_host a ip address add 198.18.255.1/24 dev eth1
    in_host a ip link set eth1 up
    in_host a ip route replace default nexthop via "$via" dev eth0 nexthop via 198.18.255.2 dev eth1
    weftctl a network create ways --subnet 10.4.0.0/24 --vni 5004
    add ways1 "${RED/red/ways}"
    in_host a ip -d link show wx5004 | grep -q "local $(underlay_ip a) dev eth0"
    cni a DEL ways1 eth0 "${RED/red/ways}"
    weftctl a network remove ways
    in_host a ip route replace default via "$via"
    in_host a ip link delete eth1
}

@test "a process that holds the local store's file for ever does not hold up others for ever" {
    local lock=/var/lib/weft/store/store.lock conf
    conf=$(jq '.name = "late" | .ipam.subnet = "10.3.0.0/24"' <<<"$RED")
    add_container a waiter
    start_daemon a holder flock --no-fork "$lock" sleep 60
    eventually 5 in_host a sh -c "! flock --nonblock $lock true"
    run cni a ADD waiter eth0 "$conf"
    stop_daemon a holder
    assert_json .code 11
    [[ $(jq -r .msg <<<"$output") == *"lock $lock: another process has held it for over 10 s"* ]]
    cni a ADD waiter eth0 "$conf"
    cni a DEL waiter eth0 "$conf"
    weftctl a network remove late
}
