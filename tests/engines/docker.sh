#!/usr/bin/env bash
# docker over an OCI runtime.
. "$(dirname "$0")/steps.sh"

mkdir -p "$SCRATCH"/{data,exec,context,volume}
cat >"$SCRATCH/daemon.json" <<EOF
{
  "data-root": "$SCRATCH/data", "exec-root": "$SCRATCH/exec", "pidfile": "$SCRATCH/docker.pid",
  "storage-driver": "overlay2", "exec-opts": ["native.cgroupdriver=$CGROUPS"],
  "default-runtime": "$RUNTIME_NAME-tested",
  "runtimes": {"$RUNTIME_NAME-tested": {"path": "$RUNTIME"}}
}
EOF
dockerd --config-file "$SCRATCH/daemon.json" >"$SCRATCH/dockerd.log" 2>&1 </dev/null &
daemon=$!
until_ok docker info
once() { try docker run --rm "$@"; }

step info
docker info >&2
quiet docker pull $BUSYBOX
quiet docker pull $WEB

step run
once $BUSYBOX echo hello
once $BUSYBOX sh -c 'echo out; exit 3'
once $BUSYBOX /no/such/program | grep -o '^exit.*'
once $BUSYBOX sh -c 'echo err >&2'
once -t $BUSYBOX tty
once -u 1000:1001 -w /tmp -h box -e A=b $BUSYBOX sh -c 'id; pwd; hostname; echo $A; umask'
once --init $BUSYBOX sh -c 'cat /proc/1/comm'
once --group-add 7 -u 5 $BUSYBOX id

step security
once $BUSYBOX grep -E 'Cap|NoNewPrivs|Seccomp:' /proc/self/status
once $BUSYBOX cat /proc/self/attr/current
once --cap-drop ALL --cap-add NET_RAW $BUSYBOX grep Cap /proc/self/status
once --privileged $BUSYBOX sh -c 'grep -E "CapBnd|Seccomp:" /proc/self/status; ls -d /dev/kmsg'
once --security-opt no-new-privileges $BUSYBOX grep NoNewPrivs /proc/self/status
once --security-opt seccomp=unconfined --security-opt apparmor=unconfined $BUSYBOX grep Seccomp: /proc/self/status
echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}' >"$SCRATCH/seccomp.json"
once --security-opt seccomp="$SCRATCH/seccomp.json" $BUSYBOX mkdir /tmp/x
# how a path below /proc and /sys is covered is the runtime's own affair
once $BUSYBOX sh -c 'cut -d" " -f5,6 /proc/self/mountinfo | grep -vE "/etc/|/dev/console|^/(proc|sys)/[^ ]* .*r[ow]" | sort'

step files
echo content >"$SCRATCH/volume/file"
once --read-only --tmpfs /scratch:size=1m,mode=700 -v "$SCRATCH/volume:/vol:ro" $BUSYBOX \
  sh -c 'cat /vol/file; touch /vol/x; touch /x; touch /scratch/y && ls -ld /scratch | cut -c1-10; df -k /scratch | tail -1'
once --shm-size 1m --ulimit nofile=100:200 --sysctl net.ipv4.ip_forward=1 --oom-score-adj 500 $BUSYBOX \
  sh -c 'df -k /dev/shm | tail -1; ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_forward /proc/self/oom_score_adj'
modprobe tun
once --device /dev/net/tun:/dev/tun:rw $BUSYBOX sh -c "ls -l /dev/tun | cut -c1-40"

step limits
once --memory 64m --memory-swap 96m --memory-reservation 32m --pids-limit 50 --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 $BUSYBOX \
  sh -c 'cd /sys/fs/cgroup; head memory.max memory.swap.max memory.low pids.max cpu.max cpu.weight cpuset.cpus'
quiet docker run --name oom --memory 16m $BUSYBOX sh -c 'tail /dev/zero'
try docker inspect --format '{{.State.OOMKilled}} {{.State.ExitCode}}' oom
try docker rm oom

