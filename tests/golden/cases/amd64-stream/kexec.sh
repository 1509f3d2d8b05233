#!/bin/sh
# Boots the live image of this netboot tree from a running Linux, by kexec: no firmware, no DHCP
# server and no boot loader take part. As root:
#
#   sh kexec.sh                                          in a copy of the tree
#   curl -fsSL http://SERVER/FOLDER/kexec.sh | sh -s http://SERVER/FOLDER
#
# `sh kexec.sh --help` tells the rest; by a pipe, options stand behind `sh -s --`. Runs in any POSIX shell, busybox's too.

title='Gentoo Linux amd64 (2026-11-22)'
base_url=http://192.168.7.1/gentoo
# The NFS server; if it is not known, the tree's web server is one, too.
nfs_server=
entries='gentoo gentoo-accessibility gentoo-stream gentoo-stream-accessibility gentoo-http gentoo-http-accessibility'

usage() {
    printf '%s\n' "$title" '' \
        'usage: sh kexec.sh [OPTION...] [URL|FOLDER] [KERNEL ARGUMENT...]' '' \
        'Boots this netboot tree from a running Linux. The tree is the folder of this script' \
        'if none is named. Open files are lost unless systemd ends all programs before.' '' \
        '  --entry NAME   what to boot; the first that can be had if none is named' \
        '  --list         list what there is' \
        '  --load-only    load it, but do not start it' \
        '  --dry-run      tell what would be done' \
        '  --force        go on though there seems to be too little memory' \
        '  --help         this text'
}

# An entry's own values, by its name.
set_entry() {
    case $1 in
    gentoo)
        entry_title='Boot LiveCD (kernel: gentoo)'
        root=embedded
        memory=84
        kernel=boot/gentoo
        kernel_packed=
        kernel_bytes=16384
        kernel_sha256=b76c4a171ee953a41c8b258affe429d7363776e6c3b4619a22efe8a682d70b6a
        arguments='root=live:/image.squashfs.img rd.live.overlay.overlayfs=1 cdroot dokeymap nodhcp'
        initrd_bytes=1050244
        # In this order they make one initrd.
        initrds='boot/gentoo.igz 1536 ec192cf7c2bf7156bec414870c0120ea0ee13d632ba02a03ee7600842812bd38
boot/root.cpio-header 132 1a70eaf767379bf38f932b4bbc9875656df37b4ae17a81f58245e513ae3fce22
image.squashfs 1048576 4c2ee83c1c1c6f645c7530033b6fe16b5b19c5093fd724e02a512278df43d83a
'
        ;;
    gentoo-accessibility)
        entry_title='Boot LiveCD (kernel: gentoo) (accessibility)'
        root=embedded
        memory=84
        kernel=boot/gentoo
        kernel_packed=
        kernel_bytes=16384
        kernel_sha256=b76c4a171ee953a41c8b258affe429d7363776e6c3b4619a22efe8a682d70b6a
        arguments='root=live:/image.squashfs.img rd.live.overlay.overlayfs=1 cdroot dokeymap nodhcp dospeakup'
        initrd_bytes=1050244
        # In this order they make one initrd.
        initrds='boot/gentoo.igz 1536 ec192cf7c2bf7156bec414870c0120ea0ee13d632ba02a03ee7600842812bd38
boot/root.cpio-header 132 1a70eaf767379bf38f932b4bbc9875656df37b4ae17a81f58245e513ae3fce22
image.squashfs 1048576 4c2ee83c1c1c6f645c7530033b6fe16b5b19c5093fd724e02a512278df43d83a
'
        ;;
    gentoo-stream)
        entry_title='Boot LiveCD (kernel: gentoo)'
        root=stream
        memory=155
        kernel=boot/gentoo
        kernel_packed=
        kernel_bytes=16384
        kernel_sha256=b76c4a171ee953a41c8b258affe429d7363776e6c3b4619a22efe8a682d70b6a
        arguments='root=live:/dev/mapper/live-root rd.live.overlay.overlayfs=1 cdroot dokeymap nodhcp'
        initrd_bytes=32768
        # In this order they make one initrd.
        initrds='boot/gentoo.igz 1536 ec192cf7c2bf7156bec414870c0120ea0ee13d632ba02a03ee7600842812bd38
