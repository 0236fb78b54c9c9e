#!/usr/bin/env bats
# Addresses of other nodes' blocks, blocks that come and go, and nodes that are removed.

load helpers

# 16 blocks of one address each; 13 of the addresses can be had.
TINY='{"cniVersion": "1.0.0", "name": "tiny", "type": "weft", "isGateway": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.7.0.0/28"}}'

setup() {
    NODE_TOML='[agent]\nrelease_idle_after = 2\nsweep_grace = 2\n' start_cluster a b c
}

teardown() {
    dump_logs_of_failed_test
    teardown_underlay
}

# add HOST NAME [IP]: attaches a new container to the tiny network, with a certain address if one is named.
add() {
    add_container "$1" "$2"
    CNI_ARGS=${3:+IP=$3} cni "$1" ADD "$2" eth0 "$TINY"
}

# keys PREFIX: counts the keys that Consul has below it. Fails if Consul does not say.
keys() {
    local answer
    answer=$(in_machine underlay curl -s -w '\n%{http_code}' "$(consul_url)/v1/kv/weft/v1/$1?keys") || return 1
    case ${answer##*$'\n'} in
    404) echo 0 ;;
    200) jq length <<<"${answer%$'\n'*}" ;;
    *) fail "Consul answers $answer" ;;
    esac
}

no_keys() {
    local count
    count=$(keys "$1") || return 1
    [[ $count == 0 ]] || fail "left: $(consul_cmd kv get -recurse "weft/v1/$1")"
}

# end_lease_of HOST: as when its agent has been dead for long enough.
end_lease_of() {
    local session
    session=$(in_machine underlay curl -sf "$(consul_url)/v1/kv/weft/v1/alive/$1" | jq -r '.[0].Session')
    in_machine underlay curl -sf -X PUT "$(consul_url)/v1/session/destroy/$session"
}

@test "an address of another node's block is lent, reached from everywhere, and given back" {
    add a one
    add b one
    local ip
    ip=$(cni_ip a one)
    run add c wants "$ip"
    [[ $status != 0 ]]
    assert_json '.msg | contains("node a") and contains("held by one/eth0")' true

    cni a DEL one eth0 "$TINY"
    cni c ADD wants eth0 "$(jq --arg ip "$ip" '.args.cni.ips = [$ip]' <<<"$TINY")"
    assert_equal "$(cni_ip c wants)" "$ip"
    eventually 3 ping_from b one "$ip"
    eventually 3 ping_from a - "$ip"
    ping_from c wants "$(cni_ip b one)"

    run ! add a two "$ip"
    cni c DEL wants eth0 "$TINY"
    eventually 5 no_keys endpoints/tiny
    no_keys requests/tiny
    eventually 5 cni a ADD two eth0 "$(jq --arg ip "$ip" '.args.cni.ips = [$ip]' <<<"$TINY")"
    eventually 3 ping_from b one "$ip"
}

@test "one node can have every address of a small network that three nodes share" {
    local i
    # Each host takes one for itself; 10 are left.
    for host in a b c; do
        add "$host" first
    done
    for i in {1..7}; do
        add a "more$i"
    done
    run add a over
    [[ $status != 0 ]]
    assert_json .code 11
    assert_json '.msg | contains("no free address")' true
    # What others do not need is lent.
    cni b DEL first eth0 "$TINY"
    cni c DEL first eth0 "$TINY"
    add_container a eighth
    eventually 5 cni a ADD eighth eth0 "$TINY"
    add_container a ninth
    eventually 5 cni a ADD ninth eth0 "$TINY"
    eventually 3 ping_from b - "$(cni_ip a ninth)"
    run in_host a sh -c 'cat /run/weft/networks/tiny/reservations/* | jq -r ".addresses[0]" | sort | uniq -d'
    assert_equal "$output" ""
    run ! add a tenth
    for i in {1..7}; do
        cni a DEL "more$i" eth0 "$TINY"
    done
    cni a DEL eighth eth0 "$TINY"
    cni a DEL ninth eth0 "$TINY"
    eventually 5 no_keys endpoints/tiny
}

@test "a lender whose agent is gone is named" {
    add a one
    add b one
    stop_weftd a
    run add c wants "$(cni_ip a one)"
    [[ $status != 0 ]]
    assert_json .code 11
    assert_json '.msg | contains("node a did not answer")' true
    no_keys requests/tiny
    run in_host c ls /run/weft/networks/tiny/borrowing
    assert_equal "$output" ""
}

# An address for each of 11 containers on two nodes: one block of 16, of which the hosts have one each.
ONE='{"cniVersion": "1.0.0", "name": "one", "type": "weft", "isGateway": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.6.0.0/28", "blockBits": 4}}'

# fill_one: a has one container and b the rest, with borrowed addresses.
fill_one() {
    local i
    add_container a first
    cni a ADD first eth0 "$ONE"
    for i in {1..10}; do
        add_container b "c$i"
        # The agent of a, which lends, may just have started.
        eventually 5 cni b ADD "c$i" eth0 "$ONE"
    done
    add_container b over
    run ! cni b ADD over eth0 "$ONE"
    assert_json '.msg | contains("no free address")' true
}

