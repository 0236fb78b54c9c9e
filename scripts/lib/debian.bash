# Debian packages: installing them, and unpacking those of another Debian release beside the system.

# install_packages NAME...: calls apt only if one is missing.
install_packages() {
    local package missing=()
    for package in "$@"; do
        package_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0

    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    quietly apt-get update
    # --no-remove: where Docker's own containerd.io is installed, Debian's containerd would push it out.
    quietly apt-get install -y --no-install-recommends --no-remove "${missing[@]}"
}

package_installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# quietly CMD...: shows what the command printed only if it fails.
quietly() {
    local output
    output=$("$@" 2>&1) || die "$* failed:"$'\n'"$output"
}

# debian_mirror: prints the base URI of the main archive as this machine's apt knows it, in whichever of its
# source formats it is written.
debian_mirror() {
    local codename
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    # awk reads to the end: under pipefail, an early exit of it would count as a failure of apt-get.
    # shellcheck disable=SC2016 # the variables are apt's
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v codename="$codename" '
            $1 !~ /^cdrom:/ && ($2 == codename || $2 == "stable") && $3 == "main" && !uri { uri = $1 }
            END { print uri }'
}

# apt_for_suite SUITE CMD...: runs apt-get with that suite as its only source, and with lists and caches of its own.
# A mirror frozen at some date is as good as any here: signatures are checked, their expiry is not.
apt_for_suite() {
    local suite=$1 dir=$WEFT_TEST_CACHE/apt/$1
    shift
    apt-get \
        -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::Etc::PreferencesParts=/dev/null -o Dir::Etc::Preferences=/dev/null \
        -o Dir::State="$dir/state" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$dir/cache" \
        -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root "$@"
}

# prepare_suite SUITE: fetches the package lists of a suite from this machine's own mirror.
prepare_suite() {
    local suite=$1 dir=$WEFT_TEST_CACHE/apt/$1 mirror
    mirror=$(debian_mirror)
    [[ -n $mirror ]] || die "apt knows no Debian main archive to take packages of $suite from: see apt-get indextargets"
    mkdir -p "$dir"/{state/lists/partial,cache/archives/partial,download}
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$dir/sources.list"
    quietly apt_for_suite "$suite" update
}

# unpack_from_suite SUITE DIR PACKAGE...: unpacks packages of another release below DIR; nothing gets installed,
# and no package script runs.
unpack_from_suite() {
    local suite=$1 target=$2 download=$WEFT_TEST_CACHE/apt/$1/download package
    shift 2
    prepare_suite "$suite"
    for package in "$@"; do
        rm -f "$download"/*.deb
        (cd "$download" && quietly apt_for_suite "$suite" download "$package") || return 1
        mkdir -p "$target"
        dpkg -x "$download"/*.deb "$target" || return 1
    done
    # Lists and archives are tens of megabytes, and stale tomorrow.
    rm -rf "${WEFT_TEST_CACHE:?}/apt/$suite"
}