boot/gentoo.net.cpio 31232 ae3bb8c7fbac52aa3b6590895eb63dee3fbfdd9e12fde0ed3123eeb1fcccf0c3
'
        ;;
    gentoo-stream-accessibility)
        entry_title='Boot LiveCD (kernel: gentoo) (accessibility)'
        root=stream
        memory=155
        kernel=boot/gentoo
        kernel_packed=
        kernel_bytes=16384
        kernel_sha256=b76c4a171ee953a41c8b258affe429d7363776e6c3b4619a22efe8a682d70b6a
        arguments='root=live:/dev/mapper/live-root rd.live.overlay.overlayfs=1 cdroot dokeymap nodhcp dospeakup'
        initrd_bytes=32768
        # In this order they make one initrd.
        initrds='boot/gentoo.igz 1536 ec192cf7c2bf7156bec414870c0120ea0ee13d632ba02a03ee7600842812bd38
boot/gentoo.net.cpio 31232 ae3bb8c7fbac52aa3b6590895eb63dee3fbfdd9e12fde0ed3123eeb1fcccf0c3
'
        ;;
    gentoo-http)
        entry_title='Boot LiveCD (kernel: gentoo)'
        root=http
        memory=163
        kernel=boot/gentoo
        kernel_packed=
        kernel_bytes=16384
        kernel_sha256=b76c4a171ee953a41c8b258affe429d7363776e6c3b4619a22efe8a682d70b6a
        arguments='root=live:/dev/mapper/live-root rd.live.overlay.overlayfs=1 cdroot pxeboot.copy dokeymap nodhcp'
        initrd_bytes=32768
        # In this order they make one initrd.
        initrds='boot/gentoo.igz 1536 ec192cf7c2bf7156bec414870c0120ea0ee13d632ba02a03ee7600842812bd38
boot/gentoo.net.cpio 31232 ae3bb8c7fbac52aa3b6590895eb63dee3fbfdd9e12fde0ed3123eeb1fcccf0c3
'
        ;;
    gentoo-http-accessibility)
        entry_title='Boot LiveCD (kernel: gentoo) (accessibility)'
        root=http
        memory=163
        kernel=boot/gentoo
        kernel_packed=
        kernel_bytes=16384
        kernel_sha256=b76c4a171ee953a41c8b258affe429d7363776e6c3b4619a22efe8a682d70b6a
        arguments='root=live:/dev/mapper/live-root rd.live.overlay.overlayfs=1 cdroot pxeboot.copy dokeymap nodhcp dospeakup'
        initrd_bytes=32768
        # In this order they make one initrd.
        initrds='boot/gentoo.igz 1536 ec192cf7c2bf7156bec414870c0120ea0ee13d632ba02a03ee7600842812bd38
boot/gentoo.net.cpio 31232 ae3bb8c7fbac52aa3b6590895eb63dee3fbfdd9e12fde0ed3123eeb1fcccf0c3
'
        ;;
    *) die "unknown entry '$1'" "sh kexec.sh --list shows those there are" ;;
    esac
}

# Where the live root is, if it is not in the initrd; the tree's address is known here.
set_location() {
    tree_url=${url:-$base_url}
    case $entry in
    gentoo-stream) location="pxeboot.url=${tree_url}/image.squashfs" ;;
    gentoo-stream-accessibility) location="pxeboot.url=${tree_url}/image.squashfs" ;;
    gentoo-http) location="pxeboot.url=${tree_url}/image.squashfs" ;;
    gentoo-http-accessibility) location="pxeboot.url=${tree_url}/image.squashfs" ;;
    esac
    # An address that the caller gives takes the place of DHCP's.
    if [ -n "$location" ]; then
        case " $more" in
        *' ip='*) ;;
        *) location="$location ip=dhcp" ;;
        esac
    fi
}

