#!/bin/busybox sh
# Stage 1, in the initramfs: devices, the root file system, switch_root.
b=/bin/busybox
$b mkdir -p /dev /proc /sys /rw /lower /root
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
for m in $($b cat /m/list); do $b insmod /m/$m 2>/dev/null; done
. /run.env
r=/root
$b mount -t tmpfs -o size=75% tmpfs /rw
$b mkdir /rw/u /rw/w
# the order of the disks is not promised: look them up by serial
for d in /sys/block/vd*; do
  [ "$($b cat $d/serial)" = root ] && $b mount -t erofs -o ro /dev/${d##*/} /lower
done
$b mount -t overlay -o lowerdir=/lower,upperdir=/rw/u,workdir=/rw/w overlay $r
$b mkdir -p $r/host
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 host $r/host
# before the binds: a working copy may lie below it
$b mount -t tmpfs tmpfs $r/tmp
for p in $BINDS; do $b mkdir -p $r$p; $b mount --bind $r/host$p $r$p; done
for x in dev proc sys; do $b mount --move /$x $r/$x; done
$b mkdir -p $r/run $r/dev/pts $r/dev/shm $r/dev/mqueue $r/mnt/rw $r/var/lib $r/data
$b mount -t tmpfs -o mode=755 tmpfs $r/run
$b cp /bin/busybox /stage2 /session /berth-run.service /run.env /cmd $r/run/
exec $b switch_root $r /run/stage2
