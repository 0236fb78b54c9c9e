#!/usr/bin/env bats
# Three Consul servers that die, come back and stand still, while six nodes claim blocks without pause.

load helpers

SERVERS=(consul1 consul2 consul3)
HOSTS=(a b c d e f)

setup() {
    setup_underlay
    start_consul_cluster "${SERVERS[@]}"
    local i
    for i in "${!HOSTS[@]}"; do
        add_host "${HOSTS[i]}"
        # Two nodes to a server.
        write_node_config "${HOSTS[i]}" "${SERVERS[i % 3]}"
    done
    # Half of the nodes have an agent, which claims too.
    for host in a b c; do
        start_weftd "$host"
    done
    # Blocks of four, so that about every fourth ADD claims.
    weftctl a network create red --subnet 10.9.0.0/16 --block-bits 2
}

teardown() {
    dump_logs_of_failed_test
    teardown_underlay
}

# leader: prints who leads, in the eyes of the first server that knows.
leader() {
    local server
    for server in "${SERVERS[@]}"; do
        consul_leader "$server" 2>/dev/null && return
    done
    return 1
}

start_drivers() {
    local host
    for host in "${HOSTS[@]}"; do
        start_daemon "$host" driver "$WEFT_HELPERS/add-driver.py" --name "$host" --network red \
            --until "$WEFT_TEST_DIR/enough"
    done
}

# stop_drivers: leaves all their results, as one array, in $WEFT_TEST_DIR/results.
stop_drivers() {
    local host
    touch "$WEFT_TEST_DIR/enough"
    for host in "${HOSTS[@]}"; do
        eventually 60 daemon_stopped "$host" driver
    done
    for host in "${HOSTS[@]}"; do
        tail -n 1 "$WEFT_TEST_DIR/logs/$host.driver.log"
    done | jq -s . >"$WEFT_TEST_DIR/results"
}

# reservations: prints all of all hosts as an array of objects with host, holder and address.
reservations() {
    local host
    for host in "${HOSTS[@]}"; do
        in_host "$host" sh -c 'cat /run/weft/networks/red/reservations/*' |
            jq -c --arg host "$host" \
                '{host: $host, holder: (.holder | .attachment?.containerId // "node"), address: .addresses[0]}'
    done | jq -s .
}

# owners_by_consul and owners_by_ledgers: print a line `BLOCK OWNER` for each block that one of them knows.
owners_by_consul() {
    weftctl a block list --output json | jq -r '.[] | "\(.block) \(.node)"' | sort
}

owners_by_ledgers() {
    local host
    for host in "${HOSTS[@]}"; do
        in_host "$host" ls /run/weft/networks/red/blocks | sed "s/\$/ $host/"
    done | sort
}

# The answer to a claim may have been lost. Such a block is taken up by the next claim.
owners_agree() {
    local host i
    assert_equal "$(comm -13 <(owners_by_consul) <(owners_by_ledgers))" '' 'what the ledgers have and Consul has not' ||
        return 1
    for host in $(comm -23 <(owners_by_consul) <(owners_by_ledgers) | cut -d ' ' -f 2); do
        for i in 1 2 3 4; do
            cni "$host" ADD "late-$RANDOM-$RANDOM" eth0 '{"cniVersion": "1.0.0", "name": "red", "type": "weft-ipam"}'
        done
    done
    assert_equal "$(owners_by_ledgers)" "$(owners_by_consul)" 'blocks by the ledgers'
}

@test "no address and no block has two holders, whatever happens to the servers" {
    local chosen
    start_drivers
    sleep 3

    chosen=$(leader)
    stop_consul "$chosen"
    sleep 4
    restart_consul "$chosen"
    sleep 2

    chosen=$(leader)
    pause_daemon underlay "$chosen"
    sleep 7
    resume_daemon underlay "$chosen"
    sleep 3

    # Without a majority there is no claim at all.
    stop_consul consul1
    stop_consul consul2
    sleep 4
    launch_consul consul1
    launch_consul consul2
    eventually 20 leader
    sleep 3

    # A short pause: the old leader may believe for a moment that it still leads.
    chosen=$(leader)
    for _ in 1 2 3; do
        pause_daemon underlay "$chosen"
        sleep 0.7
        resume_daemon underlay "$chosen"
        sleep 0.7
    done
    stop_drivers
    echo "# $(jq -c '{added: map(.added) | add, later: map(.later) | add}' "$WEFT_TEST_DIR/results")" >&3

    run jq -c . "$WEFT_TEST_DIR/results"
    assert_json 'map(.violations) | add' '[]'
    assert_json 'map(.added > 50) | all' true
    assert_json '(map(.later) | add) > 0' true

    local server
    for server in "${SERVERS[@]}"; do
        eventually 20 consul_is_ready "$server"
    done
    # What nodes say they hold is what the containers were told, and no address occurs twice.
    reservations >"$WEFT_TEST_DIR/reservations"
    run jq -c 'group_by(.address) | map(select(length > 1))' "$WEFT_TEST_DIR/reservations"
    assert_equal "$output" '[]' 'addresses held twice'
    run jq -n --slurpfile reserved "$WEFT_TEST_DIR/reservations" --slurpfile results "$WEFT_TEST_DIR/results" '
        ($reserved[0] | map(select(.holder != "node") | {key: .holder, value: .address}) | from_entries) as $reserved |
        ($results[0] | map(.held) | add) as $told | $reserved == $told'
    assert_equal "$output" true 'whether reservations are what ADD returned'
    eventually 30 owners_agree
}
