#!/bin/sh
# First process of a container whose root is the folder ROOT; becomes systemd. It uses the caller's
# network and changes none of the caller's files or kernel settings.
set -eu
root=$1
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount --rbind "$root" "$root"
cd "$root"
mount --rbind /proc proc
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
  touch dev/$device
  mount --bind /dev/$device dev/$device
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs tmpfs dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mount -t sysfs -o ro sysfs sys 2>/dev/null || mount --bind /sys sys
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
if grep -q name=systemd /proc/self/cgroup; then
  mkdir sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd systemd sys/fs/cgroup/systemd
else
  mount -t cgroup2 cgroup2 sys/fs/cgroup
fi
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p .old
pivot_root . .old
cd /
umount -l /.old
# systemd mounts credentials in a namespace of their own, from which they must reach this one.
mount --make-rshared /
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test \
  /lib/systemd/systemd --system --unit=multi-user.target --log-target=journal --show-status=no
