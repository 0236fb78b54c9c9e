#!/usr/bin/env bats
# No program prints a secret, whatever is wrong and however much it logs.

load helpers

NET='{"cniVersion": "1.0.0", "name": "red", "type": "weft", "isGateway": true,
    "ipam": {"type": "weft-ipam", "subnet": "10.9.0.0/24"}}'

SECRET=6b1d8f50-4b7e-11f0-8de9-0242ac120002

setup_file() {
    setup_underlay
    add_host a
    start_consul
    add_container a box
}

teardown() {
    dump_logs_of_failed_test
}

teardown_file() {
    teardown_underlay
}

# everything_says TEXT [VARIABLE=VALUE...]: runs all programs at the most verbose level. None may print the secret, and
# each must fail with a message that contains TEXT; empty: none need fail.
everything_says() {
    local expected=$1 conf said
    shift
    # A network that the node does not have yet: the store must be asked.
    conf=$(jq --arg name "red$RANDOM" '.name = $name | .cniVersion = "1.1.0" | .["cni.dev/valid-attachments"] = []' <<<"$NET")
    local plugin verb
    for plugin in weft weft-ipam; do
        for verb in ADD CHECK GC STATUS DEL; do
            said=$(in_machine a env WEFT_LOG=trace RUST_BACKTRACE=1 CNI_COMMAND=$verb CNI_CONTAINERID=box CNI_IFNAME=eth0 \
                CNI_NETNS=/run/netns/box CNI_PATH=/opt/cni/bin "$@" "/opt/cni/bin/$plugin" \
                <<<"$conf" 2>&1) || true
            judge "$plugin $verb" "$said" "" || return 1
            [[ $verb != ADD || $said == *"$expected"* ]] || fail "$plugin $verb does not say '$expected':" "$said" || return 1
        done
    done
    said=$(in_machine a env WEFT_LOG=trace RUST_BACKTRACE=1 "$@" "$WEFT_BIN_DIR/weftctl" node list 2>&1) || true
    judge weftctl "$said" "$expected" || return 1
    said=$(in_machine a env WEFT_LOG=trace RUST_BACKTRACE=1 "$@" timeout 3 "$WEFT_BIN_DIR/weftd" 2>&1) || true
    judge weftd "$said" "$expected"
}

# judge PROGRAM SAID EXPECTED
judge() {
    [[ $2 != *"$SECRET"* && $2 != *"${SECRET:0:13}"* ]] || fail "$1 prints the secret:" "$2" || return 1
    [[ $2 == *"$3"* ]] || fail "$1 does not say '$3':" "$2" || return 1
}

# config LINES...: the node's configuration with a Consul, and these lines at its end, in [store].
config() {
    write_node_config a
    printf '%s\n' "$@" >>"$(node_config a)"
}

@test "a configuration with a token that cannot be parsed is described by key and line" {
    local line=8
    config "token = \"$SECRET"
    everything_says "line $line is not TOML"
    config "token = $SECRET"
    everything_says "line $line is not TOML"
    config "token: \"$SECRET\""
    everything_says "line $line is not TOML"
    config "tokn = \"$SECRET\""
    everything_says "line $line: there is no key \`tokn\` in [store]; did you mean \`token\`?"
    config "token = [\"$SECRET\"]"
    everything_says "line $line: store.token: expected a string"
    config "token = \"$SECRET\"" "token = \"$SECRET\""
    everything_says "line 9 sets a key that is set already"
    config "\"$SECRET\" = \"token\""
    everything_says "line $line: an unknown key in [store]"
    config "[agent]" "token = \"$SECRET\""
    everything_says "line 9: an unknown key in [agent]"
    config "token = \"$SECRET\"" "ca_file"
    everything_says "line 9 is not TOML"
}

@test "a token that is good, bad or in the wrong place is not printed" {
    config "token = \"$SECRET\""
    everything_says ""
    config "token = \"$SECRET $SECRET\""
    everything_says "it has characters that no token has"
    config
    sed -i "s|^address = .*|address = \"http://user:$SECRET@198.18.0.9:8500\"|" "$(node_config a)"
    everything_says "must not hold a user or a password"
    sed -i "s|^address = .*|address = \"http://127.0.0.1:9/?token=$SECRET\"|" "$(node_config a)"
    everything_says "Consul at http://127.0.0.1:9 cannot be used now"
    sed -i "s|^address = .*|address = \"$SECRET\"|" "$(node_config a)"
    everything_says "it has the form of a token"
}

@test "neither variables nor files of the token and the key are printed" {
    config
    sed -i '/^address/d' "$(node_config a)"
    everything_says "cannot be used now" CONSUL_HTTP_ADDR=127.0.0.1:9 "CONSUL_HTTP_TOKEN=$SECRET"
    everything_says "must not hold a user" "CONSUL_HTTP_ADDR=http://user:$SECRET@127.0.0.1:9"
    everything_says "CONSUL_HTTP_TOKEN_FILE" "CONSUL_HTTP_ADDR=http://user:$SECRET@127.0.0.1:9" \
        CONSUL_HTTP_TOKEN_FILE=/nonexistent
    in_machine a sh -c "mkdir -p /run/secrets; echo $SECRET >/run/secrets/token
        echo '-----BEGIN PRIVATE KEY$SECRET' >/run/secrets/key.pem"
    everything_says "cannot be used now" CONSUL_HTTP_ADDR=127.0.0.1:9 CONSUL_HTTP_TOKEN_FILE=/run/secrets/token
    in_machine a openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=ca -keyout /dev/null -out /run/secrets/ca.pem
    everything_says "/run/secrets/key.pem" CONSUL_HTTP_ADDR=https://127.0.0.1:9 CONSUL_CACERT=/run/secrets/ca.pem \
        CONSUL_CLIENT_CERT=/run/secrets/ca.pem CONSUL_CLIENT_KEY=/run/secrets/key.pem
}
