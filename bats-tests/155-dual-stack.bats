#!/usr/bin/env bats
# Two hosts, one Consul: a network of both families, one of IPv6 alone, and an internal one. Subnets of any size, and
# subnets that are added to a network in use.

load helpers

BOTH='{"cniVersion": "1.0.0", "name": "both", "type": "weft", "vni": 4201, "isGateway": true, "ipMasq": true,
    "ipam": {"type": "weft-ipam", "ranges": [[{"subnet": "10.9.0.0/16"}], [{"subnet": "fd00:9::/64"}]],
    "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}'
SIX='{"cniVersion": "1.0.0", "name": "six", "type": "weft", "vni": 4202, "isGateway": true, "ipMasq": true,
    "ipam": {"type": "weft-ipam", "subnet": "fd00:6::/64", "routes": [{"dst": "::/0"}]}}'
INNER='{"cniVersion": "1.0.0", "name": "inner", "type": "weft", "vni": 4203, "isGateway": false,
    "ipam": {"type": "weft-ipam", "ranges": [[{"subnet": "10.7.0.0/24"}], [{"subnet": "fd00:7::/64"}]]}}'

# "The internet" in IPv6, without a route to any overlay, and the underlay's own subnet.
OUTSIDE6=fd00:19::1
UNDERLAY6=fd00:18::

