#!/run/busybox sh
# Stage 2, PID 1 of the guest: network, disks, cgroups, then the session, or systemd which
# starts the session as a service.
b=/run/busybox
. /run/run.env
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
$b mount --make-rshared /
$b ip link set lo up
$b ip link set eth0 up
$b ip addr add 10.0.2.15/24 dev eth0
$b ip route add default via 10.0.2.2
$b hostname vm
echo '127.0.0.1 localhost vm' >/etc/hosts
for d in /sys/block/vd*; do
  [ "$($b cat $d/serial)" = data ] && $b mount -t ext4 -o noatime,nobarrier,prjquota /dev/${d##*/} /data
done
# an overlay's upper folder needs a real file system, which the root is not
$b mkdir /data/lib
$b mount --bind /data/lib /var/lib
[ -n "$SHARE" ] && $b mount -t 9p -o trans=virtio,version=9p2000.L,cache=none,msize=512000 rw /mnt/rw
if [ -n "$SYSTEMD" ]; then
  echo 0123456789abcdef0123456789abcdef >/etc/machine-id
  $b mkdir -p /run/systemd/system
  $b cp /run/berth-run.service /run/systemd/system/
  # the engines of the image are the session's to start
  for u in docker.service docker.socket containerd.service podman.service podman.socket \
    podman-restart.service docker-registry.service apparmor.service apt-daily.timer \
    apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer; do
    $b ln -s /dev/null /run/systemd/system/$u
  done
  exec /usr/lib/systemd/systemd --unit=berth-run.service
fi
$b mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
$b mount -t tmpfs tmpfs /dev/shm
$b mount -t mqueue mqueue /dev/mqueue
$b mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
$b mount -t securityfs securityfs /sys/kernel/security
$b mount -t bpf bpf /sys/fs/bpf
$b mount -t tracefs tracefs /sys/kernel/tracing
$b ln -s /proc/self/fd /dev/fd
$b ln -s fd/0 /dev/stdin; $b ln -s fd/1 /dev/stdout; $b ln -s fd/2 /dev/stderr
# no process may sit in the root once its children have controllers
$b mkdir /sys/fs/cgroup/init.scope
echo 1 >/sys/fs/cgroup/init.scope/cgroup.procs
for c in $($b cat /sys/fs/cgroup/cgroup.controllers); do
  echo +$c >/sys/fs/cgroup/cgroup.subtree_control
done
. /run/session
