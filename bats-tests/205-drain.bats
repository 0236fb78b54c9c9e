#!/usr/bin/env bats
# Nodes that are taken out of service: what they keep, what they refuse, and where their blocks go.

load helpers

# 16 blocks of 16 addresses.
NET='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "vni": 4205, "isGateway": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/24"}}'

setup() {
    start_cluster a b
}

teardown() {
    dump_logs_of_failed_test
    teardown_underlay
}

# add HOST NAME [IP]: attaches a new container, with a certain address if one is named.
add() {
    in_machine "$1" test -e "/run/netns/$2" || add_container "$1" "$2"
    CNI_ARGS=${3:+IP=$3} cni "$1" ADD "$2" eth0 "$NET"
}

del() {
    cni "$1" DEL "$2" eth0 "$NET"
}

# blocks HOST: prints how many blocks the store says are the host's.
blocks() {
    weftctl b --output json block list | jq --arg node "$1" '[.[] | select(.node == $node)] | length'
}

# owns HOST NUMBER: succeeds if the host owns so many blocks.
owns() {
    assert_equal "$(blocks "$1")" "$2"
}

# state_of HOST: prints what node list says of it.
state_of() {
    weftctl b node list | sed -n "s/^$1  .* \(in use\|drained\|removing\) .*/\1/p"
}

# fill HOST: adds containers until the host's first block is full, and then one more: it owns two or three blocks.
fill() {
    local i
    for i in {1..15}; do
        add "$1" "c$i"
    done
}

@test "a drained node keeps its containers, gives from its blocks, and claims and borrows nothing" {
    add a one
    add b one
    local ip other
    ip=$(cni_ip a one)
    run weftctl b node drain a
    [[ $status == 0 && $output == *"node a is drained"*"it owns 1 block"* ]] || fail "$output"
    assert_equal "$(state_of a)" drained
    assert_equal "$(state_of b)" "in use"
    run weftctl b --output json node list
    assert_json '.[] | select(.name == "a") | .drained' true
    assert_json '.[] | select(.name == "b") | .drained' false

    # From the block that it has: 14 of its 16 addresses can be given, and the host has one of them.
    local i
    for i in {2..13}; do
        add a "c$i"
    done
    eventually 3 ping_from b one "$ip"
    eventually 3 ping_from b one "$(cni_ip a c13)"
    run add a over
    [[ $status != 0 ]]
    assert_json .code 11
    assert_json '.msg | contains("node a is drained") and contains("weftctl node undrain a")' true
    # An address of an unowned block, and one of another node's.
    run add a over 10.9.0.200
    [[ $status != 0 ]]
    assert_json '.msg | contains("node a is drained")' true
    other=$(cni_ip b one)
    del b one
    run add a over "$other"
    [[ $status != 0 ]]
    assert_json '.msg | contains("node a is drained")' true
    assert_equal "$(consul_cmd kv get -keys -separator= weft/v1/requests/ | grep -vc '/$')" 0
    owns a 1

    # The mark outlives the agent, and a repetition is no change.
    stop_weftd a
    start_weftd a
    eventually 5 ping_from a one "$(cni_ip a c13)"
    assert_equal "$(state_of a)" drained
    run weftctl a --output json node drain a
    assert_json .changed false
    run weftctl a node undrain a
    [[ $status == 0 ]]
    add a over
    eventually 3 owns a 2
    assert_equal "$(state_of a)" "in use"
    run weftctl a node drain nowhere
    [[ $status == 1 && $output == *"knows no node called nowhere"* ]]
}

@test "a drained node gives its blocks back as its containers go, the last one too" {
    fill a
    add b one
    # One is claimed ahead.
    eventually 5 owns a 2
    weftctl b node drain a
    local ip i
    ip=$(cni_ip a c1)
    for i in {3..15}; do
        del a "c$i"
    done
    # release_idle_after is ten minutes.
    eventually 5 owns a 1
    eventually 3 ping_from b one "$ip"
    del a c1
    del a c2
    eventually 10 owns a 0
    run ! in_host a ip link show wb4205
    assert_equal "$(in_host a ls /run/weft/networks)" ""
    # Its addresses are to be had elsewhere.
    add b two "$ip"
    ping_from b one "$ip"

    run add a again
    [[ $status != 0 ]]
    assert_json '.msg | contains("node a is drained")' true
    eventually 10 owns a 0
    weftctl b node undrain a
    add a again
    eventually 3 ping_from a again "$ip"
}

