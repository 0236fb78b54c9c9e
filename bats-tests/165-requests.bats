#!/usr/bin/env bats
# What callers ask for: addresses and MACs, in all the places where runtimes put them; ranges and exclusions; and
# what is said of a configuration that cannot be. One host, the local store.

load helpers

# Two families, so that every request can be for one or both.
BOTH='{"cniVersion": "1.0.0", "name": "both", "type": "weft", "capabilities": {"ips": true, "mac": true},
    "isGateway": true, "ipMasq": true, "ipam": {"type": "weft-ipam",
    "ranges": [[{"subnet": "10.9.0.0/16"}], [{"subnet": "fd00:9::/64"}]], "exclude": ["10.9.3.0/24", "fd00:9::404"]}}'

setup_file() {
    setup_underlay
    add_host a
    add_container a c
}

teardown() {
    cni a DEL c eth0 "$BOTH"
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

# with JQ: prints BOTH changed by that.
with() {
    jq "$1" <<<"$BOTH"
}

# gets ADDRESSES [JQ]: an ADD gives exactly these, separated by a blank; CNI_ARGS may be set by the caller.
gets() {
    local expected=$1
    run cni a ADD c eth0 "$(with "${2:-.}")"
    assert_json '[.ips[].address] | join(" ")' "$expected" || return 1
    run in_container a c ip -j address show dev eth0
    assert_json '[.[0].addr_info[] | select(.scope == "global") | "\(.local)/\(.prefixlen)"] | join(" ")' \
        "$expected" || return 1
    cni a DEL c eth0 "$BOTH"
}

# refuses CODE WORDS [JQ]: an ADD fails with that code and a message that holds these words, and leaves nothing.
refuses() {
    run cni a ADD c eth0 "$(with "${3:-.}")"
    [[ $status != 0 ]] || fail "${3:-} ${CNI_ARGS-}: went through:" "$output" || return 1
    assert_json .code "$1" || return 1
    [[ $(jq -r .msg <<<"$output") == *"$2"* ]] || fail "${3:-} ${CNI_ARGS-}:" "$output" || return 1
    run ! in_container a c ip link show eth0
}

# invalid WORDS IPAM-JSON [TOP-JSON]: a network with that ipam section is refused with code 7 and a message that begins
# with these words, by weft and by weft-ipam, and is not made.
invalid() {
    local words=$1 plugin conf
    for plugin in weft weft-ipam; do
        conf=$(jq --null-input --arg plugin "$plugin" --argjson ipam "$2" --argjson top "${3:-null}" \
            '{cniVersion: "1.0.0", name: "bad", type: $plugin, ipam: ({type: "weft-ipam"} + $ipam)} + $top')
        run cni a ADD c eth0 "$conf"
        [[ $status != 0 ]] || fail "$conf went through" || return 1
        assert_json .code 7 || return 1
        [[ $(jq -r .msg <<<"$output") == "$words"* ]] || fail "$conf:" "$output" || return 1
    done
    run ! weftctl a network inspect bad
}

@test "an address is asked for by runtimeConfig.ips, bare or with a prefix length, of one family or both" {
    local want='10.9.1.5/16 fd00:9::105/64'
    gets "$want" '.runtimeConfig.ips = ["10.9.1.5"]'
    gets "$want" '.runtimeConfig.ips = ["10.9.1.5/16"]'
    gets "$want" '.runtimeConfig.ips = ["fd00:9::105"]'
    gets "$want" '.runtimeConfig.ips = ["fd00:9::105/64", "10.9.1.5/16"]'
    gets "$want" '.runtimeConfig.ips = ["10.9.1.5", "fd00:9:0::0105"]'
    # Some runtimes write keys in another case.
    gets "$want" '.runtimeConfig.IPs = ["10.9.1.5"]'
}

@test "an address is asked for by args.cni.ips, and by IP in CNI_ARGS, alone or as a list" {
    local want='10.9.1.6/16 fd00:9::106/64'
    gets "$want" '.args.cni.ips = ["10.9.1.6"]'
    gets "$want" '.args.cni.ips = ["10.9.1.6/16", "fd00:9::106/64"]'
    CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAME=web;IP=10.9.1.6' gets "$want"
    CNI_ARGS='IP=10.9.1.6/16;IgnoreUnknown=1' gets "$want"
    CNI_ARGS='IP=10.9.1.6,fd00:9::106' gets "$want"
    CNI_ARGS='IP=10.9.1.6/16, fd00:9::106/64;GATEWAY=10.9.0.1' gets "$want"
    # By flag for one family, by capability for the other.
    CNI_ARGS='IP=10.9.1.6;IgnoreUnknown=1' gets "$want" '.runtimeConfig.ips = ["fd00:9::106"]'
}

@test "of several requests the runtime's comes first, then the configuration's, then the environment's" {
    CNI_ARGS='IP=10.9.1.9' gets '10.9.1.7/16 fd00:9::107/64' \
        '.runtimeConfig.ips = ["10.9.1.7"] | .args.cni.ips = ["10.9.1.8"]'
    CNI_ARGS='IP=10.9.1.9' gets '10.9.1.8/16 fd00:9::108/64' '.runtimeConfig.ips = [] | .args.cni.ips = ["10.9.1.8"]'
    CNI_ARGS='IP=10.9.1.9' gets '10.9.1.9/16 fd00:9::109/64' '.runtimeConfig = null | .args.cni.ips = null'
}

@test "addresses of other networks are ignored where one of this network is among them" {
    gets '10.9.1.7/16 fd00:9::107/64' '.runtimeConfig.ips = ["192.168.0.7", "10.9.1.7", "fd00:8::1"]'
    refuses 7 'requested address 192.168.0.7' '.runtimeConfig.ips = ["192.168.0.7"]'
}

@test "an address that another container holds is refused with its holder's name, to be tried again" {
    add_container a first
    cni a ADD first eth0 "$(with '.runtimeConfig.ips = ["10.9.1.10"]')"
    refuses 11 'held by first/eth0' '.runtimeConfig.ips = ["10.9.1.10"]'
    refuses 11 'held by first/eth0' '.runtimeConfig.ips = ["fd00:9::10a"]'
    CNI_ARGS=IP=10.9.1.10 refuses 11 10.9.1.10
    ping_from a - 10.9.1.10
    cni a DEL first eth0 "$BOTH"
    gets '10.9.1.10/16 fd00:9::10a/64' '.runtimeConfig.ips = ["10.9.1.10"]'
}

@test "an address that is never handed out is refused for good, and so is one that is none" {
    local ip
    for ip in 10.9.0.0 10.9.0.1 10.9.255.255 10.9.3.7 10.9.4.4 fd00:9:: fd00:9::1 fd00:9::307 fd00:9::404; do
        refuses 7 "$ip" ".runtimeConfig.ips = [\"$ip\"]"
    done
    # Past the IPv4 half of the pair.
    refuses 7 fd00:9::1:0 '.runtimeConfig.ips = ["fd00:9::1:0"]'
    refuses 7 'do not go together' '.runtimeConfig.ips = ["10.9.1.5", "fd00:9::106"]'
    refuses 7 'do not go together' '.runtimeConfig.ips = ["10.9.1.5", "10.9.1.6"]'
    refuses 7 'runtimeConfig.ips "10.9.1.5"' '.runtimeConfig.ips = "10.9.1.5"'
    refuses 7 'args.cni.ips [5]' '.args.cni.ips = [5]'
}

@test "a prefix length that is asked for with an address does not count: the network's does" {
    gets '10.9.1.5/16 fd00:9::105/64' '.runtimeConfig.ips = ["10.9.1.5/24"]'
    CNI_ARGS=IP=fd00:9::105/128 gets '10.9.1.5/16 fd00:9::105/64'
}

@test "a MAC is asked for in the same three places, in the same order, and the container has it" {
    local want
    # mac MAC [JQ]: the result and the interface have it, and the container is reached.
    mac() {
        run cni a ADD c eth0 "$(with "${2:-.}")"
        assert_json '.interfaces[2].mac' "$1" || return 1
        run in_container a c ip -j link show eth0
        assert_json '.[0].address' "$1" || return 1
        ping_from a - "$(cni_ip a c)" || return 1
        cni a DEL c eth0 "$BOTH"
    }
    want=c2:b0:57:49:47:f1
    mac $want ".runtimeConfig.mac = \"$want\""
    mac $want ".args.cni.mac = \"$want\""
    CNI_ARGS="IgnoreUnknown=1;MAC=$want" mac $want
    CNI_ARGS=MAC=C2:B0:57:49:47:F1 mac $want
    CNI_ARGS=MAC=c2:b0:57:49:47:f3 mac $want ".runtimeConfig.mac = \"$want\" | .args.cni.mac = \"c2:b0:57:49:47:f2\""
    CNI_ARGS=MAC=c2:b0:57:49:47:f3 mac c2:b0:57:49:47:f2 '.args.cni.mac = "c2:b0:57:49:47:f2"'
    CNI_ARGS="MAC=$want;IP=10.9.1.5" mac $want
    refuses 4 'mac c2:b0' '.runtimeConfig.mac = "c2:b0"'
    refuses 4 '01:00:5e:00:00:01' '.runtimeConfig.mac = "01:00:5e:00:00:01"'
    CNI_ARGS=MAC=00:00:00:00:00:00 refuses 4 00:00:00:00:00:00
}

@test "rangeStart and rangeEnd bound what is given, and an address outside of them is refused" {
    local conf='{"cniVersion": "1.0.0", "name": "ranged", "type": "weft-ipam", "ipam": {"type": "weft-ipam",
        "subnet": "10.8.0.0/24", "rangeStart": "10.8.0.100", "rangeEnd": "10.8.0.103", "exclude": ["10.8.0.101"]}}'
    local i given=()
    for i in 1 2 3; do
        run cni a ADD "r$i" eth0 "$conf"
        given+=("$(jq -r '.ips[0].address' <<<"$output")")
    done
    assert_equal "$(printf '%s\n' "${given[@]}" | sort | xargs)" '10.8.0.100/24 10.8.0.102/24 10.8.0.103/24'
    run cni a ADD r4 eth0 "$conf"
    assert_json .code 11
    for i in 10.8.0.99 10.8.0.104 10.8.0.101; do
        run cni a ADD r4 eth0 "$(jq --arg ip "$i" '.args.cni.ips = [$ip]' <<<"$conf")"
        assert_json '"\(.code) \(.msg | contains("'"$i"'"))"' '7 true'
    done
    for i in 1 2 3; do
        cni a DEL "r$i" eth0 "$conf"
    done
    weftctl a network remove ranged
}

