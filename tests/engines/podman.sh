#!/usr/bin/env bash
# podman over an OCI runtime.
. "$(dirname "$0")/steps.sh"

mkdir -p /etc/containers "$SCRATCH"/{storage,run,volume,context}
cat >/etc/containers/containers.conf <<EOF
[containers]
log_driver = "k8s-file"
[engine]
cgroup_manager = "$CGROUPS"
events_logger = "file"
runtime = "$RUNTIME_NAME"
runtime_supports_json = ["runc", "berth-oci"]
[engine.runtimes]
$RUNTIME_NAME = ["$RUNTIME"]
EOF
cat >/etc/containers/storage.conf <<EOF
[storage]
driver = "overlay"
graphroot = "$SCRATCH/storage"
runroot = "$SCRATCH/run"
EOF
printf '[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n' >/etc/containers/registries.conf
echo 'containers:200000:1000000' | tee /etc/subuid >/etc/subgid
once() { try podman run --rm "$@"; }

step info
podman info --format '{{.Host.OCIRuntime.Path}}' >&2
quiet podman pull $BUSYBOX
quiet podman pull $WEB

step run
once $BUSYBOX echo hello
once $BUSYBOX sh -c 'echo out; exit 3'
once $BUSYBOX /no/such/program 2>&1 | grep -o '^exit.*'
once -i $BUSYBOX cat
once $BUSYBOX sh -c 'echo err >&2'
once -t $BUSYBOX tty
once -u 1000:1001 -w /tmp -h box -e A=b $BUSYBOX sh -c 'id; pwd; hostname; echo $A; umask'
once --group-add 7 -u 5 $BUSYBOX id
once --init $BUSYBOX sh -c 'cat /proc/1/comm'

step security
once $BUSYBOX grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status
once --cap-drop ALL --cap-add NET_RAW -u 5 $BUSYBOX grep Cap /proc/self/status
once --privileged $BUSYBOX sh -c 'grep -E "CapBnd|Seccomp:" /proc/self/status; ls -d /dev/kmsg'
once --security-opt no-new-privileges $BUSYBOX grep NoNewPrivs /proc/self/status
once --security-opt seccomp=unconfined $BUSYBOX grep Seccomp: /proc/self/status
echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}' >"$SCRATCH/seccomp.json"
once --security-opt seccomp="$SCRATCH/seccomp.json" $BUSYBOX mkdir /tmp/x
once $BUSYBOX sh -c 'cat /proc/kcore /proc/timer_list 2>&1 | head -c 100; echo x >/proc/sys/kernel/hostname'
# how a path below /proc and /sys is covered is the runtime's own affair
once $BUSYBOX sh -c 'cut -d" " -f5,6 /proc/self/mountinfo | grep -vE "/etc/|run/|/dev/console|^/(proc|sys)/[^ ]* .*r[ow]" | sort'

step files
echo content >"$SCRATCH/volume/file"
once --read-only --tmpfs /scratch:size=1m,mode=700 -v "$SCRATCH/volume:/vol:ro" $BUSYBOX \
  sh -c 'cat /vol/file; touch /vol/x; touch /x; touch /scratch/y && ls -ld /scratch | cut -c1-10; df -k /scratch | tail -1'
once -v "$SCRATCH/volume:/vol:noexec,nosuid,nodev" $BUSYBOX sh -c 'grep " /vol " /proc/self/mountinfo | cut -d" " -f6'
once --mount type=tmpfs,destination=/home,tmpfs-size=65536 $BUSYBOX sh -c 'df -k /home | tail -1'
once --shm-size 1m --ulimit nofile=100:200 --sysctl net.ipv4.ip_forward=1 --oom-score-adj 500 $BUSYBOX \
  sh -c 'df -k /dev/shm | tail -1; ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_forward /proc/self/oom_score_adj'
modprobe tun
once --device /dev/net/tun:/dev/tun:rw $BUSYBOX sh -c "ls -l /dev/tun | cut -c1-40"

step limits
once --memory 64m --memory-swap 96m --memory-reservation 32m --pids-limit 50 --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 $BUSYBOX \
  sh -c 'cd /sys/fs/cgroup; head memory.max memory.swap.max memory.low pids.max cpu.max cpu.weight cpuset.cpus'
once --blkio-weight 200 $BUSYBOX sh -c 'cat /sys/fs/cgroup/io.bfq.weight /sys/fs/cgroup/io.weight 2>/dev/null | tail -1'
quiet podman run --name oom --memory 16m $BUSYBOX sh -c 'tail /dev/zero'
try podman inspect --format '{{.State.OOMKilled}} {{.State.ExitCode}}' oom
try podman rm oom

