#!/bin/busybox sh
# The first process of a virtual machine: loads the modules, runs /payload/run, says how that ended, and switches off.
/bin/busybox mkdir -p /proc /sys /dev /run /tmp /root /applets /var
/bin/busybox --install -s /applets
export PATH=/usr/sbin:/usr/bin:/sbin:/bin:/applets HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /sys/fs/bpf /run/netns
mount -t devpts devpts /dev/pts
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
ln -s /run /var/run
chmod 1777 /tmp
hostname vm
ulimit -l unlimited
for module in /modules/*.ko; do
    insmod "$module" || echo "burst-vm: $module is not loaded"
done
ip link set lo up
echo "burst-vm: booted $(uname -r)"
cd /payload && ./run
echo "burst-vm: exit $?"
poweroff -f