# replace_16 CONTAINER: in a full network, a container is removed and another started at once.
replace_16() {
    local i old=$1 failed=0
    for i in {1..16}; do
        cni b DEL "$old" eth0 "$ONE"
        old=n$i
        add_container b "$old"
        cni b ADD "$old" eth0 "$ONE" || failed=$((failed + 1))
    done
    assert_equal "$failed" 0 "failed of 16"
    assert_equal "$(in_host b sh -c \
        'cat /run/weft/networks/one/reservations/* | jq -r ".addresses[0]" | sort | uniq -d')" ""
}

@test "in a full network a borrowed address that is free can be had at once" {
    fill_one
    replace_16 c1
}

@test "in a full network without agents a borrowed address that is free can be had at once" {
    fill_one
    stop_weftd a
    stop_weftd b
    replace_16 c1
    run -0 in_host b ls /run/weft/networks/one/borrowing /run/weft/networks/one/returns
    [[ $output != *[0-9a-f][0-9a-f][0-9a-f]* ]] || fail "$output"
    # The next agent finds nothing to put right.
    start_weftd a
    start_weftd b
    in_one() { assert_equal "$(keys endpoints/one)" 11; }
    eventually 5 in_one
    sleep 2
    in_one
}

@test "an address that a killed ADD reserved in a sandbox that lives on is swept, one in use is not" {
    add a lives
    add_container a killed
    cni a ADD killed eth0 "$(jq '.type = "weft-ipam"' <<<"$TINY")"
    killed_is_swept() { ! in_host a ls /run/weft/networks/tiny/reservations/killed@eth0; }
    eventually 10 killed_is_swept
    in_host a ls /run/weft/networks/tiny/reservations/lives@eth0
}

@test "blocks are claimed before they are needed, and idle ones are given back" {
    local red='{"cniVersion": "1.0.0", "name": "red", "type": "weft-ipam",
        "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/24"}}' i
    for i in {1..12}; do
        add_container a "c$i"
        cni a ADD "c$i" eth0 "$red"
    done
    # Two of the first block's 14 are left; the next one comes without being asked for.
    blocks_are() { assert_equal "$(keys blocks/red)" "$1"; }
    eventually 5 blocks_are 2
    stop_consul
    for i in {13..20}; do
        add_container a "c$i"
        cni a ADD "c$i" eth0 "$red"
    done
    restart_consul
    for i in {1..20}; do
        cni a DEL "c$i" eth0 "$red"
    done
    eventually 15 blocks_are 1
}

@test "a container that was killed gives its address back, one that lives keeps it" {
    add a lives
    add a dies
    local ip
    ip=$(cni_ip a dies)
    # The path of a living container may vanish.
    start_daemon a holder nsenter --net=/run/netns/lives sleep 60
    in_host a umount /run/netns/lives
    remove_container a dies
    swept() { ! in_host a ls /run/weft/networks/tiny/reservations/dies@eth0; }
    eventually 10 swept
    sleep 3
    in_host a ls /run/weft/networks/tiny/reservations/lives@eth0
}

@test "a node that was removed while it was cut off takes back what has no owner" {
    add a one
    add b one
    unplug_host a
    end_lease_of a
    weftctl b node remove a
    plug_host a
    eventually 10 ping_from b one "$(cni_ip a one)"
    add a two
}

@test "a node that was removed while it was cut off gives up what has become another's" {
    local ip
    add a one
    add b one
    ip=$(cni_ip a one)
    run ! weftctl b node remove a
    unplug_host a
    end_lease_of a
    weftctl b node remove a
    add b heir "$ip"
    assert_equal "$(cni_ip b heir)" "$ip"
    plug_host a
    bridge=wb$(vni_of tiny)
    kept_off() { in_host a grep -q . "/sys/class/net/$bridge/address" && ! ping_from a one "$(cni_ip b one)"; }
    eventually 15 grep -q "was removed from the cluster while it was cut off" "$WEFT_TEST_DIR/logs/a.weftd.log"
    eventually 5 kept_off
    # Nor does the agent's care for ports bring it back.
    in_host a ip link set "$bridge" mtu 1400
    sleep 2
    kept_off
    eventually 3 ping_from b - "$ip"
    run cni a STATUS one eth0 "$(jq '.cniVersion = "1.1.0"' <<<"$TINY")"
    [[ $status != 0 ]]
    assert_json '.msg | contains("'"$ip"'")' true
    # Its other containers work again as soon as they are made again.
    cni a DEL one eth0 "$TINY"
    eventually 5 add a three
    eventually 3 ping_from a three "$(cni_ip b one)"
    cni a STATUS three eth0 "$(jq '.cniVersion = "1.1.0"' <<<"$TINY")"
}

@test "a network is not removed while another node lives on addresses that it borrowed" {
    local conf
    conf=$(jq '.name = "one" | .ipam.subnet = "10.6.0.0/28" | .ipam.blockBits = 4' <<<"$TINY")
    add_container a first
    cni a ADD first eth0 "$conf"
    add_container b borrows
    cni b ADD borrows eth0 "$conf"
    cni a DEL first eth0 "$conf"
    run weftctl a network remove one
    [[ $status != 0 && $output == *"node b uses"* ]] || fail "$output"
    cni b DEL borrows eth0 "$conf"
}
