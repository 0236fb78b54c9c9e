#!/usr/bin/env bats
# A file system that is full: containers can go, and nothing is lost.

load helpers

NET='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "isGateway": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/24"}}'
DIR=/run/weft/networks/red

setup() {
    setup_underlay
    add_host a
    in_host a mkdir -p /run/weft
    in_host a mount -t tmpfs -o size=1m,nr_inodes=400 tmpfs /run/weft
    local i
    for i in {1..5}; do
        add_container a "c$i"
        cni a ADD "c$i" eth0 "$NET"
    done
}

teardown() {
    dump_logs_of_failed_test
    teardown_underlay
}

# fill: no byte and no inode is left.
fill() {
    # shellcheck disable=SC2016
    in_host a bash -c '
        head -c 2m /dev/zero >/run/weft/filler
        for ((i = 0; i < 500; i++)); do
            : >"/run/weft/inode$i" || break
        done' 2>/dev/null || true
    run in_host a sh -c 'echo 1 >/run/weft/more'
    [[ $status != 0 && $output == *"No space left"* ]] || fail "$output"
}

make_room() {
    in_host a sh -c 'rm -f /run/weft/filler /run/weft/inode*'
}

# spoil_index: as a process leaves it that is killed in the middle of a change.
spoil_index() {
    in_host a sh -c "printf '\\001' | dd of=$DIR/index bs=1 seek=48 conv=notrunc status=none"
}

# assert_add_says_full CONTAINER
assert_add_says_full() {
    add_container a "$1"
    run --separate-stderr cni a ADD "$1" eth0 "$NET"
    [[ $status != 0 ]]
    assert_json .code 5
    assert_json '.msg + .details | contains("/run/weft") and contains("is full")' true
    run ! in_container a "$1" ip link show eth0
}

# del CONTAINER: it and its address are gone; what was freed on the way is filled again.
del() {
    cni a DEL "$1" eth0 "$NET"
    run ! in_host a test -e "$DIR/reservations/$1@eth0"
    fill
}

@test "a container goes on a full file system, and its address can be had as soon as there is room" {
    local ip
    ip=$(cni_ip a c1)
    fill
    assert_add_says_full new
    del c1
    spoil_index
    del c2
    in_host a rm "$DIR/index"
    fill
    del c3
    # A second DEL, and one of a container whose ADD failed.
    del c3
    del new
    make_room
    CNI_ARGS="IP=$ip" cni a ADD new eth0 "$NET"
    assert_equal "$(cni_ip a new)" "$ip"
    ping_from a new "$(cni_ip a c4)"
    run weftctl a ipam check
    assert_equal "$status" 0
}

@test "GC and the sweep free addresses on a full file system" {
    local gc
    gc=$(jq '.cniVersion = "1.1.0" | ."cni.dev/valid-attachments" = [{"containerID": "c4", "ifname": "eth0"}]' <<<"$NET")
    remove_container a c1
    cni a ADD killed eth0 "$(jq '.type = "weft-ipam"' <<<"$NET")"
    CNI_NETNS=/run/netns/c2 cni a ADD forgotten eth7 "$(jq '.type = "weft-ipam"' <<<"$NET")"
    eventually 5 in_host a bash -c 'ip -o link show type veth | grep -c wv | grep -qx 4'
    spoil_index
    fill
    CNI_NETNS='' cni a GC '' '' "$gc"
    run in_host a ls "$DIR/reservations"
    assert_equal "$output" $'@node\nc2@eth0\nc3@eth0\nc4@eth0\nc5@eth0'

    make_room
    printf 'node = "a"\n[agent]\nsweep_grace = 2\n' >"$(node_config a)"
    start_weftd a
    eventually 5 in_host a test -e /run/weft/weftd.lock
    spoil_index
    fill
    remove_container a c2
    swept() { ! in_host a test -e "$DIR/reservations/c2@eth0"; }
    eventually 10 swept
    make_room
    run weftctl a ipam check
    assert_equal "$status" 0
}
