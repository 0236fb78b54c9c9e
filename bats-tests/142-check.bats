#!/usr/bin/env bats
# CHECK in chains of plugins, and what it says.

load helpers

NET='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "isGateway": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}'

setup_file() {
    setup_underlay
    add_host a
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

@test "CHECK goes by what weft itself has made, and says what is missing" {
    # Behind another plugin, which has an interface, a route and name servers of its own.
    local before='{cniVersion: "1.0.0", interfaces: [{name: "net9", sandbox: "/run/netns/behind"}],
        ips: [{interface: 0, address: "198.51.100.2/24"}], routes: [{dst: "203.0.113.0/24", gw: "198.51.100.1"}],
        dns: {nameservers: ["198.51.100.53"]}}'
    add_container a behind
    in_container a behind ip link add net9 type bridge
    in_container a behind ip address add 198.51.100.2/24 dev net9
    in_container a behind ip link set net9 up
    in_container a behind ip route add 203.0.113.0/24 via 198.51.100.1
    cni a ADD behind eth0 "$(jq ".prevResult = $before" <<<"$NET")"
    assert_equal "$(jq -r '.dns.nameservers[0]' "$(cni_result_file a behind eth0)")" 198.51.100.53
    cni a CHECK behind eth0 "$(with_prev_result a behind eth0 "$NET")"

    # Behind weft, sbr moves its routes into a table of their own.
    add_container a sourced
    cni a ADD sourced eth0 "$NET"
    cni a ADD sourced eth0 "$(with_prev_result a sourced eth0 '{"cniVersion": "1.0.0", "name": "red", "type": "sbr"}')"
    run -0 in_container a sourced ip route
    [[ $output != *default* ]] || fail "$output"
    cni a CHECK sourced eth0 "$(with_prev_result a sourced eth0 "$NET")"

    in_host a mv /run/weft/networks/red/network.json /run/weft/moved
    run cni a CHECK sourced eth0 "$(with_prev_result a sourced eth0 "$NET")"
    [[ $status != 0 && $output == *'no definition of network red'* ]] || fail "$output"
    in_host a mv /run/weft/moved /run/weft/networks/red/network.json
}