@test "a node that is drained after a reboot gives back what it owned before, and keeps addresses of identities" {
    local conf
    conf=$(jq '.ipam.stickySeconds = 600 | .args.cni.sticky = "db"' <<<"$NET")
    add b one
    add_container a db
    cni a ADD db eth0 "$conf"
    local ip
    ip=$(cni_ip a db)
    cni a DEL db eth0 "$conf"
    stop_weftd a KILL
    remove_container a db
    in_host a sh -c 'rm -rf /run/weft/networks; ip link delete wb4205; ip link delete wx4205 2>/dev/null; true'
    owns a 1
    weftctl b node drain a
    start_weftd a
    eventually 10 owns a 0
    # The identity has it on another node; no other container gets it there.
    add b two
    [[ $(cni_ip b two) != "$ip" ]]
    add_container b db
    cni b ADD db eth0 "$conf"
    assert_equal "$(cni_ip b db)" "$ip"
}

# second_block_of_a: prints it: the host's own address is in its first one.
second_block_of_a() {
    weftctl b --output json block list | jq -r '[.[] | select(.node == "a")][1].block'
}

# owner BLOCK: prints its owner.
owner() {
    weftctl b --output json block list | jq -r --arg block "$1" '.[] | select(.block == $block) | .node'
}

# in_block BLOCK: prints which of a's containers have addresses of it, by their addresses. Blocks are of 16.
in_block() {
    local i host first=${1#*-}
    first=${first%-*}
    for i in {1..15}; do
        host=$(cni_ip a "c$i")
        host=${host##*.}
        ((host < first || host >= first + 16)) || echo "$host c$i"
    done | sort -n | cut -d' ' -f2
}

@test "a block moves to another node when none of its addresses is held; the holder of one is named" {
    local second ip here i
    fill a
    add b one
    eventually 5 owns a 2
    second=$(second_block_of_a)
    mapfile -t here < <(in_block "$second")
    for i in "${here[@]:2}"; do
        del a "$i"
    done
    run weftctl b block move "$second" --network red --to b
    [[ $status == 1 ]]
    ip=$(cni_ip a "${here[0]}")
    [[ $output == *"stays with node a: $ip is held by ${here[0]}/eth0, and 1 more address"* ]] || fail "$output"
    del a "${here[0]}"
    ip=$(cni_ip a "${here[1]}")
    run weftctl b block move "$second" --network red --to b
    [[ $status == 1 && $output == *"$ip is held by ${here[1]}/eth0;"* ]] || fail "$output"
    assert_equal "$(owner "$second")" a
    del a "${here[1]}"
    run weftctl b --output json block move "$second" --network red --to b
    [[ $status == 0 ]] || fail "$output"
    assert_json .from a
    assert_json .to b
    assert_equal "$(owner "$second")" b
    assert_equal "$(consul_cmd kv get -keys -separator= weft/v1/requests/ | grep -vc '/$')" 0
    # Node b gives its addresses, and all others find them there.
    eventually 3 add b two "$ip"
    eventually 3 ping_from a c1 "$ip"
    ping_from b two "$(cni_ip a c1)"

    run weftctl b block move "$second" --network red --to b
    [[ $status == 1 && $output == *"it is that node's already"* ]] || fail "$output"
    run weftctl b block move 0-240-4 --network red --to b
    [[ $status == 1 && $output == *"has no owner"* ]] || fail "$output"
    run weftctl b block move 0-0-6 --network red --to b
    [[ $status == 1 && $output == *"has no block 0-0-6"* ]] || fail "$output"
    weftctl a node drain a
    run weftctl b block move "$second" --network red --to a
    [[ $status == 1 && $output == *"cannot go to node a: it is drained"* ]] || fail "$output"
    stop_weftd b
    run weftctl a block move "$second" --network red --to c
    [[ $status == 1 && $output == *"there is no such node"* ]] || fail "$output"
    weftctl a node undrain a
    run weftctl a block move "$second" --network red --to a
    [[ $status == 1 && $output == *"stays with node b: weftd does not run there"* ]] || fail "$output"
}

@test "a block whose addresses are taken while it moves is either moved whole or stays whole" {
    local i pass second here moved=0
    add b one
    for pass in {1..6}; do
        fill a
        eventually 5 owns a 2
        second=$(second_block_of_a)
        mapfile -t here < <(in_block "$second")
        for i in "${here[@]}"; do
            del a "$i"
        done
        # Containers come at the same moment. They get what is left of the first block, then addresses of this one,
        # or make the node claim another.
        for i in "${here[@]}"; do
            (sleep "0.0$pass" && add a "$i" 3>&- 4>&- >/dev/null) &
        done
        run weftctl b block move "$second" --network red --to b
        moved=$((moved + !status))
        wait
        for i in "${here[@]}"; do
            eventually 3 ping_from b one "$(cni_ip a "$i")"
        done
        # Store and files agree, and no address is held twice.
        eventually 5 agrees
        for i in {1..15}; do
            del a "c$i"
        done
    done
    echo "moved in $moved of 6 passes"
}

# agrees: succeeds if neither node finds a difference.
agrees() {
    weftctl a ipam check --network red && weftctl b ipam check --network red
}
