# Sourced by `run` and `portability`: packages of this machine's own apt sources, unpacked under target/. No root is needed,
# nothing of the system is changed. Needs $apt, a folder for lists and downloads that belongs to the caller.

say() { printf '%s\n' "$*"; }
warn() { printf 'warning: %s\n' "$*" >&2; }
die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# apt with lists, caches and sources of its own. $apt is a folder under target/.
private_apt() {
    local command=$1
    shift
    "$command" -qq \
        -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" \
        -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts="$apt/sources.list.d" \
        -o APT::Sandbox::User="$(id -un)" "$@"
}

# Reads the package lists into $apt.
begin_apt() {
    rm -rf "$apt"
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/sources.list.d" "$apt/debs"
    : >"$apt/sources.list"
    if [[ -f /etc/apt/sources.list ]]; then cat /etc/apt/sources.list >"$apt/sources.list"; fi
    cp /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources "$apt/sources.list.d/" 2>/dev/null || true

    private_apt apt-get update || warn "apt-get update failed; going on with what it could fetch"
}

# Downloads packages into $apt/debs.
download() {
    (cd "$apt/debs" && private_apt apt-get download "$@")
}

# Unpacks mesa-vulkan-drivers, the loader, and whatever of their dependencies this machine lacks, into $1.
# $2: `newest`, or `stock` for the release's own. After begin_apt.
unpack_mesa() {
    local root=$1 codename release=()
    mkdir -p "$root"
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")

    # Debian 12's own Mesa 22.3 is 8-10 times slower than the one of its backports.
    if [[ $codename == bookworm && $2 == newest ]]; then
        local uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg option=''
        uri=$(private_apt apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 'Component: main' | sed -n 1p)
        if [[ -f $keyring ]]; then option="[signed-by=$keyring] "; fi
        if ! grep -qs bookworm-backports "$apt/sources.list" "$apt"/sources.list.d/*; then
            printf 'deb %s%s bookworm-backports main\n' "$option" "$uri" >"$apt/sources.list.d/backports.list"
            private_apt apt-get update || true
        fi
        release=(-t bookworm-backports)
        # Read whole before it is searched: `grep -q` would end the pipe early, and pipefail takes that for a failure.
        local policy
        policy=$(private_apt apt-cache "${release[@]}" policy mesa-vulkan-drivers 2>/dev/null || true)
        if [[ ! $policy =~ Candidate:\ [^$'\n']*bpo12 ]]; then
            warn "no Mesa in bookworm-backports; going on with Debian 12's own, which is 8-10 times slower"
            release=()
            rm -f "$apt/sources.list.d/backports.list"
        fi
    fi

    # What an installation would add or replace here, and no more.
    local plan package packages=()
    plan=$(private_apt apt-get install --simulate --no-install-recommends "${release[@]}" mesa-vulkan-drivers libvulkan1) ||
        die "apt cannot find mesa-vulkan-drivers; install it, or set SHADEGRAD_ALLOW_NO_GPU=1"
    while read -r package; do
        case $package in
        # These belong to the running system; a second copy beside it would break every program.
        libc6=* | libc6:* | libc-bin=* | libgcc-s1=* | libstdc++6=* | gcc-*-base=*) warn "not unpacking $package" ;;
        # OpenGL, which apt keeps at the same version as the Vulkan drivers.
        libegl* | libgbm* | libgl* | mesa-libgallium* | *-dev=*) ;;
        *) packages+=("$package") ;;
        esac
    done < <(sed -nE 's/^Inst ([^ ]+) (\[[^]]*\] )?\(([^ ]+) .*/\1=\3/p' <<<"$plan")
    # The driver and the loader are needed even if an installation would find them in place.
    local name
    for name in mesa-vulkan-drivers libvulkan1; do
        if [[ " ${packages[*]} " != *" $name="* ]]; then packages+=("$name"); fi
    done
    say "unpacking ${packages[*]}"
    rm -f "$apt"/debs/*.deb
    download "${release[@]}" "${packages[@]}"
    local deb
    for deb in "$apt"/debs/*.deb; do dpkg -x "$deb" "$root"; done
}

# Points the loader at the driver $2 (a library) unpacked in the folder $1, described by a file like $3; libraries beside
# it are found. The description is written anew each time: the folder may have been moved.
use_driver() {
    local folder=$1 driver template
    driver=$(find "$folder/root" -name "$2" -print -quit)
    template=$(find "$folder/root" -name "$3" -print -quit)
    if [[ -z $driver || -z $template ]]; then die "$folder holds no $2; remove it and run again"; fi
    sed -E "s|(\"library_path\": *)\"[^\"]*\"|\1\"$driver\"|" "$template" >"$folder/icd.json"
    export LD_LIBRARY_PATH=$(dirname "$driver")${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export VK_DRIVER_FILES=$folder/icd.json VK_ICD_FILENAMES=$folder/icd.json
    export XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR:-/tmp}
    local missing
    missing=$(ldd "$driver" | awk '/not found/ { print $1 }' | sort -u | tr '\n' ' ')
    if [[ -n $missing ]]; then die "the software driver lacks $missing; install these libraries"; fi
}
