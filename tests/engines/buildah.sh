#!/usr/bin/env bash
# buildah over an OCI runtime.
. "$(dirname "$0")/steps.sh"

mkdir -p /etc/containers "$SCRATCH"/{storage,run,context}
printf '[storage]\ndriver = "overlay"\ngraphroot = "%s/storage"\nrunroot = "%s/run"\n' "$SCRATCH" "$SCRATCH" >/etc/containers/storage.conf
printf '[[registry]]\nlocation = "127.0.0.1:5000"\ninsecure = true\n' >/etc/containers/registries.conf
printf '[engine]\ncgroup_manager = "%s"\n' "$CGROUPS" >/etc/containers/containers.conf
inside() { try buildah run --runtime "$RUNTIME" --isolation oci "$@"; }

step from
quiet buildah pull $BUSYBOX
container=$(buildah from --pull-never $BUSYBOX)

step run
inside $container echo hello
inside $container sh -c 'echo kept >/kept; exit 3'
inside $container cat /kept
inside --user 5:6 --workingdir /tmp --env A=b $container sh -c 'id; pwd; echo $A'
inside --cap-drop CAP_CHOWN $container grep Cap /proc/self/status
inside --hostname box $container hostname
inside --network none $container sh -c 'ls /sys/class/net'
inside -v "$SCRATCH/context:/vol:ro" $container touch /vol/x
inside -t $container tty

step build
cat >"$SCRATCH/context/Containerfile" <<EOF
FROM $BUSYBOX AS first
RUN echo built >/built && id -u
RUN --mount=type=tmpfs,dst=/scratch touch /scratch/x && ls /scratch
FROM $BUSYBOX
COPY --from=first /built /built
USER 12:34
RUN id && cat /built
EOF
try buildah build --runtime "$RUNTIME" --isolation oci --memory 64m --ulimit nofile=100:100 -t built "$SCRATCH/context" |
  grep -vE '^(Getting|Copying|Writing|COMMIT|-->|[0-9a-f]{64}$|Storing|Successfully)'
try buildah config --cmd /built $container
quiet buildah commit $container committed

step left
quiet buildah rm -a
quiet buildah rmi -af
try "$RUNTIME" list -q