step lifecycle
quiet podman run -d --name life $BUSYBOX sh -c 'trap "echo stopped; exit 5" TERM; echo started; while :; do sleep 0.1; done'
until_ok sh -c 'podman logs life | grep started'
try podman ps --format '{{.Names}} {{.State}}'
try podman exec life sh -c 'echo inside; exit 4'
try podman exec -u 7 -w /tmp -e B=c life sh -c 'id -u; pwd; echo $B'
try podman exec -t life tty
try podman exec --privileged life grep CapEff /proc/self/status
quiet podman exec -d life touch /detached
until_ok podman exec life test -f /detached
try podman exec life /no/such/program | grep -o '^exit.*'
try podman top life pid comm | head -2
try podman stats --no-stream --format '{{.Name}} {{.PIDS}}' life
try podman pause life
try podman inspect --format '{{.State.Status}}' life
try podman unpause life
try podman update --memory 128m --pids-limit 77 --cpus 0.25 life | sed 's/^[0-9a-f]*$/ID/'
try podman exec life sh -c 'cd /sys/fs/cgroup; cat memory.max pids.max cpu.max'
try podman kill -s USR1 life
try podman inspect --format '{{.State.Running}}' life
try podman rm -f life
quiet podman run -d --name stops $BUSYBOX sh -c 'trap "echo stopped; exit 5" TERM; echo started; while :; do sleep 0.1; done'
until_ok sh -c 'podman logs stops | grep started'
try podman stop -t 30 stops
try podman wait stops
try podman logs stops
try podman start stops
try podman restart -t 0 stops
try podman inspect --format '{{.State.Running}} {{.RestartCount}}' stops
try podman rm -f -t 0 stops
quiet podman run -d --name again --restart on-failure:2 $BUSYBOX sh -c 'echo try; exit 9'
until_ok sh -c '[ "$(podman inspect --format "{{.State.Status}} {{.RestartCount}}" again)" = "exited 2" ]'
try podman logs again
try podman rm again

step healthcheck
quiet podman run -d --name health --health-cmd 'test -f /ok' --health-interval disable $BUSYBOX sleep 1000
try podman healthcheck run health
try podman exec health touch /ok
try podman healthcheck run health
try podman rm -f -t 0 health

step build
cat >"$SCRATCH/context/Containerfile" <<EOF
FROM $BUSYBOX
RUN echo built >/built && id -u && cat /proc/sys/kernel/ostype
COPY Containerfile /copied
USER 12:34
WORKDIR /work
RUN id && pwd
ENTRYPOINT ["sh", "-c", "cat /built; head -1 /copied; id -u; pwd"]
EOF
quiet podman build -t built "$SCRATCH/context"
once localhost/built
try podman rmi -f localhost/built | grep -c Deleted

step pod
quiet podman pod create --name pod -p 127.0.0.1:8081:8080
quiet podman run -d --pod pod --name web $WEB
until_ok curl -s http://127.0.0.1:8081/
once --pod pod $BUSYBOX sh -c 'busybox wget -qO- http://127.0.0.1:8080/ | head -c 60; hostname'
once --pod pod --pid container:web $BUSYBOX sh -c 'ps | grep -c "[n]ginx"'
try podman pod ps --format '{{.Name}} {{.Status}} {{.NumberOfContainers}}'
quiet podman pod pause pod
quiet podman pod unpause pod
quiet podman pod stop -t 5 pod
quiet podman pod rm -f pod

step network
quiet podman network create net
quiet podman run -d --network net --name server $WEB
until_ok podman run --rm --network net $BUSYBOX busybox wget -qO- http://server:8080/
once --network net $BUSYBOX sh -c 'busybox wget -qO- http://server:8080/ | head -c 60'
once --network none $BUSYBOX ip -o link
once --network host $BUSYBOX hostname
once --network container:server $BUSYBOX sh -c 'busybox wget -qO- http://127.0.0.1:8080/ | head -c 60'
try podman rm -f -t 0 server
quiet podman network rm net

step namespaces
once --pid host $BUSYBOX sh -c 'cat /proc/1/comm'
once --ipc host --uts host $BUSYBOX hostname
once --cgroupns host $BUSYBOX sh -c 'sed "s/libpod-[0-9a-f]*/libpod-ID/" /proc/self/cgroup'
once --cgroupns private $BUSYBOX cat /proc/self/cgroup

step user-namespaces
once --userns auto:size=1000 $BUSYBOX sh -c 'awk "{print \$1, \$3}" /proc/self/uid_map; id -u; touch /x && ls -ln /x | awk "{print \$3, \$4}"'
once --uidmap 0:300000:65536 --gidmap 0:300000:65536 -u 5 $BUSYBOX sh -c 'cat /proc/self/uid_map; id -u; ls -ld /tmp | cut -c1-10'

step left
quiet podman rm -fa -t 0
try "$RUNTIME" list -q
podman system prune -af >&2
