# Consul servers in the underlay, each at an address of its own: clusters of one, or one of several.

# start_consul [NAME]: starts an empty server and waits until it takes writes. The name is `consul` unless given.
start_consul() {
    add_consul "${1:-consul}" || return 1
    restart_consul "${1:-consul}"
}

# start_consul_cluster NAME...: starts empty servers that form one cluster, and waits until each takes writes.
start_consul_cluster() {
    local name other
    for name; do
        add_consul "$name" || return 1
    done
    for name; do
        for other; do
            echo "-retry-join=$(<"$WEFT_TEST_DIR/consul/$other/ip")"
        done >"$WEFT_TEST_DIR/consul/$name/join"
        launch_consul "$name"
    done
    for name; do
        eventually 30 consul_is_ready "$name"
    done
}

# add_consul NAME: gives a server its directory and its address.
add_consul() {
    local number dir=$WEFT_TEST_DIR/consul/$1
    [[ -x $WEFT_TEST_CONSUL ]] || fail "$WEFT_TEST_CONSUL is missing: run scripts/setup" || return 1
    number=$(find "$WEFT_TEST_DIR/consul" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l)
    mkdir -p "$dir"
    underlay_address $((241 + number)) >"$dir/ip"
    in_machine underlay ip address add "$(<"$dir/ip")/32" dev br0
}

# restart_consul [NAME]: starts a stopped server again, with the data that it had.
restart_consul() {
    launch_consul "${1:-consul}"
    eventually 20 consul_is_ready "${1:-consul}"
}

# launch_consul NAME: starts a server and does not wait. CONSUL_HCL, if set, is added to its configuration.
launch_consul() {
    local dir=$WEFT_TEST_DIR/consul/$1 ip join=()
    ip=$(<"$dir/ip")
    [[ ! -f $dir/join ]] || mapfile -t join <"$dir/join"
    # raft_multiplier 1 elects a leader in about a second instead of five or more.
    start_daemon underlay "$1" "$WEFT_TEST_CONSUL" agent -server -bootstrap-expect="$((${#join[@]} ? ${#join[@]} : 1))" \
        "${join[@]}" -node="$1" -bind="$ip" -client="$ip" -data-dir="$dir/data" -log-level=warn -hcl '
            performance { raft_multiplier = 1 }
            ports { dns = -1 }
            disable_update_check = true
            '"${CONSUL_HCL-}"
}

# stop_consul [NAME]: kills the server; its data stays.
stop_consul() {
    stop_daemon underlay "${1:-consul}" KILL
}

# consul_url [NAME]: prints the base URL of the server's API.
consul_url() {
    echo "http://$(<"$WEFT_TEST_DIR/consul/${1:-consul}/ip"):8500"
}

# consul_leader NAME: prints the name of the server that this one takes for the leader; fails if it knows none.
consul_leader() {
    local ip
    ip=$(in_machine underlay curl --silent --fail "$(consul_url "$1")/v1/status/leader" | jq -r 'sub(":.*"; "")')
    [[ -n $ip ]] || return 1
    basename "$(dirname "$(grep -lFx "$ip" "$WEFT_TEST_DIR"/consul/*/ip)")"
}

# consul_cmd ARGS...: the consul command line, talking to the server named by CONSUL_NAME.
consul_cmd() {
    CONSUL_HTTP_ADDR=$(consul_url "${CONSUL_NAME:-consul}") in_machine underlay "$WEFT_TEST_CONSUL" "$@"
}

# A leader alone is not enough: sessions can be made only once the server is in its own catalogue as healthy.
consul_is_ready() {
    in_machine underlay curl --silent --fail "$(consul_url "$1")/v1/health/node/$1" |
        jq --exit-status 'any(.CheckID == "serfHealth" and .Status == "passing")'
}
