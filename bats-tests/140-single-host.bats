#!/usr/bin/env bats
# One host and nothing else: no Consul, no agent, no configuration file. Networks by command and by configuration,
# beside and below the reference plugins, in every version of the specification.

load helpers

# All that a configuration must say of a network that exists.
RED='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "ipam": {"type": "weft-ipam"}}'

setup_file() {
    setup_underlay
    add_host a
    weftctl a network create red --subnet 10.9.0.0/24
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

# add CONTAINER [CONF]: a new container on the network, red unless told.
add() {
    add_container a "$1"
    cni a ADD "$1" eth0 "${2:-$RED}"
}

# holders NETWORK: prints the containers that hold an address of it, one a line.
holders() {
    weftctl a network inspect "$1" | jq -r '.reservations[].holder | objects.attachment | objects.containerId'
}

# host_ends: prints the names of the containers' interfaces on the host, one a line.
host_ends() {
    in_host a ip -j link show type veth | jq -r '.[].ifname | select(startswith("wv"))'
}

# assert_gone CONTAINER: it holds no address of red, and has no interface.
assert_gone() {
    run -0 holders red
    [[ $output != *"$1"* ]] || fail "$1 still holds an address" || return 1
    run ! in_container a "$1" ip link show eth0
}

@test "weftctl creates, lists, shows and removes networks, for people and for programs" {
    run weftctl a network create green --subnet 10.7.0.0/16 --gateway 10.7.0.9 --vni 5001 --mtu 1400
    assert_equal "$output" 'network green has vni 5001'
    run weftctl a network create green --subnet 10.7.0.0/16 --gateway 10.7.0.9 --vni 5001 --mtu 1400 --output json
    assert_json '"\(.name) \(.vni) \(.mtu)"' 'green 5001 1400'
    run weftctl a network list
    [[ ${lines[0]} == NETWORK*VNI*SUBNETS* && ${lines[1]} =~ ^green\ +5001\ +10.7.0.0/16\ .*1400$ ]]
    run weftctl a network list --output json
    assert_json 'map(.name) | join(" ")' 'green red'
    run weftctl a network inspect green
    assert_json '"\(.name) \(.mode) \(.masquerade) \(.blocks) \(.reservations)"' 'green gateway on [] []'
    assert_json '.pools[0].ipv4 | "\(.subnet) \(.gateway)"' '10.7.0.0/16 10.7.0.9'
    run weftctl a network remove green
    assert_equal "$output" 'network green is removed'
    run weftctl a network list --output json
    assert_json 'map(.name) | join(" ")' red
    local command
    for command in inspect remove; do
        run ! weftctl a network "$command" green
        [[ $output == *'no network green'* ]]
    done
}

@test "weftctl says that there is nothing, that it needs root, and that one host needs no agent" {
    add_host empty
    run weftctl empty node list
    [[ $status == 0 && $output == *'there are no nodes in the local store in /var/lib/weft/store'* ]] || fail "$output"
    run weftctl empty network list
    [[ $status == 0 && $output == *'there are no networks in the local store'* ]] || fail "$output"
    run weftctl empty --output json network list
    assert_equal "$output" '[]'
    add first
    run weftctl a node list
    [[ $status == 0 && ${lines[1]} == *' –  '* && $output != *down* ]] || fail "$output"
    cni a DEL first eth0 "$RED"
    run in_machine a setpriv --reuid 65534 --clear-groups "$WEFT_BIN_DIR/weftctl" ipam check
    [[ $status == 1 && $output == *'Permission denied (os error 13); run weftctl as root' ]] || fail "$output"
    run in_machine a "$WEFT_BIN_DIR/weftctl" --config /etc/weft/none.toml node list
    [[ $output == *'/etc/weft/none.toml: it does not exist; create it, or leave --config out'* ]] || fail "$output"
}

@test "an MTU that contradicts the network's is told as that, also where it does not fit" {
    add_container a fat
    run cni a ADD fat eth0 "$(jq '.mtu = 9000' <<<"$RED")"
    [[ $status != 0 ]]
    assert_json .code 7
    assert_json '.msg | contains("mtu 9000 is not what network red has (by the underlay)")' true
    assert_json '.msg | contains("weftctl network extend")' false
}

@test "weftctl refuses what cannot be, and says which part of it" {
    refuse() {
        local words=$1
        shift
        run weftctl a network create green "$@"
        [[ $status != 0 && $output == *"$words"* ]] || fail "$*:" "$output"
    }
    refuse '10.7.0.0/16' --subnet 10.7.0.1/16
    refuse 'overlaps 10.9.0.0/24 of network red' --subnet 10.9.0.0/16
    refuse '10.8.0.1 lies outside' --subnet 10.7.0.0/16 --gateway 10.8.0.1
    refuse '10.8.0.0/24 lies outside' --subnet 10.7.0.0/16 --exclude 10.8.0.0/24
    refuse 'vni 0' --subnet 10.7.0.0/16 --vni 0
    refuse 'vni 10000 belongs to network red' --subnet 10.7.0.0/16 --vni 10000
    refuse 'mtu 100' --subnet 10.7.0.0/16 --mtu 100
    refuse 'nothing to masquerade' --subnet 10.7.0.0/16 --internal --ip-masq on
    refuse --subnet
    run weftctl a network list --output json
    assert_json 'map(.name) | join(" ")' red
}

@test "a configuration needs no more than the name of a network that exists" {
    run add named
    assert_json '.ips[0] | "\(.address | sub(".*/"; "/")) \(.gateway)"' '/24 10.9.0.1'
    assert_json '.routes[0].dst' 0.0.0.0/0
    cni a CHECK named eth0 "$(with_prev_result a named eth0 "$RED")"
    cni a DEL named eth0 "$RED"
    assert_gone named
}

@test "a configuration that contradicts the network is told the key and both values" {
    add_container a other
    contradict() {
        run cni a ADD other eth0 "$(jq "$2" <<<"$RED")"
        [[ $status != 0 ]] || fail "$2 went through" || return 1
        assert_json .code 7
        [[ $(jq -r .msg <<<"$output") == "$1"* ]] || fail "$2: $output"
    }
    contradict 'vni 77 is not what network red has (10000)' '.vni = 77'
    contradict 'mtu 1400 is not what network red has (by the underlay)' '.mtu = 1400'
    contradict 'isGateway false is not what network red has (true)' '.isGateway = false'
    contradict 'ipMasq false is not what network red has (true)' '.ipMasq = false'
    contradict 'subnet 10.7.0.0/24 is not what network red has (10.9.0.0/24)' '.ipam.subnet = "10.7.0.0/24"'
    contradict 'gateway 10.9.0.9 is not what network red has (10.9.0.1)' \
        '.ipam += {subnet: "10.9.0.0/24", gateway: "10.9.0.9"}'
    contradict 'rangeStart 10.9.0.9 is not what network red has ((none))' \
        '.ipam += {subnet: "10.9.0.0/24", rangeStart: "10.9.0.9"}'
    contradict 'exclude 10.9.0.9/32 is not what network red has' \
        '.ipam += {subnet: "10.9.0.0/24", exclude: ["10.9.0.9"]}'
    contradict 'blockBits 2 is not what network red has (4)' '.ipam += {subnet: "10.9.0.0/24", blockBits: 2}'
    assert_gone other
}

@test "containers and the host reach each other, and containers the outside by the host's address" {
    add one
    add two
    ping_from a one "$(cni_ip a two)"
    ping_from a two "$(cni_ip a one)"
    ping_from a - "$(cni_ip a one)"
    ping_from a one 10.9.0.1
    ping_from a one "$(underlay_ip a)"
    run in_container a one ip -j route show default
    assert_json '.[0] | "\(.gateway) \(.dev)"' '10.9.0.1 eth0'
    # The outside has no route back to the overlay.
    capture_start outside "icmp and dst host $WEFT_OUTSIDE_IP"
    ping_from a one "$WEFT_OUTSIDE_IP"
    capture_stop outside
    run capture_show outside
    [[ $output == *"IP $(underlay_ip a) > $WEFT_OUTSIDE_IP"* ]]
    cni a DEL one eth0 "$RED"
    cni a DEL two eth0 "$RED"
}

@test "an internal network has no gateway, no default route and no way to the host" {
    weftctl a network create inner --subnet 10.7.0.0/24 --internal
    local conf=${RED/red/inner}
    run add inner1 "$conf"
    assert_json '"\(.ips[0].gateway) \(.routes)"' 'null null'
    add inner2 "$conf"
    ping_from a inner1 "$(cni_ip a inner2)"
    run in_container a inner1 ip route show default
    assert_equal "$output" ''
    run ! ping_from a inner1 "$WEFT_OUTSIDE_IP"
    run ! ping_from a - "$(cni_ip a inner1)"
    cni a DEL inner1 eth0 "$conf"
    cni a DEL inner2 eth0 "$conf"
    weftctl a network remove inner
}

@test "a network with containers is not removed; an unused one goes with all that it had on the host" {
    local conf=${RED/red/busy} name
    weftctl a network create busy --subnet 10.7.0.0/24 --vni 5002
    add tenant "$conf"
    run weftctl a network remove busy
    [[ $status != 0 && $output == *'network busy is in use: 1 container on this node'* ]]
    ping_from a tenant 10.7.0.1
    cni a DEL tenant eth0 "$conf"
    weftctl a network remove busy
    for name in wb5002 wx5002; do
        run ! in_host a ip link show "$name"
    done
    run -0 in_host a nft list ruleset
    [[ $output != *5002* && $output != *10.7.0.0* ]]
    run ! in_host a test -e /run/weft/networks/busy
}

@test "the reference bridge plugin takes its addresses from weft-ipam" {
    local conf='{"cniVersion": "1.0.0", "name": "bridged", "type": "bridge", "bridge": "ref0", "isGateway": true,
        "ipam": {"type": "weft-ipam", "subnet": "10.6.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}'
    run add bridged1 "$conf"
    assert_json '.ips[0].gateway' 10.6.0.1
    cni a CHECK bridged1 eth0 "$(with_prev_result a bridged1 eth0 "$conf")"
    add bridged2 "$conf"
    ping_from a bridged1 "$(cni_ip a bridged2)"
    ping_from a bridged1 10.6.0.1
    cni a DEL bridged1 eth0 "$conf"
    cni a DEL bridged2 eth0 "$conf"
    run holders bridged
    assert_equal "$output" ''
    weftctl a network remove bridged
}

@test "weft takes its addresses from the reference host-local plugin" {
    local conf='{"cniVersion": "1.0.0", "name": "local", "type": "weft", "isGateway": true,
        "ipam": {"type": "host-local", "subnet": "10.5.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]}}'
    add local1 "$conf"
    add local2 "$conf"
    cni a CHECK local1 eth0 "$(with_prev_result a local1 eth0 "$conf")"
    ping_from a local1 "$(cni_ip a local2)"
    ping_from a local1 10.5.0.1
    ping_from a - "$(cni_ip a local1)"
    ping_from a - "$(cni_ip a local2)"
    cni a DEL local1 eth0 "$conf"
    cni a DEL local2 eth0 "$conf"
    run ! in_host a ls /var/lib/cni/networks/local/10.5.0.2
    weftctl a network remove local
}

@test "the smallest network has room for one container, and the host speaks with the gateway's address" {
    local conf='{"cniVersion": "1.0.0", "name": "least", "type": "weft", "isGateway": true,
        "ipam": {"type": "weft-ipam", "subnet": "10.3.0.0/30"}}'
    add least1 "$conf"
    assert_equal "$(cni_ip a least1)" 10.3.0.2
    ping_from a least1 10.3.0.1
    ping_from a - 10.3.0.2
    add_container a least2
    run cni a ADD least2 eth0 "$conf"
    assert_json .code 11
    cni a DEL least1 eth0 "$conf"
    weftctl a network remove least
}

@test "weft-ipam by itself gives an address and touches no container" {
    local conf='{"cniVersion": "1.0.0", "name": "red", "type": "weft-ipam"}' first
    add_container a bare
    run cni a ADD bare eth0 "$conf"
    assert_json '"\(.interfaces) \(.ips | length) \(.ips[0].interface) \(.ips[0].gateway)"' 'null 1 null 10.9.0.1'
    first=$(jq -r '.ips[0].address' <<<"$output")
    run cni a ADD bare eth0 "$conf"
    assert_json '.ips[0].address' "$first"
    run ! in_container a bare ip link show eth0
    cni a CHECK bare eth0 "$conf"
    cni a DEL bare eth0 "$conf"
    run cni a CHECK bare eth0 "$conf"
    assert_json .code 100
}

@test "VERSION is answered with whatever else is set, and without any input" {
    local plugin
    for plugin in weft weft-ipam; do
        run in_host a env CNI_COMMAND=VERSION CNI_IFNAME=not/a/name CNI_NETNS=dummy CNI_PATH=dummy CNI_ARGS=x \
            "/opt/cni/bin/$plugin" <<<'{"cniVersion": "0.4.0"}'
        assert_json '"\(.cniVersion) \(.supportedVersions | join(" "))"' '0.4.0 0.1.0 0.2.0 0.3.0 0.3.1 0.4.0 1.0.0 1.1.0'
        run in_host a env CNI_COMMAND=VERSION "/opt/cni/bin/$plugin" </dev/null
        assert_json '.supportedVersions | last' 1.1.0
    done
}

@test "every version of the specification gets a result in its own shape" {
    local version conf
    # Whether the address stands under ip4, its gateway, its family, the route, how many interfaces, their MTU.
    local shape='[has("ip4"), (.ip4 // .ips[0] | .gateway, .version), (.ip4 // . | .routes[0].dst),
        (.interfaces | length), .interfaces[2].mtu] | tojson'
    local -A expected=(
        [0.1.0]='[true,"10.9.0.1",null,"0.0.0.0/0",0,null]'
        [0.2.0]='[true,"10.9.0.1",null,"0.0.0.0/0",0,null]'
        [0.3.0]='[false,"10.9.0.1","4","0.0.0.0/0",3,null]'
        [0.3.1]='[false,"10.9.0.1","4","0.0.0.0/0",3,null]'
        [0.4.0]='[false,"10.9.0.1","4","0.0.0.0/0",3,null]'
        [1.0.0]='[false,"10.9.0.1",null,"0.0.0.0/0",3,null]'
        [1.1.0]='[false,"10.9.0.1",null,"0.0.0.0/0",3,1450]'
    )
    add_container a spoken
    for version in "${!expected[@]}"; do
        conf=$(jq --arg version "$version" '.cniVersion = $version' <<<"$RED")
        run cni a ADD spoken eth0 "$conf"
        assert_json .cniVersion "$version"
        assert_json "$shape" "${expected[$version]}"
        ping_from a spoken 10.9.0.1
        run cni a DEL spoken eth0 "$conf"
        assert_equal "$status:$output" 0:
        assert_gone spoken
    done
    # A configuration without a version is of the first.
    run cni a ADD spoken eth0 "$(jq 'del(.cniVersion)' <<<"$RED")"
    assert_json '"\(.cniVersion) \(.ip4.gateway)"' '0.1.0 10.9.0.1'
    cni a DEL spoken eth0 "$(jq 'del(.cniVersion)' <<<"$RED")"
}

@test "every version has the verbs that came with it or before" {
    local version conf verb
    add verbs
    # succeeds VERB VERSION: silently, as all verbs but ADD and VERSION do.
    succeeds() {
        conf=$(jq --arg version "$2" '.cniVersion = $version' <<<"$RED")
        conf=$(with_prev_result a verbs eth0 "$conf" |
            jq '.["cni.dev/valid-attachments"] = [{containerID: "verbs", ifname: "eth0"}]')
        run cni a "$1" verbs eth0 "$conf"
        assert_equal "$status:$output" 0: "$1 in $2"
    }
    for version in 0.4.0 1.0.0 1.1.0; do
        succeeds CHECK "$version"
    done
    succeeds STATUS 1.1.0
    succeeds GC 1.1.0
    ping_from a verbs 10.9.0.1
    for verb in CHECK:0.3.1 STATUS:1.0.0 GC:1.0.0; do
        run ! succeeds "${verb%:*}" "${verb#*:}"
        [[ $output == *'config version'* ]]
    done
    succeeds DEL 0.4.0
    assert_gone verbs
}

@test "GC frees what a container that is gone has left, and nothing else" {
    local conf
    add kept
    add lost
    remove_container a lost
    conf=$(jq '.cniVersion = "1.1.0" | .["cni.dev/valid-attachments"] = [{containerID: "kept", ifname: "eth0"}]' <<<"$RED")
    CNI_NETNS='' cni a GC '' '' "$conf"
    run holders red
    [[ $output == *kept* && $output != *lost* ]]
    ping_from a kept 10.9.0.1
    cni a DEL kept eth0 "$RED"
}

@test "later plugins of a chain go on from weft's result, and weft agrees with theirs" {
    local red tuning portmap ip
    red=$(jq '.capabilities = {portMappings: true}' <<<"$RED")
    tuning='{"cniVersion": "1.0.0", "name": "red", "type": "tuning", "mtu": 1400,
        "sysctl": {"net.core.somaxconn": "500"}}'
    portmap='{"cniVersion": "1.0.0", "name": "red", "type": "portmap", "snat": true,
        "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]}}'
    add chained "$red"
    ip=$(cni_ip a chained)
    cni a ADD chained eth0 "$(with_prev_result a chained eth0 "$tuning")"
    run cni a ADD chained eth0 "$(with_prev_result a chained eth0 "$portmap")"
    assert_json '"\(.interfaces | map(.name)[2]) \(.ips[0].address)"' "eth0 $ip/24"
    cni a CHECK chained eth0 "$(with_prev_result a chained eth0 "$red")"
    cni a CHECK chained eth0 "$(with_prev_result a chained eth0 "$tuning")"

    start_daemon a web nsenter --net=/run/netns/chained busybox nc -ll -p 80 -e echo hello
    eventually 5 in_container a chained busybox nc -w 2 127.0.0.1 80
    run in_machine underlay busybox nc -w 2 "$(underlay_ip a)" 8080
    assert_equal "$output" hello "what the mapped port says"
    stop_daemon a web

    cni a DEL chained eth0 "$(with_prev_result a chained eth0 "$portmap")"
    cni a DEL chained eth0 "$(with_prev_result a chained eth0 "$tuning")"
    cni a DEL chained eth0 "$(with_prev_result a chained eth0 "$red")"
    assert_gone chained
}

