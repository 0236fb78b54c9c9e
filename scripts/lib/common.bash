# What all scripts share. Source it first; it makes the repository the working directory.

WEFT_REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cd "$WEFT_REPO" || exit 1

# Downloads and unpacked packages that only tests use.
: "${WEFT_TEST_CACHE:=/var/cache/weft-test}"
# Where cargo leaves what it built for release.
# shellcheck disable=SC2034 # for those who source this
WEFT_BIN_DIR=${CARGO_TARGET_DIR:-$WEFT_REPO/target}/release

# rustup puts cargo here, and a non-interactive shell has not read the profile that says so. It comes first, since
# the distribution's cargo may be an old one.
PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH

say() {
    printf '%s\n' "$*"
}

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

require_root() {
    [[ $(id -u) == 0 ]] || die "needs root: it installs packages or makes network namespaces; run it with sudo"
}

# print_help: prints the comment at the top of the running script.
print_help() {
    sed -n '2,/^[^#]/ s/^# \{0,1\}//p' "$WEFT_REPO/scripts/${0##*/}"
}

# link_ipam: makes weft-ipam the same file as weft. By this weft knows that it can do the IPAM plugin's work itself.
link_ipam() {
    ln -f "$WEFT_BIN_DIR/weft" "$WEFT_BIN_DIR/weft-ipam"
}

# build_release: builds all programs. The user of sudo keeps the ownership of what was built.
build_release() {
    cargo build --release --workspace --exclude weft
    build_plugins
    link_ipam
    [[ -z ${SUDO_UID:-} ]] || chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "${WEFT_BIN_DIR%/release}"
}

# build_plugins: builds the plugins, linked statically and for a fixed address. They start for every container, and a
# dynamic loader takes as long as all the rest of the start; moving an executable of this size to a random address
# touches 50 pages. Stack, heap and mappings are at random addresses all the same. `cargo rustc` gives the flags to the
# last step only, so that no dependency is built for them, and none gets features that other programs ask for.
build_plugins() {
    cargo rustc --release --package weft --bin weft -- -C target-feature=+crt-static -C relocation-model=static
}
