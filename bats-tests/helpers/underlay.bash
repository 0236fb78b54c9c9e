# The underlay: a bridge in a machine of its own, hosts plugged into it, and the counting of what passes it.
#
#   198.18.N.1        the gateway, default route of every host (N is drawn at random)
#   198.18.N.11...    hosts, in the order in which they were added
#   198.18.N.241...   Consul servers
#   198.19.0.1        "the internet": behind the gateway, and without a route to any overlay

# shellcheck disable=SC2034 # for tests
WEFT_OUTSIDE_IP=198.19.0.1

# setup_underlay: call it first, in setup_file or in setup.
setup_underlay() {
    create_test_dir
    echo "198.18.$((RANDOM % 256))" >"$WEFT_TEST_DIR/prefix"
    spawn_machine underlay
    # Where br_netfilter is present, frames between two hosts would run through this machine's iptables.
    in_machine underlay sysctl -qe -w net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0
    in_machine underlay sysctl -q -w net.ipv4.ip_forward=1
    # Without a MAC of its own the bridge takes a host's, and all others lose it for seconds when that host is killed.
    in_machine underlay ip -batch - <<BATCH
link add name br0 address 02:00:00:00:00:fe type bridge
address add $(underlay_address 1)/24 dev br0
link set dev br0 up
address add $WEFT_OUTSIDE_IP/32 dev lo
BATCH
}

# teardown_underlay: removes everything that setup_underlay and later calls made.
teardown_underlay() {
    kill_all_machines
}

# underlay_address N: prints the underlay address that ends in N.
underlay_address() {
    echo "$(<"$WEFT_TEST_DIR/prefix").$1"
}

# add_host NAME: starts a machine that is connected to the underlay; NAME is its host name too.
add_host() {
    local host=$1 number ip
    number=$(cat "$WEFT_TEST_DIR/hosts" 2>/dev/null || echo 0)
    echo $((number + 1)) >"$WEFT_TEST_DIR/hosts"
    ip=$(underlay_address $((11 + number)))

    spawn_machine "$host"
    echo "$ip" >"$WEFT_TEST_DIR/machines/$host/ip"
    in_netns_of underlay ip -batch - <<BATCH
link add name $host type veth peer name eth0 netns $(machine_pid "$host")
link set dev $host master br0 up
BATCH
    in_machine "$host" ip -batch - <<BATCH
address add $ip/24 dev eth0
link set eth0 up
route add default via $(underlay_address 1)
BATCH
    install_weft "$host"
}

# in_host NAME CMD...: runs a command on a host.
in_host() {
    in_machine "$@"
}

# underlay_ip HOST: prints the host's address in the underlay.
underlay_ip() {
    cat "$WEFT_TEST_DIR/machines/$1/ip"
}

# unplug_host NAME / plug_host NAME: takes the host's underlay cable out and puts it back.
unplug_host() {
    in_netns_of underlay ip link set dev "$1" down
}

plug_host() {
    in_netns_of underlay ip link set dev "$1" up
}

# capture_start NAME FILTER...: records what passes the underlay's bridge and matches the pcap filter.
capture_start() {
    local name=$1 log=$WEFT_TEST_DIR/logs/underlay.$1.log
    shift
    # Immediate mode and -U: a packet is in the file as soon as it was seen, so that stopping loses none.
    start_daemon underlay "$name" \
        tcpdump --immediate-mode -U -Z root -n -i br0 -w "$WEFT_TEST_DIR/$name.pcap" "$@"
    eventually 5 grep -q 'listening on' "$log"
}

# capture_stop NAME: ends the recording.
capture_stop() {
    # The last packets are still on their way from the kernel to tcpdump.
    sleep 0.1
    stop_daemon underlay "$1" INT
}

# capture_count NAME: prints the number of packets recorded.
capture_count() {
    capture_show "$1" | wc -l
}

# capture_show NAME: prints the recorded packets, one a line.
capture_show() {
    timeout "$WEFT_TEST_TIMEOUT" tcpdump -nr "$WEFT_TEST_DIR/$1.pcap" 2>/dev/null
}
