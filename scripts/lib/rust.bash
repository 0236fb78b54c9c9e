# The Rust toolchain that rust-toolchain.toml pins.

# install_rust: leaves a toolchain alone that can build the workspace.
install_rust() {
    if ! cargo_is_recent; then
        install_rustup
        hash -r
    fi
    # Without rustup, a cargo of the distribution that is recent enough has to do.
    command -v rustup >/dev/null || return 0
    pinned_toolchain_complete || install_pinned_toolchain
}

pinned_toolchain_complete() {
    cargo fmt --version && cargo clippy --version
} >/dev/null 2>&1

# cargo_is_recent: there is a cargo, and it is at least the workspace's rust-version.
# With rustup the pin decides, whatever the default toolchain is.
cargo_is_recent() {
    local wanted version
    command -v cargo >/dev/null || return 1
    command -v rustup >/dev/null && return 0
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    version=$(cargo --version | cut -d ' ' -f 2)
    printf '%s\n' "$wanted" "$version" | sort --check=quiet --version-sort
}

# install_rustup: from Debian where the release has it (13 on), else by rustup's own installer.
install_rustup() {
    say "installing rustup"
    if [[ -n $(apt-cache madison rustup 2>/dev/null) ]]; then
        install_packages rustup
    else
        # The toolchain comes next, as pinned.
        curl --proto '=https' --tlsv1.2 --silent --show-error --fail https://sh.rustup.rs |
            sh -s -- -y --quiet --profile minimal --default-toolchain none
    fi
}

install_pinned_toolchain() {
    local channel
    channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
    say "installing Rust $channel"
    quietly rustup toolchain install "$channel" --profile minimal --component clippy --component rustfmt
}
