#!/bin/sh
# Keeps the modules that tests use, unpacked: xz is slow under emulation.
set -e
for k in "$1"/usr/lib/modules/*; do
  cd "$k/kernel"
  find . -name '*.ko*' | grep -vE '^\./(fs|net|lib|crypto|arch|block|mm|kernel)/|^\./drivers/(block|virtio|char/hw_random)/|^\./drivers/net/(veth|tun|tap|dummy|ifb|vrf|bonding|net_failover|virtio_net|vxlan|geneve|macvlan|macvtap|ipvlan|wireguard)' | xargs -r rm -f
  find . -name '*.ko.xz' -print0 | xargs -0 -r -P2 xz -d
  chroot "$1" depmod "${k##*/}"
done