# Says whether the chosen entry's root can be reached from here.
is_reachable() {
    case $root in
    embedded) ;;
    nfs) [ -n "$url$nfs_server" ] ;;
    *) [ -n "$url$base_url" ] ;;
    esac
}

list_entries() {
    for name in $entries; do
        set_entry "$name"
        printf '%s: %s (root: %s' "$name" "$entry_title" "$root"
        [ "$memory" = 0 ] || printf ', at least %s MiB of memory' "$memory"
        printf ')\n'
    done
}

say() {
    printf '%s\n' "$*"
}

die() {
    printf 'kexec.sh: %s\n' "$1" >&2
    [ $# = 1 ] || printf '  %s\n' "$2" >&2
    exit 1
}

# What ends the work, but only shows in a dry run.
object() {
    [ -n "$dry_run" ] || die "$@"
    say "Would end here: $1"
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# A value of /proc/meminfo, in KiB.
meminfo() {
    while read -r key value _; do
        if [ "$key" = "$1:" ]; then
            echo "$value"
            return
        fi
    done </proc/meminfo
    echo 0
}

# The machine's memory in MiB: what the firmware reported to the kernel, or what the kernel has of it.
installed_memory() {
    total=0
    while read -r range _ name; do
        if [ "$name" = 'System RAM' ]; then
            total=$((total + 0x${range#*-} - 0x${range%-*} + 1))
        fi
    done </proc/iomem
    total=$((total / 1048576))
    usable=$(($(meminfo MemTotal) / 1024))
    # Only root sees addresses there.
    if [ "$total" -gt "$usable" ]; then echo "$total"; else echo "$usable"; fi
}

check_machine() {
    machine=$(uname -m)
    case $machine in
    x86_64) ;;
    *) object "this tree is for another processor than this machine's, $machine" ;;
    esac
    [ "$(id -u)" = 0 ] || object 'only root can start another kernel' 'run it by sudo or su'
    has kexec || object 'the program kexec is missing' 'install kexec-tools (Gentoo: sys-apps/kexec-tools)'
    disabled=0
    [ ! -r /proc/sys/kernel/kexec_load_disabled ] || read -r disabled </proc/sys/kernel/kexec_load_disabled
    [ "$disabled" = 0 ] || object 'kexec is switched off until this machine starts again' \
        'sysctl kernel.kexec_load_disabled was set to 1; boot this tree from the network instead'
    [ -e /sys/kernel/kexec_loaded ] || object 'the running kernel knows no kexec (CONFIG_KEXEC)' \
        'boot this tree from the network instead'
    installed=$(installed_memory)
    if [ "$installed" -lt "$memory" ] && [ -z "$force" ]; then
        object "this machine has $installed MiB of memory, and $entry needs $memory MiB" \
            'take another entry (--list), or try all the same (--force)'
    fi
    locked=
    if [ -r /sys/kernel/security/lockdown ]; then
        read -r lockdown </sys/kernel/security/lockdown
        case $lockdown in
        *'[none]'*) ;;
        *) locked=yes ;;
        esac
    fi
}

# Finds a private folder with room for the kernel and the initrd; in memory if there is some.
make_work() {
    need=$(((kernel_bytes + initrd_bytes) / 1024 + 1024))
    for place in ${TMPDIR:+"$TMPDIR"} /dev/shm /run /tmp /var/tmp; do
        [ -d "$place" ] || continue
        room=$(df -Pk "$place" 2>/dev/null | {
            read -r _
            read -r device _ _ free _
            echo "$device ${free:-0}"
        })
        [ "${room#* }" -ge "$need" ] || continue
        work=$(umask 077 && mktemp -d "$place/kexec.XXXXXX") || continue
        # kexec makes a copy of its own.
        case ${room% *} in
        /*) ;;
        *) need=$((2 * need)) ;;
        esac
        available=$(meminfo MemAvailable)
        if [ "$available" -lt "$need" ] && [ -z "$force" ]; then
            die "$((need / 1024)) MiB of free memory are needed to load it, and $((available / 1024)) MiB are free" \
                'end some programs, or try all the same (--force)'
        fi
        return
    done
    die "no folder has room for $((need / 1024)) MiB" 'name one in TMPDIR'
}

# Writes a file of the tree to standard output.
fetch() {
    if [ -z "$url" ]; then
        cat "$folder/$1"
    elif has curl; then
        if [ -t 2 ]; then progress=--progress-bar; else progress=--silent; fi
        curl --fail --show-error --location "$progress" "$url/$1"
    elif has wget; then
        wget -q -O - "$url/$1"
    else
        echo 'kexec.sh: neither curl nor wget is there' >&2
        return 1
    fi
}

# Appends a file of the tree ($1: path, $2: bytes, $3: sha256) to the file $4, which then has $5
# bytes. Another file than the tree was made with ends the work.
take() {
    say "Fetching $1"
    if has sha256sum; then
        wanted=$3
        found=$({ fetch "$1" </dev/null || : >"$work/failed"; } | tee -a "$4" | sha256sum)
        found=${found%% *}
    else
        wanted=$2
        found=$({ fetch "$1" </dev/null || : >"$work/failed"; } | tee -a "$4" | wc -c)
        found=$((found))
    fi
    [ ! -e "$work/failed" ] || die "$1 could not be fetched from ${url:-$folder}" \
        'the reason is above; is the address right, and the tree whole?'
    [ "$found" = "$wanted" ] || die "$1 is not the file that this script was made with" \
        'fetch this script again from the same tree, or look for what changes the file on its way'
    [ "$(($(wc -c <"$4")))" = "$5" ] || die "$1 could not be written to $work" 'name another folder in TMPDIR'
}

take_all() {
    has sha256sum || say 'sha256sum not found: only sizes are compared.'
    take "$kernel" "$kernel_bytes" "$kernel_sha256" "$work/kernel" "$kernel_bytes"
    if [ -n "$kernel_packed" ]; then
        gzip -dc "$work/kernel" >"$work/unpacked" || die "$kernel cannot be unpacked with gzip"
        mv "$work/unpacked" "$work/kernel"
    fi
    joined=0
    while read -r path bytes sha256; do
        [ -n "$path" ] || continue
        joined=$((joined + bytes))
        take "$path" "$bytes" "$sha256" "$work/initrd" "$joined"
    done <<END
$initrds
END
}

# The network card in use, as loaders tell it to the live system; nothing for one without hardware
# of its own, which the live system does not have.
find_card() {
    while read -r interface destination _; do
        if [ "$destination" = 00000000 ] && [ -e "/sys/class/net/$interface/device" ]; then
            printf ' BOOTIF=01-%s' "$(tr : - <"/sys/class/net/$interface/address")"
            return
        fi
    done </proc/net/route
}

# The console of the running system, if the tree names none: who works over it goes on there.
find_consoles() {
    case " $arguments $more" in
    *' console='*) return ;;
    esac
    set -f
    # shellcheck disable=SC2013 # words, not lines
    for word in $(cat /proc/cmdline); do
        case $word in
        console=*) printf ' %s' "$word" ;;
        esac
    done
    set +f
}

load() {
    set -- --initrd="$work/initrd" --command-line="$arguments" "$work/kernel"
    # This call has the kernel check signatures and works under Secure Boot; older kernels and some
    # processors have only the other one.
    if said=$(kexec -s -l "$@" 2>&1); then
        return
    fi
    if [ -n "$locked" ]; then
        printf '%s\n' "$said" >&2
        die 'the running kernel is locked down, as under Secure Boot, and refuses this kernel' \
            'it takes one that is signed by a key it trusts; or turn Secure Boot off'
    fi
    kexec -l "$@" || {
        printf '%s\n' "$said" >&2
        die 'kexec could not load it; its reason is above'
    }
}

clean_up() {
    [ -z "$work" ] || rm -rf "$work"
    work=
}

main() {
    entry='' dry_run='' load_only='' force='' url='' folder='' work='' location=''
    while [ $# != 0 ]; do
        case $1 in
        --entry)
            [ $# -ge 2 ] || die '--entry wants a name' 'sh kexec.sh --list shows those there are'
            entry=$2
            shift
            ;;
        --entry=*) entry=${1#*=} ;;
        --list)
            list_entries
            return
            ;;
        --load-only) load_only=yes ;;
        --dry-run) dry_run=yes ;;
        --force) force=yes ;;
        --help | -h)
            usage
            return
            ;;
        --)
            shift
            break
            ;;
        -*) die "unknown option $1" 'sh kexec.sh --help lists them' ;;
        *) break ;;
        esac
        shift
    done
    case ${1-} in
    http://* | https://*)
        url=${1%/}
        shift
        ;;
    /* | . | .. | ./* | ../*)
        folder=$1
        shift
        ;;
    *)
        if [ -n "${1-}" ] && [ -d "$1" ]; then
            folder=$1
            shift
        fi
        ;;
    esac
    for word; do
        case $word in
        --) break ;;
        --*) die "$word: options stand before the tree's address" 'sh kexec.sh --help shows how' ;;
        esac
    done
    more="$*"
    # The script's own folder if it was started from a tree, then the address that it was made with.
    set_entry "${entry:-${entries%% *}}"
    if [ -z "$url$folder" ]; then
        case $0 in
        */*) folder=${0%/*} ;;
        *) folder=. ;;
        esac
        if [ ! -f "$folder/$kernel" ]; then
            folder=
            url=$base_url
        fi
    fi
    [ -n "$url$folder" ] || die 'it is not known where the tree is' \
        'name its address or its folder: sh kexec.sh http://SERVER/FOLDER'
    [ -z "$folder" ] || [ -f "$folder/$kernel" ] || die "$folder: no netboot tree ($kernel is not there)" \
        'name its address or its folder: sh kexec.sh http://SERVER/FOLDER'
    case $url in
    *[!A-Za-z0-9:/._~%+@-]*) die "$url: an address of other characters than letters, digits and : / . _ ~ % + @ -" ;;
    esac
    if [ -n "$entry" ]; then
        is_reachable || die "$entry needs a server, and the tree is a folder here" \
            'name its address: sh kexec.sh http://SERVER/FOLDER'
    else
        for entry in $entries; do
            set_entry "$entry"
            ! is_reachable || break
        done
        is_reachable || die 'every entry needs a server, and the tree is a folder here' \
            'name its address: sh kexec.sh http://SERVER/FOLDER'
    fi
    set_location
    check_machine
    arguments="$arguments${location:+ $location}$(find_card)$(find_consoles)${more:+ $more}"
    say "Entry      $entry: $entry_title"
    say "Tree       ${url:-$folder}"
    say "Arguments  $arguments"
    if [ -n "$dry_run" ]; then
        say "Kernel     $kernel"
        printf 'Initrd     %s' "$((initrd_bytes / 1024)) KiB:"
        while read -r path _; do
            [ -z "$path" ] || printf ' %s' "$path"
        done <<END
$initrds
END
        printf '\n'
        say "Memory     needs $memory MiB, this machine has $installed MiB"
        return
    fi
    trap clean_up EXIT
    trap 'exit 1' HUP INT TERM
    make_work
    take_all
    load
    clean_up
    if [ -n "$load_only" ]; then
        say 'Loaded. "kexec -e" starts it at once, "systemctl kexec" ends all programs before;' \
            '"kexec -u" forgets it.'
        return
    fi
    if [ -t 0 ] && [ -t 1 ]; then
        say 'Starting it in 5 seconds; Ctrl-C stops it.'
        trap 'kexec -u; exit 1' HUP INT TERM
        sleep 5
    fi
    sync
    if [ -d /run/systemd/system ] && has systemctl; then
        systemctl kexec
    else
        kexec -e
    fi
}

# Only here, so that a script that was cut short does nothing.
main "$@"