setup_file() {
    setup_underlay
    in_machine underlay ip address add "${UNDERLAY6}1/64" dev br0 nodad
    in_machine underlay ip address add "$OUTSIDE6/128" dev lo
    start_consul
    local host
    for host in a b; do
        add_host "$host"
        in_host "$host" ip address add "$(underlay_ip6 "$host")/64" dev eth0 nodad
        in_host "$host" ip route add default via "${UNDERLAY6}1"
        write_node_config "$host"
        start_weftd "$host"
        add "$host" both "$BOTH"
        add "$host" six "$SIX"
        add "$host" inner "$INNER"
    done
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

# underlay_ip6 HOST: prints the host's IPv6 address in the underlay.
underlay_ip6() {
    local ip
    ip=$(underlay_ip "$1")
    echo "$UNDERLAY6${ip##*.}"
}

# add HOST CONTAINER CONF: a new container on the network.
add() {
    add_container "$1" "$2"
    cni "$1" ADD "$2" eth0 "$3"
}

# ip6 HOST CONTAINER: prints the IPv6 address that ADD gave, without its prefix length.
ip6() {
    jq -r '[.ips[].address | select(contains(":"))][0] | sub("/.*"; "")' "$(cni_result_file "$1" "$2" eth0)"
}

# node_ip6 HOST BRIDGE GATEWAY: prints the IPv6 address that the host itself has in the network.
node_ip6() {
    in_host "$1" ip -j -6 address show dev "$2" scope global |
        jq -r --arg gateway "$3" '[.[].addr_info[].local | values | select(. != $gateway)][0]'
}

# host_number ADDRESS: prints the number of an address in fd00:9::/64 or 10.9.0.0/16.
host_number() {
    local bytes
    if [[ $1 == *:* ]]; then
        echo $((16#${1##*:}))
    else
        IFS=. read -ra bytes <<<"$1"
        echo $((bytes[2] * 256 + bytes[3]))
    fi
}

@test "a container has one number in both families, one MAC, a gateway and a route in each" {
    local host v4 v6 bytes
    for host in a b; do
        run cat "$(cni_result_file "$host" both eth0)"
        assert_json '[.ips[] | "\(.gateway) \(.interface)"] | join(", ")' '10.9.0.1 2, fd00:9::1 2'
        assert_json '[.routes[].dst] | join(" ")' '0.0.0.0/0 ::/0'
        v4=$(cni_ip "$host" both)
        v6=$(ip6 "$host" both)
        assert_equal "$(host_number "$v4")" "$(host_number "$v6")" "number of $v4, and of $v6"
        run in_container "$host" both ip -j address show eth0
        assert_json '.[0].addr_info | map(select(.scope == "global")) | map("\(.local)/\(.prefixlen)") | join(" ")' \
            "$v4/16 $v6/64"
        IFS=. read -ra bytes <<<"$v4"
        assert_json '.[0].address' "$(printf '02:42:%02x:%02x:%02x:%02x' "${bytes[@]}")"
        run in_container "$host" both ip -j route show default
        assert_json '.[0].gateway' 10.9.0.1
        run in_container "$host" both ip -j -6 route show default
        assert_json '.[0].gateway' fd00:9::1
    done
}

@test "containers reach each other across hosts, in both families" {
    local net
    for net in both six; do
        eventually 3 ping_from a "$net" "$(ip6 b "$net")"
        ping_from b "$net" "$(ip6 a "$net")"
    done
    ping_from a both "$(cni_ip b both)"
    ping_from b both "$(cni_ip a both)"
    run ! ping_from a both "$(ip6 b six)"
    run ! ping_from a six "$(ip6 a both)"
}

@test "hosts reach containers and containers hosts, here and there, in IPv6" {
    local from to
    for from in a b; do
        for to in a b; do
            ping_from "$from" - "$(ip6 "$to" both)"
            ping_from "$from" - "$(ip6 "$to" six)"
            ping_from "$from" both "$(node_ip6 "$to" wb4201 fd00:9::1)"
            ping_from "$from" six "$(node_ip6 "$to" wb4202 fd00:6::1)"
        done
    done
}

@test "a container reaches the outside by its host's address, in both families" {
    local host
    capture_start outside "dst host $WEFT_OUTSIDE_IP or dst host $OUTSIDE6"
    for host in a b; do
        ping_from "$host" both "$WEFT_OUTSIDE_IP"
        ping_from "$host" both "$OUTSIDE6"
        ping_from "$host" six "$OUTSIDE6"
    done
    capture_stop outside
    run capture_show outside
    for host in a b; do
        [[ $output == *"$(underlay_ip "$host") > $WEFT_OUTSIDE_IP"* ]]
        [[ $output == *"$(underlay_ip6 "$host") > $OUTSIDE6"* ]]
    done
    [[ $output != *"IP6 fd00:9::"* && $output != *"IP6 fd00:6::"* ]]
}

@test "every host is the IPv6 gateway of its containers, under one address and with a MAC of its own" {
    local host macs=()
    for host in a b; do
        run in_host "$host" ip -j -6 address show dev wb4201
        assert_json '[.[].addr_info[] | values | select(.prefixlen == 128 and .scope == "global") | .local] | join(" ")' \
            fd00:9::1
        assert_json '[.[].addr_info[] | values | select(.tentative or .dadfailed)] | length' 0
        capture_start "gateway-$host" 'udp port 4789'
        ping_from "$host" both fd00:9::1
        ping_from "$host" six fd00:6::1
        capture_stop "gateway-$host"
        assert_equal "$(capture_count "gateway-$host")" 0 "number of packets in the tunnel"
        macs+=("$(in_container "$host" both ip -j -6 neigh show fd00:9::1 | jq -r '.[0].lladdr')")
    done
    [[ ${macs[0]} != "${macs[1]}" && ${macs[0]} == 02:42:* ]]
}

@test "a packet of the MTU's size crosses unbroken in IPv6" {
    run in_container a both ip -j link show eth0
    assert_json '.[0].mtu' 1450
    # 1450 bytes less 40 of IPv6 and 8 of ICMPv6.
    capture_start fragments 'udp port 4789 and (ip[6:2] & 0x3fff != 0)'
    in_container a both busybox ping -6 -c 2 -W 2 -s 1402 "$(ip6 b both)"
    in_container a six busybox ping -6 -c 2 -W 2 -s 1402 "$(ip6 b six)"
    capture_stop fragments
    assert_equal "$(capture_count fragments)" 0 "number of fragments on the underlay"
}

@test "an IPv6 address is usable when ADD returns, and no host looks for it on the wire" {
    # Inside the tunnel: an IPv6 frame whose next header is ICMPv6 and whose type is a solicitation or an
    # advertisement of neighbours or routers (133 to 136). The inner frame begins 16 bytes into the UDP datagram.
    capture_start discovery \
        'udp port 4789 and udp[28:2] = 0x86dd and udp[36] = 58 and udp[70] >= 133 and udp[70] <= 136'
    local conf
    for conf in "$BOTH" "$SIX" "$INNER"; do
        add_container b late
        cni b ADD late eth0 "$conf"
        run in_container b late ip -6 address show dev eth0 scope global
        [[ $output == *fd00:* && $output != *tentative* ]]
        in_container b late busybox ping -c 1 -W 1 "$(ip6 a "$(jq -r .name <<<"$conf")")"
        ping_from a "$(jq -r .name <<<"$conf")" "$(ip6 b late)" 1
        cni b DEL late eth0 "$conf"
        remove_container b late
    done
    add b late "$BOTH"
    ping_from a - "$(ip6 b late)" 1
    cni b DEL late eth0 "$BOTH"
    remove_container b late
    # Unanswerable questions stay at home too.
    run ! ping_from a both fd00:9::dead
    run ! ping_from a - fd00:9::dead
    capture_stop discovery
    assert_equal "$(capture_show discovery)" '' "neighbour discovery in the tunnel"
}

@test "link-local traffic and multicast of containers and bridges stay on their host" {
    capture_start local 'udp port 4789'
    # The container itself answers, and its neighbours on this host.
    in_container a both busybox ping -6 -c 2 -W 1 'ff02::1%eth0'
    local link_local
    link_local=$(in_container b both ip -j -6 address show dev eth0 scope link | jq -r '.[].addr_info[]?.local // empty')
    [[ $link_local == fe80:* ]]
    run ! in_container a both busybox ping -6 -c 1 -W 1 "$link_local%eth0"
    add a quiet "$BOTH"
    # Long enough for what the kernel sends of its own when an interface comes up.
    sleep 2
    cni a DEL quiet eth0 "$BOTH"
    remove_container a quiet
    capture_stop local
    assert_equal "$(capture_show local)" '' "packets in the tunnel"
    run in_host a ip -j -6 address show scope link
    assert_json '[.[] | select(.ifname | values | test("^w[bxv]")) | .ifname] | join(" ")' ''
}

@test "an internal network of both families connects its containers and nothing else" {
    eventually 3 ping_from a inner "$(ip6 b inner)"
    ping_from b inner "$(cni_ip a inner)"
    run ! ping_from a - "$(ip6 a inner)"
    run ! ping_from a inner "$OUTSIDE6"
    run in_container a inner ip -6 route show default
    assert_equal "$output" ''
}

@test "DEL frees both addresses at once, and an address asked for is had in both families" {
    local v4 v6
    add a freed "$BOTH"
    v4=$(cni_ip a freed)
    v6=$(ip6 a freed)
    cni a DEL freed eth0 "$BOTH"
    run ! in_container a freed ip link show eth0
    run ! ping_from a - "$v6"
    run -0 weftctl a network inspect both
    [[ $output != *freed* && $output != *"$v4"* ]]
    run cni a ADD freed eth0 "$(jq --arg ip "$v6" '.runtimeConfig.ips = [$ip]' <<<"$BOTH")"
    assert_json '[.ips[].address] | join(" ")' "$v4/16 $v6/64"
    cni a DEL freed eth0 "$BOTH"
}

@test "a container gets both addresses or neither" {
    # The IPv4 half of the pair has room for one, the IPv6 half for many.
    local conf='{"cniVersion": "1.0.0", "name": "tiny", "type": "weft-ipam", "ipam": {"type": "weft-ipam",
        "ranges": [[{"subnet": "10.5.0.0/30"}], [{"subnet": "fd00:5::/64"}]]}}'
    run cni a ADD tiny1 eth0 "$conf"
    assert_json '[.ips[].address] | join(" ")' '10.5.0.2/30 fd00:5::2/64'
    run cni a ADD tiny2 eth0 "$conf"
    assert_json .code 11
    cni a DEL tiny1 eth0 "$conf"
    run cni a ADD tiny2 eth0 "$conf"
    assert_json '[.ips[].address] | join(" ")' '10.5.0.2/30 fd00:5::2/64'
    cni a DEL tiny2 eth0 "$conf"
    weftctl a network remove tiny
}

# sizes SUBNET BITS: a network of that subnet gives an address, out of a block of 2^BITS addresses.
sizes() {
    local conf='{"cniVersion": "1.0.0", "name": "sized", "type": "weft-ipam"}'
    weftctl a network create sized --subnet "$1"
    run cni a ADD sized eth0 "$conf"
    assert_json '.ips[0].address | sub(".*/"; "/")' "/${1#*/}" || return 1
    run weftctl a network inspect sized
    # An agent may have claimed another one ahead.
    assert_json '[.blocks[].block | split("-")[2]] | unique | join(" ")' "$2" || return 1
    cni a DEL sized eth0 "$conf"
    weftctl a network remove sized
}

@test "subnets from /30 to /8 and IPv6 subnets from /126 to /48 work, with blocks that suit their size" {
    sizes 10.64.0.0/30 0
    sizes 10.64.0.0/29 0
    sizes 10.64.0.0/28 0
    sizes 10.64.0.0/26 2
    sizes 10.64.0.0/24 4
    sizes 10.64.0.0/22 6
    sizes 10.64.0.0/12 6
    sizes 44.0.0.0/8 6
    sizes fd00:64::/126 0
    sizes fd00:64::/120 4
    sizes fd00:64::/112 6
    sizes fd00:64::/64 6
    sizes fd00:64::/48 6
}

@test "a network that is full is extended: its containers stay, and new ones get addresses of the new pool" {
    local conf='{"cniVersion": "1.0.0", "name": "grown", "type": "weft", "vni": 4204, "isGateway": true,
        "ipMasq": true, "ipam": {"type": "weft-ipam", "ranges": [[{"subnet": "10.6.0.0/29"}],
        [{"subnet": "fd00:66::/64"}]], "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]}}'
    local host name
    # Six hosts' numbers: the gateway, the two nodes, and three containers.
    add a g1 "$conf"
    add b g2 "$conf"
    add a g3 "$conf"
    add_container a g4
    run cni a ADD g4 eth0 "$conf"
    assert_json .code 11

    run weftctl a network extend grown --subnet 10.6.1.0/24 --subnet fd00:67::/64 --gateway 10.6.1.254
    assert_equal "$output" 'network grown has subnets 10.6.0.0/29, fd00:66::/64, 10.6.1.0/24, fd00:67::/64'
    # Again as it is: no change.
    weftctl b network extend grown --subnet 10.6.1.0/24 --subnet fd00:67::/64 --gateway 10.6.1.254
    run weftctl b network inspect grown
    assert_json '.pools | length' 2

    # The agents put the new gateway, routes and rules on their hosts.
    for host in a b; do
        eventually 5 gateway_present "$host" wb4204 10.6.1.254
        eventually 5 gateway_present "$host" wb4204 fd00:67::1
        run in_host "$host" ip route show dev wb4204
        [[ $output == *'10.6.1.0/24'* ]]
        run in_host "$host" ip -6 route show dev wb4204
        [[ $output == *'fd00:67::/64'* ]]
        eventually 5 rules_name "$host" 'ip saddr 10.6.1.0/24'
        eventually 5 rules_name "$host" 'ip6 saddr fd00:67::/64'
    done

    # The configuration names the first pair only, and still agrees.
    run cni a ADD g4 eth0 "$conf"
    assert_json '[.ips[] | (.address | sub("[0-9a-f]+/"; "*/")), .gateway] | join(" ")' \
        '10.6.1.*/24 10.6.1.254 fd00:67::*/64 fd00:67::1'
    add b g5 "$conf"
    [[ $(cni_ip b g5) == 10.6.1.* ]]
    eventually 3 ping_from a g4 "$(cni_ip b g5)"
    ping_from b g5 "$(ip6 a g4)"
    for name in g4 g3 g1; do
        ping_from a - "$(cni_ip a "$name")"
        ping_from a - "$(ip6 a "$name")"
        ping_from b - "$(cni_ip a "$name")"
        ping_from b - "$(ip6 a "$name")"
        ping_from a "$name" "$WEFT_OUTSIDE_IP"
        ping_from a "$name" "$OUTSIDE6"
    done
    # From pool to pool, on one host and across, by way of the gateway.
    ping_from a g1 "$(cni_ip a g4)"
    ping_from a g4 "$(ip6 a g3)"
    ping_from b g2 "$(cni_ip a g4)"
    ping_from b g2 "$(ip6 a g4)"
    ping_from b g5 "$(cni_ip a g1)"
    ping_from b g5 "$(ip6 a g1)"
    cni a CHECK g1 eth0 "$(with_prev_result a g1 eth0 "$conf")"
    cni a CHECK g4 eth0 "$(with_prev_result a g4 eth0 "$conf")"
    for name in g1 g3 g4; do
        cni a DEL "$name" eth0 "$conf"
    done
    cni b DEL g2 eth0 "$conf"
    cni b DEL g5 eth0 "$conf"
    weftctl a network remove grown --force
}

# gateway_present HOST BRIDGE ADDRESS: succeeds if the bridge has it.
gateway_present() {
    in_host "$1" ip -o address show dev "$2" | grep -qF " $3/"
}

# rules_name HOST TEXT: succeeds if the firewall rules hold it.
rules_name() {
    in_host "$1" nft list table inet weft | grep -qF "$2"
}

@test "without an agent a host learns of the new pool when its first one is full, or when an address of it is asked for" {
    local conf='{"cniVersion": "1.0.0", "name": "lone", "type": "weft", "vni": 4205, "isGateway": true, "ipMasq": true,
        "ipam": {"type": "weft-ipam", "subnet": "10.6.0.0/29", "routes": [{"dst": "0.0.0.0/0"}]}}'
    local name
    stop_weftd b
    for name in l1 l2 l3 l4; do
        add b "$name" "$conf"
    done
    weftctl a network extend lone --subnet 10.6.1.0/24
    add_container b l5
    run cni b ADD l5 eth0 "$conf"
    assert_json '.ips | length' 1
    assert_json '.ips[0] | "\(.address | sub("[0-9]+/"; "*/")) \(.gateway)"' '10.6.1.*/24 10.6.1.1'
    ping_from b l5 "$WEFT_OUTSIDE_IP"
    ping_from b - "$(cni_ip b l5)"
    ping_from b l1 "$(cni_ip b l5)"

    weftctl a network extend lone --subnet 10.6.2.0/24
    add b l6 "$(jq '.args.cni.ips = ["10.6.2.77"]' <<<"$conf")"
    assert_equal "$(cni_ip b l6)" 10.6.2.77
    ping_from b l6 "$WEFT_OUTSIDE_IP"
    ping_from b l1 10.6.2.77
    for name in l1 l2 l3 l4 l5 l6; do
        cni b DEL "$name" eth0 "$conf"
        remove_container b "$name"
    done
    start_weftd b
    weftctl b network remove lone --force
}

@test "an extension that cannot be is refused, and changes nothing" {
    # refuse WORDS ARGS...: of an extension of both.
    refuse() {
        local words=$1
        shift
        run weftctl a network extend "$@"
        [[ $status != 0 && $output == *"$words"* ]] || fail "$*:" "$output"
    }
    refuse 'network none does not exist' none --subnet 10.5.0.0/24
    refuse 'subnet 10.5.0.0/24: a new pool needs the same families as the first one' both --subnet 10.5.0.0/24
    refuse 'subnet 10.9.1.0/24: overlaps 10.9.0.0/16 of the same network' \
        both --subnet 10.9.1.0/24 --subnet fd00:5::/64
    refuse 'subnet fd00:6::/48: overlaps fd00:6::/64 of network six' both --subnet 10.5.0.0/24 --subnet fd00:6::/48
    refuse '10.7.0.1 lies outside of every subnet' both --subnet 10.5.0.0/24 --subnet fd00:5::/64 --gateway 10.7.0.1
    refuse 'gateway 10.5.0.0: this is the network' \
        both --subnet 10.5.0.0/24 --subnet fd00:5::/64 --gateway 10.5.0.0
    refuse 'blockBits 9' both --subnet 10.5.0.0/24 --subnet fd00:5::/64 --block-bits 9
    refuse --subnet both
    run weftctl a network inspect both
    assert_json '.pools | length' 1
}

@test "networks that are made and extended at once do not overlap" {
    local i pids=() failed=0
    weftctl a network create left --subnet 10.5.0.0/24
    weftctl a network create right --subnet 10.5.1.0/24
    for i in left right left right; do
        weftctl a network extend "$i" --subnet 10.5.2.0/24 >/dev/null 2>&1 &
        pids+=($!)
        weftctl b network create "new-$i" --subnet 10.5.2.0/25 >/dev/null 2>&1 &
        pids+=($!)
    done
    for i in "${pids[@]}"; do
        wait "$i" || failed=$((failed + 1))
    done
    run weftctl a network list --output json
    assert_json '[.[].pools[].ipv4.subnet | values | select(startswith("10.5.2."))] | length' 1
    for i in left right new-left new-right; do
        weftctl a network remove "$i" || true
    done
}

@test "containers that start while their network is extended all get addresses" {
    # Blocks of one address: every ADD claims one, and so meets an extension.
    local conf='{"cniVersion": "1.0.0", "name": "busy", "type": "weft-ipam"}' i host pids=()
    weftctl a network create busy --subnet 10.5.0.0/28
    for i in {1..8}; do
        host=$([[ $((i % 2)) == 0 ]] && echo a || echo b)
        cni "$host" ADD "busy$i" eth0 "$conf" >/dev/null &
        pids+=($!)
        [[ $((i % 2)) == 0 ]] || weftctl a network extend busy --subnet "10.5.$i.0/28" >/dev/null
    done
    for i in "${pids[@]}"; do
        wait "$i"
    done
    run jq -n '[inputs.ips[0].address] | unique | length' "$WEFT_TEST_DIR"/machines/[ab]/result.busy*
    assert_equal "$output" 8 "number of different addresses"
    run weftctl b network inspect busy
    assert_json '.pools | length' 5
    for i in {1..8}; do
        host=$([[ $((i % 2)) == 0 ]] && echo a || echo b)
        cni "$host" DEL "busy$i" eth0 "$conf"
    done
    weftctl a network remove busy --force
}
