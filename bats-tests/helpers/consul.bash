# Consul servers, each a cluster of one, in the underlay at an address of its own. The name is `consul` unless given.

# start_consul [NAME]: starts an empty server and waits until it takes writes.
start_consul() {
    local name=${1:-consul} number dir=$WEFT_TEST_DIR/consul/${1:-consul}
    [[ -x $WEFT_TEST_CONSUL ]] || fail "$WEFT_TEST_CONSUL is missing: run scripts/setup" || return 1
    number=$(find "$WEFT_TEST_DIR/consul" -mindepth 1 -maxdepth 1 2>/dev/null | wc -l)
    mkdir -p "$dir"
    underlay_address $((241 + number)) >"$dir/ip"
    in_machine underlay ip address add "$(<"$dir/ip")/32" dev br0
    restart_consul "$name"
}

# restart_consul [NAME]: starts a stopped server again, with the data that it had.
restart_consul() {
    local name=${1:-consul} dir=$WEFT_TEST_DIR/consul/${1:-consul} ip
    ip=$(<"$dir/ip")
    # raft_multiplier 1 elects a leader in about a second instead of five or more.
    start_daemon underlay "$name" "$WEFT_TEST_CONSUL" agent -server -bootstrap-expect=1 \
        -node="$name" -bind="$ip" -client="$ip" -data-dir="$dir/data" -log-level=warn -hcl '
            performance { raft_multiplier = 1 }
            ports { dns = -1 }
            disable_update_check = true'
    eventually 20 consul_is_ready "$name"
}

# stop_consul [NAME]: kills the server; its data stays.
stop_consul() {
    stop_daemon underlay "${1:-consul}" KILL
}

# consul_url [NAME]: prints the base URL of the server's API.
consul_url() {
    echo "http://$(<"$WEFT_TEST_DIR/consul/${1:-consul}/ip"):8500"
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
