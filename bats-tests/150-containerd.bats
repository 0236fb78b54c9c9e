#!/usr/bin/env bats
# weft as containerd runs it: one network over several hosts, containers that come and go by `ctr run --cni`.

load helpers

PLUGINS='[{"type": "weft", "vni": 4150, "isGateway": true, "ipMasq": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/16", "routes": [{"dst": "0.0.0.0/0"}]}}]'
# All that a host needs to know of a network that exists: its name.
BY_NAME='[{"type": "weft", "ipam": {"type": "weft-ipam"}}]'

setup_file() {
    setup_underlay
    start_consul
    add_containerd_host a "$PLUGINS"
    add_containerd_host b "$BY_NAME"
    ctr_start a one
    ctr_start b one
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

# add_containerd_host HOST PLUGINS-JSON [ROOT]: a node with an agent and a containerd (that below ROOT, if given).
add_containerd_host() {
    add_host "$1"
    write_node_config "$1"
    start_weftd "$1"
    write_cni_conflist "$1" red "$2"
    start_containerd "$1" "${3:-}"
}

# in_task HOST NAME CMD...: runs a host's command in a container's network.
# For what it prints: `ctr task exec` now and then loses the output of short commands.
in_task() {
    local host=$1 name=$2 pid
    shift 2
    pid=$(ctr "$host" task list | awk -v name="$name" '$1 == name { print $2 }')
    in_host "$host" nsenter --net="/proc/$pid/ns/net" -- "$@"
}

# container_ip HOST NAME: prints the address that a running container has.
container_ip() {
    in_task "$1" "$2" ip -j -4 address show eth0 | jq -r '.[0].addr_info[0].local'
}

# container_ping HOST NAME TARGET [COUNT]
container_ping() {
    ctr_exec "$1" "$2" ping -c "${4:-1}" -W 1 "$3"
}

# traces HOST NAME: prints what a host keeps of a container: its reservation, and the alias of its interface.
traces() {
    in_host "$1" ls -A /run/weft/networks/red/reservations | grep -F "default-$2@" || true
    in_host "$1" ip -j link show | jq -r '.[].ifalias // empty' | grep -F "default-$2" || true
}

@test "ctr runs a container with an address of the network's pool, the network's MTU and a way out" {
    run ctr_run a once sh -c 'ip -4 -o address show eth0; ip link show eth0; ip route'
    [[ $status == 0 ]] || fail "$output"
    [[ $output == *" inet 10.9."*"/16 "* ]]
    [[ $output == *" mtu 1450 "* ]]
    [[ $output == *"default via 10.9.0.1 dev eth0"* ]]
}

@test "containers on two hosts reach each other by their addresses" {
    eventually 3 container_ping a one "$(container_ip b one)"
    container_ping b one "$(container_ip a one)"
}

@test "a host that knows the network by its name alone gives its containers what the network says" {
    local ip
    ip=$(container_ip b one)
    [[ $ip == 10.9.* ]]
    run in_task b one ip route
    [[ $output == *"default via 10.9.0.1 dev eth0"* ]] || fail "$output"
}

@test "containers on each host reach an address outside of the overlay" {
    container_ping a one "$WEFT_OUTSIDE_IP"
    container_ping b one "$WEFT_OUTSIDE_IP"
}

@test "hosts reach containers of their own and of each other" {
    local from to
    for from in a b; do
        for to in a b; do
            ping_from "$from" - "$(container_ip "$to" one)"
        done
    done
}

@test "a container that stops leaves no reservation and no interface, and its neighbour stays connected" {
    ctr_start a two
    local ip
    ip=$(container_ip a two)
    container_ping b one "$ip"
    run traces a two
    # The reservation and the interface: else what follows would prove nothing.
    assert_equal "${#lines[@]}" 2 "number of traces of a running container"
    ctr_stop a two
    run traces a two
    assert_equal "$output" ""
    run ! container_ping b one "$ip"
    container_ping b one "$(container_ip a one)"
}

@test "a container that ends by itself frees its address too" {
    ctr_run a short true
    run traces a short
    assert_equal "$output" ""
    # Nor does one whose command cannot be started.
    run ! ctr_run a broken /no/such/command
    run traces a broken
    assert_equal "$output" ""
}

@test "containers started at the same moment on both hosts have different addresses" {
    local host i
    for host in a b; do
        for i in 1 2 3; do
            ctr_run "$host" "burst$i" ip -4 -o address show eth0 \
                >"$BATS_TEST_TMPDIR/$host.$i" 2>"$BATS_TEST_TMPDIR/$host.$i.log" 3>&- &
        done
    done
    wait
    run bash -c "grep -ho 'inet 10\.9\.[0-9.]*' '$BATS_TEST_TMPDIR'/?.? | sort -u | wc -l"
    [[ $output == 6 ]] || fail "$output different addresses:" "$(tail -n 3 "$BATS_TEST_TMPDIR"/*)"
    for host in a b; do
        for i in 1 2 3; do
            run traces "$host" "burst$i"
            assert_equal "$output" ""
        done
    done
}

@test "containerd 2, unpacked from Debian sid, runs containers on the network by CNI 1.1" {
    [[ -d $WEFT_TEST_CACHE/sid ]] || skip "scripts/setup --with-sid makes it available"
    add_containerd_host c "$BY_NAME" "$WEFT_TEST_CACHE/sid"
    in_host c sed -i 's/"cniVersion": *"1.0.0"/"cniVersion": "1.1.0"/' /etc/cni/net.d/10-test.conflist
    run ctr c version
    [[ $output == *"Version:  2."* ]]
    ctr_start c one
    eventually 3 container_ping c one "$(container_ip a one)"
    container_ping b one "$(container_ip c one)"
    container_ping c one "$WEFT_OUTSIDE_IP"
    run traces c one
    assert_equal "${#lines[@]}" 2 "number of traces of a running container"
    ctr_stop c one
    run traces c one
    assert_equal "$output" ""
}

@test "a container keeps its network while containerd is killed, away and back" {
    # Attached, ctr itself would call DEL when it loses containerd; detached, nobody does.
    ctr_stop a one
    ctr a run --detach --cni --cgroup "$(cgroup_of a survivor)" "$WEFT_IMAGE" survivor sleep infinity
    local ip
    ip=$(container_ip a survivor)
    container_ping b one "$ip"
    stop_daemon a containerd KILL
    container_ping b one "$ip"
    start_containerd a
    assert_equal "$(container_ip a survivor)" "$ip"
    container_ping b one "$ip"
    container_ping a survivor "$(container_ip b one)"
    container_ping a survivor "$WEFT_OUTSIDE_IP"

    # The address stays taken for the containers that come now.
    ctr_start a newcomer
    [[ $(container_ip a newcomer) != "$ip" ]]
    container_ping a newcomer "$ip"
    ctr_stop a newcomer
    run traces a newcomer
    assert_equal "$output" ""
}

@test "when all containers have gone, a host keeps its own address alone, and no interface of theirs" {
    local host
    ctr_stop b one
    ctr a task kill --signal KILL survivor
    # In place of ctr, which left long ago.
    CNI_NETNS='' cni a DEL default-survivor eth0 \
        "$(in_host a jq '{cniVersion, name} + .plugins[0]' /etc/cni/net.d/10-test.conflist)"
    for host in a b; do
        run in_host "$host" ls -A /run/weft/networks/red/reservations
        assert_equal "$output" @node "reservations on $host"
        run in_host "$host" ip -j link show type veth
        assert_json '[.[].ifname | select(. != "eth0")] | join(" ")' ""
    done
}
