#!/usr/bin/env bash
# containerd over an OCI runtime, with the v2 shim: by ctr, and by CRI as a kubelet calls it.
. "$(dirname "$0")/steps.sh"

mkdir -p "$SCRATCH"/{root,state,net.d,pause,logs}
cat >"$SCRATCH/net.d/10-net.conflist" <<EOF
{"cniVersion": "1.0.0", "name": "tested", "plugins": [{
  "type": "bridge", "bridge": "tested0", "isGateway": true, "ipMasq": false,
  "ipam": {"type": "host-local", "dataDir": "$SCRATCH/leases", "ranges": [[{"subnet": "10.233.0.0/24"}]]}
}]}
EOF
[ "$CGROUPS" = systemd ] && systemd=true || systemd=false
cat >"$SCRATCH/config.toml" <<EOF
version = 2
root = "$SCRATCH/root"
state = "$SCRATCH/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
address = "$SCRATCH/c.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "127.0.0.1:5000/pause:latest"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "$SCRATCH/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "tested"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested.options]
BinaryName = "$RUNTIME"
SystemdCgroup = $systemd
EOF
containerd --config "$SCRATCH/config.toml" >"$SCRATCH/containerd.log" 2>&1 </dev/null &
daemon=$!
run() { try ctr -a "$SCRATCH/c.sock" "$@" | sed 's/time="[^"]*"//'; }
once() { run run --rm --runc-binary "$RUNTIME" "$@"; }
until_ok ctr -a "$SCRATCH/c.sock" version

step info
quiet ctr -a "$SCRATCH/c.sock" images pull --plain-http $BUSYBOX

step run
once $BUSYBOX a echo hello
once $BUSYBOX b sh -c 'echo out; exit 3'
once $BUSYBOX c /no/such/program | grep -o '^exit.*'
once --user 1000:1001 --cwd /tmp --env A=b $BUSYBOX d sh -c 'id; pwd; echo $A'
once --seccomp --cap-drop CAP_CHOWN $BUSYBOX e grep -E 'Cap|Seccomp:' /proc/self/status
once --memory-limit 67108864 --cpus 0.5 \
  --mount type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro $BUSYBOX f sh -c "cd /sys/fs/cgroup\$(sed s/0::// /proc/self/cgroup); cat memory.max cpu.max"
once --read-only --privileged $BUSYBOX g touch /x
once --cgroup /berth-engines/x $BUSYBOX h cat /proc/self/cgroup

step lifecycle
run run -d --runc-binary "$RUNTIME" $BUSYBOX life sh -c 'trap "exit 5" TERM; while :; do sleep 0.1; done'
run tasks ls | awk 'NR > 1 {print $1, $3}'
run tasks exec --exec-id one life sh -c 'echo inside; exit 4'
run tasks exec --exec-id two --user 7 --cwd /tmp life sh -c 'id -u; pwd'
run tasks ps life | awk 'NR > 1' | wc -l
run tasks pause life
run tasks ls | awk 'NR > 1 {print $1, $3}'
run tasks resume life
run tasks metrics life >&2
run tasks kill -s TERM life
until_ok sh -c 'ctr -a "$0" tasks ls | grep STOPPED' "$SCRATCH/c.sock"
run tasks delete life
run containers delete life

step cri
try "$XTASK" engines --cri "$SCRATCH/c.sock" --pause "$PAUSE" --cgroups "$CGROUPS" --scratch "$SCRATCH"

step left
kill $daemon
wait $daemon
printf 'exit %s\n' $?
tail -50 "$SCRATCH/containerd.log" >&2