@test "several ranges are used one after the other, and an address may be asked for in any of them" {
    local conf='{"cniVersion": "1.0.0", "name": "several", "type": "weft-ipam", "ipam": {"type": "weft-ipam",
        "ranges": [[{"subnet": "10.8.0.0/30"}, {"subnet": "10.8.1.0/29", "gateway": "10.8.1.6"}]],
        "exclude": ["10.8.1.4/31"]}}'
    local i given=()
    run cni a ADD s5 eth0 "$(jq '.args.cni.ips = ["10.8.1.3"]' <<<"$conf")"
    assert_json '.ips[0] | "\(.address) \(.gateway)"' '10.8.1.3/29 10.8.1.6'
    for i in 1 2 3; do
        run cni a ADD "s$i" eth0 "$conf"
        given+=("$(jq -r '.ips[0] | "\(.address)-\(.gateway)"' <<<"$output")")
    done
    assert_equal "${given[*]}" '10.8.0.2/30-10.8.0.1 10.8.1.1/29-10.8.1.6 10.8.1.2/29-10.8.1.6'
    run cni a ADD s4 eth0 "$conf"
    assert_json .code 11
    for i in 1 2 3 5; do
        cni a DEL "s$i" eth0 "$conf"
    done
    weftctl a network remove several
}

