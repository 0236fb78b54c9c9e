#!/usr/bin/env bats
# What the agent keeps right, and what it takes away: networks that are gone, devices, ports and firewall rules.

load helpers

setup_file() {
    start_cluster a b
}

# A test that failed may have left an agent stopped.
setup() {
    local host
    for host in a b; do
        write_node_config "$host"
        daemon_runs "$host" weftd || start_weftd "$host"
    done
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

# net NAME VNI SUBNET: prints a configuration.
net() {
    jq --null-input --compact-output --arg name "$1" --argjson vni "$2" --arg subnet "$3" '
        {cniVersion: "1.0.0", $name, type: "weft", $vni, isGateway: true, ipMasq: true,
            ipam: {type: "weft-ipam", $subnet, routes: [{dst: "0.0.0.0/0"}]}}'
}

# attach HOST CONTAINER CONF: makes a container and connects it.
attach() {
    add_container "$1" "$2"
    cni "$1" ADD "$2" eth0 "$3"
}

# has_nothing_of HOST NAME VNI: succeeds if the host has neither devices nor rules nor files of the network.
has_nothing_of() {
    local left
    left=$(in_host "$1" sh -c "ip -o link; nft list ruleset; find /run/weft/networks" |
        grep -E "w[bx]$3|networks/\.?$2") || true
    [[ -z $left ]] || fail "left on $1:" "$left"
}

# rules_of HOST VNI: prints the firewall's rules and elements of a network.
rules_of() {
    in_host "$1" nft --stateless list ruleset | tr '\t' ' ' | grep -o "[^{},]*wb$2.*" |
        sed 's/^ *//; s/[ ,}]*$//' | sort
}

# same_rules HOST VNI RULES
same_rules() {
    assert_equal "$(rules_of "$1" "$2")" "$3"
}

# ticks_of HOST DAEMON: prints the processor time that the daemon has used, in hundredths of a second.
ticks_of() {
    # shellcheck disable=SC2016
    in_host "$1" awk '{print $14 + $15}' "/proc/$(<"$WEFT_TEST_DIR/machines/$1/$2.pid")/stat"
}

@test "a network that is removed goes from every host, with devices, rules and files" {
    local conf
    conf=$(net gone 6001 10.61.0.0/24)
    attach a gone1 "$conf"
    attach b gone1 "$conf"
    cni a DEL gone1 eth0 "$conf"
    cni b DEL gone1 eth0 "$conf"
    weftctl b network remove --force gone
    has_nothing_of b gone 6001
    eventually 3 has_nothing_of a gone 6001
    # And it can be had again at once.
    cni a ADD gone1 eth0 "$conf"
    cni b ADD gone1 eth0 "$conf"
    eventually 3 ping_from a gone1 "$(cni_ip b gone1)"
}

@test "a removal that was cut short is finished when the agent starts" {
    local conf
    conf=$(net cut 6002 10.62.0.0/24)
    attach b cut1 "$conf"
    cni b DEL cut1 eth0 "$conf"
    stop_weftd b KILL
    # As if the agent had died after its first step.
    in_host b rm /run/weft/networks/cut/segment.json
    weftctl a network remove --force cut
    start_weftd b
    eventually 3 has_nothing_of b cut 6002
}

@test "a removal that was cut short later on is finished too" {
    local conf
    conf=$(net cut2 6003 10.63.0.0/24)
    attach b cut2 "$conf"
    cni b DEL cut2 eth0 "$conf"
    stop_weftd b KILL
    weftctl a network remove --force cut2
    in_host b mv /run/weft/networks/cut2 /run/weft/networks/.cut2.removed
    start_weftd b
    eventually 3 has_nothing_of b cut2 6003
}

@test "a store that shows nothing is no reason to remove a network, and no reason to ask without end" {
    local conf ip before
    conf=$(net blind 6004 10.64.0.0/24)
    attach a blind1 "$conf"
    cni a DEL blind1 eth0 "$conf"
    stop_weftd a
    # What Consul answers a token that may not read is the same as this: 404 to everything, and no index.
    ip=$(underlay_address 250)
    in_machine underlay ip address add "$ip/32" dev br0
    mkdir "$WEFT_TEST_DIR/empty"
    start_daemon underlay blind busybox httpd -f -p "$ip:8500" -h "$WEFT_TEST_DIR/empty"
    sed -i "s|^address = .*|address = \"http://$ip:8500\"|" "$(node_config a)"
    start_weftd a
    sleep 0.5
    before=$(ticks_of a weftd)
    sleep 2
    (($(ticks_of a weftd) - before < 60)) || fail "$(($(ticks_of a weftd) - before)) ticks in two seconds"
    in_host a ip link show wb6004
    in_host a test -e /run/weft/networks/blind/segment.json
    stop_weftd a
    stop_daemon underlay blind
}

@test "an agent that is late to hear of a new network does not take it for one that is gone" {
    local i name
    for i in 1 2 3; do
        name=late$i
        add_container a "$name"
        pause_daemon a weftd
        cni a ADD "$name" eth0 "$(net "$name" "602$i" "10.8$i.0.0/24")"
        cni a DEL "$name" eth0 "$(net "$name" "602$i" "10.8$i.0.0/24")"
        resume_daemon a weftd
        sleep 0.2
        in_host a test -e "/run/weft/networks/$name/segment.json"
        in_host a ip link show "wb602$i"
    done
}

@test "an ADD while the network is being removed gives a container that is connected, or fails" {
    local conf i
    conf=$(net race 6005 10.65.0.0/24)
    attach b peer "$conf"
    add_container a racer
    cni a ADD racer eth0 "$conf"
    cni a DEL racer eth0 "$conf"
    for i in {1..10}; do
        weftctl b network remove --force race 2>/dev/null &
        sleep "0.0$((i * 12 % 100 + 10))"
        if cni a ADD racer eth0 "$conf"; then
            wait
            sleep 0.3
            # Whatever the order was: a port of the bridge that is noted, and an address in the ledger.
            in_host a test -e /run/weft/networks/race/segment.json || fail "round $i: no note"
            run in_host a ip -j link show master wb6005 type veth
            assert_json length 1
            ping_from a racer 10.65.0.1 || fail "round $i: no way to the host"
            in_host a test -e /run/weft/networks/race/reservations/racer@eth0 || fail "round $i: no reservation"
        else
            wait
        fi
        cni a DEL racer eth0 "$conf"
    done
}

@test "firewall rules come back after somebody emptied the ruleset" {
    local conf rules
    conf=$(net rules 6007 10.67.0.0/24)
    attach a rules1 "$conf"
    rules=$(rules_of a 6007)
    [[ $rules == *masquerade* && $rules == *drop* ]]
    in_host a nft flush ruleset
    # The agent looks when a device changes, and every 30 s.
    in_host a ip link set wb6007 mtu 1400
    eventually 3 same_rules a 6007 "$rules"
    in_host a nft flush chain inet weft masquerade-wb6007
    in_host a ip link set wb6007 mtu 1400
    eventually 3 same_rules a 6007 "$rules"
    in_host a nft delete element inet weft bridges '{ wb6007 }'
    in_host a ip link set wb6007 mtu 1400
    eventually 3 same_rules a 6007 "$rules"
    ping_from a rules1 "$WEFT_OUTSIDE_IP"
}

@test "containers are connected again after somebody deleted the bridge" {
    local conf
    conf=$(net bridge 6008 10.68.0.0/24)
    attach a bridge1 "$conf"
    attach a bridge2 "$(jq -c '.hairpinMode = true' <<<"$conf")"
    attach b bridge1 "$conf"
    local before after
    before=$(in_host a bridge -j -d link show | jq -c '[.[] | select(.master == "wb6008") | del(.ifindex)] | sort')
    eventually 3 ping_from a bridge1 "$(cni_ip b bridge1)"
    # Have the agent look at the ports as they are.
    in_host a ip link set wb6008 mtu 1400
    sleep 0.5
    in_host a ip link delete wb6008
    eventually 3 ping_from a bridge1 "$(cni_ip b bridge1)"
    eventually 3 ping_from a bridge2 "$(cni_ip b bridge1)"
    ping_from a bridge1 "$(cni_ip a bridge2)"
    ping_from a - "$(cni_ip a bridge2)"
    after=$(in_host a bridge -j -d link show | jq -c '[.[] | select(.master == "wb6008") | del(.ifindex)] | sort')
    assert_equal "$after" "$before" "ports of the bridge"
    # The port is as tight as before.
    run in_host a bridge -j fdb show br wb6008 state static
    assert_json "[.[] | select(.ifname | startswith(\"wv\"))] | length" 2
}

@test "a container whose MAC was asked for, or whose address weft did not give, is connected again too" {
    local given asked
    weftctl a network create macs --vni 6009 --subnet 10.69.0.0/24
    given=$(net macs 6009 10.69.0.0/24 | jq -c '.ipam = {type: "host-local", subnet: "10.69.0.0/24"}')
    asked=$(jq -c '.runtimeConfig = {mac: "02:00:00:00:77:01"}' <<<"$given")
    attach a given "$given"
    attach a asked "$asked"
    ping_from a asked "$(cni_ip a given)"
    in_host a ip link delete wb6009
    eventually 3 ping_from a asked "$(cni_ip a given)"
    ping_from a - "$(cni_ip a given)"
}

@test "a port that somebody took from the bridge is put back" {
    local conf port
    conf=$(net port 6010 10.70.0.0/24)
    attach a port1 "$conf"
    attach a port2 "$conf"
    port=$(jq -r '.interfaces[1].name' "$(cni_result_file a port1 eth0)")
    in_host a ip link set "$port" nomaster
    in_host a ip link set wb6010 mtu 1400
    eventually 3 ping_from a port1 "$(cni_ip a port2)"
    run in_host a bridge -j -d link show dev "$port"
    assert_json '.[0] | "\(.locked) \(.flood) \(.learning)"' 'true false false'
}

@test "a network whose containers have foreign addresses is not removed under them" {
    local conf
    conf=$(net foreign 6011 10.71.0.0/24 | jq -c '.ipam = {type: "host-local", subnet: "10.71.0.0/24"}')
    weftctl a network create foreign --vni 6011 --subnet 10.71.0.0/24
    attach a foreign1 "$(jq -c 'del(.vni)' <<<"$conf")"
    run weftctl a network remove foreign
    [[ $status != 0 && $output == *'1 container on this node'* ]] || fail "$output"
    run weftctl a network remove --force foreign
    [[ $status == 0 && $output == *'still on this host: 1 container and wb6011; stop the containers'* ]] || fail "$output"
    sleep 0.5
    ping_from a foreign1 10.71.0.1
    cni a DEL foreign1 eth0 "$conf"
}

@test "a network that was removed and recreated with another VNI leaves nothing of the old one" {
    local conf
    conf=$(net again 6012 10.72.0.0/24)
    attach a again1 "$conf"
    attach b again1 "$conf"
    cni a DEL again1 eth0 "$conf"
    cni b DEL again1 eth0 "$conf"
    # The agent of a sees both changes as one.
    stop_weftd a
    weftctl b network remove --force again
    weftctl b network create again --vni 6013 --subnet 10.72.0.0/24
    start_weftd a
    conf=$(net again 6013 10.72.0.0/24)
    eventually 3 has_nothing_of a again 6012
    cni a ADD again1 eth0 "$conf"
    cni b ADD again1 eth0 "$conf"
    eventually 3 ping_from a again1 "$(cni_ip b again1)"
    # Events of the new devices are heard.
    in_host a ip link set wb6013 down
    eventually 3 ping_from a - "$(cni_ip b again1)"
}

@test "a plugin that finds the network recreated with another VNI takes the old one away first" {
    local conf
    conf=$(net fresh 6014 10.73.0.0/24)
    attach a fresh1 "$conf"
    cni a DEL fresh1 eth0 "$conf"
    stop_weftd a
    weftctl b network remove --force fresh
    weftctl b network create fresh --vni 6015 --subnet 10.73.0.0/24
    conf=$(net fresh 6015 10.73.0.0/24)
    cni a ADD fresh1 eth0 "$conf"
    has_nothing_of a no-directory 6014
    ping_from a fresh1 10.73.0.1
    start_weftd a
}

@test "many changes in the store cost the agent little" {
    local before used
    before=$(ticks_of a weftd)
    # shellcheck disable=SC2016
    in_machine underlay sh -c 'i=0; while [ $i -lt 300 ]; do
        curl --silent --request PUT --data "$i" "$1/v1/kv/weft/v1/nodes/x" >/dev/null; i=$((i + 1)); done' \
        writes "$(consul_url)"
    consul_cmd kv delete weft/v1/nodes/x
    used=$(($(ticks_of a weftd) - before))
    ((used < 100)) || fail "$used ticks for 300 changes"
}

# entries_for HOST VTEP: prints how many entries of the tunnel's FDB lead to that VTEP.
entries_for() {
    in_host "$1" bridge fdb show | grep -c "dst $2 self" || true
}

# by_name NETWORK: prints a configuration that names a network which exists.
by_name() {
    jq --null-input --compact-output --arg name "$1" '{cniVersion: "1.0.0", $name, type: "weft", ipam: {type: "weft-ipam"}}'
}

# has_none_of_many HOST: succeeds if the host has no bridge with a VNI from 7001 to 7080.
has_none_of_many() {
    ! in_host "$1" ip -o link | grep -q -E "wb70[0-8][0-9]"
}

@test "an agent that starts on a host with many networks stays registered and cuts nothing off" {
    local i before
    for i in {1..80}; do
        weftctl a network create "many$i" --subnet "10.200.$i.0/24" --vni "$((7000 + i))"
        attach a "many$i" "$(by_name "many$i")"
    done >/dev/null
    attach b watcher "$(by_name many1)"
    eventually 5 ping_from b watcher "$(cni_ip a many1)"
    before=$(entries_for b "$(underlay_ip a)")
    stop_weftd a KILL
    start_weftd a
    for i in {1..10}; do
        sleep 1
        assert_equal "$(entries_for b "$(underlay_ip a)")" "$before" "entries for a on b, second $i"
    done
    run weftctl b --output json node list
    assert_json '.[] | select(.name == "a") | .alive' true
    ping_from b watcher "$(cni_ip a many1)"
    cni b DEL watcher eth0 "$(by_name many1)"
    for i in {1..80}; do
        cni a DEL "many$i" eth0 "$(by_name "many$i")"
    done
    # The agent hears of the end of all of them at once.
    pause_daemon a weftd
    for i in {1..80}; do
        weftctl b network remove --force "many$i"
    done
    resume_daemon a weftd
    eventually 60 has_none_of_many a
    run weftctl b --output json node list
    assert_json '.[] | select(.name == "a") | .alive' true
}

@test "a record that cannot be read cuts nobody off, and its node writes it again" {
    local conf
    conf=$(net odd 6030 10.90.0.0/24)
    attach a odd1 "$conf"
    attach b odd1 "$conf"
    eventually 5 ping_from a odd1 "$(cni_ip b odd1)"
    consul_cmd kv put weft/v1/nodes/b '{}'
    sleep 2
    ping_from a odd1 "$(cni_ip b odd1)"
    is_written() { consul_cmd kv get weft/v1/nodes/b | jq -e .machineId; }
    # It looks every half a minute.
    eventually 45 is_written
    ping_from a odd1 "$(cni_ip b odd1)"
}
