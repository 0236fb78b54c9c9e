#!/usr/bin/env bats
# A network whose record in the store cannot be read: what it has stays its own, and what was made of it stays whole.

load helpers

setup_file() {
    start_cluster a b
    attach a c red 10.9.0.0/16
    attach b c red 10.9.0.0/16
    eventually 5 ping_from a c "$(cni_ip b c)"
    vni=$(record | jq .vni)
    export vni
    record >"$WEFT_TEST_DIR/good"
    consul_cmd kv put weft/v1/networks/red '{"name": "red", "pools": "?"}'
    sleep 0.5
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

# record: prints the record of network red.
record() {
    consul_cmd kv get weft/v1/networks/red
}

# conf NAME SUBNET: prints a configuration.
conf() {
    jq --null-input --compact-output --arg name "$1" --arg subnet "$2" '
        {cniVersion: "1.1.0", $name, type: "weft", ipam: {type: "weft-ipam", $subnet}}'
}

# attach HOST CONTAINER NETWORK SUBNET
attach() {
    add_container "$1" "$2"
    cni "$1" ADD "$2" eth0 "$(conf "$3" "$4")"
}

# vxlan_is_there HOST
vxlan_is_there() {
    in_host "$1" ip link show "wx$vni"
}

vxlan_is_gone() {
    ! vxlan_is_there "$1"
}

@test "no network can take the subnet of one whose record cannot be read" {
    run ! weftctl b network create evil --subnet 10.9.0.0/16 --vni 77
    [[ $output == *networks/red* && $output == *"cannot be read"* ]]
    run ! attach b e blue 10.8.0.0/16
    [[ $output == *networks/red* ]]
    run ! consul_cmd kv get weft/v1/networks/evil
}

@test "it is listed, with the fault of its record" {
    run -0 weftctl a network list
    [[ $output == *"red"*"unreadable: networks/red"* ]]
    run -0 weftctl a network list --output json
    assert_json '.[] | select(.name == "red") | .unreadable | startswith("networks/red")' true
    run -0 weftctl a block list
    [[ $output == *"red is left out"* ]]
    run ! weftctl a network remove red
    [[ $output == *--force* ]]
}

@test "its devices are repaired, containers come and go" {
    in_host a ip link del "wx$vni"
    eventually 5 vxlan_is_there a
    eventually 5 ping_from a c "$(cni_ip b c)"
    attach a d red 10.9.0.0/16
    eventually 5 ping_from a d "$(cni_ip b c)"
    cni a DEL d eth0 "$(conf red 10.9.0.0/16)"
}

@test "its devices are repaired by an agent that never saw another record" {
    stop_weftd a
    start_weftd a
    sleep 1
    in_host a ip link del "wx$vni"
    eventually 5 vxlan_is_there a
    eventually 5 ping_from a c "$(cni_ip b c)"
    sleep 5
    (($(grep -c 'network red: .*will retry in 2 s' "$WEFT_TEST_DIR/logs/a.weftd.log") < 2))
}

@test "it goes on when its record can be read again, and can be removed by force when it cannot" {
    consul_cmd kv put weft/v1/networks/red "$(<"$WEFT_TEST_DIR/good")"
    run ! weftctl b network create evil --subnet 10.9.0.0/16 --vni 77
    [[ $output == *overlap* ]]
    consul_cmd kv put weft/v1/networks/red '{}'
    local host
    for host in a b; do
        cni "$host" DEL c eth0 "$(conf red 10.9.0.0/16)"
    done
    run -0 weftctl a network remove --force red
    [[ $output == *"red is removed"* ]]
    eventually 10 vxlan_is_gone b
    eventually 10 vni_is_free
    weftctl b network create evil --subnet 10.9.0.0/16 --vni "$vni"
}

vni_is_free() {
    ! consul_cmd kv get "weft/v1/vnis/$vni"
}
