# Sourced by every engine's script. A script takes an engine through its verbs with one OCI
# runtime and prints what a user would see; `cargo xtask engines` runs it with runc and with
# berth-oci and compares the two, step by step.
#
# RUNTIME       path of the OCI runtime
# RUNTIME_NAME  its name
# CGROUPS       cgroupfs or systemd: who makes the cgroups
# SCRATCH       an empty folder on a disk
# XTASK, PAUSE  `cargo xtask`, for its CRI client, and a program that holds a sandbox

set -u
BUSYBOX=127.0.0.1:5000/busybox:latest
WEB=127.0.0.1:5000/web:latest

# step NAME: what is printed from here on belongs to this step
step() {
  printf '## %s\n' "$*"
}

# try COMMAND…: its output, and its exit code where it is not 0
try() {
  timeout 120 "$@" 2>&1 </dev/null
  code=$?
  [ $code -eq 0 ] || printf 'exit %s\n' $code
}

# quiet COMMAND…: nothing but its exit code; its output is for whoever looks into a difference
quiet() {
  timeout 120 "$@" >&2 </dev/null
  printf 'exit %s\n' $?
}

# until_ok COMMAND…: repeats it until it succeeds, for at most a minute or so
until_ok() {
  for _ in $(seq 120); do
    "$@" >/dev/null 2>&1 </dev/null && return
    sleep 0.5
  done
  printf 'never: %s\n' "$*"
}
