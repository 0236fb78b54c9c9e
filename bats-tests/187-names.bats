#!/usr/bin/env bats
# A node whose host name changes keeps its containers on the network; identities whose ids collide keep apart; a
# container with long names is found again.

load helpers

NET='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "isGateway": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/24", "stickySeconds": 3600}}'

setup_file() {
    setup_underlay
    start_consul
    add_host a
    add_host b
    write_unnamed_config a
    write_node_config b
    in_machine a hostname first
    start_weftd a
    start_weftd b
    add_container b peer
    cni b ADD peer eth0 "$NET"
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

# write_unnamed_config HOST: the host's node is called as the host is.
write_unnamed_config() {
    write_node_config "$1"
    sed -i '/^node = /d' "$(node_config "$1")"
}

add() {
    add_container "$1" "$2"
    cni "$1" ADD "$2" eth0 "$3"
}

# ended HOST: weftd does not run there any more.
ended() {
    ! daemon_runs "$1" weftd
}

# known_as IDENTITY: the configuration for a container with a stable identity.
known_as() {
    jq --arg id "$1" '.args.cni.sticky = $id' <<<"$NET"
}

@test "identities that collide in 64 bits of FNV-1a have addresses of their own" {
    local victim=8yn0iYCKYHlIj4-BwPqk other=GReLUrM4wMqfg9yzV3KQ ip
    # The interface is appended to the identity, and FNV-1a goes on from the same state.
    add b victim "$(known_as $victim)"
    ip=$(cni_ip b victim)
    cni b DEL victim eth0 "$(known_as $victim)"
    add b evil "$(known_as $other)"
    [[ $(cni_ip b evil) != "$ip" ]]
    add b again "$(known_as $victim)"
    assert_equal "$(cni_ip b again)" "$ip"
    consul_cmd kv get -keys "weft/v1/identities/$(network_id red)/" | grep -qE '/[0-9a-f]{32}$'
}

@test "after a change of the host name weftd refuses to start, and the containers stay connected" {
    add a c1 "$NET"
    assert_equal "$(in_machine a cat /run/weft/node)" first
    eventually 5 ping_from b peer "$(cni_ip a c1)"
    stop_weftd a
    in_machine a hostname second
    start_weftd a
    eventually 5 ended a
    run tail -n 1 "$WEFT_TEST_DIR/logs/a.weftd.log"
    [[ $output == *"this is node first by its files in /run/weft, and is called second now"* ]] || fail "$output"
    [[ $output == *'node = "first"'* && $output == *"weftctl node remove first"* ]] || fail "$output"
    ping_from b peer "$(cni_ip a c1)"
    run ! consul_cmd kv get weft/v1/nodes/second
}

@test "an ADD that needs the store is refused under the new name, and DEL works" {
    add_container a late
    run cni a ADD late eth0 "$(jq '.name = "blue" | .ipam.subnet = "10.8.0.0/24"' <<<"$NET")"
    [[ $status != 0 ]]
    assert_json .code 7
    assert_json '.msg | contains("node first") and contains("called second")' true
    run weftctl a ipam check
    [[ $status != 0 && $output == *"is called second now"* ]] || fail "$output"
    add a doomed "$NET"
    cni a DEL doomed eth0 "$NET"
}

@test "under its old name the node goes on as before" {
    sed -i '1i node = "first"' "$(node_config a)"
    start_weftd a
    # shellcheck disable=SC2317
    is_alive() { weftctl b --output json node list | jq -e '.[] | select(.name == "first") | .alive'; }
    eventually 10 is_alive
    ping_from b peer "$(cni_ip a c1)"
    add a c2 "$NET"
    eventually 5 ping_from b peer "$(cni_ip a c2)"
    stop_weftd a
}

@test "a node that holds nothing is renamed" {
    cni a DEL c1 eth0 "$NET"
    cni a DEL c2 eth0 "$NET"
    sed -i 's/^node = .*/node = "third"/' "$(node_config a)"
    # It still has the network with a block.
    start_weftd a
    eventually 5 ended a
    in_machine a find /run/weft -mindepth 1 -delete
    start_weftd a
    # shellcheck disable=SC2317
    is_alive() { weftctl b --output json node list | jq -e '.[] | select(.name == "third") | .alive'; }
    eventually 10 is_alive
    assert_equal "$(in_machine a cat /run/weft/node)" third
    weftctl b node remove first
    add a c3 "$NET"
    eventually 5 ping_from b peer "$(cni_ip a c3)"
    eventually 5 ping_from a c3 "$(cni_ip b peer)"
}

@test "a container with long names is a port again after its bridge is gone" {
    local name id conf link
    name=$(printf 'n%.0s' {1..200})
    id=$(printf '0123456789abcdef%.0s' {1..4})
    conf=$(jq --arg name "$name" '.name = $name | .vni = 7777 | .ipam.subnet = "10.7.0.0/24"' <<<"$NET")
    add b "$id" "$conf"
    in_host b ip link delete wb7777
    is_port() { in_host b ip -o link show master wb7777 | grep -q ' wv'; }
    eventually 10 is_port
    eventually 5 ping_from b "$id" 10.7.0.1
    link=$(in_host b ip -j link show master wb7777 | jq -r '.[] | select(.ifname | startswith("wv")).ifalias')
    [[ $link == "weft:0123456789abc"*" on network $name" ]] || fail "$link"
    cni b DEL "$id" eth0 "$conf"
}
