#!/run/busybox sh
# Stage 2, PID 1 of the guest: cgroups, network, disks, the command, power off.
b=/run/busybox
. /run/run.env
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
for d in /sys/class/virtio-ports/*; do read n <$d/name && eval "P_$n=/dev/${d##*/}"; done
$b mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
$b mount -t tmpfs tmpfs /dev/shm
$b mount -t mqueue mqueue /dev/mqueue
$b mount -t cgroup2 -o nsdelegate,memory_recursiveprot cgroup2 /sys/fs/cgroup
$b mount -t securityfs securityfs /sys/kernel/security
$b mount -t bpf bpf /sys/fs/bpf
$b mount -t tracefs tracefs /sys/kernel/tracing
$b ln -s /proc/self/fd /dev/fd
$b ln -s fd/0 /dev/stdin; $b ln -s fd/1 /dev/stdout; $b ln -s fd/2 /dev/stderr
$b mount --make-rshared /
# no process may sit in the root once its children have controllers
$b mkdir /sys/fs/cgroup/init.scope
echo 1 >/sys/fs/cgroup/init.scope/cgroup.procs
for c in $($b cat /sys/fs/cgroup/cgroup.controllers); do
  echo +$c >/sys/fs/cgroup/cgroup.subtree_control
done
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
cd "$WORKSPACE"
$b setsid /bin/bash /run/cmd </dev/null >$P_out 2>$P_err &
wait $!
echo $? >$P_rc
$b umount /data 2>/dev/null || $b sync
$b poweroff -f
