#!/usr/bin/env bats
# Three hosts, one Consul, two networks: who reaches whom, with which addresses and packet sizes.

load helpers

RED='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "vni": 4101, "isGateway": true, "ipMasq": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]}}'
BLUE='{"cniVersion": "1.0.0", "name": "blue", "type": "weft", "vni": 4102, "isGateway": true, "ipMasq": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.8.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}'

setup_file() {
    setup_underlay
    start_consul
    local host
    for host in a b c; do
        add_host "$host"
        write_node_config "$host"
        start_weftd "$host"
        add_container "$host" red
        add_container "$host" blue
        cni "$host" ADD red eth0 "$RED"
        cni "$host" ADD blue eth0 "$BLUE"
    done
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

# node_address HOST BRIDGE: the address that the host itself has in the network.
node_address() {
    in_host "$1" ip -j -4 address show dev "$2" |
        jq -r '[.[].addr_info[] | select(.local | endswith(".0.1") | not)][0].local'
}

# mac_of IP: the MAC that weft derives from an address.
mac_of() {
    local bytes
    IFS=. read -ra bytes <<<"$1"
    printf '02:42:%02x:%02x:%02x:%02x' "${bytes[@]}"
}

@test "every container reaches every container of its network, on all hosts" {
    local from to net
    for net in red blue; do
        for from in a b c; do
            for to in a b c; do
                eventually 3 ping_from "$from" "$net" "$(cni_ip "$to" "$net")"
            done
        done
    done
}

@test "no container reaches the other network" {
    local from to
    for from in a b c; do
        for to in a b c; do
            run ! ping_from "$from" red "$(cni_ip "$to" blue)"
        done
    done
}

@test "every host reaches every container, and containers reach every host" {
    local from to net
    for net in red blue; do
        for from in a b c; do
            for to in a b c; do
                ping_from "$from" - "$(cni_ip "$to" "$net")"
            done
        done
    done
    for from in a b c; do
        for to in a b c; do
            ping_from "$from" red "$(node_address "$to" wb4101)"
        done
    done
}

@test "a container reaches an address outside of the overlay" {
    ping_from a red "$WEFT_OUTSIDE_IP"
    ping_from b blue "$WEFT_OUTSIDE_IP"
}

@test "addresses come from blocks that each have one owner, and MACs from addresses" {
    local host ip
    run weftctl a block list --network red --output json
    assert_json 'length' 3
    assert_json '[.[].node] | sort | join(" ")' "a b c"
    assert_json '[.[].block] | unique | length' 3
    for host in a b c; do
        ip=$(cni_ip "$host" red)
        run in_container "$host" red ip -j address show eth0
        assert_json '.[0].addr_info | map(select(.family == "inet"))[0] | "\(.local)/\(.prefixlen)"' "$ip/16"
        assert_json '.[0].address' "$(mac_of "$ip")"
    done
    run in_host a ip -j address show dev wb4101
    assert_json '[.[0].addr_info[] | select(.prefixlen == 32) | .local] | join(" ")' 10.9.0.1
    assert_json '.[0].address' "$(mac_of "$(node_address a wb4101)")"
}

@test "the MTU is the underlay's less 50 everywhere, and a packet of that size crosses unbroken" {
    local host
    for host in a b c; do
        run in_host "$host" ip -j link show
        assert_json '[.[] | select(.ifname | test("^w[bxv]")) | .mtu] | unique | join(" ")' 1450
        run in_container "$host" red ip -j link show eth0
        assert_json '.[0].mtu' 1450
    done
    # 1450 bytes less 20 of IPv4 and 8 of ICMP. iputils' -M do is not in busybox; the kernel's route does it.
    in_container a red ip route add "$(cni_ip b red)" dev eth0 mtu lock 1450
    in_container a red busybox ping -c 2 -W 2 -s 1422 "$(cni_ip b red)"
    capture_start fragments 'udp port 4789 and (ip[6:2] & 0x3fff != 0)'
    in_container a red busybox ping -c 2 -W 2 -s 1422 "$(cni_ip b red)"
    capture_stop fragments
    assert_equal "$(capture_count fragments)" 0 "number of fragments on the underlay"
}

@test "no host asks for an address on the wire, and the first ping after ADD is answered" {
    # The inner frame begins 16 bytes into the UDP datagram; its type stands 12 bytes further on.
    capture_start arp 'udp port 4789 and udp[28:2] = 0x0806'
    add_container b late
    cni b ADD late eth0 "$RED"
    local ip
    ip=$(cni_ip b late)
    ping_from a red "$ip" 1
    ping_from c - "$ip" 1
    add_container c later
    cni c ADD later eth0 "$RED"
    ping_from c later "$ip" 1
    ping_from c later "$(cni_ip a red)" 1
    capture_stop arp
    assert_equal "$(capture_count arp)" 0 "number of ARP packets in the tunnel"
    cni b DEL late eth0 "$RED"
    cni c DEL later eth0 "$RED"
}

@test "an address that nobody has is not asked for on the wire either" {
    capture_start unknown 'udp port 4789'
    run ! ping_from a red 10.9.200.200
    run ! ping_from a - 10.9.200.200
    capture_stop unknown
    assert_equal "$(capture_count unknown)" 0 "number of packets in the tunnel"
}

@test "DEL frees the address, removes the interface, and may be repeated" {
    add_container a gone
    cni a ADD gone eth0 "$RED"
    local ip before
    ip=$(cni_ip a gone)
    before=$(in_host a ls /run/weft/networks/red/reservations)
    [[ $before == *gone@eth0* ]]
    cni a DEL gone eth0 "$RED"
    run -0 in_host a ls /run/weft/networks/red/reservations
    [[ $output != *gone@eth0* ]]
    run ! in_container a gone ip link show eth0
    run ! ping_from a - "$ip"
    cni a DEL gone eth0 "$RED"
    CNI_NETNS='' cni a DEL gone eth0 "$RED"
    CNI_NETNS='' cni a DEL never-added eth0 "$RED"
}

@test "CHECK agrees right after ADD, and names what has changed" {
    add_container a checked
    cni a ADD checked eth0 "$RED"
    local conf
    conf=$(with_prev_result a checked eth0 "$RED")
    cni a CHECK checked eth0 "$conf"
    in_container a checked ip address flush dev eth0
    run ! cni a CHECK checked eth0 "$conf"
    assert_json '.msg | test("eth0")' true
    cni a DEL checked eth0 "$RED"
    run ! cni a CHECK checked eth0 "$conf"
}

@test "a host whose network namespace had a container killed can have its address back by DEL" {
    add_container a crashed
    cni a ADD crashed eth0 "$RED"
    remove_container a crashed
    cni a DEL crashed eth0 "$RED"
    run -0 in_host a ls /run/weft/networks/red/reservations
    [[ $output != *crashed@eth0* ]]
}