@test "containers of several ranges reach each other, their host and the outside" {
    local conf='{"cniVersion": "1.0.0", "name": "pools", "type": "weft", "isGateway": true, "ipMasq": true, "ipam":
        {"type": "weft-ipam", "ranges": [[{"subnet": "10.8.0.0/29"}, {"subnet": "10.8.1.0/24"}]],
        "routes": [{"dst": "0.0.0.0/0"}]}}'
    add_container a p1
    add_container a p2
    cni a ADD p1 eth0 "$(jq '.args.cni.ips = ["10.8.0.4"]' <<<"$conf")"
    cni a ADD p2 eth0 "$(jq '.args.cni.ips = ["10.8.1.4"]' <<<"$conf")"
    ping_from a - 10.8.0.4
    ping_from a - 10.8.1.4
    ping_from a p1 "$WEFT_OUTSIDE_IP"
    ping_from a p2 "$WEFT_OUTSIDE_IP"
    ping_from a p2 10.8.1.1
    ping_from a p1 10.8.1.4 3
    ping_from a p2 10.8.0.4 3
    cni a DEL p1 eth0 "$conf"
    cni a DEL p2 eth0 "$conf"
    weftctl a network remove pools
}

@test "a pool that cannot be is refused, by key and value" {
    invalid 'subnet 10.9.128.0/17: overlaps 10.9.0.0/16 of network both' '{"subnet": "10.9.128.0/17"}'
    invalid 'subnet fd00:9::/48: overlaps fd00:9::/64 of network both' '{"subnet": "fd00:9::/48"}'
    invalid 'subnet 10.8.0.128/25: overlaps 10.8.0.0/24 of the same network' \
        '{"ranges": [[{"subnet": "10.8.0.0/24"}, {"subnet": "10.8.0.128/25"}]]}'
    invalid 'subnet 10.8.0.0: the prefix length is missing' '{"subnet": "10.8.0.0"}'
    invalid 'subnet 10.8.0.1/24: host bits are set' '{"subnet": "10.8.0.1/24"}'
    invalid 'subnet 10.8.0.0/31: too small' '{"subnet": "10.8.0.0/31"}'
    invalid 'subnet fd00:8::/127: too small' '{"subnet": "fd00:8::/127"}'
    invalid 'subnet 7: ' '{"subnet": 7}'
    invalid 'gateway 10.7.0.1: the address lies outside its subnet' '{"subnet": "10.8.0.0/24", "gateway": "10.7.0.1"}'
    invalid 'gateway fd00::1: ' '{"subnet": "10.8.0.0/24", "gateway": "fd00::1"}'
    invalid 'gateway 10.8.0.0: this is the network' '{"subnet": "10.8.0.0/24", "gateway": "10.8.0.0"}'
    invalid 'gateway 10.8.0.255: this is the network or broadcast' '{"subnet": "10.8.0.0/24", "gateway": "10.8.0.255"}'
    invalid 'rangeStart 10.7.0.9: the address lies outside' '{"subnet": "10.8.0.0/24", "rangeStart": "10.7.0.9"}'
    invalid 'rangeEnd 10.8.1.0: the address lies outside' '{"subnet": "10.8.0.0/24", "rangeEnd": "10.8.1.0"}'
    invalid 'rangeStart 10.8.0.9: the range is empty' \
        '{"subnet": "10.8.0.0/24", "rangeStart": "10.8.0.9", "rangeEnd": "10.8.0.8"}'
    invalid 'rangeEnd x: this is not an IP address' '{"subnet": "10.8.0.0/24", "rangeEnd": "x"}'
    invalid 'exclude 10.7.0.0/24: it lies outside' '{"subnet": "10.8.0.0/24", "exclude": ["10.7.0.0/24"]}'
    invalid 'exclude x: expected an address or a subnet' '{"subnet": "10.8.0.0/24", "exclude": ["x"]}'
    invalid 'blockBits 9: a block cannot be larger than its pool' '{"subnet": "10.8.0.0/24", "blockBits": 9}'
    invalid 'blockBits 17: a block holds at most' '{"subnet": "10.0.0.0/8", "blockBits": 17}'
    invalid 'blockBits -1: ' '{"subnet": "10.8.0.0/24", "blockBits": -1}'
    invalid 'ranges ' '{"ranges": [[{"subnet": "10.8.0.0/24"}], [{"subnet": "10.7.0.0/24"}]]}'
    # Internal networks are not routed, so two of them may use one subnet.
    local conf='{"cniVersion": "1.0.0", "name": "inner", "type": "weft", "isGateway": false,
        "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/16"}}'
    cni a ADD c eth0 "$conf"
    cni a DEL c eth0 "$conf"
    weftctl a network remove inner
}

