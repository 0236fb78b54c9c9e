#!/usr/bin/env bats
# MACs that a container asks for, and ports that have lost theirs: no container gets the frames of another, of the
# gateway, or of a container on another node.

load helpers

NET='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "isGateway": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}'
OTHER_IPAM='.ipam = {type: "host-local", subnet: "10.9.0.0/24", dataDir: "/run/host-local"}'

setup_file() {
    setup_underlay
    add_host a
    local container
    for container in one two three; do
        add_container a "$container"
    done
    cni a ADD one eth0 "$NET"
    cni a ADD two eth0 "$NET"
}

teardown() {
    dump_logs_of_failed_test
    CNI_NETNS='' cni a DEL three eth0 "$NET"
}

teardown_file() {
    teardown_underlay
}

mac_of() {
    jq -r '.interfaces[2].mac' "$(cni_result_file a "$1" eth0)"
}

port_of() {
    jq -r '.interfaces[1].name' "$(cni_result_file a "$1" eth0)"
}

# refuses MSG CHANGE: an ADD of `three` with that change fails with code 7, says MSG, and leaves nothing.
refuses() {
    run cni a ADD three eth0 "$(jq -c "$2" <<<"$NET")"
    [[ $status != 0 ]] || fail "$2 went through" || return 1
    assert_json .code 7
    [[ $(jq -r .msg <<<"$output") == *"$1"* ]] || fail "$2:" "$output" || return 1
    run ! in_container a three ip link show eth0
    run ! in_host a test -e /run/weft/networks/red/reservations/three@eth0
}

check_one() {
    cni a CHECK one eth0 "$(with_prev_result a one eth0 "$NET")"
}

two_reaches_one() {
    ping_from a two "$(cni_ip a one)"
}

@test "a MAC that follows from another address is refused, in use or not" {
    local mac
    mac=$(mac_of one)
    refuses "requested mac $mac is that of address $(cni_ip a one) in network red" ".runtimeConfig.mac = \"$mac\""
    refuses "$mac" ".args.cni.mac = \"$mac\""
    export CNI_ARGS=MAC=$mac
    refuses "$mac" .
    CNI_ARGS=
    # Free, but another container may get it, here or on another node.
    refuses 'is that of address 10.9.0.77' '.runtimeConfig.mac = "02:42:0a:09:00:4d"'
    two_reaches_one
    check_one
}

@test "the bridge's MAC is refused" {
    refuses 'is that of' ".runtimeConfig.mac = \"$(in_host a cat /sys/class/net/wb10000/address)\""
    ping_from a two 10.9.0.1
}

@test "a MAC of another container's own choice is refused, and the refusal names that container" {
    cni a ADD three eth0 "$(jq -c '.runtimeConfig.mac = "02:11:22:33:44:55"' <<<"$NET")"
    two_reaches_one
    ping_from a two "$(cni_ip a three)"
    add_container a four
    run ! cni a ADD four eth0 "$(jq -c '.runtimeConfig.mac = "02:11:22:33:44:55"' <<<"$NET")"
    assert_json .code 7
    assert_json '.msg | contains("three/eth0 on network red (port ")' true
    ping_from a two "$(cni_ip a three)"
    cni a DEL four eth0 "$NET"
    ping_from a two "$(cni_ip a three)"
    # The MAC of its own address may be asked for.
    cni a ADD four eth0 "$(jq -c '.runtimeConfig += {mac: "02:42:0a:09:00:4d", ips: ["10.9.0.77"]}' <<<"$NET")"
    ping_from a two 10.9.0.77
    cni a DEL four eth0 "$NET"
}

@test "an address that two IPAM plugins have given is not given to a second port" {
    local taken
    run --separate-stderr cni a ADD three eth0 "$(jq -c "$OTHER_IPAM" <<<"$NET")"
    # host-local begins at the first address, which is the host's own or `one`'s.
    [[ $status != 0 ]]
    assert_json .code 11
    taken=$(jq -r .msg <<<"$output")
    [[ $taken == 'address 10.9.0.'*' of network red is in use by '* ]] || fail "$output"
    two_reaches_one
    run ! in_container a three ip link show eth0
}

@test "CHECK, weftctl and weftd see a port that has lost its MAC to another" {
    local mac
    mac=$(mac_of one)
    cni a ADD three eth0 "$NET"
    in_host a bridge fdb replace "$mac" dev "$(port_of three)" master static sticky
    run ! two_reaches_one
    run ! check_one
    assert_json '.msg | contains("lets no frame through")' true
    assert_json '.msg | contains("three/eth0 on network red")' true
    run ! weftctl a ipam check
    [[ $output == *"one/eth0 is cut off: port $(port_of one) lets no frame through"* ]] || fail "$output"
    weftctl a ipam check --fix
    two_reaches_one
    check_one
    weftctl a ipam check
    # three has the MAC of its own address.
    ping_from a two "$(cni_ip a three)"

    in_host a bridge fdb del "$mac" dev "$(port_of one)" master
    in_host a bridge fdb replace "$(in_host a cat /sys/class/net/wb10000/address)" dev "$(port_of three)" master static
    run ! ping_from a two 10.9.0.1
    start_weftd a
    eventually 10 two_reaches_one
    ping_from a two 10.9.0.1
    stop_weftd a
}

@test "CHECK tells that another plugin has changed the MAC of an interface" {
    local tuned
    cni a ADD three eth0 "$NET"
    tuned=$(jq -c --slurpfile result "$(cni_result_file a three eth0)" \
        '{cniVersion, name, type: "tuning", mac: "02:11:22:33:44:66", prevResult: $result[0]}' <<<"$NET")
    cni a ADD three eth0 "$tuned"
    run ! cni a CHECK three eth0 "$(with_prev_result a three eth0 "$NET")"
    assert_json '.msg | contains("lets through 02:42:0a:09:00:")' true
    assert_json '.msg | contains("only, and the interface has 02:11:22:33:44:66")' true
    # It is not opened for what a container calls itself.
    run ! weftctl a ipam check --fix
    [[ $output == *runtimeConfig.mac* ]] || fail "$output"
}