step lifecycle
quiet docker run -d --name life $BUSYBOX sh -c 'trap "echo stopped; exit 5" TERM; echo started; while :; do sleep 0.1; done'
until_ok sh -c 'docker logs life | grep started'
try docker ps --format '{{.Names}} {{.State}}'
try docker exec life sh -c 'echo inside; exit 4'
try docker exec -u 7 -w /tmp -e B=c life sh -c 'id -u; pwd; echo $B'
try docker exec --privileged life grep CapEff /proc/self/status
quiet docker exec -d life touch /detached
until_ok docker exec life test -f /detached
try docker exec life /no/such/program | grep -o '^exit.*'
# The loop's sleep comes and goes.
try docker top life -eo pid,comm | awk 'NR > 1 && $2 != "sleep" {print $2}'
try docker stats --no-stream --format '{{.Name}}' life
try docker pause life
try docker inspect --format '{{.State.Status}}' life
try docker unpause life
try docker update --memory 128m --memory-swap 128m --pids-limit 77 --cpus 0.25 life
try docker exec life sh -c 'cd /sys/fs/cgroup; cat memory.max pids.max cpu.max'
try docker kill -s USR1 life
try docker inspect --format '{{.State.Running}}' life
try docker rm -f life
quiet docker run -d --name stops $BUSYBOX sh -c 'trap "echo stopped; exit 5" TERM; echo started; while :; do sleep 0.1; done'
until_ok sh -c 'docker logs stops | grep started'
try docker stop -t 30 stops
try docker wait stops
try docker logs stops
try docker start stops
try docker restart -t 0 stops
try docker inspect --format '{{.State.Running}}' stops
try docker rm -f stops
quiet docker run -d --name again --restart on-failure:2 $BUSYBOX sh -c 'echo try; exit 9'
until_ok sh -c '[ "$(docker inspect --format "{{.State.Status}} {{.RestartCount}}" again)" = "exited 2" ]'
try docker logs again
try docker rm again
quiet docker run -d --name health --health-cmd 'test -f /etc/passwd' --health-interval 1s $BUSYBOX sleep 1000
until_ok sh -c '[ "$(docker inspect --format "{{.State.Health.Status}}" health)" = healthy ]'
try docker rm -f health

step build
printf 'FROM %s\nRUN echo built >/built && id -u\nCOPY Dockerfile /copied\nUSER 12:34\nRUN id\nCMD ["sh","-c","cat /built; id -u"]\n' $BUSYBOX >"$SCRATCH/context/Dockerfile"
DOCKER_BUILDKIT=0 quiet docker build -t built "$SCRATCH/context"
once built

step network
quiet docker network create net
quiet docker run -d --network net --name server -p 127.0.0.1:8082:8080 $WEB
until_ok curl -s http://127.0.0.1:8082/
once --network net $BUSYBOX sh -c 'busybox wget -qO- http://server:8080/ | head -c 60'
quiet docker run -d --network net --name client --restart always $BUSYBOX sleep 1000
try docker exec client sh -c 'busybox wget -qO- http://server:8080/ | head -c 60'
once --network container:server $BUSYBOX sh -c 'busybox wget -qO- http://127.0.0.1:8080/ | head -c 60'
once --network none $BUSYBOX sh -c 'ls /sys/class/net'
once --pid container:client $BUSYBOX sh -c 'cat /proc/1/comm'
try docker rm -f server client
quiet docker network rm net

step namespaces
once --pid host $BUSYBOX sh -c 'cat /proc/1/comm'
once --ipc host --uts host --network host $BUSYBOX hostname
once --cgroupns host $BUSYBOX sh -c 'sed "s/[0-9a-f]\{64\}/ID/" /proc/self/cgroup'
once --cgroupns private $BUSYBOX cat /proc/self/cgroup

step left
docker ps -aq | xargs -r docker rm -f >&2
kill $daemon
wait $daemon
printf 'exit %s\n' $?
tail -50 "$SCRATCH/dockerd.log" >&2
