#!/usr/bin/env bats
# Calls about one attachment that overlap, and calls with another configuration than at ADD.

load helpers

NET='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "isGateway": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/24"}}'

setup_file() {
    setup_underlay
    add_host a
    add_container a warm
    cni a ADD warm eth0 "$NET"
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

# slow_add CONTAINER [SECONDS]: an ADD that rests for a second between its reservation and its interface.
slow_add() {
    CNI_COMMAND=ADD CNI_CONTAINERID=$1 CNI_IFNAME=eth0 CNI_NETNS=/run/netns/$1 CNI_PATH=/opt/cni/bin \
        in_machine a strace -f -qq -o /dev/null -e trace=sendto \
        -e inject=sendto:delay_enter="${2:-1}000000":when=2 /opt/cni/bin/weft <<<"$NET"
}

# is_whole CONTAINER: it has an interface with the address that it holds, or neither.
is_whole() {
    local has held
    has=$(in_container a "$1" ip -br -4 address show dev eth0 2>/dev/null | awk '{sub("/.*", "", $3); print $3}') || has=
    held=$(in_host a cat "/run/weft/networks/red/reservations/$1@eth0" 2>/dev/null | jq -r '.addresses[0]') || held=
    assert_equal "$has" "$held" "the address of $1"
}

@test "DEL during an ADD of the same attachment leaves both its interface and its address, or neither" {
    add_container a one
    slow_add one >"$WEFT_TEST_DIR/slow" &
    local adding=$!
    sleep 0.5
    cni a DEL one eth0 "$NET"
    wait "$adding" || true
    is_whole one
    cni a DEL one eth0 "$NET"
    is_whole one
}

@test "an ADD that fails during another ADD of the same attachment does not free its address" {
    add_container a two
    slow_add two >"$WEFT_TEST_DIR/slow" &
    local adding=$!
    sleep 0.5
    run ! cni a ADD two eth0 "$(jq -c '.ipam.routes = [{dst: "192.168.0.0/16", gw: "172.16.0.1"}]' <<<"$NET")"
    wait "$adding"
    is_whole two
    in_host a test -e /run/weft/networks/red/reservations/two@eth0
    cni a DEL two eth0 "$NET"
}

@test "DEL waits for an ADD that takes longer than ten seconds" {
    add_container a slow
    slow_add slow 12 >"$WEFT_TEST_DIR/slow" &
    local adding=$!
    sleep 0.5
    cni a DEL slow eth0 "$NET"
    wait "$adding"
    run ! in_container a slow ip link show eth0
    run ! in_host a test -e /run/weft/networks/red/reservations/slow@eth0
}

@test "an IPAM plugin ends with the call that started it, and reserves nothing later" {
    add_container a orphan
    use_ipam a exec
    in_host a mv /opt/cni/bin/weft-ipam /opt/cni/bin/weft-ipam-real
    in_host a tee /opt/cni/bin/weft-ipam >/dev/null <<'SH'
#!/bin/bash
input=$(cat)
[[ $CNI_COMMAND != ADD ]] || sleep 1
exec -a weft-ipam /opt/cni/bin/weft-ipam-real <<<"$input"
SH
    in_host a chmod +x /opt/cni/bin/weft-ipam
    # shellcheck disable=SC2016
    CNI_COMMAND=ADD CNI_CONTAINERID=orphan CNI_IFNAME=eth0 CNI_NETNS=/run/netns/orphan CNI_PATH=/opt/cni/bin \
        in_host a bash -c '/opt/cni/bin/weft <<<"$1" & sleep 0.4; kill -KILL $!' killed "$NET"
    cni a DEL orphan eth0 "$NET"
    sleep 1.5
    run ! in_host a test -e /run/weft/networks/red/reservations/orphan@eth0
    in_host a rm /opt/cni/bin/weft-ipam-real
    use_ipam a "$WEFT_TEST_IPAM"
}

@test "an ADD whose result nobody can read is taken back" {
    add_container a mute
    # shellcheck disable=SC2016
    CNI_COMMAND=ADD CNI_CONTAINERID=mute CNI_IFNAME=eth0 CNI_NETNS=/run/netns/mute CNI_PATH=/opt/cni/bin \
        run in_host a bash -c '/opt/cni/bin/weft <<<"$1" >/dev/full' mute "$NET"
    [[ $status != 0 && $output == *'weft: write the answer to standard output: No space left'* ]] || fail "$output"
    run ! in_container a mute ip link show eth0
    run ! in_host a test -e /run/weft/networks/red/reservations/mute@eth0
}

@test "DEL frees the address also if the configuration names another IPAM plugin than at ADD" {
    add_container a moved
    cni a ADD moved eth0 "$NET"
    cni a DEL moved eth0 "$(jq -c '.ipam = {type: "host-local", subnet: "10.9.0.0/24", dataDir: "/run/hl"}' <<<"$NET")"
    run ! in_container a moved ip link show eth0
    run ! in_host a test -e /run/weft/networks/red/reservations/moved@eth0
}

@test "weftd removes the locks of calls that were killed" {
    printf '[agent]\nsweep_grace = 2\n' >"$(node_config a)"
    in_host a touch /run/weft/calls/wv0123456789abc
    start_weftd a
    eventually 10 in_host a test ! -e /run/weft/calls/wv0123456789abc
    stop_weftd a
    rm "$(node_config a)"
}

@test "no lock is left behind" {
    assert_equal "$(in_host a ls /run/weft/calls)" ''
}

@test "DEL works with a configuration that cannot be read any more" {
    local edit status
    for edit in '.mtu = "x"' '.ipam.routes = 5' '.ipam.exclude = ["x"]' '.ipam.subnet = "10.9.0.0/33"' \
        '.ipam.type = "nosuch"' 'del(.ipam)' '.ipam = {}'; do
        add_container a edited
        cni a ADD edited eth0 "$NET"
        # A missing IPAM plugin is reported, after all else is done.
        run cni a DEL edited eth0 "$(jq -c "$edit" <<<"$NET")"
        [[ $status == 0 || $edit == *nosuch* ]] || fail "$edit: $output"
        run ! in_container a edited ip link show eth0
        run ! in_host a test -e /run/weft/networks/red/reservations/edited@eth0
        in_host a ip netns delete edited
    done
}

@test "the main plugin as IPAM plugin is refused" {
    add_container a loop
    run cni a ADD loop eth0 "$(jq -c '.ipam.type = "weft"' <<<"$NET")"
    [[ $status != 0 ]]
    assert_json .code 7
    assert_json '.msg | contains("weft-ipam")' true
}

@test "a frame with another container's MAC does not move that MAC to another port" {
    add_container a victim
    cni a ADD victim eth0 "$NET"
    local mac port
    mac=$(jq -r '.interfaces[2].mac' "$(cni_result_file a victim eth0)")
    port=$(jq -r '.interfaces[1].name' "$(cni_result_file a victim eth0)")
    run in_host a bridge -j fdb show dev "$port"
    [[ $status == 0 ]]
    assert_json "map(select(.mac == \"$mac\")) | map(.flags) | flatten | contains([\"sticky\"])" true
    cni a DEL victim eth0 "$NET"
}