@test "a pool that has nothing to hand out is refused when it is made" {
    invalid 'rangeStart 10.8.0.1: ' '{"subnet": "10.8.0.0/24", "rangeStart": "10.8.0.1", "rangeEnd": "10.8.0.1"}'
    invalid 'rangeEnd 10.8.0.0: ' '{"subnet": "10.8.0.0/24", "rangeEnd": "10.8.0.0"}'
    invalid 'exclude ' '{"subnet": "10.8.0.0/24", "exclude": ["10.8.0.0/24"]}'
}

@test "ipRanges of the runtime stand in for the configuration's ranges: what they say must be the network's" {
    gets '10.9.1.5/16 fd00:9::105/64' '.runtimeConfig = {ips: ["10.9.1.5"], ipRanges:
        [[{"subnet": "10.9.0.0/16", "gateway": "10.9.0.1"}], [{"subnet": "fd00:9::/64"}]]}'
    # For one family, the other one is the configuration's. Some runtimes leave the inner lists out.
    gets '10.9.1.5/16 fd00:9::105/64' \
        '.runtimeConfig = {ips: ["10.9.1.5"], ipRanges: [[{"subnet": "fd00:9::/64"}]]}'
    gets '10.9.1.5/16 fd00:9::105/64' \
        '.runtimeConfig = {IPs: ["10.9.1.5"], IPRanges: [{"Subnet": "10.9.0.0/16", "Gateway": "10.9.0.1"}]}'
    refuses 7 'subnet 10.7.0.0/16 + fd00:9::/64 is not what network both has' \
        'del(.ipam.exclude) | .runtimeConfig.ipRanges = [[{"subnet": "10.7.0.0/16"}]]'
    refuses 7 'gateway 10.9.0.99 is not what network both has' \
        '.runtimeConfig.ipRanges = [[{"subnet": "10.9.0.0/16", "gateway": "10.9.0.99"}]]'
    refuses 7 'rangeStart 10.9.2.0 is not what network both has' \
        '.runtimeConfig.ipRanges = [[{"subnet": "10.9.0.0/16", "rangeStart": "10.9.2.0"}]]'
    refuses 7 'ipRanges "10.9.0.0/16"' '.runtimeConfig.ipRanges = "10.9.0.0/16"'
    refuses 7 'ipRanges 5' '.runtimeConfig.ipRanges = [5]'
    refuses 7 'ipRanges {}' '.runtimeConfig.ipRanges = [[{}]]'
}

@test "ipRanges of the runtime make a network that the configuration only names" {
    local conf='{"cniVersion": "1.0.0", "name": "given", "type": "weft", "capabilities": {"ipRanges": true},
        "ipam": {"type": "weft-ipam"}, "runtimeConfig": {"ipRanges":
        [[{"subnet": "10.8.0.0/24", "gateway": "10.8.0.254", "rangeStart": "10.8.0.20"}], [{"subnet": "fd00:8::/64"}]]}}'
    run cni a ADD c eth0 "$conf"
    assert_json '[.ips[].gateway] | join(" ")' '10.8.0.254 fd00:8::1'
    cni a DEL c eth0 "$conf"
    run weftctl a network inspect given
    assert_json '.pools[0] | "\(.ipv4.subnet) \(.ipv6.subnet)"' '10.8.0.0/24 fd00:8::/64'
    weftctl a network remove given
}
