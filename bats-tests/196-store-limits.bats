#!/usr/bin/env bats
# Consul takes 200 connections from one host, and no more (`limits.http_max_conns_per_client`).

load helpers

setup() {
    setup_underlay
    start_consul
    local host
    for host in a b; do
        add_host "$host"
        write_node_config "$host"
    done
}

teardown() {
    dump_logs_of_failed_test
    teardown_underlay
}

# connections_of HOST: prints the number of connections that Consul holds for the host.
connections_of() {
    in_machine underlay ss --numeric --no-header --tcp dst "$(underlay_ip "$1")" sport = :8500 | wc -l
}

# taken: prints the number of connections that the underlay's kernel has taken so far.
taken() {
    in_machine underlay nstat --zeros --noupdate --ignore TcpPassiveOpens | awk '/TcpPassiveOpens/ {print $2}'
}

has_at_most() {
    (($(connections_of "$1") <= $2)) || fail "$(connections_of "$1") connections"
}

@test "agents that start and end one after the other do not use up the connections of their host" {
    local _ signal
    for signal in TERM KILL; do
        for _ in {1..7}; do
            start_weftd b
            sleep 1.2
            stop_weftd b "$signal"
        done
    done
    has_at_most b 90
    start_weftd b
    for _ in {1..10}; do
        weftctl b node list
    done
    # Those of the agents that are gone go too.
    eventually 30 has_at_most b 24
}

@test "an agent that Consul refuses its waits asks seldom, says why, and goes on when it may" {
    stop_consul
    CONSUL_HCL='limits { http_max_conns_per_client = 12 }' restart_consul
    start_weftd b
    sleep 12
    local before after
    before=$(taken)
    sleep 10
    after=$(taken)
    # Two waits' worth of tries for each of the watches that are left over, and the waits that end.
    ((after - before < 120)) || fail "$((after - before)) connections in ten seconds"
    grep 'WARN.*keeping the last known' "$WEFT_TEST_DIR/logs/b.weftd.log" | grep 'limits.http_max_conns_per_client'
    (($(grep -c 'WARN.*keeping the last known' "$WEFT_TEST_DIR/logs/b.weftd.log") <= 10))
    stop_consul
    restart_consul
    eventually 20 sees_answers b
}

# sees_answers HOST: succeeds if each outage that the agent has logged is over.
sees_answers() {
    local log=$WEFT_TEST_DIR/logs/$1.weftd.log
    (($(grep -c 'WARN.*keeping the last known' "$log") == $(grep -c 'answers again' "$log")))
}
