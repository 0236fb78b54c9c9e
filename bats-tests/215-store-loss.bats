#!/usr/bin/env bats
# A Consul that loses all it had, networks that are made again under their names, and nodes that reboot.

load helpers

NET='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "isGateway": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/24", "stickySeconds": 3600}}'

# 16 blocks of one address each.
TINY='{"cniVersion": "1.0.0", "name": "tiny", "type": "weft", "isGateway": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.7.0.0/28"}}'

setup() {
    start_cluster a b c
}

teardown() {
    dump_logs_of_failed_test
    teardown_underlay
}

add() {
    add_container "$1" "$2"
    cni "$1" ADD "$2" eth0 "${3:-$NET}"
}

# asking_for ADDRESS: the configuration of the tiny network for a container that wants an address.
asking_for() {
    jq --arg ip "$1" '.args.cni.ips = [$ip]' <<<"$TINY"
}

wipe_consul() {
    stop_consul
    rm -r "$WEFT_TEST_DIR/consul/consul/data"
    restart_consul
}

# reboot HOST: the end of all its containers and files, as far as weft sees it.
reboot() {
    local container
    stop_weftd "$1" 2>/dev/null || true
    for container in "${@:2}"; do
        remove_container "$1" "$container"
    done
    # shellcheck disable=SC2016
    in_host "$1" sh -c 'rm -rf /run/weft
        for link in $(ip -o link | grep -oE "w[bx][0-9]+"); do ip link delete "$link" 2>/dev/null; done; true'
}

# owners: prints the blocks of all networks with their owners.
owners() {
    weftctl a block list --output json | jq -c '[.[] | {network, block, node}] | sort'
}

has_owners() {
    [[ $(owners) == "$1" ]] || fail "$(owners) in place of $1"
}

takes_container() {
    add_container "$1" "$2"
    cni "$1" ADD "$2" eth0 "${3:-$NET}" && return
    remove_container "$1" "$2"
    return 1
}

# ping_all: all containers of the wiped store's test reach each other.
ping_all() {
    ping_from a one "$(cni_ip b two)" && ping_from b two "$(cni_ip a one)" && ping_from a - "$(cni_ip b two)" &&
        ping_from c wants "$(cni_ip a lent)" && ping_from a lent "$(cni_ip c wants)"
}

@test "a Consul that comes back empty gets back what nodes have, and no container notices" {
    local before ip kept lent host
    add a one
    add b two
    add a kept "$(jq '.args.cni.sticky = "db-0"' <<<"$NET")"
    kept=$(cni_ip a kept)
    cni a DEL kept eth0 "$(jq '.args.cni.sticky = "db-0"' <<<"$NET")"
    # A block of one address that node a owns, lent to node c.
    add a lent "$TINY"
    add a gone "$TINY"
    lent=$(cni_ip a gone)
    cni a DEL gone eth0 "$TINY"
    add c wants "$(asking_for "$lent")"
    eventually 5 ping_all
    before=$(owners)

    start_daemon a pings nsenter --net=/run/netns/one busybox ping -i 0.2 -W 1 -c 200 "$(cni_ip b two)"
    wipe_consul
    # What it does not show is no reason to disconnect anybody.
    eventually 60 has_owners "$before"
    ping_all
    eventually 60 takes_container b four
    eventually 60 daemon_stopped a pings
    grep -q " 0% packet loss" "$WEFT_TEST_DIR/logs/a.pings.log" || fail "$(tail -n 3 "$WEFT_TEST_DIR/logs/a.pings.log")"
    ping_all

    for host in a b c; do
        eventually 20 agent_is_alive "$host"
        weftctl "$host" ipam check || fail "$host: $output"
    done
    eventually 30 takes_container a third
    ping_from a third "$(cni_ip b four)"
    # The identity's address, from another node.
    takes_container b moved "$(jq '.args.cni.sticky = "db-0"' <<<"$NET")"
    assert_equal "$(cni_ip b moved)" "$kept"
    # The loan goes back to its lender.
    cni c DEL wants eth0 "$TINY"
    eventually 10 takes_container a again "$(asking_for "$lent")"
}

agent_is_alive() {
    weftctl a node list --output json | jq -e --arg node "$1" '.[] | select(.name == $node) | .alive'
}

@test "a network that is removed and made again elsewhere is another one for a node that has missed it" {
    local vni
    add a old
    add b old
    vni=$(cni_result_vni a old)
    stop_weftd a
    cni b DEL old eth0 "$NET"
    weftctl b network remove red --force
    eventually 10 has_left b
    add b new
    [[ $(cni_result_vni b new) != "$vni" ]]
    # Node a has no agent and its files: what it gives out has nothing to do with the new network, though its
    # addresses may be the same.
    add a stale
    assert_equal "$(cni_result_vni a stale)" "$vni"
    # With an agent it says so, and joins the new one once its containers are gone.
    start_weftd a
    eventually 10 grep -q "it was removed, but this host has containers in it" "$WEFT_TEST_DIR/logs/a.weftd.log"
    cni a DEL old eth0 "$NET"
    cni a DEL stale eth0 "$NET"
    # Events tell of the last container; the timer covers them.
    eventually 70 takes_vni a fresh "$(cni_result_vni b new)"
    eventually 5 ping_from a fresh "$(cni_ip b new)"
    [[ $(cni_ip a fresh) != "$(cni_ip b new)" ]]
}

cni_result_vni() {
    jq -r '.interfaces[0].name | ltrimstr("wb")' "$(cni_result_file "$1" "$2" eth0)"
}

takes_vni() {
    takes_container "$1" "$2" || return 1
    [[ $(cni_result_vni "$1" "$2") == "$3" ]] && return
    cni "$1" DEL "$2" eth0 "$NET"
    remove_container "$1" "$2"
    return 1
}

has_left() {
    [[ -z $(in_host "$1" sh -c 'ip -o link | grep -E "wb[0-9]+"') ]]
}

@test "a rebooted node's blocks are managed before its first container comes" {
    local ip
    add a one "$TINY"
    add b two "$TINY"
    ip=$(cni_ip b two)
    reboot b two
    start_weftd b
    # Its agent lends from them; nothing on it has asked for the network.
    eventually 10 takes_container a wants "$(asking_for "$ip")"
    assert_equal "$(cni_ip a wants)" "$ip"
}

@test "a network that was removed while a node was away is left by it when it comes back" {
    add a one
    add b two
    cni a DEL one eth0 "$NET"
    reboot b two
    weftctl a network remove red --force
    # Its VNI and addresses stay the node's until it has left.
    eventually 10 weftctl a network list
    [[ -n $(consul_cmd kv get -keys weft/v1/vnis/) ]]
    start_weftd b
    eventually 20 nothing_left red
}

nothing_left() {
    ! consul_cmd kv get -keys -separator= weft/v1/ |
        grep -qE "^weft/v1/(blocks|owned|vnis|endpoints|sticky|identities)/.*[^/]$"
}
