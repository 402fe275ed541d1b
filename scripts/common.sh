# Shared by the scripts of this folder: messages, packages of the machine, Python environments.
# Sourced, never run. Callers have set `set -euo pipefail`.
# shellcheck shell=bash

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Messages go to stderr, so that a script's output stays its result.
step() { printf '\n==> %s\n' "$*" >&2; }
say() { printf '    %s\n' "$*" >&2; }
die() {
  printf '\nerror: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '       %s\n' "$@" >&2
  exit 1
}

# True when commands can be run as root without a question.
can_be_root() { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

# apt_install PACKAGE...: false, with a message, where apt or root is missing.
apt_install() {
  if ! command -v apt-get >/dev/null || ! can_be_root; then
    say "cannot install $* here (needs apt-get, and root or sudo without a password)"
    return 1
  fi
  say "installing $* with apt-get"
  local install=(env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "$@")
  local code=0
  without_services || return
  # The lists may be old or absent (fresh container images): refresh them only after a failure.
  if ! as_root "${install[@]}" >/dev/null 2>&1 </dev/null; then
    as_root apt-get update -qq >&2 </dev/null || true
    as_root "${install[@]}" >&2 </dev/null || code=$?
  fi
  with_services "$@"
  return "$code"
}

# Packages of servers start and enable them when they are installed; the tests run their own. Debian
# asks this program before a start; one that is there already is the machine's own affair.
policy=/usr/sbin/policy-rc.d
without_services() {
  [ ! -e "$policy" ] || return 0
  printf '#!/bin/sh\n# Made by scripts/common.sh for the length of one installation.\nexit 101\n' |
    as_root sh -c "cat >$policy && chmod 755 $policy"
}

# Takes the program away again, and disables what the packages $* enabled.
with_services() {
  local package unit
  if grep -q 'scripts/common.sh' "$policy" 2>/dev/null; then as_root rm -f "$policy"; fi
  command -v systemctl >/dev/null || return 0
  for package in "$@"; do
    case $package in
      postgresql) unit=postgresql ;;
      redis-server) unit=redis-server ;;
      *) continue ;;
    esac
    as_root systemctl disable --quiet "$unit" >/dev/null 2>&1 </dev/null || true
  done
}

# need COMMAND PACKAGE: installs PACKAGE when COMMAND is absent, or ends the script.
need() {
  command -v "$1" >/dev/null && return
  apt_install "$2" || true
  command -v "$1" >/dev/null || die "\`$1\` is missing" "install it (Debian, Ubuntu: apt-get install $2) and run this again"
}

# A compiler alone is not enough: without the C library's own files it cannot link.
cc_links() { echo 'int main(void) { return 0; }' | cc -x c -o /dev/null - >/dev/null 2>&1; }

need_cc() {
  cc_links && return
  apt_install gcc libc6-dev || true
  cc_links || die "no C compiler that can link a program" \
    "install one (Debian, Ubuntu: apt-get install gcc libc6-dev) and run this again"
}

need_rust() {
  [ -x "$HOME/.cargo/bin/cargo" ] && PATH="$PATH:$HOME/.cargo/bin"
  command -v cargo >/dev/null || die "\`cargo\` is missing" "install Rust from https://rustup.rs and run this again"
  need_cc
}

# True when $1 is a CPython of at least (or, with `exactly`, of) version $2 that can make environments.
python_fits() {
  "$1" - "$2" "${3:-at_least}" >/dev/null 2>&1 <<'PY'
import ensurepip, platform, sys, venv
want = tuple(int(n) for n in sys.argv[1].split("."))
have = sys.version_info[:len(want)]
fits = have == want if sys.argv[2] == "exactly" else have >= want
sys.exit(not (fits and platform.python_implementation() == "CPython"))
PY
}

# Prints a Python of 3.10 or newer; installs one where the machine allows.
any_python() {
  local candidate
  for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
    python_fits "$candidate" 3.10 && { command -v "$candidate"; return; }
  done
  apt_install python3 python3-venv || true
  python_fits python3 3.10 || die "no Python 3.10 or newer with the \`venv\` module" \
    "install it (Debian, Ubuntu: apt-get install python3 python3-venv) and run this again"
  command -v python3
}

