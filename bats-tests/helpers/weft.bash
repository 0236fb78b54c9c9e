# weft on a host: node configuration, the agent, containers, and calls of CNI plugins as a runtime makes them.

# Where Debian's containernetworking-plugins puts the reference plugins.
WEFT_REFERENCE_PLUGINS=/usr/lib/cni

# install_weft HOST: weft's plugins and the reference plugins in /opt/cni/bin, and the place of the configuration.
install_weft() {
    # shellcheck disable=SC2016
    in_machine "$1" bash -c '
        mkdir -p /opt/cni/bin /etc/cni/net.d /etc/weft
        ln -s "$3" /etc/weft/weft.toml
        for plugin in "$1"/* "$2"/weft "$2"/weft-ipam; do
            ln -sf "$plugin" /opt/cni/bin/
        done' install "$WEFT_REFERENCE_PLUGINS" "$WEFT_BIN_DIR" "$(node_config "$1")"
    use_ipam "$1" "$WEFT_TEST_IPAM"
}

# Where weft's IPAM plugin runs: `link`, in weft's process, since weft-ipam is the same file; `exec`, in a process of
# its own, since it is a copy.
: "${WEFT_TEST_IPAM:=link}"

# use_ipam HOST link|exec: says so for one host.
use_ipam() {
    # shellcheck disable=SC2016
    in_machine "$1" sh -euc '
        case $1 in
        link) ln -sf "$2/weft-ipam" /opt/cni/bin/weft-ipam ;;
        exec) cp --remove-destination "$2/weft" /opt/cni/bin/weft-ipam ;;
        *) echo "WEFT_TEST_IPAM=$1: link or exec"; exit 1 ;;
        esac' use_ipam "$2" "$WEFT_BIN_DIR"
}

# node_config HOST: prints the path of the host's configuration, the same inside and outside of it. The host's
# /etc/weft/weft.toml leads there, so weft finds it by itself. While there is no file, weft goes by its defaults.
node_config() {
    echo "$WEFT_TEST_DIR/machines/$1/weft.toml"
}

# write_node_config HOST [CONSUL]: makes the host a node that meets the others on that Consul server.
write_node_config() {
    cat >"$(node_config "$1")" <<TOML
node = "$1"
underlay = "$(underlay_ip "$1")"
data_dir = "/run/weft"

[store]
type = "consul"
address = "$(consul_url "${2:-consul}")"
TOML
}

# start_weftd HOST [ARGS...]
start_weftd() {
    local host=$1
    shift
    start_daemon "$host" weftd "$WEFT_BIN_DIR/weftd" "$@"
}

# start_cluster HOST...: makes an underlay with a Consul, and hosts with an agent each. NODE_TOML is added to the
# configuration of each.
start_cluster() {
    local host
    setup_underlay
    start_consul
    for host in "$@"; do
        add_host "$host"
        write_node_config "$host"
        printf '%b' "${NODE_TOML:-}" >>"$(node_config "$host")"
        start_weftd "$host"
    done
}

# stop_weftd HOST [SIGNAL]: TERM unless told; KILL plays the crash.
stop_weftd() {
    stop_daemon "$1" weftd "${2:-TERM}"
}

# weftctl HOST ARGS...
weftctl() {
    local host=$1
    shift
    in_machine "$host" "$WEFT_BIN_DIR/weftctl" "$@"
}

# add_container HOST NAME: a network namespace with lo up, as a runtime hands it to a plugin.
add_container() {
    in_machine "$1" ip netns add "$2"
    in_container "$1" "$2" ip link set lo up
}

# remove_container HOST NAME: the namespace goes, as after a crash: no DEL is called.
remove_container() {
    in_machine "$1" ip netns delete "$2"
}

# in_container HOST NAME CMD...: runs a command in a container's network namespace.
in_container() {
    local host=$1 container=$2
    shift 2
    in_machine "$host" nsenter --net="/run/netns/$container" -- "$@"
}

# cni HOST VERB CONTAINER IFNAME CONF: execs the plugin that CONF (JSON text, or a file with it) names as its type.
#
# Standard output, standard error and exit code are the plugin's; CNI_ARGS and CNI_NETNS may be set by the caller.
# The result of an ADD is kept for cni_ip and with_prev_result.
cni() {
    local host=$1 verb=$2 container=$3 ifname=$4 conf=$5 plugin result status=0
    [[ ! -f $conf ]] || conf=$(<"$conf")
    plugin=$(jq -r .type <<<"$conf")
    result=$(CNI_COMMAND=$verb CNI_CONTAINERID=$container CNI_IFNAME=$ifname \
        CNI_NETNS=${CNI_NETNS-/run/netns/$container} CNI_ARGS=${CNI_ARGS-} CNI_PATH=/opt/cni/bin \
        in_machine "$host" "/opt/cni/bin/$plugin" <<<"$conf") || status=$?
    if [[ $verb == ADD && $status == 0 ]]; then
        echo "$result" >"$(cni_result_file "$host" "$container" "$ifname")"
    fi
    [[ -z $result ]] || printf '%s\n' "$result"
    return "$status"
}

cni_result_file() {
    echo "$WEFT_TEST_DIR/machines/$1/result.$2.$3.json"
}

# cni_ip HOST CONTAINER [IFNAME]: prints the first address that ADD gave, without its prefix length.
cni_ip() {
    jq -r '.ips[0].address | sub("/.*"; "")' "$(cni_result_file "$1" "$2" "${3:-eth0}")"
}

# network_id NETWORK: prints the network as the keys of what belongs to it have it.
network_id() {
    consul_cmd kv get "weft/v1/networks/$1" | jq -r '"\(.name)@\(.incarnation)"'
}

# vni_of NETWORK: prints the VNI of a network in Consul.
vni_of() {
    consul_cmd kv get "weft/v1/networks/$1" | jq -r .vni
}

# with_prev_result HOST CONTAINER IFNAME CONF: prints CONF with the ADD's result in it, as CHECK and DEL want it.
with_prev_result() {
    jq --slurpfile result "$(cni_result_file "$1" "$2" "$3")" '.prevResult = $result[0]' <<<"$4"
}

# ping_from HOST CONTAINER TARGET [COUNT]: succeeds if any answer comes. CONTAINER `-` is the host itself.
ping_from() {
    local host=$1 container=$2 ping=(busybox ping -c "${4:-1}" -i 0.2 -W 1 "$3")
    if [[ $container == - ]]; then
        in_machine "$host" "${ping[@]}"
    else
        in_container "$host" "$container" "${ping[@]}"
    fi
}