# at_once VERB: the verb for 16 containers in parallel.
at_once() {
    local i pids=()
    for i in {1..16}; do
        cni a "$1" "crowd$i" eth0 "$RED" >/dev/null &
        pids+=($!)
    done
    for i in "${pids[@]}"; do
        wait "$i" || return 1
    done
}

@test "16 containers at once get 16 addresses, and give them all back at once" {
    local i before
    before=$(host_ends)
    for i in {1..16}; do
        add_container a "crowd$i"
    done
    at_once ADD
    run jq -n '[inputs.ips[0].address] | unique | length' "$WEFT_TEST_DIR"/machines/a/result.crowd*
    assert_equal "$output" 16 "number of different addresses"
    for i in {2..16}; do
        ping_from a crowd1 "$(cni_ip a "crowd$i")" >/dev/null
    done
    at_once DEL
    run -0 holders red
    [[ $output != *crowd* ]]
    assert_equal "$(host_ends)" "$before" "interfaces on the host"
}

# killed_add CONTAINER SECONDS: an ADD that is killed after that time, and a DEL at once. Says whether it was in time.
killed_add() {
    # Foreground: the signal is for weft alone, not for the IPAM plugin that it runs.
    # shellcheck disable=SC2016
    in_host a env CNI_CONTAINERID="$1" CNI_IFNAME=eth0 CNI_NETNS="/run/netns/$1" CNI_PATH=/opt/cni/bin sh -c '
        echo "$1" | CNI_COMMAND=ADD timeout --foreground -s KILL "$0" /opt/cni/bin/weft >/dev/null || echo killed
        echo "$1" | CNI_COMMAND=DEL /opt/cni/bin/weft' "$2" "$RED"
}

@test "weft killed at any moment of an ADD leaves nothing that DEL does not remove" {
    local i before killed=0
    before=$(host_ends)
    for i in {1..20}; do
        add_container a "killed$i"
        # An ADD takes a few milliseconds.
        run killed_add "killed$i" "$(printf '0.%05d' $((i * 25)))"
        [[ $output != killed ]] || killed=$((killed + 1))
        assert_equal "${output#killed}" '' "what DEL says"
    done
    echo "killed $killed times"
    ((killed > 0))
    # The IPAM plugin may have outlived weft by a little.
    sleep 0.5
    run -0 holders red
    [[ $output != *killed* ]] || fail "these still hold addresses:" "$output"
    assert_equal "$(host_ends)" "$before" "interfaces on the host"
    add survivor
    ping_from a survivor 10.9.0.1
    cni a DEL survivor eth0 "$RED"
}