# Ends with a pip of the environment $1 that has everything of the pinned list $2.
# A stamp makes the second call free; an interrupted first one is simply done again.
python_environment() {
  local venv=$1 list=$2 stamp python
  stamp=$(sha256sum <"$list")
  [ "$(cat "$venv/stamp" 2>/dev/null || true)" = "$stamp" ] && return
  say "making the Python environment ${venv#"$repo"/}"
  # Explicit returns: -e is off where a caller asks for the result.
  python=$(any_python) || return
  rm -rf "$venv"
  "$python" -m venv "$venv" || return
  "$venv/bin/python" -m pip install -q --disable-pip-version-check -r "$list" >&2 || return
  echo "$stamp" >"$venv/stamp"
}

# The environment with the official OpenAI SDK, which the demo and the client tests use.
sdk_environment() {
  python_environment "$repo/target/venv-sdk" "$repo/tests/clients/python/requirements.txt"
}

# Prints the folder of the code interpreter (`core`); installs it (50 MB, once) where the user's cache
# has none of this version. With GATEWAY, that program does it; else it is built first, since an old
# one would install what belongs to it.
core_bundle() {
  local gateway=${GATEWAY:-}
  if [ -z "$gateway" ]; then
    (cd "$repo" && cargo build -q --locked --bin vllm-responses) >&2 || return
    gateway=${CARGO_TARGET_DIR:-$repo/target}/debug/vllm-responses
  fi
  "$gateway" setup code-interpreter
}

# wait_for_http URL SECONDS PID LOG NAME: until URL answers 200. Shows the time it takes, and the log's
# last line, which says what is waited for;
# ends the script with the log's tail when process PID ends first.
wait_for_http() {
  local url=$1 limit=$2 pid=$3 log=$4 name=$5 began=$SECONDS shown=0
  until http_ok "$url"; do
    if ! kill -0 "$pid" 2>/dev/null; then
      tail -n 25 "$log" >&2
      die "$name ended before it was ready (the lines above are the end of $log)"
    fi
    [ $((SECONDS - began)) -lt "$limit" ] || die "$name was not ready within $limit seconds" "its log: $log"
    if [ $((SECONDS - began - shown)) -ge 10 ]; then
      shown=$((SECONDS - began))
      say "$name is starting ($shown s): $(last_words "$log")"
    fi
    sleep 0.3
  done
  say "$name is ready ($((SECONDS - began)) s)"
}

# The end of a log, short enough for a terminal, without what only a log needs.
last_words() {
  tail -n 1 "$1" 2>/dev/null | tr -cd '[:print:]' |
    sed -E 's/^[0-9TZ:.-]+ [A-Z]+ +[a-z_:]+: //; s/^(.{120}).+/\1.../'
}

# bash speaks HTTP by itself: curl may be absent on a small machine.
http_ok() {
  local rest=${1#http://} host port status
  host=${rest%%/*}
  port=${host##*:}
  host=${host%:*}
  status=$(
    exec 2>/dev/null
    exec 3<>"/dev/tcp/$host/$port" || exit 1
    printf 'GET /%s HTTP/1.0\r\nHost: %s\r\nConnection: close\r\n\r\n' "${rest#*/}" "$host" >&3
    IFS=' ' read -r -t 5 _ code _ <&3 && printf '%s' "$code"
  ) || return 1
  [ "$status" = 200 ]
}

port_is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# stop PID SECONDS: a polite stop, then a hard one of its whole group (children run under setsid).
stop() {
  local pid=$1 limit=$2 began=$SECONDS
  kill -TERM "$pid" 2>/dev/null || return 0
  while kill -0 "$pid" 2>/dev/null && [ $((SECONDS - began)) -lt "$limit" ]; do sleep 0.2; done
  kill -KILL -- "-$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}
